"""A database that is unfit is named before anybody works on it; one that is fit is left alone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from listener.queue.database import (
    check_sqlite_version,
    prepare_database,
    translate_database_errors,
)
from pipeline.errors import NeedsReview, RetryLater


def test_a_new_file_is_made_in_write_ahead_mode(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.sqlite"

    prepare_database(f"sqlite:///{path}")

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_what_is_in_it_stays(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE kept (n)")
        connection.execute("INSERT INTO kept VALUES (7)")

    prepare_database(f"sqlite:///{path}")
    prepare_database(f"sqlite:///{path}")

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT n FROM kept").fetchall() == [(7,)]


@pytest.mark.parametrize("damage", ["header", "page"])
def test_a_damaged_file_is_named_with_the_way_out(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE kept (n TEXT PRIMARY KEY)")
        connection.executemany("INSERT INTO kept VALUES (?)", [(f"{n:0500}",) for n in range(200)])
    content = bytearray(path.read_bytes())
    start = 0 if damage == "header" else 8192
    content[start : start + 4096] = b"\xa5" * 4096
    path.write_bytes(content)

    with pytest.raises(NeedsReview, match="Move it away") as caught:
        prepare_database(f"sqlite:///{path}")

    assert caught.value.code == "database_damaged"


def test_a_file_that_cannot_be_opened_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite").mkdir()

    with pytest.raises(RetryLater) as caught:
        prepare_database(f"sqlite:///{tmp_path / 'state.sqlite'}")

    assert caught.value.code == "database_unavailable"


def test_a_server_is_not_looked_for() -> None:
    prepare_database("postgresql://smearlink@127.0.0.1:1/postgres")


def test_what_a_database_says_never_comes_out_as_it_is() -> None:
    """Its words may hold the values of a row."""
    said = OperationalError("INSERT …", {"name": "Doe^Jane"}, Exception("Doe^Jane"))

    with pytest.raises(RetryLater) as caught, translate_database_errors():
        raise said

    assert caught.value.code == "database_unavailable"
    assert "Doe" not in str(caught.value)


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(KeyError), translate_database_errors():
        raise KeyError("another's")


@pytest.mark.parametrize(
    ("sqlite_version", "python_version"),
    [((3, 40, 1), (3, 11, 7)), ((3, 42, 0), (3, 12, 0)), ((3, 50, 4), (3, 13, 1))],
)
def test_an_sqlite_that_the_queue_can_use_passes(
    sqlite_version: tuple[int, ...], python_version: tuple[int, ...]
) -> None:
    check_sqlite_version(sqlite_version, python_version)


def test_an_sqlite_that_is_too_old_is_named_with_the_remedy() -> None:
    with pytest.raises(NeedsReview, match=r"SQLite 3\.40\.1.*PostgreSQL") as refused:
        check_sqlite_version((3, 40, 1), (3, 12, 1))

    assert refused.value.code == "sqlite_too_old"

"""A change of the queue is seen, whoever made it, and looking for one costs next to nothing."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from listener.queue.dispatcher import RACY_NS, _Changes


@pytest.fixture
def other(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """What another process writes with."""
    with closing(sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE job (id INTEGER)")
        yield connection


@pytest.fixture
def changes(tmp_path: Path, other: sqlite3.Connection) -> Iterator[_Changes]:
    with closing(_Changes(f"sqlite:///{tmp_path / 'state.sqlite'}")) as watching:
        watching.seen()
        yield watching


def test_each_change_is_seen_once(changes: _Changes, other: sqlite3.Connection) -> None:
    """Also those within one tick of the file system's clock, and over again in the same log."""
    for number in range(100):
        other.execute("INSERT INTO job VALUES (?)", (number,))
        if number % 10 == 0:
            other.execute("PRAGMA wal_checkpoint(RESTART)")
        assert changes.seen()
        assert not changes.seen()


def test_the_database_is_not_asked_while_its_files_rest(
    changes: _Changes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = (tmp_path / "state.sqlite-wal").stat().st_mtime_ns + RACY_NS + 1
    monkeypatch.setattr(time, "time_ns", lambda: later)
    changes.seen()
    changes.close()  # one that cannot be asked counts as changed

    assert not changes.seen()


def test_a_change_after_a_rest_is_seen(
    changes: _Changes, other: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = (tmp_path / "state.sqlite-wal").stat().st_mtime_ns + RACY_NS + 1
    monkeypatch.setattr(time, "time_ns", lambda: later)
    changes.seen()
    changes.seen()

    other.execute("INSERT INTO job VALUES (1)")

    assert changes.seen()


def test_postgresql_is_always_asked() -> None:
    assert _Changes("postgresql://ignored/queue").seen()

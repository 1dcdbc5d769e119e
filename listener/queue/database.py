"""The work queue's database: prepared before first use; database errors are translated."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from pipeline.errors import NeedsReview, RetryLater
from reporting.durable_files import PRIVATE_FILE, make_folder

SUBSECOND_SQLITE = (3, 42)
"""The first SQLite whose unixepoch() knows 'subsec', which DBOS uses from Python 3.12 on."""


def check_sqlite_version(
    sqlite_version: tuple[int, ...] = sqlite3.sqlite_version_info,
    python_version: tuple[int, ...] = sys.version_info[:3],
) -> None:
    """Raise NeedsReview `sqlite_too_old` where the queue would fail at its first row."""
    if python_version >= (3, 12) and sqlite_version < SUBSECOND_SQLITE:
        found = ".".join(map(str, sqlite_version))
        raise NeedsReview(
            f"This Python brings SQLite {found}, and the work queue needs 3.42 or newer from "
            "Python 3.12 on: install a newer SQLite, use Python 3.11, or set database.url to a "
            "PostgreSQL",
            code="sqlite_too_old",
        )


def prepare_database(database_url: str) -> None:
    """Check that an SQLite file is whole, and put it into write-ahead mode before DBOS opens it.

    WAL gives two to three times the throughput. PostgreSQL needs nothing.
    Raises NeedsReview `database_damaged` and `sqlite_too_old`, RetryLater `database_unavailable`.
    """
    url = sa.make_url(database_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        return
    check_sqlite_version()
    path = Path(url.database)
    try:
        make_folder(path.parent)
        path.touch(mode=PRIVATE_FILE)  # its -wal and -shm files get the same mode
        with closing(sqlite3.connect(path, timeout=10)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as err:
        raise RetryLater(
            f"{path.name} cannot be opened: check that the data folder is there, has room and "
            "may be written to, and that no other program holds the file",
            code="database_unavailable",
        ) from err
    except (sqlite3.DatabaseError, OSError) as err:
        raise _damaged(path) from err
    if verdict != "ok":
        raise _damaged(path)


def keep_vacuumed(database_url: str) -> None:
    """Have PostgreSQL clean the jobs' table after one change in a hundred instead of one in five.

    Until it does, a claim steps over the index entries of all images that were claimed before:
    100,000 of them cost 2 ms per claim. Without the right to say so it stays as it is.
    """
    if sa.make_url(database_url).get_backend_name() != "postgresql":
        return
    engine = open_engine(database_url)
    try:
        with suppress(SQLAlchemyError), engine.begin() as connection:
            options = connection.execute(sa.text(_STORAGE_OPTIONS)).scalar()
            if not options:  # neither set before nor by the site
                connection.execute(sa.text("SET LOCAL lock_timeout = '5s'"))
                connection.execute(sa.text(_VACUUM_OFTEN))
    finally:
        engine.dispose()


_STORAGE_OPTIONS = "SELECT reloptions FROM pg_class WHERE oid = 'dbos.workflow_status'::regclass"
_VACUUM_OFTEN = """
    ALTER TABLE dbos.workflow_status SET (
        autovacuum_vacuum_scale_factor = 0.01,
        autovacuum_vacuum_threshold = 1000,
        autovacuum_analyze_scale_factor = 0.01
    )
"""


def check_database_is_there(database_url: str) -> None:
    """Raise RetryLater `no_queue_yet` for an SQLite file that no service has made."""
    url = sa.make_url(database_url)
    is_file = url.get_backend_name() == "sqlite" and bool(url.database)
    if is_file and not Path(str(url.database)).exists():
        raise RetryLater(
            f"There is no work queue at {url.database}: start `smearlink serve` with these "
            "settings, or name the settings of the running service with --settings",
            code="no_queue_yet",
        )


def open_engine(database_url: str) -> sa.Engine:
    """Connections to the queue's database, for DBOS and for our own statements.

    SQLite syncs its file only when it moves the write-ahead log into it: a power cut may take the
    queue back by some commits, never in part, and the files say what was done since.
    """
    url = sa.make_url(database_url)
    if url.get_backend_name() == "postgresql":
        return sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_size=5,
            pool_pre_ping=True,
            connect_args={"connect_timeout": 5},
        )
    engine = sa.create_engine(url)

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = "IMMEDIATE"
        connection.execute("PRAGMA busy_timeout=30000")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine


@contextmanager
def translate_database_errors() -> Iterator[None]:
    """Raise RetryLater `database_unavailable` for what the database driver raises."""
    try:
        yield
    except SQLAlchemyError as err:
        raise RetryLater(
            "The work queue's database does not answer: check database.url, the server and the "
            "disk. Nothing is lost: accepted images wait in the inbox",
            code="database_unavailable",
        ) from err


def _damaged(path: Path) -> NeedsReview:
    return NeedsReview(
        f"{path.name} is damaged. Move it away (with its -wal and -shm files) and start again: "
        "the queue is refilled from the inbox and the results; nothing accepted is lost",
        code="database_damaged",
    )

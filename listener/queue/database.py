"""The work queue's database: made fit before anybody opens it, and its troubles named."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from pipeline.errors import NeedsReview, RetryLater
from reporting.durable_files import make_folder


def prepare_database(database_url: str) -> None:
    """Make an SQLite file fit: whole, and in write-ahead mode before DBOS opens it.

    WAL gives two to three times the throughput. PostgreSQL needs nothing.
    Raises NeedsReview `database_damaged`, RetryLater `database_unavailable`.
    """
    url = sa.make_url(database_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        return
    path = Path(url.database)
    try:
        make_folder(path.parent)
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


@contextmanager
def database_trouble() -> Iterator[None]:
    """Name what the database said for what happens next: RetryLater `database_unavailable`."""
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

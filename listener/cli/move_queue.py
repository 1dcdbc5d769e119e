"""Carries waiting work from one database to another: from SQLite to PostgreSQL, and back."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing

from config.model import Settings
from config.sections import DatabaseSettings
from listener.queue.database import prepare_database
from listener.queue.dbos_adapter import DurableQueue, QueueRow, make_queue
from listener.queue.jobs import Job
from listener.queue.queries import QueueTables
from listener.queue.worker_lock import WorkerLocks, worker_locks
from pipeline.domain import SmearId
from pipeline.errors import NeedsReview, Rejected


def move_site(settings: Settings, *, old_url: str = "") -> int:
    """Carry a site's waiting work to the database of its settings; how many pieces that were.

    `old_url` is by default the SQLite file of the data folder. Raises Rejected `usage` when both
    are the same, and what `move_queue` raises.
    """
    old_url = old_url or settings.model_copy(update={"database": DatabaseSettings()}).database_url
    if old_url == settings.database_url:
        raise Rejected(
            "Old and new database are the same: set database.url to the new one first, or say "
            "--from the old one",
            code="usage",
        )
    folder = settings.data_dir / "workers"
    return move_queue(
        old_url,
        settings.database_url,
        locks=worker_locks(old_url, folder=folder),
        known_workers={path.stem for path in folder.glob("*.lock")},
    )


def move_queue(
    old_url: str, new_url: str, *, locks: WorkerLocks, known_workers: Collection[str] = ()
) -> int:
    """Ask the new database for everything that the old one has left; how many pieces that were.

    Failed work goes along and is tried once more. Finished work stays behind: what would be
    asked for again finds its results and receipts in the data folder. The old database is not
    changed, and carrying twice is carrying once.

    `locks` are those of the old database. Raises NeedsReview `service_running` while one of
    `known_workers` lives, or another that has work of the old database in hand; RetryLater
    `database_unavailable`.
    """
    _check_nobody_works(old_url, locks, known_workers)
    prepare_database(new_url)
    make_queue(new_url)
    with closing(DurableQueue(old_url)) as old, closing(DurableQueue(new_url)) as new:
        left = old.left()
        for row in left:
            new.put(_job(row))
            if row.starts:
                new.note_start(row.id, row.starts)
    return len(left)


def _check_nobody_works(
    database_url: str, locks: WorkerLocks, known_workers: Collection[str]
) -> None:
    with closing(QueueTables(database_url)) as tables:
        tables.check_schema()
        workers = {*tables.executors(), *known_workers}
    for worker_id in sorted(workers):
        hold = locks.try_take(worker_id)
        if hold is None:
            raise NeedsReview(
                f"Worker {worker_id} is at work on the old database: stop it first",
                code="service_running",
            )
        hold.close()


def _job(row: QueueRow) -> Job:
    return Job(
        kind=row.kind,
        id=row.id,
        queue=row.queue,
        smear_id=SmearId(row.smear_id),
        arguments=row.arguments,
        delay_s=row.delay_s if row.is_delayed else 0.0,
    )

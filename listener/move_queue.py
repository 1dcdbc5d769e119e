"""Carries waiting work from one database to another: from SQLite to PostgreSQL, and back."""

from __future__ import annotations

from contextlib import closing

from listener.jobs import Job
from listener.queue_database import prepare_database
from listener.queue_port import DurableQueue, QueueRow, make_queue
from listener.queue_tables import QueueTables
from listener.worker_lock import WorkerLocks
from pipeline.domain import SmearId
from pipeline.errors import NeedsReview


def move_queue(old_url: str, new_url: str, *, locks: WorkerLocks) -> int:
    """Ask the new database for everything that the old one has left; how many pieces that were.

    Failed work goes along and is tried once more. Finished work stays behind: what would be
    asked for again finds its results and receipts in the data folder. The old database is not
    changed, and carrying twice is carrying once.

    `locks` are those of the old database. Raises NeedsReview `service_running` while a worker
    lives that has work of the old database in hand, RetryLater `database_unavailable`.
    """
    _check_nobody_works(old_url, locks)
    prepare_database(new_url)
    make_queue(new_url)
    with closing(DurableQueue(old_url)) as old, closing(DurableQueue(new_url)) as new:
        left = old.left()
        for row in left:
            new.put(_job(row))
            if row.starts:
                new.note_start(row.id, row.starts)
    return len(left)


def _check_nobody_works(database_url: str, locks: WorkerLocks) -> None:
    with closing(QueueTables(database_url)) as tables:
        tables.check_schema()
        workers = tables.executors()
    for worker_id in workers:
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

"""Moves waiting jobs from one database to another: from SQLite to PostgreSQL, and back."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import closing
from functools import partial

from config.model import Settings
from config.sections import DatabaseSettings
from listener.queue.client import QueueClient
from listener.queue.database import prepare_database
from listener.queue.dbos_adapter import QueueRow, make_queue
from listener.queue.jobs import Job
from listener.queue.worker_lock import WorkerLocks, worker_locks
from listener.storage.inbox import Inbox
from pipeline.domain import SmearId
from pipeline.errors import NeedsReview, Rejected


def move_site(settings: Settings, *, old_url: str = "") -> int:
    """Move a site's waiting jobs to the database of its settings; return how many.

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
        open_queue=partial(
            QueueClient,
            inbox=Inbox(settings.data_dir / "inbox"),
            gather_by=settings.smear.gather_by,
        ),
        locks=worker_locks(old_url, folder=folder),
        known_workers={path.stem for path in folder.glob("*.lock")},
    )


def move_queue(
    old_url: str,
    new_url: str,
    *,
    open_queue: Callable[[str], QueueClient],
    locks: WorkerLocks,
    known_workers: Collection[str] = (),
) -> int:
    """Enqueue in the new database everything that the old one has left; return how many jobs.

    Failed jobs go along and are tried once more. Finished jobs stay behind: what would be
    enqueued again finds its results and receipts in the data folder. The old database is not
    changed, and moving twice is moving once.

    `locks` are those of the old database. Raises NeedsReview `service_running` while one of
    `known_workers` lives, or another that has jobs of the old database in progress; RetryLater
    `database_unavailable`.
    """
    with closing(open_queue(old_url)) as old:
        _check_nobody_works({*old.executors(), *known_workers}, locks)
        prepare_database(new_url)
        make_queue(new_url)
        with closing(open_queue(new_url)) as new:
            left = old.left()
            new.enqueue(*map(_job, left))
            for row in left:
                if row.starts:
                    new.note_starts(row.id, row.starts)
    return len(left)


def _check_nobody_works(workers: Collection[str], locks: WorkerLocks) -> None:
    for worker_id in sorted(workers):
        lease = locks.try_take(worker_id)
        if lease is None:
            raise NeedsReview(
                f"Worker {worker_id} is at work on the old database: stop it first",
                code="service_running",
            )
        lease.close()


def _job(row: QueueRow) -> Job:
    return Job(
        kind=row.kind,
        id=row.id,
        queue=row.queue,
        smear_id=SmearId(row.smear_id),
        arguments=row.arguments,
        delay_s=row.delay_s if row.is_delayed else 0.0,
    )

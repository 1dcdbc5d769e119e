"""The work queue's client: enqueues, claims and settles jobs, shows them, and retries parked ones.

Used by the workers, by the receiving side and by the command line, beside a service or without
one. It runs nothing itself.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from listener.queue import queries
from listener.queue.database import (
    check_database_is_there,
    open_engine,
    translate_database_errors,
)
from listener.queue.dbos_adapter import (
    APPLICATION,
    QUEUE_FORMAT,
    SERIALIZATION,
    QueueLimits,
    QueueRow,
    open_dbos_client,
    read_row,
)
from listener.queue.jobs import (
    IMAGES,
    ClaimedImage,
    DeliveryAttempt,
    Job,
    JobKind,
    close_job,
    image_job,
    image_key,
    image_of,
    manual_close_prefix,
    manual_request_id,
)
from listener.queue.parked import is_named, parked_image, parked_work, retry_job
from listener.queue.status import (
    ParkedWork,
    QueueCount,
    QueueStatus,
    WorkflowStatus,
    queue_statuses,
)
from listener.storage.inbox import Inbox, StoredInstance
from listener.storage.smear_grouping import GatherBy, smear_id_of
from pipeline.domain import SmearId, SOPInstanceUID

MAX_DELETED_AT_ONCE = 1000
"""Finished jobs that one call deletes, so that the database is not locked for long."""

SUSPECT_PRIORITY = 1
"""Of images that were begun before and never ended: they come after the others, and alone."""

MANY_JOBS = 10_000
COUNTING_SHARE = 0.1
"""With more than MANY_JOBS unfinished, they are counted again when no more than this share of the
time goes into counting; until then, a status says as of when its numbers are."""

MAX_REASON_LENGTH = 300

_FAILED = ["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]


class QueueClient:
    """Access to the work queue; a `listener.workflow.transitions.WorkQueue`."""

    def __init__(
        self,
        database_url: str,
        *,
        inbox: Inbox,
        gather_by: GatherBy,
        waits: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises RetryLater `no_queue_yet` or `database_unavailable` without a queue to look at.

        With `waits` a call of DBOS that loses its connection comes back when the database does.
        """
        self._inbox = inbox
        self._gather_by = gather_by
        check_database_is_there(database_url)
        self._engine = open_engine(database_url)
        self._dialect = self._engine.dialect.name
        with translate_database_errors():
            self._dbos = open_dbos_client(self._engine, waits=waits)
        if self._dialect == "sqlite":
            self._engine = self._engine.execution_options(schema_translate_map={"dbos": None})
        self.on_images: Callable[[], None] = lambda: None
        """Called when images may wait."""
        self.on_due: Callable[[float], None] = lambda _after_s: None
        """Called when a job of another queue, or a delayed one, may become due after so long."""
        self._monotonic = monotonic
        self._counting = threading.Lock()
        self._last_count: tuple[datetime, list[QueueCount]] | None = None
        self._counts_again_at = 0.0
        self._rows(queries.any_job())

    def close(self) -> None:
        """Close the connections to the database."""
        self._dbos.destroy()
        self._engine.dispose()

    # --- enqueuing

    def enqueue(self, *jobs: Job) -> None:
        """Enqueue jobs in one transaction, each once per id; durable on return."""
        with translate_database_errors(), self._engine.begin() as connection:
            self._insert(connection, jobs)
        self._announce(jobs)

    def enqueue_image(self, *images: StoredInstance) -> None:
        """Have images analysed; one that was parked and has been mended since, once more."""
        for image in images:
            if image.is_mended:
                self.retry(image.sop_instance_uid)
        self.enqueue(
            *(
                image_job(image.sop_instance_uid, smear_id_of(image, self._gather_by))
                for image in images
            )
        )

    def close_smear(self, smear_id: SmearId) -> None:
        """Have a smear reported as soon as its images are analysed, without a quiet time."""
        self.enqueue(close_job(smear_id, trigger=manual_request_id(), known=None))

    def set_limits(self, limits: Iterable[QueueLimits]) -> None:
        """Register queues, each with its limits; others that are known stay as they are."""
        for queue in limits:
            with translate_database_errors():
                self._dbos.register_queue(
                    queue.name,
                    worker_concurrency=queue.per_worker,
                    global_concurrency=queue.total,
                    partition_concurrency=queue.per_partition,
                    limiter={"limit": queue.per_minute, "period": 60.0}
                    if queue.per_minute
                    else None,
                )

    def wake(self, queue: str, prefix: str) -> None:
        """Have a queue's delayed jobs run now whose id begins so."""
        for job_id in self._column(queries.delayed(queue)):
            if job_id.startswith(prefix):
                self._delay(job_id, 0.0)
        self.on_due(0.0)

    # --- images in batches

    def claim_images(self, worker_id: str, limit: int, *, suspects: bool) -> list[ClaimedImage]:
        """Give a worker waiting images, the oldest first, and count each as begun.

        `suspects` are those that were begun before and never ended.
        """
        statement = queries.claim(
            self._dialect,
            IMAGES,
            worker_id,
            priority=SUSPECT_PRIORITY if suspects else 0,
            limit=limit,
            version=QUEUE_FORMAT,
            now_ms=_now_ms(),
        )
        with translate_database_errors(), self._engine.begin() as connection:
            starts = {row[0]: row[1] for row in connection.execute(statement)}
            look: Any = queries.arguments(starts)
            rows = connection.execute(look).all() if starts else []
        return [_claimed_image(row[0], row[1], starts[row[0]]) for row in rows]

    def has_suspects(self) -> bool:
        """Whether an image waits that was begun before and never ended."""
        return bool(self._rows(queries.any_waiting(IMAGES, priority=SUSPECT_PRIORITY)))

    def settle_images(
        self,
        worker_id: str,
        *,
        done: Sequence[ClaimedImage] = (),
        not_begun: Sequence[ClaimedImage] = (),
        suspects: Sequence[ClaimedImage] = (),
        next_jobs: Sequence[Job] = (),
        closes: Callable[[Collection[SmearId]], Sequence[Job]] = lambda _smears: (),
    ) -> None:
        """End a batch in one transaction: what follows is enqueued with it or not at all.

        Images that were `not_begun` are queued again, `suspects` among them apart. `closes` gives
        the jobs that report smears of which no image is unfinished any more, and a report of them
        that was asked for without a quiet time is due at once.
        """
        now_ms = _now_ms()
        with translate_database_errors(), self._engine.begin() as connection:
            if done:
                ids = [image.job_id for image in done]
                connection.execute(queries.settle(ids, worker_id, now_ms=now_ms))
            for images, priority in ((not_begun, 0), (suspects, SUSPECT_PRIORITY)):
                if images:
                    ids = [image.job_id for image in images]
                    connection.execute(
                        queries.hand_back(
                            self._dialect, ids, worker_id, priority=priority, now_ms=now_ms
                        )
                    )
            self._insert(connection, next_jobs)
            finished = self._finished(connection, {image.smear_id for image in done})
            close_jobs = closes(finished)
            self._insert(connection, close_jobs)
            woken = sum(
                connection.execute(
                    queries.end_delays(manual_close_prefix(smear_id), now_ms=now_ms)
                ).rowcount
                for smear_id in finished
            )
        self._announce([*next_jobs, *close_jobs])
        if not_begun or suspects:
            self.on_images()
        if woken:
            self.on_due(0.0)

    def _finished(self, connection: Any, smears: Collection[SmearId]) -> list[SmearId]:
        """The smears of which no image is unfinished, as this transaction sees it.

        SQLite has one writer, so of two batches the later one sees the end of the other. Two
        transactions of PostgreSQL may miss each other: there, every smear counts.
        """
        if self._dialect != "sqlite":
            return sorted(smears)
        look: Any = queries.unfinished
        return [
            smear_id
            for smear_id in sorted(smears)
            if connection.execute(look(IMAGES, smear_id).limit(1)).first() is None
        ]

    def _announce(self, jobs: Collection[Job]) -> None:
        """Tell this process what it was given to do."""
        if any(job.queue == IMAGES and job.delay_s <= 0 for job in jobs):
            self.on_images()
        delays = [job.delay_s for job in jobs if job.queue != IMAGES or job.delay_s > 0]
        if delays:
            self.on_due(min(delays))

    # --- looking

    def check(self) -> None:
        """Raise RetryLater `database_unavailable` unless the database answers."""
        self._rows(queries.any_job())

    def status(self) -> WorkflowStatus:
        """Queue depths, and parked work with its reasons."""
        now, counts = self._counted()
        queues = queue_statuses(counts, now)
        return WorkflowStatus(
            at=now,
            queues=tuple(self._with_next_attempt(queue) for queue in queues),
            parked=(*self._parked_images(), *map(parked_work, self.failed())),
            workers=tuple(self.executors()),
        )

    def _with_next_attempt(self, queue: QueueStatus) -> QueueStatus:
        """With the first job that is tried again later, if there is one."""
        found = self._rows(queries.next_attempt(queue.name)) if queue.delayed else []
        if not found:
            return queue
        due_ms, attributes = found[0]
        return replace(
            queue,
            next_attempt_at=datetime.fromtimestamp(due_ms / 1000, UTC),
            delay_reason=str(attributes["reason"]),
        )

    def counts(self) -> list[QueueCount]:
        """Unfinished jobs by queue and state, all as of one moment, which may be a while ago with
        more than MANY_JOBS.
        """
        return self._counted()[1]

    def _counted(self) -> tuple[datetime, list[QueueCount]]:
        """The counts, and as of when they are."""
        with self._counting:
            if self._last_count is None or self._monotonic() >= self._counts_again_at:
                began, now = self._monotonic(), datetime.now(UTC)
                counts = [
                    QueueCount(queue=queue, status=status, count=count, oldest_ms=oldest_ms)
                    for queue, status, count, oldest_ms in self._rows(queries.counts())
                ]
                is_long = sum(one.count for one in counts) > MANY_JOBS
                ended = self._monotonic()
                rest_s = (ended - began) / COUNTING_SHARE if is_long else 0.0
                self._counts_again_at, self._last_count = ended + rest_s, (now, counts)
            return self._last_count

    def unfinished_images(self, smear_id: SmearId) -> Iterator[SOPInstanceUID]:
        """Images of a smear whose analysis is queued or in progress."""
        return map(image_of, self._column(queries.unfinished(IMAGES, smear_id)))

    def not_enqueued(self, images: Sequence[SOPInstanceUID]) -> list[SOPInstanceUID]:
        """Those images that the queue has never heard of."""
        by_id = {image_key(image): image for image in images}
        known = set(self._column(queries.known(list(by_id))))
        return [image for job_id, image in by_id.items() if job_id not in known]

    def executors(self) -> list[str]:
        """Workers that have jobs in progress."""
        return sorted(filter(None, self._column(queries.executors())))

    def in_progress(self, worker_id: str) -> set[str]:
        """Ids of the jobs that a worker has claimed and not ended."""
        return set(self._column(queries.in_progress(worker_id)))

    def rows(self, job_ids: Iterable[str]) -> list[QueueRow]:
        """Those of the named jobs that exist, without their arguments."""
        named = list(job_ids)
        # DBOS takes an empty list for no condition.
        return self._read(workflow_ids=named, load_input=False, load_output=False) if named else []

    def rows_beginning(self, prefix: str) -> list[QueueRow]:
        """All jobs whose id begins so, without their arguments."""
        return self._read(workflow_id_prefix=prefix, load_input=False, load_output=False)

    def left(self) -> list[QueueRow]:
        """Jobs that have not succeeded, failed ones included, with their arguments; in order."""
        return self._read(status=[*queries.UNFINISHED, *_FAILED], load_output=False)

    def failed(self, kind: JobKind | None = None) -> list[QueueRow]:
        """Jobs that ended in an error, with their arguments."""
        return self._read(status=_FAILED, name=kind.value if kind else None)

    # --- retrying parked work

    def retry(self, key: str) -> int:
        """Retry parked work by its key, image, smear or destination; return how much."""
        return self._retry(lambda parked: is_named(parked, key))

    def retry_all(self, destination: str | None = None) -> int:
        """Retry all parked work, or all of one destination; return how much."""
        return self._retry(lambda parked: destination in (None, parked.destination))

    def drop_parked_deliveries(self, smear_id: SmearId, destination: str, *, below: int) -> None:
        """Delete parked deliveries of versions below one that has arrived."""
        if below <= 1:
            return
        for row in self.failed(JobKind.DELIVER):
            delivery = DeliveryAttempt.of(row.arguments)
            is_same = (delivery.smear_id, delivery.destination) == (smear_id, destination)
            if is_same and delivery.version < below:
                self._delete([row.id])

    # --- maintenance

    def note_starts(self, job_id: str, starts: int) -> None:
        """Note how often a job was begun elsewhere, as on a database that it is moved from."""
        with translate_database_errors():
            self._dbos.update_workflow_attributes(job_id, {"starts": starts})

    def shorten_delays(self, now: datetime) -> int:
        """Shorten delays that a clock set back has lengthened; return how many."""
        now_ms = int(now.timestamp() * 1000)
        rows = self.rows(self._column(queries.delayed_from_the_future(now_ms)))
        late = [row for row in rows if _is_too_late(row, now_ms)]
        for row in late:
            self._delay(row.id, row.delay_s)
        return len(late)

    def delete_finished(self, before: datetime) -> int:
        """Delete some of the jobs that succeeded before a moment; return how many.

        What is enqueued again later finds its results and receipts in their folders.
        """
        before_ms = int(before.timestamp() * 1000)
        job_ids = self._column(queries.finished(before_ms=before_ms, limit=MAX_DELETED_AT_ONCE))
        if job_ids:
            self._delete(job_ids)
        return len(job_ids)

    def count_in_progress(self, worker_id: str, queue: str | None) -> int:
        """How many jobs of a queue, or of all queues, a worker has claimed and not ended."""
        (count,) = self._column(queries.count_in_progress(worker_id, queue))
        return int(count)

    def queues_with_work(self) -> tuple[set[str], int | None]:
        """Queues that have a job to claim, and when the first delayed job is due.

        In milliseconds since 1970; delayed jobs that are due already count as jobs to claim.
        """
        (due_ms,) = self._column(queries.next_delay_end())
        if due_ms is not None and due_ms <= _now_ms():
            with translate_database_errors():
                self._dbos._sys_db.transition_delayed_workflows()
            (due_ms,) = self._column(queries.next_delay_end())
        return set(self._column(queries.queues_with_work())), due_ms

    def _parked_images(self) -> Iterator[ParkedWork]:
        return (parked_image(image, code) for image, code in self._inbox.parked())

    def _retry(self, is_meant: Callable[[ParkedWork], bool]) -> int:
        images = [parked for parked in self._parked_images() if is_meant(parked)]
        for parked in images:
            self._retry_image(SOPInstanceUID(parked.sop_instance_uid))
        rows = [row for row in self.failed() if is_meant(parked_work(row))]
        for row in rows:
            # The new job first, then the old one goes: a kill between leaves both, and runs once.
            self.enqueue(retry_job(row))
            self._delete([row.id])
        return len(images) + len(rows)

    def _retry_image(self, image: SOPInstanceUID) -> None:
        key = image_key(image)
        self._delete([key, *(row.id for row in self.rows_beginning(f"{key}:"))])
        self._inbox.unpark(image)
        self.enqueue_image(self._inbox.facts(image))

    def _insert(self, connection: Any, jobs: Collection[Job]) -> None:
        if jobs:
            now_ms = _now_ms()
            insert = queries.insert_new
            connection.execute(
                insert(self._dialect, queries.JOBS), [_job_row(job, now_ms) for job in jobs]
            )
            connection.execute(
                insert(self._dialect, queries.INPUTS), [_input_row(job, now_ms) for job in jobs]
            )

    def _delete(self, job_ids: Iterable[str]) -> None:
        with translate_database_errors():
            self._dbos.delete_workflows(list(job_ids))

    def _delay(self, job_id: str, delay_s: float) -> None:
        with translate_database_errors():
            self._dbos.set_workflow_delay(job_id, delay_seconds=delay_s)

    def _read(self, **chosen: Any) -> list[QueueRow]:
        with translate_database_errors():
            return [read_row(found) for found in self._dbos.list_workflows(**chosen)]

    def _rows(self, look: queries.Look) -> list[Any]:
        with translate_database_errors(), self._engine.connect() as connection:
            return list(connection.execute(look))

    def _column(self, look: queries.Look) -> list[Any]:
        return [value for (value,) in self._rows(look)]


def _job_row(job: Job, now_ms: int) -> dict[str, Any]:
    is_delayed = job.delay_s > 0
    return {
        "workflow_uuid": job.id,
        "status": "DELAYED" if is_delayed else "ENQUEUED",
        "name": job.kind.value,
        "queue_name": job.queue,
        "queue_partition_key": job.smear_id,
        "application_name": APPLICATION,
        "application_version": QUEUE_FORMAT,
        "serialization": SERIALIZATION,
        "priority": 0,
        "recovery_attempts": 0,
        "attributes": _delay_of(job) if is_delayed else None,
        "created_at": now_ms,
        "updated_at": now_ms,
        "delay_until_epoch_ms": now_ms + round(job.delay_s * 1000) if is_delayed else None,
    }


def _delay_of(job: Job) -> dict[str, Any]:
    reason = {"reason": job.delay_reason[:MAX_REASON_LENGTH]} if job.delay_reason else {}
    return {"delay_s": job.delay_s, **reason}


def _input_row(job: Job, now_ms: int) -> dict[str, Any]:
    arguments = {"namedArgs": {}, "positionalArgs": list(job.arguments)}
    return {
        "workflow_uuid": job.id,
        "inputs": json.dumps(arguments, separators=(",", ":")),
        "retention_timestamp": now_ms,
    }


def _claimed_image(job_id: str, inputs: str, starts: int) -> ClaimedImage:
    image, smear_id, attempt = json.loads(inputs)["positionalArgs"]
    return ClaimedImage(
        job_id=job_id,
        image=SOPInstanceUID(image),
        smear_id=SmearId(smear_id),
        attempt=attempt,
        starts=starts,
    )


def _is_too_late(row: QueueRow, now_ms: int) -> bool:
    return row.is_delayed and row.delayed_until_ms > now_ms + row.delay_s * 1000


def _now_ms() -> int:
    return int(time.time() * 1000)

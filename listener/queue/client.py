"""Asks for work, looks at it and takes parked work up again; runs none itself.

For the running service, and for the command line beside or without one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from uuid import uuid4

from listener.queue.database import check_database_is_there
from listener.queue.dbos_adapter import DurableQueue, QueueLimits, QueueRow
from listener.queue.jobs import (
    IMAGES,
    DeliveryAttempt,
    Job,
    JobKind,
    close_job,
    image_job,
    image_key,
    image_of,
)
from listener.queue.parked import is_named, parked_image, parked_work, retry_job
from listener.queue.queries import QueueTables
from listener.queue.status import ParkedWork, WorkflowStatus, queue_statuses
from listener.storage.inbox import Inbox, ReceivedImage
from listener.storage.smear_grouping import GatherBy, smear_id_of
from pipeline.domain import SmearId, SOPInstanceUID

MOST_FORGOTTEN_AT_ONCE = 1000
"""Finished work that one call forgets, so that the database is not held for long."""


class WorkClient:
    """The queue seen by all but its workers; a `listener.workflow.transitions.WorkQueue`."""

    def __init__(
        self, database_url: str, *, inbox: Inbox, gather_by: GatherBy, waits: bool = False
    ) -> None:
        """Raises RetryLater `no_queue_yet` or `database_unavailable` without a queue to look at.

        With `waits` a call that loses its connection comes back when the database does.
        """
        self._inbox = inbox
        self._gather_by = gather_by
        check_database_is_there(database_url)
        self.tables = QueueTables(database_url)
        self.tables.check_schema()
        self._queue = DurableQueue(database_url, waits=waits)

    def destroy(self) -> None:
        """Let go of the database."""
        self._queue.close()
        self.tables.close()

    # --- asking for work

    def ask(self, job: Job) -> None:
        """Have a job done, once for its id; durable on return."""
        self._queue.put(job)

    def ask_for_image(self, image: ReceivedImage) -> None:
        """Have an image analysed."""
        smear_id = smear_id_of(image, self._gather_by)
        self.ask(image_job(image.sop_instance_uid, smear_id))

    def close(self, smear_id: SmearId) -> None:
        """Have a smear reported as soon as its images are analysed, without a quiet time."""
        self.ask(close_job(smear_id, trigger=_manual_request_id(), known=None))

    def set_limits(self, limits: Iterable[QueueLimits]) -> None:
        """Have these queues worked off, each within its limits."""
        self._queue.set_limits(limits)

    def wake(self, queue: str, prefix: str) -> None:
        """Run delayed work of a queue now."""
        for job_id in self.tables.delayed(queue):
            if job_id.startswith(prefix):
                self._queue.delay(job_id, 0.0)

    # --- looking at it

    def status(self) -> WorkflowStatus:
        """What waits where, and what was parked why."""
        now = datetime.now(UTC)
        return WorkflowStatus(
            at=now,
            queues=queue_statuses(self.tables.counts(), now),
            parked=(*self._parked_images(), *map(parked_work, self._queue.failed())),
            workers=tuple(self.tables.executors()),
        )

    def unfinished_images(self, smear_id: SmearId) -> Iterator[SOPInstanceUID]:
        """Images of a smear whose analysis is queued or in hand."""
        return (image_of(job_id) for job_id in self.tables.unfinished(IMAGES, smear_id))

    def not_asked(self, images: Sequence[SOPInstanceUID]) -> list[SOPInstanceUID]:
        """Those images that the queue has never heard of."""
        known = {row.id for row in self._queue.rows(map(image_key, images))}
        return [image for image in images if image_key(image) not in known]

    # --- taking parked work up again

    def retry(self, key: str) -> int:
        """Take parked work up again, by its key or by an image, smear or destination; how much."""
        return self._retry(lambda parked: is_named(parked, key))

    def retry_all(self, destination: str | None = None) -> int:
        """Take up all parked work again, or all of one destination; how much."""
        return self._retry(lambda parked: destination in (None, parked.destination))

    def drop_parked_deliveries(self, smear_id: SmearId, destination: str, *, below: int) -> None:
        """Forget parked deliveries of versions below one that has arrived."""
        if below <= 1:
            return
        for row in self._queue.failed(JobKind.DELIVER):
            go = DeliveryAttempt.of(row.arguments)
            if (go.smear_id, go.destination) == (smear_id, destination) and go.version < below:
                self._queue.delete([row.id])

    # --- upkeep, asked for by the workers

    def starts(self, job_id: str) -> int:
        """How often a piece of work was begun."""
        return max((row.starts for row in self._queue.rows([job_id])), default=0)

    def note_start(self, job_id: str, starts: int) -> None:
        """Note, durably, that a piece of work is begun for the n-th time."""
        self._queue.note_start(job_id, starts)

    def shorten_delays(self, now: datetime) -> int:
        """Shorten delays that a clock set back has made longer than they were meant; how many."""
        now_ms = int(now.timestamp() * 1000)
        rows = self._queue.rows(self.tables.delayed_from_the_future(now_ms))
        late = [row for row in rows if _is_too_late(row, now_ms)]
        for row in late:
            self._queue.delay(row.id, row.delay_s)
        return len(late)

    def forget_finished(self, before: datetime) -> int:
        """Forget some of the work that ended well before a moment; how much.

        What is asked for again later finds its results and receipts in their folders.
        """
        job_ids = self.tables.finished(
            before_ms=int(before.timestamp() * 1000), most=MOST_FORGOTTEN_AT_ONCE
        )
        if job_ids:
            self._queue.delete(job_ids)
        return len(job_ids)

    def _parked_images(self) -> Iterator[ParkedWork]:
        return (parked_image(image, code) for image, code in self._inbox.parked())

    def _retry(self, is_meant: Callable[[ParkedWork], bool]) -> int:
        images = [parked for parked in self._parked_images() if is_meant(parked)]
        for parked in images:
            self._retry_image(SOPInstanceUID(parked.sop_instance_uid))
        rows = [row for row in self._queue.failed() if is_meant(parked_work(row))]
        for row in rows:
            # First the new, then without the old: a kill between leaves both, and asks once.
            self.ask(retry_job(row, wish=_manual_request_id()))
            self._queue.delete([row.id])
        return len(images) + len(rows)

    def _retry_image(self, image: SOPInstanceUID) -> None:
        self._forget_image(image)
        self._inbox.unpark(image)
        self.ask_for_image(self._inbox.facts(image))

    def _forget_image(self, image: SOPInstanceUID) -> None:
        """Forget that an image was ever asked for, and that its smear was closed for it."""
        smear_id = smear_id_of(self._inbox.facts(image), self._gather_by)
        keys = [image_key(image), close_job(smear_id, trigger=image, known=None).id]
        later = [row.id for key in keys for row in self._queue.rows_beginning(f"{key}:")]
        self._queue.delete([*keys, *later])


def _manual_request_id() -> str:
    return f"wish-{uuid4().hex}"


def _is_too_late(row: QueueRow, now_ms: int) -> bool:
    return row.is_delayed and row.delayed_until_ms > now_ms + row.delay_s * 1000

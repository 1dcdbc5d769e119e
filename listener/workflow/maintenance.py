"""Periodic maintenance: adopt dead workers' jobs, re-enqueue missed images, repair delays, prune.

A round that fails is repeated by the next one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from listener.queue.client import MAX_DELETED_AT_ONCE, QueueClient
from listener.queue.worker_lock import WorkerLease, WorkerLocks
from listener.storage.inbox import Inbox
from listener.storage.results import ResultsFolder
from listener.workflow.retention import Retention
from pipeline.domain import SOPInstanceUID
from reporting.audit.trail import AuditSink, Event

KEEP_FINISHED = timedelta(days=7)
"""Finished jobs are kept at least this long, and as long as their image is kept."""

LOOKS_UNTIL_LOST = 3
"""A claimed job that no thread runs is lost when it was seen so this often in a row: every job is
for a moment, between its claim and its first line."""

LISTING_SHARE = 0.01
"""Of its time, what this thread spends on listing the inbox at most."""
COMPARING_SHARE = 0.02
"""The same for asking the queue which images it knows: a million take 2,000 questions, and what
they take the device that is sending and the analysis do not get."""
SHORT_LISTING_S = 0.5
"""A listing that takes less is repeated each time that the inbox is compared with the queue."""

_CHUNK = 500
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpkeepTimes:
    """How often each task runs, in seconds."""

    takeover_s: float = 2.0
    """Look for dead workers, and for claimed jobs that nobody runs."""
    reconcile_s: float = 60.0
    """Compare the inbox with the queue, and delays with the clock."""
    sweep_s: float = 3600.0
    """Delete images and finished jobs past their time, and compare all of the inbox."""


class Maintenance:
    """The tasks of one worker beside its jobs.

    `running` gives the ids of the jobs that a thread of this process runs; `requeue` queues one of
    this worker's jobs again, `requeue_of` all jobs of a dead worker.
    """

    def __init__(
        self,
        *,
        client: QueueClient,
        inbox: Inbox,
        results: ResultsFolder,
        lease: WorkerLease,
        locks: WorkerLocks,
        running: Callable[[], set[str]],
        requeue: Callable[[str], None],
        requeue_of: Callable[[str], None],
        retention: Retention | None,
        audit: AuditSink,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._client = client
        self._inbox = inbox
        self._results = results
        self._lease = lease
        self._locks = locks
        self._requeue = requeue
        self._requeue_of = requeue_of
        self._running = running
        self._retention = retention
        self._audit = audit
        self._stopping = threading.Event()
        self._asked: set[SOPInstanceUID] = set()
        self._must_list = threading.Event()
        """Something happened that may have left an image unknown to the queue."""
        self._must_list.set()
        self._listed: float | None = None
        """When the inbox had changed last when it was listed; None when that was just then."""
        self._lists_again_at = 0.0
        self._urgent: Sequence[_PeriodicTask] = ()
        """What does not wait until a long comparison is over."""
        self._urgent_at = 0.0
        self._idle_looks: dict[str, int] = {}

    def run(self, times: UpkeepTimes, stopping: threading.Event) -> None:
        """Run the tasks until `stopping` is set."""
        self._stopping = stopping
        urgent = (
            _PeriodicTask(every_s=times.takeover_s, do=self.renew_lock),
            _PeriodicTask(every_s=times.takeover_s, do=self.adopt_dead_workers),
            _PeriodicTask(every_s=times.takeover_s, do=self.requeue_orphans),
        )
        tasks = (
            *urgent,
            _PeriodicTask(every_s=times.reconcile_s, do=self.reconcile),
            _PeriodicTask(every_s=times.reconcile_s, do=self.correct_delays),
            _PeriodicTask(every_s=times.sweep_s, do=self.sweep),
        )
        self._urgent, self._urgent_at = urgent, self._monotonic()
        elapsed_s = 0.0
        while not stopping.is_set():
            for task in tasks:
                if not stopping.is_set():
                    task.run_if_due(elapsed_s)
            elapsed_s = min(task.every_s for task in tasks)
            stopping.wait(elapsed_s)

    def close(self) -> None:
        """Release this worker's lock: from here on it counts as dead."""
        self._lease.close()

    def renew_lock(self) -> None:
        """Take this worker's lock again if it was lost, as with the database's session."""
        if self._lease.is_held():
            return
        lease = self._locks.try_take(self._lease.worker_id)
        if lease is not None:
            self._lease.close()
            self._lease = lease

    def adopt_dead_workers(self) -> int:
        """Queue again the jobs of dead workers; return how many workers that were."""
        others = set(self._client.executors()) - {self._lease.worker_id}
        return sum(self._take_over(worker_id) for worker_id in sorted(others))

    def requeue_orphans(self) -> int:
        """Queue again what this worker has claimed and does not run; return how many jobs.

        A claim can take effect although its answer is lost with the connection. Nobody else looks
        for such jobs, as their worker lives, and they count against their destination's limit.
        """
        # In this order: what ends or begins between the two looks is not taken for idle.
        claimed = self._client.in_progress(self._lease.worker_id)
        idle = claimed - self._running()
        self._idle_looks = {job_id: self._idle_looks.get(job_id, 0) + 1 for job_id in idle}
        lost = sorted(job for job, looks in self._idle_looks.items() if looks >= LOOKS_UNTIL_LOST)
        for job_id in lost:
            _log.warning("a claimed job was not begun and is queued again")
            self._requeue(job_id)
        return len(lost)

    def note_missed(self) -> None:
        """An image that was received could not be enqueued: compare inbox and queue next time."""
        self._must_list.set()

    def reconcile(self) -> int:
        """Enqueue every image of the inbox that the queue does not know; return how many.

        An inbox of a million images takes seconds to list. So it is listed at once where an image
        may have been missed: at the start, after `note_missed`, when a worker has died, and once
        per sweep. Else only when it has changed, and so seldom that LISTING_SHARE is kept.
        """
        if not self._is_listing_due():
            return 0
        self._must_list.clear()
        is_whole = False
        try:
            count, is_whole = self._compare()
        finally:
            if not is_whole:
                self._must_list.set()
        return count

    def _is_listing_due(self) -> bool:
        if self._must_list.is_set():
            return True
        is_same = self._listed is not None and self._listed == self._inbox.changed_at()
        return not is_same and self._monotonic() >= self._lists_again_at

    def _compare(self) -> tuple[int, bool]:
        """How many images were missed, and whether all of the inbox was compared: a stop does not
        wait for the rest.
        """
        self._listed, began_s = self._inbox.changed_at(), time.thread_time()
        present = list(self._inbox.waiting())
        took_s = time.thread_time() - began_s
        rest_s = took_s / LISTING_SHARE if took_s > SHORT_LISTING_S else 0.0
        self._lists_again_at = self._monotonic() + rest_s
        known: set[SOPInstanceUID] = set()
        count, pause_s = 0, 0.0
        for chunk in self._unknown(present, known):
            self._see_to_urgent_tasks()
            if self._stopping.wait(pause_s):
                return count, False
            asked_at = self._monotonic()
            missed = self._client.not_enqueued(chunk)
            self._client.enqueue_image(*map(self._inbox.facts, missed))
            count += len(missed)
            self._asked.update(chunk)
            pause_s = (self._monotonic() - asked_at) * (1 / COMPARING_SHARE - 1)
        self._asked = known
        return count, True

    def _unknown(
        self, present: Sequence[SOPInstanceUID], known: set[SOPInstanceUID]
    ) -> Iterator[list[SOPInstanceUID]]:
        """The images that the queue was not asked for yet, in chunks; all go into `known`.

        In pieces: one operation on a million names would stop all threads for half a second.
        """
        unknown: list[SOPInstanceUID] = []
        for chunk in _chunks(present):
            known.update(chunk)
            unknown += [image for image in chunk if image not in self._asked]
            if len(unknown) >= _CHUNK:
                yield unknown
                unknown = []
        if unknown:
            yield unknown

    def _see_to_urgent_tasks(self) -> None:
        now = self._monotonic()
        passed_s, self._urgent_at = now - self._urgent_at, now
        for task in self._urgent:
            task.run_if_due(passed_s)

    def correct_delays(self) -> int:
        """Shorten delays that a clock set back has lengthened; return how many."""
        return self._client.shorten_delays(datetime.now(UTC))

    def sweep(self) -> None:
        """Delete images past their retention period, and finished jobs that are older still."""
        self._asked.clear()
        self._must_list.set()
        keep = KEEP_FINISHED
        now = datetime.now(UTC)
        if self._retention is not None:
            keep = max(keep, self._retention.keep)
            self._retention.sweep(now)
        while self._client.delete_finished(now - keep) == MAX_DELETED_AT_ONCE:
            pass

    def _take_over(self, worker_id: str) -> int:
        lease = self._locks.try_take(worker_id)
        if lease is None:
            return 0
        with closing(lease):
            self._results.sweep_drafts(worker_id)
            self._requeue_of(worker_id)
        self._must_list.set()  # it may have received images that it did not enqueue any more
        self._audit.record(Event.WORKER_TAKEN_OVER, worker_id=worker_id)
        return 1


@dataclass(slots=True)
class _PeriodicTask:
    """A task and the time until it is due; due at once in the first round."""

    every_s: float
    do: Callable[[], object]
    left_s: float = 0.0

    def run_if_due(self, elapsed_s: float) -> None:
        self.left_s -= elapsed_s
        if self.left_s > 0:
            return
        self.left_s = self.every_s
        try:
            self.do()
        except Exception as err:  # noqa: BLE001 - the boundary of a loop
            _log.warning("queue upkeep failed: %s", type(err).__name__)


def _chunks(images: Sequence[SOPInstanceUID]) -> Iterator[Sequence[SOPInstanceUID]]:
    return (images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK))

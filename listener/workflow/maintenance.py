"""What every worker sees to from time to time: dead workers, forgotten images, clocks, old work.

Nothing here is the only copy of anything: a round that fails is made good by the next one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from listener.queue.client import MOST_FORGOTTEN_AT_ONCE, WorkClient
from listener.queue.worker_lock import WorkerLease, WorkerLocks
from listener.storage.inbox import Inbox
from listener.storage.results import ResultsFolder
from listener.workflow.retention import Retention
from pipeline.domain import SOPInstanceUID
from reporting.audit.trail import AuditSink, Event

KEEP_FINISHED = timedelta(days=7)
"""Finished work is remembered at least this long, and as long as its image is kept."""

LOOKS_UNTIL_LOST = 3
"""Claimed work that no thread runs is lost when it was seen so this often in a row: for a moment
all work is, between its claim and its first line."""

_CHUNK = 500
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpkeepTimes:
    """How often each duty comes round, in seconds."""

    takeover_s: float = 2.0
    """Dead workers are looked for, and claimed work that nobody runs."""
    reconcile_s: float = 60.0
    """The inbox is compared with the queue, and delays with the clock."""
    sweep_s: float = 3600.0
    """Images and finished work whose time is over are removed, and all of the inbox is compared."""


class Runner(Protocol):
    """What runs this worker's work; a `listener.queue.dbos_adapter.QueueRunner`."""

    def requeue_of(self, worker_id: str) -> None:
        """Queue again what a dead worker had in hand."""

    def running(self) -> set[str]:
        """Ids of the work that a thread of this process runs."""

    def requeue(self, job_id: str) -> None:
        """Queue again a piece that this worker has claimed."""


class Maintenance:
    """The duties of one worker beside its work."""

    def __init__(
        self,
        *,
        client: WorkClient,
        inbox: Inbox,
        results: ResultsFolder,
        hold: WorkerLease,
        locks: WorkerLocks,
        runner: Runner,
        retention: Retention | None,
        audit: AuditSink,
    ) -> None:
        self._client = client
        self._inbox = inbox
        self._results = results
        self._hold = hold
        self._locks = locks
        self._runner = runner
        self._retention = retention
        self._audit = audit
        self._asked: set[SOPInstanceUID] = set()
        self._idle_looks: dict[str, int] = {}

    def run(self, times: UpkeepTimes, stopping: threading.Event) -> None:
        """Go round until `stopping` is set."""
        duties = (
            _PeriodicTask(every_s=times.takeover_s, do=self.renew_lock),
            _PeriodicTask(every_s=times.takeover_s, do=self.adopt_dead_workers),
            _PeriodicTask(every_s=times.takeover_s, do=self.requeue_orphans),
            _PeriodicTask(every_s=times.reconcile_s, do=self.reconcile),
            _PeriodicTask(every_s=times.reconcile_s, do=self.correct_delays),
            _PeriodicTask(every_s=times.sweep_s, do=self.sweep),
        )
        elapsed_s = 0.0
        while not stopping.is_set():
            for duty in duties:
                if not stopping.is_set():
                    duty.run_if_due(elapsed_s)
            elapsed_s = min(duty.every_s for duty in duties)
            stopping.wait(elapsed_s)

    def close(self) -> None:
        """Give up this worker's lock: from here on it counts as dead."""
        self._hold.close()

    def renew_lock(self) -> None:
        """Take this worker's lock again when it was lost, as with the database's session."""
        if self._hold.is_held():
            return
        hold = self._locks.try_take(self._hold.worker_id)
        if hold is not None:
            self._hold.close()
            self._hold = hold

    def adopt_dead_workers(self) -> int:
        """Queue again what dead workers had in hand; how many workers that were."""
        others = set(self._client.tables.executors()) - {self._hold.worker_id}
        return sum(self._take_over(worker_id) for worker_id in sorted(others))

    def requeue_orphans(self) -> int:
        """Queue again what this worker has claimed and does not run; how many pieces.

        A claim can take effect although its answer is lost with the connection. Nobody else looks
        for such work, as its worker lives, and it holds a place in its destination's limit.
        """
        # In this order: what ends or begins between the two looks is not taken for idle.
        claimed = self._client.tables.in_hand(self._hold.worker_id)
        idle = claimed - self._runner.running()
        self._idle_looks = {job_id: self._idle_looks.get(job_id, 0) + 1 for job_id in idle}
        lost = sorted(job for job, looks in self._idle_looks.items() if looks >= LOOKS_UNTIL_LOST)
        for job_id in lost:
            _log.warning("claimed work was not begun and is queued again")
            self._runner.requeue(job_id)
        return len(lost)

    def reconcile(self) -> int:
        """Ask for every image of the inbox that the queue has not heard of; how many those are."""
        present = set(self._inbox.waiting())
        self._asked &= present
        count = 0
        for chunk in _chunks(sorted(present - self._asked)):
            for image in self._client.not_asked(chunk):
                self._client.ask_for_image(self._inbox.facts(image))
                count += 1
            self._asked.update(chunk)
        return count

    def correct_delays(self) -> int:
        """Shorten delays that a clock set back has lengthened; how many."""
        return self._client.shorten_delays(datetime.now(UTC))

    def sweep(self) -> None:
        """Remove images whose time is over, and forget finished work that is older still."""
        self._asked.clear()
        keep = KEEP_FINISHED
        now = datetime.now(UTC)
        if self._retention is not None:
            keep = max(keep, self._retention.keep)
            self._retention.sweep(now)
        while self._client.forget_finished(now - keep) == MOST_FORGOTTEN_AT_ONCE:
            pass

    def _take_over(self, worker_id: str) -> int:
        hold = self._locks.try_take(worker_id)
        if hold is None:
            return 0
        with closing(hold):
            self._results.sweep_drafts(worker_id)
            self._runner.requeue_of(worker_id)
        self._audit.record(Event.WORKER_TAKEN_OVER, worker_id=worker_id)
        return 1


@dataclass(slots=True)
class _PeriodicTask:
    """One duty and the time until it is due; due at once in the first round."""

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

"""Analyses waiting images on several threads, each of them a batch at a time.

A batch is claimed in one statement and settled in one transaction with the jobs that follow, so
that the queue costs little per image. Every image of it is still on its own: it is counted as
begun before anything is done with it, one that ends the process is found out by running alone,
and what a batch has not begun goes back to the queue.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from uuid import uuid4

from listener.queue.client import QueueClient
from listener.queue.jobs import ClaimedImage, Job
from listener.storage.inbox import Inbox
from listener.workflow.analysis_slots import AnalysisSlots, ShuttingDown
from listener.workflow.transitions import Transitions
from pipeline.domain import SmearId
from pipeline.errors import RetryLater, SmearlinkError
from reporting.audit.trail import AuditSink, Event, Outcome

MOST_STARTS = 10
"""An analysis that was begun this often and never ended takes its worker down: it is parked."""

SUSPECT_FROM = 3
"""From this start on an image runs alone, so that no other is blamed for its crashes."""

BATCH_IMAGES = 8
BATCH_S = 1.0
"""A batch ends after this time with what it has done: large images delay nobody for long, and a
smear's report does not wait for the batch of another one."""

DATABASE_PAUSE_S = 2.0
"""How long a batch waits before it settles again with a database that did not answer."""

_log = logging.getLogger(__name__)


class ImageWorkers:
    """The threads that analyse images in this process."""

    def __init__(
        self,
        *,
        queue: QueueClient,
        transitions: Transitions,
        inbox: Inbox,
        worker_id: str,
        threads: int,
        audit: AuditSink,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._transitions = transitions
        self._inbox = inbox
        self._worker_id = worker_id
        self._audit = audit
        self._monotonic = monotonic
        self._slots = AnalysisSlots(threads)
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._notices = 0
        self._running: dict[int, set[str]] = {}
        self._threads = [
            threading.Thread(target=self._run, name=f"image-worker-{n}", daemon=True)
            for n in range(1, threads + 1)
        ]

    def start(self) -> None:
        """Analyse what waits from now on."""
        for thread in self._threads:
            thread.start()

    def notice(self) -> None:
        """Images may be waiting."""
        with self._changed:
            self._notices += 1
            self._changed.notify_all()

    def running(self) -> set[str]:
        """Ids of the jobs that a thread has claimed."""
        return set().union(*list(self._running.values()))

    def begin_stop(self) -> None:
        """Begin no further image; those in progress are finished."""
        self._stopping.set()
        self._slots.close()
        self.notice()

    def join(self, grace_s: float) -> None:
        """Wait for the images in progress."""
        give_up = time.monotonic() + grace_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=max(0.0, give_up - time.monotonic()))

    # --- one thread

    def _run(self) -> None:
        seen = -1
        while not self._stopping.is_set():
            seen = self._next_notice(seen)
            try:
                while not self._stopping.is_set() and self._work():
                    pass
            except ShuttingDown:
                return
            except RetryLater as err:
                _log.warning("images wait: %s", type(err).__name__)
                self._stopping.wait(DATABASE_PAUSE_S)
                self.notice()
            except Exception as err:  # noqa: BLE001 - the boundary of a thread
                self._audit.record(
                    Event.DEFECT_MET,
                    outcome=Outcome.SERIOUS_FAILURE,
                    error_type=type(err).__name__,
                )

    def _next_notice(self, seen: int) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._notices != seen or self._stopping.is_set())
            return self._notices

    def _work(self) -> bool:
        """One batch, and one image that must run alone; False when none waits."""
        with self._slots.entered():
            found = self._claim_and_work(suspects=False)
        if self._queue.has_suspects():
            with self._slots.entered(exclusive=True):
                found = self._claim_and_work(suspects=True) or found
        return found

    def _claim_and_work(self, *, suspects: bool) -> bool:
        claimed = self._queue.claim_images(
            self._worker_id, 1 if suspects else BATCH_IMAGES, suspects=suspects
        )
        thread = threading.get_ident()
        self._running[thread] = {image.job_id for image in claimed}
        try:
            if claimed:
                self._analyse_batch(claimed, is_alone=suspects)
        finally:
            self._running[thread] = set()
        return bool(claimed)

    def _analyse_batch(self, claimed: Sequence[ClaimedImage], *, is_alone: bool) -> None:
        suspects = [] if is_alone else [one for one in claimed if one.starts >= SUSPECT_FROM]
        batch = sorted((one for one in claimed if one not in suspects), key=self._size)
        done: list[ClaimedImage] = []
        retries: list[Job] = []
        analysed: list[ClaimedImage] = []
        end = self._monotonic() + BATCH_S
        for image in batch:
            if done and (self._stopping.is_set() or self._monotonic() > end):
                break
            if retry := self._analyse(image):
                retries.append(retry)
            else:
                analysed.append(image)
            done.append(image)
        batch_id = uuid4().hex

        def closes(finished: Collection[SmearId]) -> Sequence[Job]:
            of_finished = [one for one in analysed if one.smear_id in finished]
            return self._transitions.close_after(of_finished, batch_id=batch_id)

        self._settle(done, batch[len(done) :], suspects=suspects, next_jobs=retries, closes=closes)

    def _analyse(self, image: ClaimedImage) -> Job | None:
        if image.starts > MOST_STARTS:
            return self._transitions.park_crasher(image)
        return self._transitions.analyse_image(image)

    def _settle(
        self,
        done: Sequence[ClaimedImage],
        not_begun: Sequence[ClaimedImage],
        *,
        suspects: Sequence[ClaimedImage],
        next_jobs: Sequence[Job],
        closes: Callable[[Collection[SmearId]], Sequence[Job]],
    ) -> None:
        """Settle the batch, again and again while the database does not answer.

        At a stop the images stay claimed; the next start finds their findings and settles them.
        """
        while True:
            try:
                return self._queue.settle_images(
                    self._worker_id,
                    done=done,
                    not_begun=not_begun,
                    suspects=suspects,
                    next_jobs=next_jobs,
                    closes=closes,
                )
            except RetryLater as err:
                _log.warning("analysed images wait to be settled: %s", type(err).__name__)
            if self._stopping.wait(DATABASE_PAUSE_S):
                raise ShuttingDown

    def _size(self, image: ClaimedImage) -> int:
        """Bytes of the file; small images of a batch come first."""
        try:
            return self._inbox.path_of(image.image).stat().st_size
        except (OSError, SmearlinkError):
            return 0

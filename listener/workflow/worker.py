"""The durable queue: what was received is analysed, reported and delivered, whatever is killed.

A piece of work is a row with an id of its own, so asking twice is asking once; it runs one step
whose effects may be repeated, then asks for what follows (`listener.workflow.transitions`). All
that must not be lost lies in files (inbox, results, receipts); a lost database is refilled from
them.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from queue import SimpleQueue
from typing import Any

from listener.queue.client import WorkClient
from listener.queue.database import prepare_database
from listener.queue.dbos_adapter import QueueLimits, QueueRunner, Requeue
from listener.queue.jobs import IMAGES, SMEARS, CommitmentWait, DeliveryAttempt, JobKind, image_job
from listener.queue.status import WorkflowStatus
from listener.queue.worker_lock import WorkerLease, WorkerLocks
from listener.storage.commitment_reports import CommitmentReports
from listener.storage.inbox import Inbox, ReceivedImage
from listener.storage.results import ResultsFolder
from listener.storage.smear_grouping import GatherBy, smear_id_of
from listener.workflow.analysis_slots import AnalysisSlots, ShuttingDown
from listener.workflow.delivery import Destinations
from listener.workflow.error_boundary import translate_errors
from listener.workflow.maintenance import Maintenance, UpkeepTimes
from listener.workflow.outlet import DestinationQueue
from listener.workflow.retention import Retention
from listener.workflow.steps import Steps
from listener.workflow.transitions import Transitions
from pipeline.domain import SmearId, SOPInstanceUID
from pipeline.errors import Defect, Rejected, RetryLater, SmearlinkError
from reporting.audit.trail import AuditSink, Event, Outcome
from reporting.delivery import CommitmentReport, CommitsStorage, Reporter

__all__ = ["UpkeepTimes", "WorkClient", "Workflow", "WorkflowSettings"]

MOST_STARTS = 10
"""An analysis that was begun this often and never ended takes its worker down: it is parked."""

SUSPECT_FROM = 3
"""From this start on an analysis runs alone, so that no other is blamed for its crashes."""

MOST_RECOVERIES: Mapping[JobKind, int] = {
    JobKind.CLOSE_SMEAR: 50,
    JobKind.DELIVER: 50,
    JobKind.CHECK_COMMITMENT: 50,
}
"""Work that ended its worker this often is left for a person to see. Not images: they are claimed
ahead, so being claimed by a worker that died proves nothing; their starts are counted instead."""

CLAIMED_AHEAD = 4
"""Images that a worker claims for each that it analyses, so that polling never leaves it idle."""

DATABASE_PAUSE_S = 2.0
"""How long work in hand waits before it asks a queue again that did not answer."""

REQUESTS_KEPT = timedelta(days=90)
"""Storage commitment requests that nobody reported on are forgotten after this."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowSettings:
    """How the queue runs in this process."""

    database_url: str
    """sqlite:///… or postgresql://…"""
    gather_by: GatherBy
    quiet_s: float
    close_on_release: bool
    analyse_workers: int = 1
    report_workers: int = 1
    poll_s: float = 0.25
    """How often the images' queue is looked at; the others half as often."""
    upkeep: UpkeepTimes = field(default_factory=UpkeepTimes)


class Workflow:
    """Runs the durable work of one worker. Use: start, feed, stop. One a process."""

    def __init__(
        self,
        *,
        settings: WorkflowSettings,
        inbox: Inbox,
        steps: Steps,
        outlets: Destinations,
        results: ResultsFolder,
        commitments: CommitmentReports,
        hold: WorkerLease,
        locks: WorkerLocks,
        audit: AuditSink,
        retention: Retention | None = None,
    ) -> None:
        self._settings = settings
        self._inbox = inbox
        self._steps = steps
        self._outlets = outlets
        self._results = results
        self._commitments = commitments
        self._hold = hold
        self._locks = locks
        self._audit = audit
        self._retention = retention
        self._soon: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._opened = threading.Event()
        self._stopping = threading.Event()
        self._gate = AnalysisSlots(settings.analyse_workers)
        self._threads: list[threading.Thread] = []
        self._runner: QueueRunner | None = None
        self._client: WorkClient | None = None
        self._upkeep: Maintenance | None = None

    @property
    def client(self) -> WorkClient:
        """The queue's other side; there from `start` on."""
        if self._client is None:
            raise Defect("The workflow was not started", code="not_started")
        return self._client

    def start(self) -> None:
        """Open the queue, take up what was left, and begin to work.

        Raises NeedsReview `database_damaged`, RetryLater `database_unavailable`.
        """
        settings = self._settings
        prepare_database(settings.database_url)
        self._inbox.delete_partial_files()
        self._commitments.sweep(before=datetime.now(UTC) - REQUESTS_KEPT)
        self._results.sweep_drafts(self._hold.worker_id)
        runner = QueueRunner(database_url=settings.database_url, worker_id=self._hold.worker_id)
        self._runner = runner
        try:
            runner.start(self._functions(), recoveries=MOST_RECOVERIES, limits=self._limits())
            self._client = WorkClient(
                settings.database_url,
                inbox=self._inbox,
                gather_by=settings.gather_by,
                waits=True,
            )
        except SmearlinkError:
            self._opened.set()
            runner.stop(0.0)
            raise
        self._upkeep = self._make_upkeep(runner)
        self._opened.set()
        keeper = partial(self._upkeep.run, settings.upkeep, self._stopping)
        for name, loop in (("feeder", self._feed), ("keeper", keeper)):
            thread = threading.Thread(target=loop, name=f"workflow-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, grace_s: float) -> None:
        """Finish what is in hand within `grace_s`; the rest stays queued for the next start.

        Threads of a step that hangs longer are left behind: end the process afterwards.
        """
        self._stopping.set()
        self._gate.close()
        self._soon.put(None)
        if self._runner is not None:
            self._runner.stop(grace_s)
        for thread in self._threads:
            thread.join(timeout=grace_s)
        if self._client is not None:
            self._client.destroy()
        # The lock goes last: until here this worker lives, and nobody takes its work.
        if self._upkeep is not None:
            self._upkeep.close()
        else:
            self._hold.close()

    # --- what the listener tells

    def image_received(self, image: ReceivedImage) -> None:
        """Have an image analysed; never blocks. Whatever is lost here is found in the inbox."""
        self._soon.put(lambda: self.client.ask_for_image(image))

    def association_released(self, images: Iterable[ReceivedImage]) -> None:
        """The device has sent all: report the smears of these as soon as they are analysed."""
        if self._settings.close_on_release:
            for smear_id in {smear_id_of(image, self._settings.gather_by) for image in images}:
                self._soon.put(partial(self.client.close, smear_id))

    def may_report(self, reporter: Reporter) -> bool:
        """Whether storage commitment reports of this peer are listened to at all."""
        return bool(self._committing(reporter))

    def record_commitment(self, reporter: Reporter, report: CommitmentReport) -> None:
        """Keep a storage commitment report, durable on return, and have it read soon.

        Raises Rejected `commitment_not_authorized` for a peer that is no such destination,
        `commitment_unknown` for a transaction that is not open with it, and RetryLater when the
        disk does not take it.
        """
        destinations = self._committing(reporter)
        if not destinations:
            raise Rejected(
                "Its sender is not a destination that commits storage",
                code="commitment_not_authorized",
            )
        with translate_errors():
            self._commitments.keep(report, destinations=destinations)
        self._soon.put(lambda: self._wake_commitment(report.transaction_uid))

    # --- what the operator asks

    def reload(self, outlets: Iterable[DestinationQueue]) -> None:
        """Go on with other destinations; work of one that is gone will park."""
        self._outlets.replace(outlets)
        if self._client is not None:
            self._client.set_limits(self._limits())

    def status(self) -> WorkflowStatus:
        """What waits where, and what was parked why."""
        return self.client.status()

    def check_ready(self) -> None:
        """Raise RetryLater when the queue cannot take work now."""
        self.client.tables.check()

    # --- the work

    def _functions(self) -> Mapping[JobKind, Callable[..., None]]:
        def analyse_image(image: str, smear_id: str, attempt: int) -> None:
            self._run(
                lambda flow: self._analyse(flow, SOPInstanceUID(image), SmearId(smear_id), attempt)
            )

        def close_smear(smear_id: str, trigger: str, known: int | None, attempt: int) -> None:
            self._run(lambda flow: flow.close_smear(SmearId(smear_id), trigger, known, attempt))

        def deliver(*arguments: Any) -> None:
            self._run(lambda flow: flow.deliver(DeliveryAttempt.of(arguments)))

        def check_commitment(*arguments: Any) -> None:
            self._run(lambda flow: flow.check_commitment(CommitmentWait.of(arguments)))

        return {
            JobKind.ANALYSE_IMAGE: analyse_image,
            JobKind.CLOSE_SMEAR: close_smear,
            JobKind.DELIVER: deliver,
            JobKind.CHECK_COMMITMENT: check_commitment,
        }

    def _limits(self) -> list[QueueLimits]:
        settings = self._settings
        seldom_s = 2 * settings.poll_s
        images = QueueLimits(
            name=IMAGES, poll_s=settings.poll_s, per_worker=settings.analyse_workers * CLAIMED_AHEAD
        )
        smears = QueueLimits(
            name=SMEARS, poll_s=seldom_s, per_worker=settings.report_workers, per_partition=1
        )
        deliveries = [
            QueueLimits(
                name=outlet.queue,
                poll_s=seldom_s,
                total=outlet.concurrency,
                per_minute=outlet.rate_per_minute,
            )
            for outlet in self._outlets
        ]
        return [images, smears, *deliveries]

    def _run(self, piece: Callable[[Transitions], None]) -> None:
        """The boundary of all work: what goes wrong has a name, or gets one and is recorded."""
        # Work that an earlier run left begins before `start` has come to its end.
        self._opened.wait()
        if self._client is None:
            raise Requeue
        try:
            self._see_through(piece)
        except SmearlinkError:
            raise
        except Exception as err:
            self._audit.record(
                Event.DEFECT_MET, outcome=Outcome.SERIOUS_FAILURE, error_type=type(err).__name__
            )
            raise Defect(f"{type(err).__name__} in a piece of work", code="defect") from err

    def _see_through(self, piece: Callable[[Transitions], None]) -> None:
        """Do a piece of work, again and again while what follows cannot be asked for.

        The flow asks again for everything that the world is not ready for. What comes out of it
        is its own queue, or a data folder that takes not even a parked image: nobody's fault.
        """
        while True:
            try:
                return piece(self._flow())
            except RetryLater as err:
                _log.warning("work waits: %s", type(err).__name__)
            if self._stopping.wait(DATABASE_PAUSE_S):
                raise Requeue

    def _flow(self) -> Transitions:
        return Transitions(
            steps=self._steps,
            outlets=self._outlets,
            queue=self.client,
            audit=self._audit,
            quiet_s=self._settings.quiet_s,
            jitter=random.random,
        )

    def _analyse(
        self, flow: Transitions, image: SOPInstanceUID, smear_id: SmearId, attempt: int
    ) -> None:
        job = image_job(image, smear_id, attempt=attempt)
        starts = self.client.starts(job.id) + 1
        try:
            with self._gate.entered(exclusive=starts >= SUSPECT_FROM):
                self.client.note_start(job.id, starts)
                if starts > MOST_STARTS:
                    flow.park_crasher(image, smear_id)
                else:
                    flow.analyse_image(image, smear_id, attempt)
        except ShuttingDown:
            raise Requeue from None

    # --- beside the work

    def _make_upkeep(self, runner: QueueRunner) -> Maintenance:
        return Maintenance(
            client=self.client,
            inbox=self._inbox,
            results=self._results,
            hold=self._hold,
            locks=self._locks,
            runner=runner,
            retention=self._retention,
            audit=self._audit,
        )

    def _committing(self, reporter: Reporter) -> list[str]:
        """The destinations that this peer is."""
        return [
            outlet.name
            for outlet in self._outlets
            if isinstance(outlet.destination, CommitsStorage)
            and outlet.destination.is_reporter(reporter)
        ]

    def _wake_commitment(self, transaction_uid: str) -> None:
        for outlet in self._outlets:
            self.client.wake(outlet.queue, prefix=f"commitment:{transaction_uid}:")

    def _feed(self) -> None:
        while (piece := self._soon.get()) is not None:
            try:
                piece()
            except Exception as err:  # noqa: BLE001 - the boundary of a loop; see image_received
                _log.warning("queue feeder failed: %s", type(err).__name__)

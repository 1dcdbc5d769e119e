"""The worker: analyses, reports and delivers every received image, surviving crashes at any point.

A job is a row with an id of its own, so enqueuing twice is enqueuing once; it runs one step
whose effects may be repeated, then enqueues what follows (`listener.workflow.transitions`). All
that must not be lost lies in files (inbox, results, receipts); a lost database is refilled from
them. Images are analysed in batches (`listener.workflow.image_workers`), all else through DBOS.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from listener.queue.client import QueueClient
from listener.queue.database import prepare_database
from listener.queue.dbos_adapter import QueueLimits, QueueRunner, Requeue, make_queue
from listener.queue.dispatcher import OUTCOME_S, Dispatcher
from listener.queue.jobs import SMEARS, CommitmentWait, DeliveryAttempt, JobKind
from listener.queue.status import WorkflowStatus
from listener.queue.worker_lock import WorkerLease, WorkerLocks
from listener.storage.commitment_reports import CommitmentReports
from listener.storage.inbox import Inbox, StoredInstance
from listener.storage.results import ResultsFolder
from listener.storage.smear_grouping import GatherBy, smear_id_of
from listener.workflow.delivery import Sender
from listener.workflow.destinations import DestinationQueue, Destinations
from listener.workflow.error_boundary import translate_errors
from listener.workflow.image_workers import ImageWorkers
from listener.workflow.maintenance import Maintenance, UpkeepTimes
from listener.workflow.retention import Retention
from listener.workflow.steps import ImageStep, ReportStep
from listener.workflow.transitions import Transitions
from pipeline.domain import SmearId
from pipeline.errors import Defect, Rejected, RetryLater, SmearlinkError
from reporting.audit.trail import AuditSink, Event, Outcome
from reporting.delivery import CommitmentReport, CommitsStorage, Reporter

__all__ = ["UpkeepTimes", "Workflow", "WorkflowSettings"]

MOST_RECOVERIES: Mapping[JobKind, int] = {
    JobKind.CLOSE_SMEAR: 50,
    JobKind.DELIVER: 50,
    JobKind.CHECK_COMMITMENT: 50,
}
"""A job that ended its worker this often is parked."""

DATABASE_PAUSE_S = 2.0
"""How long a job waits before it enqueues again in a database that did not answer."""

REQUESTS_KEPT = timedelta(days=90)
"""Storage commitment requests that nobody reported on are deleted after this."""

_Received = StoredInstance | Callable[[], None] | None
"""An image, something to enqueue, or the end."""

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
    poll_s: float = 0.0
    """How often the queue is looked at for jobs of other processes; 0 is 0.1 s for SQLite, which
    counts its changes, and 0.25 s for PostgreSQL. Jobs of this process are seen at once."""
    upkeep: UpkeepTimes = field(default_factory=UpkeepTimes)

    @property
    def look_every_s(self) -> float:
        """The effective `poll_s`."""
        return self.poll_s or (0.1 if self.database_url.startswith("sqlite") else 0.25)


class Workflow:
    """Runs the durable jobs of one worker. Use: start, feed, stop. One per process."""

    def __init__(
        self,
        *,
        settings: WorkflowSettings,
        inbox: Inbox,
        images: ImageStep,
        reports: ReportStep,
        sender: Sender,
        destinations: Destinations,
        results: ResultsFolder,
        commitments: CommitmentReports,
        lease: WorkerLease,
        locks: WorkerLocks,
        audit: AuditSink,
        retention: Retention | None = None,
    ) -> None:
        self._settings = settings
        self._inbox = inbox
        self._images = images
        self._reports = reports
        self._sender = sender
        self._destinations = destinations
        self._results = results
        self._commitments = commitments
        self._lease = lease
        self._locks = locks
        self._audit = audit
        self._retention = retention
        self._received: SimpleQueue[_Received] = SimpleQueue()
        # OpenCV keeps 8 MB of fonts for each thread that has ever drawn: always the same ones draw.
        self._report_threads = ThreadPoolExecutor(settings.report_workers, "report")
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._parts: _Parts | None = None

    @property
    def client(self) -> QueueClient:
        """The queue's client; there from `start` on."""
        return self._running.client

    def start(self) -> None:
        """Open the queue, queue again what was left, and begin to work.

        Raises NeedsReview `database_damaged`, RetryLater `database_unavailable`.
        """
        prepare_database(self._settings.database_url)
        make_queue(self._settings.database_url)
        self._inbox.delete_partial_files()
        self._commitments.sweep(before=datetime.now(UTC) - REQUESTS_KEPT)
        self._results.sweep_drafts(self._lease.worker_id)
        parts = self._parts = self._make_parts()
        parts.client.set_limits(self._limits())
        try:
            parts.runner.start(self._functions(), recoveries=MOST_RECOVERIES)
        except SmearlinkError:
            parts.runner.stop(0.0)
            raise
        parts.client.on_images = parts.image_workers.notice
        parts.client.on_due = parts.dispatcher.wake
        parts.image_workers.start()
        parts.dispatcher.start()
        maintain = partial(parts.maintenance.run, self._settings.upkeep, self._stopping)
        for name, loop in (("feeder", self._feed), ("maintenance", maintain)):
            thread = threading.Thread(target=loop, name=f"workflow-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, grace_s: float) -> None:
        """Finish what is in progress within `grace_s`; the rest stays queued for the next start.

        Threads of a step that hangs longer are left behind: end the process afterwards.
        """
        self._stopping.set()
        self._received.put(None)
        if (parts := self._parts) is None:
            self._lease.close()
            return
        parts.image_workers.begin_stop()
        parts.dispatcher.stop()
        parts.runner.stop(grace_s)
        parts.image_workers.join(grace_s)
        for thread in self._threads:
            thread.join(timeout=grace_s)
        parts.client.close()
        # The lock goes last: until here this worker lives, and nobody takes its jobs.
        parts.maintenance.close()

    # --- called by the receiving side

    def image_received(self, image: StoredInstance) -> None:
        """Have an image analysed; never blocks. What is lost here is found in the inbox."""
        self._received.put(image)

    def association_released(self, images: Iterable[StoredInstance]) -> None:
        """The device has sent all: report the smears of these as soon as they are analysed."""
        if self._settings.close_on_release:
            for smear_id in {smear_id_of(image, self._settings.gather_by) for image in images}:
                self._received.put(partial(self.client.close_smear, smear_id))

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
        self._received.put(lambda: self._wake_commitment(report.transaction_uid))

    # --- called by the operator

    def reload(self, destinations: Iterable[DestinationQueue]) -> None:
        """Use other destinations; deliveries to one that is gone are parked."""
        self._destinations.replace(destinations)
        if self._parts is not None:
            self._parts.client.set_limits(self._limits())
            self._parts.runner.forget_limits()

    def status(self) -> WorkflowStatus:
        """Queue depths, and parked work with its reasons."""
        return self.client.status()

    def check_ready(self) -> None:
        """Raise RetryLater when the queue cannot take jobs now."""
        self.client.check()

    # --- the parts

    @property
    def _running(self) -> _Parts:
        if self._parts is None:
            raise Defect("The workflow was not started", code="not_started")
        return self._parts

    def _make_parts(self) -> _Parts:
        settings, worker_id = self._settings, self._lease.worker_id
        client = QueueClient(
            settings.database_url, inbox=self._inbox, gather_by=settings.gather_by, waits=True
        )
        transitions = Transitions(
            images=self._images,
            reports=self._reports,
            sender=self._sender,
            destinations=self._destinations,
            queue=client,
            audit=self._audit,
            quiet_s=settings.quiet_s,
            jitter=random.random,
        )
        image_workers = ImageWorkers(
            queue=client,
            transitions=transitions,
            inbox=self._inbox,
            worker_id=worker_id,
            threads=settings.analyse_workers,
            audit=self._audit,
        )
        runner = QueueRunner(
            database_url=settings.database_url,
            worker_id=worker_id,
            count_in_progress=partial(client.count_in_progress, worker_id),
        )
        return _Parts(
            client=client,
            transitions=transitions,
            image_workers=image_workers,
            runner=runner,
            dispatcher=Dispatcher(
                settings.database_url,
                client=client,
                runner=runner,
                on_images=image_workers.notice,
                poll_s=settings.look_every_s,
            ),
            maintenance=Maintenance(
                client=client,
                inbox=self._inbox,
                results=self._results,
                lease=self._lease,
                locks=self._locks,
                running=lambda: runner.running() | image_workers.running(),
                requeue=runner.requeue,
                requeue_of=runner.requeue_of,
                retention=self._retention,
                audit=self._audit,
            ),
        )

    # --- the jobs

    def _functions(self) -> Mapping[JobKind, Callable[..., None]]:
        def close_smear(smear_id: str, trigger: str, known: int | None, attempt: int) -> None:
            def report(flow: Transitions) -> None:
                close = partial(flow.close_smear, SmearId(smear_id), trigger, known, attempt)
                self._report_threads.submit(copy_context().run, close).result()

            self._run(report)

        def deliver(*arguments: Any) -> None:
            self._run(lambda flow: flow.deliver(DeliveryAttempt.of(arguments)))

        def check_commitment(*arguments: Any) -> None:
            self._run(lambda flow: flow.check_commitment(CommitmentWait.of(arguments)))

        return {
            JobKind.CLOSE_SMEAR: close_smear,
            JobKind.DELIVER: deliver,
            JobKind.CHECK_COMMITMENT: check_commitment,
        }

    def _limits(self) -> list[QueueLimits]:
        smears = QueueLimits(name=SMEARS, per_worker=self._settings.report_workers, per_partition=1)
        deliveries = [
            QueueLimits(name=one.queue, total=one.concurrency, per_minute=one.rate_per_minute)
            for one in self._destinations
        ]
        return [smears, *deliveries]

    def _run(self, job: Callable[[Transitions], None]) -> None:
        """The boundary of all jobs: what goes wrong has a name, or gets one and is recorded."""
        try:
            self._see_through(job)
        except SmearlinkError:
            raise
        except Exception as err:
            self._audit.record(
                Event.DEFECT_MET, outcome=Outcome.SERIOUS_FAILURE, error_type=type(err).__name__
            )
            raise Defect(f"{type(err).__name__} in a job", code="defect") from err
        finally:
            self._running.dispatcher.wake(OUTCOME_S)

    def _see_through(self, job: Callable[[Transitions], None]) -> None:
        """Do a job, again and again while what follows cannot be enqueued.

        The transitions try again later whatever the world is not ready for. What comes out of
        them is the queue itself, or a data folder that takes not even a parked image.
        """
        while True:
            try:
                return job(self._running.transitions)
            except RetryLater as err:
                _log.warning("a job waits: %s", type(err).__name__)
            if self._stopping.wait(DATABASE_PAUSE_S):
                raise Requeue

    # --- beside the jobs

    def _committing(self, reporter: Reporter) -> list[str]:
        """The destinations that this peer is."""
        return [
            one.name
            for one in self._destinations
            if isinstance(one.destination, CommitsStorage) and one.destination.is_reporter(reporter)
        ]

    def _wake_commitment(self, transaction_uid: str) -> None:
        for destination in self._destinations:
            self.client.wake(destination.queue, prefix=f"commitment:{transaction_uid}:")

    def _feed(self) -> None:
        """Enqueue what was received; images that arrive together in one transaction."""
        is_open = True
        while is_open:
            received = _take_all(self._received)
            is_open = None not in received
            images = [one for one in received if isinstance(one, StoredInstance)]
            actions = [one for one in received if callable(one)]
            if images:
                actions.insert(0, partial(self.client.enqueue_image, *images))
            for action in actions:
                try:
                    action()
                except Exception as err:  # noqa: BLE001 - a loop's boundary; see image_received
                    self._running.maintenance.note_missed()
                    _log.warning("queue feeder failed: %s", type(err).__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What runs from `start` to `stop`."""

    client: QueueClient
    transitions: Transitions
    image_workers: ImageWorkers
    runner: QueueRunner
    dispatcher: Dispatcher
    maintenance: Maintenance


def _take_all(queue: SimpleQueue[_Received]) -> list[_Received]:
    """Wait for the first, then take what else is there."""
    taken = [queue.get()]
    with suppress(Empty):
        while True:
            taken.append(queue.get_nowait())
    return taken

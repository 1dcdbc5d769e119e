"""The durable queue: what was received is analysed, reported and delivered, whatever is killed.

The only file that knows DBOS. A piece of work is a row with an id of its own, so asking twice is
asking once; it runs one step whose effects may be repeated, then asks for what follows. All that
must not be lost lies in files (inbox, results, receipts); a lost database is refilled from them.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSConfig, DBOSPortableJSONSerializer, EnqueueOptions
from dbos import WorkflowStatus as Row
from sqlalchemy.exc import SQLAlchemyError

from listener.boundary import named_errors
from listener.commitments import CommitmentReports
from listener.durable import make_folder
from listener.flow import Flow
from listener.gate import Closed, Gate
from listener.gather import GatherBy, smear_id_of
from listener.inbox import Inbox, ReceivedImage
from listener.jobs import (
    IMAGES,
    SMEARS,
    CommitmentWait,
    DeliveryTry,
    Job,
    JobKind,
    close_job,
    commitment_job,
    delivery_job,
    image_job,
    image_key,
    image_of,
)
from listener.outlet import Outlet
from listener.queue_tables import QueueCount, QueueTables
from listener.results_folder import ResultsFolder
from listener.sending import Outlets
from listener.status import ParkedWork, QueueStatus, WorkflowStatus, WorkKind
from listener.steps import Steps
from listener.worker_lock import Hold, WorkerLocks
from pipeline.domain import SeriesUID, SmearId, SOPInstanceUID
from pipeline.errors import Defect, NeedsReview, RetryLater, SmearlinkError
from reporting.audit import AuditSink, Event, Outcome
from reporting.delivery import CommitmentReport

APPLICATION = "smearlink"

QUEUE_FORMAT = "1"
"""DBOS's application version, pinned: work queued by one version of smearlink is taken up by the
next. It never changes; a function whose arguments change gets a new name (`JobKind`) instead."""

MOST_STARTS = 10
"""An analysis that was begun this often and never ended takes its worker down: it is parked."""

SUSPECT_FROM = 3
"""From this start on an analysis runs alone, so that no other is blamed for its crashes."""

MOST_RECOVERIES = 50
"""A report or a delivery that ended its worker this often is left for a person to see."""

CLAIMED_AHEAD = 4
"""Images that a worker claims for each that it analyses, so that polling never leaves it idle."""

_FAILED = ["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
_CHUNK = 500
_KINDS = {
    JobKind.ANALYSE_IMAGE: WorkKind.IMAGE,
    JobKind.CLOSE_SMEAR: WorkKind.REPORT,
    JobKind.DELIVER: WorkKind.DELIVERY,
    JobKind.CHECK_COMMITMENT: WorkKind.COMMITMENT,
}
_log = logging.getLogger(__name__)


class WorkClient:
    """Asks for work, looks at it and takes parked work up again; runs none itself.

    For the command line, beside or without a running service.
    """

    def __init__(self, database_url: str, *, inbox: Inbox, gather_by: GatherBy) -> None:
        """Raises RetryLater `database_unavailable` when there is no queue to look at."""
        _route_log()
        self._inbox = inbox
        self._gather_by = gather_by
        self.tables = QueueTables(database_url)
        self.tables.check_schema()
        self._client = DBOSClient(
            system_database_url=database_url,
            application_name=APPLICATION,
            serializer=DBOSPortableJSONSerializer(),
        )

    def destroy(self) -> None:
        """Let go of the database."""
        self._client.destroy()
        self.tables.close()

    def ask(self, job: Job) -> None:
        """Have a job done, once for its id; durable on return."""
        options: EnqueueOptions = {
            "workflow_name": job.kind.value,
            "queue_name": job.queue,
            "workflow_id": job.id,
            "queue_partition_key": job.smear_id,
            "app_version": QUEUE_FORMAT,
        }
        if job.delay_s > 0:
            options["delay_seconds"] = job.delay_s
            options["attributes"] = {"delay_s": job.delay_s}
        self._client.enqueue(options, *job.arguments)

    def ask_for_image(self, image: ReceivedImage) -> None:
        """Have an image analysed."""
        smear_id = smear_id_of(image, self._gather_by)
        self.ask(image_job(image.sop_instance_uid, smear_id))

    def unfinished_images(self, smear_id: SmearId) -> Iterator[SOPInstanceUID]:
        """Images of a smear whose analysis is queued or in hand."""
        return (image_of(job_id) for job_id in self.tables.unfinished(IMAGES, smear_id))

    def not_asked(self, images: Sequence[SOPInstanceUID]) -> list[SOPInstanceUID]:
        """Those images that the queue has never heard of."""
        rows = self._client.list_workflows(
            workflow_ids=[image_key(image) for image in images], load_input=False, load_output=False
        )
        known = {row.workflow_id for row in rows}
        return [image for image in images if image_key(image) not in known]

    def close(self, smear_id: SmearId) -> None:
        """Have a smear reported as soon as its images are analysed, without a quiet time."""
        self.ask(close_job(smear_id, trigger=f"wish-{uuid4().hex}", known=None))

    def status(self) -> WorkflowStatus:
        """What waits where, and what was parked why."""
        now = datetime.now(UTC)
        return WorkflowStatus(
            at=now,
            queues=_queue_statuses(self.tables, now),
            parked=(*self._parked_images(), *map(_parked_work, self._failed())),
            workers=tuple(self.tables.executors()),
        )

    def retry(self, key: str) -> int:
        """Take parked work up again, by its key or by an image, smear or destination; how much."""
        return self._retry(lambda parked: key in _names_of(parked))

    def retry_all(self, destination: str | None = None) -> int:
        """Take up all parked work again, or all of one destination; how much."""
        return self._retry(lambda parked: destination in (None, parked.destination))

    def drop_parked_deliveries(self, smear_id: SmearId, destination: str, *, below: int) -> None:
        """Forget parked deliveries of versions below one that has arrived."""
        for row in self._failed(name=JobKind.DELIVER.value) if below > 1 else ():
            go = DeliveryTry.of(_arguments(row))
            if (go.smear_id, go.destination) == (smear_id, destination) and go.version < below:
                self._client.delete_workflow(row.workflow_id)

    def starts(self, job_id: str) -> int:
        """How often a piece of work was begun."""
        rows = self._client.list_workflows(
            workflow_ids=[job_id], load_input=False, load_output=False
        )
        return int((rows[0].attributes or {}).get("starts", 0)) if rows else 0

    def note_start(self, job_id: str, starts: int) -> None:
        """Note, durably, that a piece of work is begun for the n-th time."""
        self._client.update_workflow_attributes(job_id, {"starts": starts})

    def forget_image(self, image: SOPInstanceUID) -> None:
        """Forget that an image was ever asked for, and that its smear was closed for it."""
        key = image_key(image)
        rows = [
            row
            for prefix in (f"{key}:", f"close:{self._smear_of(image)}:{image}")
            for row in self._client.list_workflows(
                workflow_id_prefix=prefix, load_input=False, load_output=False
            )
        ]
        self._client.delete_workflows([key, *(row.workflow_id for row in rows)])

    def hasten_delays(self, now: datetime) -> int:
        """Shorten delays that a clock set back has made longer than they were meant; how many."""
        now_ms = int(now.timestamp() * 1000)
        rows = self._client.list_workflows(
            workflow_ids=self.tables.delayed_from_the_future(now_ms), load_input=False
        )
        late = [row for row in rows if _is_too_late(row, now_ms)]
        for row in late:
            self._client.set_workflow_delay(row.workflow_id, delay_seconds=_meant_delay_s(row))
        return len(late)

    def wake(self, queue: str, prefix: str) -> None:
        """Run delayed work of a queue now."""
        for job_id in self.tables.delayed(queue):
            if job_id.startswith(prefix):
                self._client.set_workflow_delay(job_id, delay_seconds=0.0)

    def _failed(self, name: str | None = None) -> list[Row]:
        return self._client.list_workflows(status=_FAILED, name=name)

    def _parked_images(self) -> Iterator[ParkedWork]:
        for image, code in self._inbox.parked():
            yield ParkedWork(
                key=image_key(image),
                kind=WorkKind.IMAGE,
                code=code,
                message="The image was set aside; the audit trail says more",
                since=None,
                sop_instance_uid=image,
            )

    def _retry(self, is_meant: Callable[[ParkedWork], bool]) -> int:
        images = [parked for parked in self._parked_images() if is_meant(parked)]
        for parked in images:
            self._retry_image(SOPInstanceUID(parked.sop_instance_uid))
        rows = [row for row in self._failed() if is_meant(_parked_work(row))]
        for row in rows:
            # First the new, then without the old: a kill between leaves both, and asks once.
            self.ask(_once_more(row))
            self._client.delete_workflow(row.workflow_id)
        return len(images) + len(rows)

    def _retry_image(self, image: SOPInstanceUID) -> None:
        self.forget_image(image)
        self._inbox.unpark(image)
        self.ask_for_image(self._inbox.facts(image))

    def _smear_of(self, image: SOPInstanceUID) -> SmearId:
        return smear_id_of(self._inbox.facts(image), self._gather_by)


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
    takeover_s: float = 2.0
    """How often dead workers are looked for."""
    reconcile_s: float = 60.0
    """How often the inbox is compared with the queue."""


class Workflow:
    """Runs the durable work of one worker. Use: start, feed, stop. One a process."""

    def __init__(
        self,
        *,
        settings: WorkflowSettings,
        inbox: Inbox,
        steps: Steps,
        outlets: Outlets,
        results: ResultsFolder,
        commitments: CommitmentReports,
        hold: Hold,
        locks: WorkerLocks,
        audit: AuditSink,
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
        self._soon: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._open_series: dict[SeriesUID, set[SmearId]] = {}
        self._asked: set[SOPInstanceUID] = set()
        self._stopping = threading.Event()
        self._gate = Gate(settings.analyse_workers)
        self._threads: list[threading.Thread] = []
        self._client: WorkClient | None = None

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
        _route_log()
        prepare_database(settings.database_url)
        self._results.sweep_drafts(self._hold.worker_id)
        DBOS(config=_dbos_config(settings.database_url, self._hold.worker_id))
        self._register()
        with _database_trouble():
            DBOS.launch()
            self._register_queues()
            self._client = WorkClient(
                settings.database_url, inbox=self._inbox, gather_by=settings.gather_by
            )
        for name, loop in (("feeder", self._feed), ("keeper", self._keep)):
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
        DBOS.destroy(workflow_completion_timeout_sec=round(grace_s), destroy_registry=True)
        for thread in self._threads:
            thread.join(timeout=grace_s)
        self.client.destroy()
        self._hold.close()

    def image_received(self, image: ReceivedImage) -> None:
        """Have an image analysed; never blocks. Whatever is lost here is found in the inbox."""
        if self._settings.close_on_release:
            smears = self._open_series.setdefault(image.series_uid, set())
            smears.add(smear_id_of(image, self._settings.gather_by))
        self._soon.put(lambda: self.client.ask_for_image(image))

    def series_released(self, series_uids: Iterable[SeriesUID]) -> None:
        """The device has sent all of these: report them as soon as they are analysed."""
        for series_uid in series_uids:
            for smear_id in self._open_series.pop(series_uid, ()):
                self._soon.put(partial(self.client.close, smear_id))

    def record_commitment(self, report: CommitmentReport) -> None:
        """Keep a storage commitment report, durable on return, and have it read soon.

        Raises RetryLater when the disk does not take it.
        """
        with named_errors():
            self._commitments.keep(report)
        self._soon.put(lambda: self._wake_commitment(report.transaction_uid))

    def reload(self, outlets: Iterable[Outlet]) -> None:
        """Go on with other destinations; work of one that is gone will park."""
        self._outlets.replace(outlets)
        self._register_queues()

    def status(self) -> WorkflowStatus:
        """What waits where, and what was parked why."""
        return self.client.status()

    def check_ready(self) -> None:
        """Raise RetryLater when the queue cannot take work now."""
        self.client.tables.check()

    def reconcile(self) -> int:
        """Ask for every image of the inbox that the queue has not heard of; how many those are."""
        present = set(self._inbox.waiting())
        self._asked &= present
        count = 0
        for chunk in _chunks(sorted(present - self._asked)):
            for image in self.client.not_asked(chunk):
                self.client.ask_for_image(self._inbox.facts(image))
                count += 1
            self._asked.update(chunk)
        return count

    def take_over(self) -> int:
        """Queue again what dead workers had in hand; how many workers that were."""
        count = 0
        for worker_id in self.client.tables.executors():
            hold = None if worker_id == self._hold.worker_id else self._locks.try_take(worker_id)
            if hold is None:
                continue
            with closing(hold):
                self._results.sweep_drafts(worker_id)
                # Not DBOSClient.resume_workflow: that forgets how often a piece was tried, and a
                # piece that kills its worker would then kill one worker after the other.
                DBOS._recover_pending_workflows([worker_id])
            self._audit.record(Event.WORKER_TAKEN_OVER, worker_id=worker_id)
            count += 1
        return count

    def _register(self) -> None:
        flow = Flow(
            steps=self._steps,
            outlets=self._outlets,
            queue=_Late(lambda: self.client),
            audit=self._audit,
            quiet_s=self._settings.quiet_s,
            jitter=random.random,
        )

        def analyse_image(image: str, smear_id: str, attempt: int) -> None:
            self._run(lambda: self._analyse(flow, SOPInstanceUID(image), smear_id, attempt))

        def close_smear(smear_id: str, trigger: str, known: int | None, attempt: int) -> None:
            self._run(lambda: flow.close_smear(SmearId(smear_id), trigger, known, attempt))

        def deliver(*arguments: Any) -> None:
            self._run(lambda: flow.deliver(DeliveryTry.of(arguments)))

        def check_commitment(*arguments: Any) -> None:
            self._run(lambda: flow.check_commitment(CommitmentWait.of(arguments)))

        functions: dict[JobKind, Callable[..., None]] = {
            JobKind.ANALYSE_IMAGE: analyse_image,
            JobKind.CLOSE_SMEAR: close_smear,
            JobKind.DELIVER: deliver,
            JobKind.CHECK_COMMITMENT: check_commitment,
        }
        for kind, function in functions.items():
            # Images are claimed ahead, so being claimed by a worker that died proves nothing
            # against one: `_analyse` counts starts instead.
            most = None if kind is JobKind.ANALYSE_IMAGE else MOST_RECOVERIES
            DBOS.workflow(name=kind.value, max_recovery_attempts=most)(function)

    def _register_queues(self) -> None:
        settings = self._settings
        register = partial(
            DBOS.register_queue,
            polling_interval_sec=2 * settings.poll_s,
            on_conflict="always_update",
        )
        register(
            IMAGES,
            worker_concurrency=settings.analyse_workers * CLAIMED_AHEAD,
            polling_interval_sec=settings.poll_s,
        )
        register(SMEARS, worker_concurrency=settings.report_workers, partition_concurrency=1)
        for outlet in self._outlets:
            rate = outlet.rate_per_minute
            register(
                outlet.queue,
                global_concurrency=outlet.concurrency,
                limiter={"limit": rate, "period": 60.0} if rate else None,
            )

    def _run(self, piece: Callable[[], None]) -> None:
        """The boundary of all work: what goes wrong has a name, or gets one and is recorded."""
        try:
            piece()
        except SmearlinkError:
            raise
        except Exception as err:
            self._audit.record(
                Event.DEFECT_MET, outcome=Outcome.SERIOUS_FAILURE, error_type=type(err).__name__
            )
            raise Defect(f"{type(err).__name__} in a piece of work", code="defect") from err

    def _analyse(self, flow: Flow, image: SOPInstanceUID, smear_id: str, attempt: int) -> None:
        job = image_job(image, SmearId(smear_id), attempt=attempt)
        starts = self.client.starts(job.id) + 1
        try:
            with self._gate.entered(is_alone=starts >= SUSPECT_FROM):
                self.client.note_start(job.id, starts)
                if starts > MOST_STARTS:
                    flow.park_crasher(image, job.smear_id)
                else:
                    flow.analyse_image(image, job.smear_id, attempt)
        except Closed:
            raise HandedBack from None

    def _wake_commitment(self, transaction_uid: str) -> None:
        for outlet in self._outlets:
            self.client.wake(outlet.queue, prefix=f"commitment:{transaction_uid}:")

    def _feed(self) -> None:
        while (piece := self._soon.get()) is not None:
            with self._noted():
                piece()

    def _keep(self) -> None:
        seconds_left = 0.0
        while not self._stopping.is_set():
            with self._noted():
                self._keep_lock()
                self.take_over()
            if seconds_left <= 0:
                seconds_left = self._settings.reconcile_s
                with self._noted():
                    self.reconcile()
                    self.client.hasten_delays(datetime.now(UTC))
            seconds_left -= self._settings.takeover_s
            self._stopping.wait(self._settings.takeover_s)

    def _keep_lock(self) -> None:
        if self._hold.is_held():
            return
        self._hold.close()
        hold = self._locks.try_take(self._hold.worker_id)
        if hold is not None:
            self._hold = hold

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Keep a loop alive: the next round tries again, as nothing here is the only copy."""
        try:
            yield
        except Exception as err:  # noqa: BLE001 - the boundary of a loop
            if not self._stopping.is_set():
                _log.warning("queue upkeep failed: %s", type(err).__name__)


class HandedBack(BaseException):
    """Ends a claimed piece of work at a stop without an outcome, so that it runs again later.

    Not an Exception: DBOS writes those down as the outcome.
    """


@dataclass(frozen=True, slots=True)
class _Late:
    """The client as a WorkQueue, asked for when it is needed: it opens after the functions."""

    client: Callable[[], WorkClient]

    def ask(self, job: Job) -> None:
        self.client().ask(job)

    def unfinished_images(self, smear_id: SmearId) -> Iterator[SOPInstanceUID]:
        return self.client().unfinished_images(smear_id)

    def drop_parked_deliveries(self, smear_id: SmearId, destination: str, *, below: int) -> None:
        self.client().drop_parked_deliveries(smear_id, destination, below=below)


def prepare_database(database_url: str) -> None:
    """Make an SQLite file fit: whole, and in write-ahead mode before DBOS opens it.

    WAL gives two to three times the throughput. PostgreSQL needs nothing.
    """
    url = sa.make_url(database_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        return
    path = Path(url.database)
    try:
        make_folder(path.parent)
        with closing(sqlite3.connect(path, timeout=10)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as err:
        raise RetryLater(
            f"{path.name} cannot be opened: check that the data folder is there, has room and "
            "may be written to, and that no other program holds the file",
            code="database_unavailable",
        ) from err
    except (sqlite3.DatabaseError, OSError) as err:
        raise _damaged(path) from err
    if verdict != "ok":
        raise _damaged(path)


def _damaged(path: Path) -> NeedsReview:
    return NeedsReview(
        f"{path.name} is damaged. Move it away (with its -wal and -shm files) and start again: "
        "the queue is refilled from the inbox and the results; nothing accepted is lost",
        code="database_damaged",
    )


def _dbos_config(database_url: str, worker_id: str) -> DBOSConfig:
    return {
        "name": APPLICATION,
        "system_database_url": database_url,
        "application_version": QUEUE_FORMAT,
        "executor_id": worker_id,
        "serializer": DBOSPortableJSONSerializer(),
        "enable_otlp": False,
        "log_level": "WARNING",
    }


def _route_log() -> None:
    """Send DBOS's log where all logs go, before DBOS gives it a handler of its own on stderr."""
    logger = logging.getLogger("dbos")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    logger.setLevel(logging.WARNING)
    logger.propagate = True


@contextmanager
def _database_trouble() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as err:
        raise RetryLater(
            "The work queue's database does not answer: check database.url and the server",
            code="database_unavailable",
        ) from err


def _queue_statuses(tables: QueueTables, now: datetime) -> tuple[QueueStatus, ...]:
    now_ms = now.timestamp() * 1000
    by_queue: dict[str, list[QueueCount]] = {}
    for count in tables.counts():
        by_queue.setdefault(count.queue, []).append(count)
    return tuple(
        QueueStatus(
            name=name,
            waiting=_total(counts, "ENQUEUED"),
            delayed=_total(counts, "DELAYED"),
            in_work=_total(counts, "PENDING"),
            oldest_age_s=max(0.0, (now_ms - min(count.oldest_ms for count in counts)) / 1000),
        )
        for name, counts in sorted(by_queue.items())
    )


def _total(counts: Iterable[QueueCount], status: str) -> int:
    return sum(count.count for count in counts if count.status == status)


def _arguments(row: Row) -> tuple[Any, ...]:
    return tuple(row.input["args"]) if row.input else ()


def _parked_work(row: Row) -> ParkedWork:
    kind = JobKind(row.name)
    arguments = _arguments(row)
    code, message = _reason(row)
    is_image = kind is JobKind.ANALYSE_IMAGE
    return ParkedWork(
        key=row.workflow_id,
        kind=_KINDS[kind],
        code=code,
        message=message,
        since=_moment(row.completed_at or row.updated_at),
        smear_id=arguments[1] if is_image else arguments[0],
        sop_instance_uid=arguments[0] if is_image else "",
        destination=arguments[2] if len(arguments) > 4 else "",
    )


def _reason(row: Row) -> tuple[str, str]:
    if row.error is None:
        return "crashed_repeatedly", "Its worker ended again and again while this was in hand"
    return str(getattr(row.error, "code", None) or "defect"), str(row.error)


def _once_more(row: Row) -> Job:
    kind, arguments = JobKind(row.name), _arguments(row)
    if kind is JobKind.DELIVER:
        go = DeliveryTry.of(arguments)
        return delivery_job(replace(go, series=go.series + 1, attempt=1, tries=1))
    if kind is JobKind.CHECK_COMMITMENT:
        wait = CommitmentWait.of(arguments)
        return commitment_job(replace(wait, asked=0, look=wait.look + 1), delay_s=0.0)
    if kind is JobKind.CLOSE_SMEAR:
        return close_job(arguments[0], trigger=f"wish-{uuid4().hex}", known=None)
    return image_job(arguments[0], arguments[1], attempt=arguments[2] + 1)


def _names_of(parked: ParkedWork) -> tuple[str, ...]:
    return parked.key, parked.smear_id, parked.sop_instance_uid, parked.destination


def _moment(epoch_ms: int | None) -> datetime | None:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC) if epoch_ms else None


def _meant_delay_s(row: Row) -> float:
    return float((row.attributes or {}).get("delay_s", 0.0))


def _is_too_late(row: Row, now_ms: int) -> bool:
    until_ms = row.delay_until_epoch_ms or 0
    return row.status == "DELAYED" and until_ms > now_ms + _meant_delay_s(row) * 1000


def _chunks(images: Sequence[SOPInstanceUID]) -> Iterator[Sequence[SOPInstanceUID]]:
    return (images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK))

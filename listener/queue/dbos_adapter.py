"""DBOS: its client, its rows, and the runner that claims and executes jobs through it.

What DBOS 3.4 does on its own, and what is done about it, is described in docs/adr/0002.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSConfig, DBOSPortableJSONSerializer
from dbos import WorkflowStatus as _DbosRow
from dbos._core import execute_dequeued_workflow
from dbos._queue import Queue
from dbos._utils import INTERNAL_QUEUE_NAME, GlobalParams, generate_uuid
from sqlalchemy.exc import DBAPIError

from listener.queue.database import keep_vacuumed, open_engine, translate_database_errors
from listener.queue.jobs import IMAGES, JobKind

APPLICATION = "smearlink"

QUEUE_FORMAT = "1"
"""DBOS's application version, pinned: jobs queued by one version of smearlink are run by the next.
It never changes; a function whose arguments change gets a new name (`JobKind`) instead."""

SERIALIZATION = "portable_json"

_NOTICE_STOP_S = 0.05
"""How soon the end of jobs in progress is noticed at a stop."""

_NOTIFICATIONS_S = 0.5
"""How often DBOS looks for messages, which we send none; it ends only then."""

_RECOVERY_S = 30.0
"""What is not queued again by then is found by `Maintenance.requeue_orphans`."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRow:
    """One job as the database keeps it."""

    id: str
    kind: JobKind
    arguments: tuple[Any, ...]
    """Empty when they were not asked for."""
    is_delayed: bool
    delay_s: float
    """The delay that was meant when it was enqueued; 0 without one."""
    delayed_until_ms: int
    starts: int
    """How often it was begun; counted for images only."""
    queue: str
    smear_id: str
    error: BaseException | None
    """How it ended, if it failed; None also when it ended its worker again and again."""
    ended_at: datetime | None


def open_dbos_client(engine: sa.Engine, *, waits: bool) -> DBOSClient:
    """DBOS's client on our connections.

    With `waits` a call that loses its connection comes back when the database does.
    """
    route_log()
    return DBOSClient(
        system_database_engine=engine,
        application_name=APPLICATION,
        retry_connection_errors=waits,
        serializer=DBOSPortableJSONSerializer(),
    )


def read_row(found: _DbosRow) -> QueueRow:
    """A row of DBOS in our terms."""
    attributes = found.attributes or {}
    ended_ms = found.completed_at or found.updated_at
    return QueueRow(
        id=found.workflow_id,
        kind=JobKind(found.name),
        arguments=tuple(found.input["args"]) if found.input else (),
        is_delayed=found.status == "DELAYED",
        delay_s=float(attributes.get("delay_s", 0.0)),
        delayed_until_ms=found.delay_until_epoch_ms or 0,
        starts=int(attributes.get("starts", 0)),
        queue=found.queue_name or "",
        smear_id=found.queue_partition_key or "",
        error=found.error,
        ended_at=datetime.fromtimestamp(ended_ms / 1000, UTC) if ended_ms else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How many jobs of a queue run at once."""

    name: str
    per_worker: int | None = None
    """Jobs in progress in one worker at most; None for any number."""
    total: int | None = None
    """Jobs in progress in all workers together at most."""
    per_partition: int | None = None
    """Jobs in progress of one partition (one smear) at most."""
    per_minute: int = 0
    """Jobs begun per minute at most; 0 for any number."""


class QueueRunner:
    """Runs the durable jobs of one worker: one per process, as DBOS allows one.

    Images are not among them: they are claimed in batches (`QueueClient.claim_images`).
    """

    def __init__(
        self,
        *,
        database_url: str,
        worker_id: str,
        count_in_progress: Callable[[str | None], int],
    ) -> None:
        """`count_in_progress` says how many jobs of a queue, or of all, this worker has claimed."""
        route_log()
        self._worker_id = worker_id
        self._count_in_progress = count_in_progress
        self._engine = open_engine(database_url)
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_engine": self._engine,
            "application_version": QUEUE_FORMAT,
            "executor_id": worker_id,
            "serializer": DBOSPortableJSONSerializer(),
            "enable_otlp": False,
            "log_level": "WARNING",
            "notification_listener_polling_interval_sec": _NOTIFICATIONS_S,
        }
        self._dbos = DBOS(config=config)
        self._queues: dict[str, Queue] = {}
        self._claiming = threading.Lock()
        self._is_stopping = False

    def start(
        self, functions: Mapping[JobKind, Callable[..., None]], *, recoveries: Mapping[JobKind, int]
    ) -> None:
        """Make the tables if there are none, and queue again what this worker left when it died.

        `recoveries` says how often a job may end its worker before it is given up; a kind that is
        not named there is never given up.
        """
        for kind, function in functions.items():
            DBOS.workflow(name=kind.value, max_recovery_attempts=recoveries.get(kind))(function)
        # DBOS's own threads would look at each queue several times a second.
        DBOS.listen_queues([])
        with translate_database_errors():
            DBOS.launch()
        self._wait_for_recovery()
        for stopping in (
            *self._dbos.background_thread_stop_events,
            self._dbos._background_jobs_stop_event,
        ):
            stopping.set()

    def claim(self, names: Iterable[str]) -> None:
        """Claim and begin what the limits of these queues allow; images are left alone."""
        for name in names:
            queue = self._queue(name) if name != IMAGES else None
            # A stop waits for this lock: what is claimed after it would never be begun.
            with self._claiming:
                if queue is not None and not self._is_stopping:
                    self._claim(queue)

    def forget_limits(self) -> None:
        """Read the limits of the queues again at the next claim."""
        self._queues = {}

    def requeue_of(self, worker_id: str) -> None:
        """Queue again what a dead worker had in progress.

        Not DBOSClient.resume_workflow: that forgets how often a job was tried, and a job that
        ends its worker would then end one worker after the other.
        """
        with translate_database_errors():
            DBOS._recover_pending_workflows([worker_id])

    def running(self) -> set[str]:
        """Ids of the jobs that a thread of this runner executes."""
        return set(self._dbos._active_workflows_set.activeList())

    def requeue(self, job_id: str) -> None:
        """Queue again a job that this worker has claimed; nothing if it ended meanwhile."""
        with translate_database_errors():
            self._dbos._sys_db.reenqueue_for_recovery(
                job_id, [self._worker_id], INTERNAL_QUEUE_NAME
            )

    def stop(self, grace_s: float) -> None:
        """Let what is in progress end within `grace_s`; the rest stays queued."""
        with self._claiming:
            self._is_stopping = True
        self._finish(grace_s)
        DBOS.destroy(destroy_registry=True)
        self._engine.dispose()

    def _wait_for_recovery(self) -> None:
        """Until DBOS has queued again what this worker left: it does so on a thread of its own."""
        give_up = time.monotonic() + _RECOVERY_S
        while self._count_in_progress(None) and time.monotonic() < give_up:
            time.sleep(_NOTICE_STOP_S)

    def _finish(self, grace_s: float) -> None:
        """Wait for what was claimed. DBOS's own wait looks once a second."""
        give_up = time.monotonic() + grace_s
        quiet_looks = 0
        # Twice, as what was claimed last is in progress only a moment later.
        while quiet_looks < 2 and (left_s := give_up - time.monotonic()) > 0:
            quiet_looks = 0 if self.running() else quiet_looks + 1
            time.sleep(min(left_s, _NOTICE_STOP_S))

    def _queue(self, name: str) -> Queue | None:
        if name not in self._queues:
            with translate_database_errors():
                known = self._dbos._sys_db.list_queues(application_name=APPLICATION)
            self._queues = {queue.name: queue for queue in known}
        return self._queues.get(name)

    def _claim(self, queue: Queue) -> None:
        owner = generate_uuid()
        with translate_database_errors():
            try:
                claimed = self._claimed(queue, owner)
            except DBAPIError as err:
                database = self._dbos._sys_db
                if database.is_lock_conflict(err) or database.is_serialization_conflict(err):
                    return  # another worker is claiming: the next look comes soon
                raise
            found = self._dbos._sys_db.get_workflow_statuses(claimed) if claimed else []
        for status in found:
            try:
                execute_dequeued_workflow(self._dbos, status, owner)
            except Exception as err:  # noqa: BLE001 - one bad row stops no other
                _log.warning("a claimed job cannot be begun: %s", type(err).__name__)

    def _claimed(self, queue: Queue, owner: str) -> list[str]:
        database, version = self._dbos._sys_db, GlobalParams.app_version
        running = 0
        if queue._worker_concurrency is not None:
            running = self._count_in_progress(queue.name)
        if queue._partition_concurrency == 1:
            room = (queue._worker_concurrency or 1) - running
            if room <= 0:
                return []
            return list(
                database.start_queued_partitioned_workflows(
                    queue, self._worker_id, version, room, owner_xid=owner, is_latest_version=True
                )
            )
        claimed, _ = database.start_queued_workflows(
            queue, self._worker_id, version, None, running, owner_xid=owner, is_latest_version=True
        )
        return claimed


class Requeue(BaseException):
    """Ends a claimed job at a stop without an outcome, so that it runs again later.

    Not an Exception: DBOS writes those down as the outcome.
    """


def make_queue(database_url: str) -> None:
    """Make the queue's tables, or bring them up to date, without running jobs."""
    route_log()
    with translate_database_errors():
        DBOS.migrate(system_database_url=database_url)
    keep_vacuumed(database_url)


def route_log() -> None:
    """Send DBOS's log where all logs go, before DBOS gives it a handler of its own on stderr."""
    logger = logging.getLogger("dbos")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    logger.setLevel(logging.WARNING)
    logger.propagate = True

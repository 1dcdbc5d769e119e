"""The only file that knows DBOS: puts work into its tables, looks at it, and runs it.

What DBOS 3.4 does on its own, and what is done about it, is told in docs/adr/0002.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dbos import DBOS, DBOSClient, DBOSConfig, DBOSPortableJSONSerializer, EnqueueOptions
from dbos import WorkflowStatus as _DbosRow
from dbos._utils import INTERNAL_QUEUE_NAME

from listener.queue.database import database_trouble
from listener.queue.jobs import Job, JobKind
from listener.queue.queries import UNFINISHED

APPLICATION = "smearlink"

QUEUE_FORMAT = "1"
"""DBOS's application version, pinned: work queued by one version of smearlink is taken up by the
next. It never changes; a function whose arguments change gets a new name (`JobKind`) instead."""

_NOTICE_STOP_S = 0.05
"""How soon an end is noticed: of the work in hand, and by DBOS's listener for messages, which we
send none."""

_CLAIMER = "queue-worker-"
"""How DBOS names the threads that claim work."""

_FAILED = ["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRow:
    """One piece of work as the database keeps it."""

    id: str
    kind: JobKind
    arguments: tuple[Any, ...]
    """Empty when they were not asked for."""
    is_delayed: bool
    delay_s: float
    """The delay that was meant when it was asked for; 0 without one."""
    delayed_until_ms: int
    starts: int
    """How often it was begun, as far as `DurableQueue.note_start` was told."""
    queue: str
    smear_id: str
    error: BaseException | None
    """How it ended, if it failed; None also when it ended its worker again and again."""
    ended_at: datetime | None


class DurableQueue:
    """Puts work in and looks at it, from any process; runs none."""

    def __init__(self, database_url: str, *, waits: bool = False) -> None:
        """With `waits` a call that loses its connection comes back when the database does."""
        route_log()
        with database_trouble():
            self._client = DBOSClient(
                system_database_url=database_url,
                application_name=APPLICATION,
                retry_connection_errors=waits,
                serializer=DBOSPortableJSONSerializer(),
            )

    def close(self) -> None:
        """Let go of the database."""
        self._client.destroy()

    def put(self, job: Job) -> None:
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
        with database_trouble():
            self._client.enqueue(options, *job.arguments)

    def rows(self, job_ids: Iterable[str]) -> list[QueueRow]:
        """Those of the named pieces of work that exist, without their arguments."""
        named = list(job_ids)
        # DBOS takes an empty list for no condition.
        return self._rows(workflow_ids=named, load_input=False, load_output=False) if named else []

    def rows_beginning(self, prefix: str) -> list[QueueRow]:
        """All pieces of work whose id begins so, without their arguments."""
        return self._rows(workflow_id_prefix=prefix, load_input=False, load_output=False)

    def left(self) -> list[QueueRow]:
        """Work that has not ended well yet, failed work included, with its arguments; in order."""
        return self._rows(status=[*UNFINISHED, *_FAILED], load_output=False)

    def failed(self, kind: JobKind | None = None) -> list[QueueRow]:
        """Work that ended in an error, with its arguments."""
        return self._rows(status=_FAILED, name=kind.value if kind else None)

    def delete(self, job_ids: Iterable[str]) -> None:
        """Forget pieces of work, and that they were ever asked for."""
        with database_trouble():
            self._client.delete_workflows(list(job_ids))

    def delay(self, job_id: str, delay_s: float) -> None:
        """Have delayed work wait this long from now."""
        with database_trouble():
            self._client.set_workflow_delay(job_id, delay_seconds=delay_s)

    def note_start(self, job_id: str, starts: int) -> None:
        """Note, durably, that a piece of work is begun for the n-th time."""
        with database_trouble():
            self._client.update_workflow_attributes(job_id, {"starts": starts})

    def set_limits(self, limits: Iterable[QueueLimits]) -> None:
        """Have these queues worked off, each within its limits; other known ones go on as they are.

        A runner that is at work learns of a new queue within a second, of new limits at its next
        look.
        """
        for queue in limits:
            with database_trouble():
                self._client.register_queue(
                    queue.name,
                    polling_interval_sec=queue.poll_s,
                    worker_concurrency=queue.per_worker,
                    global_concurrency=queue.total,
                    partition_concurrency=queue.per_partition,
                    limiter={"limit": queue.per_minute, "period": 60.0}
                    if queue.per_minute
                    else None,
                )

    def _rows(self, **chosen: Any) -> list[QueueRow]:
        with database_trouble():
            return [_row(found) for found in self._client.list_workflows(**chosen)]


def _row(found: _DbosRow) -> QueueRow:
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
    """How one queue is worked off."""

    name: str
    poll_s: float
    """How often it is looked at."""
    per_worker: int | None = None
    """Pieces that one worker has in hand at most; None for any number."""
    total: int | None = None
    """Pieces that all workers together have in hand at most."""
    per_partition: int | None = None
    """Pieces of one partition (one smear) that are in hand at most."""
    per_minute: int = 0
    """Pieces that are begun in a minute at most; 0 for any number."""


class QueueRunner:
    """Runs the durable work of one worker: one a process, as DBOS allows one."""

    def __init__(self, *, database_url: str, worker_id: str) -> None:
        route_log()
        self._database_url = database_url
        self._worker_id = worker_id
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": database_url,
            "application_version": QUEUE_FORMAT,
            "executor_id": worker_id,
            "serializer": DBOSPortableJSONSerializer(),
            "enable_otlp": False,
            "log_level": "WARNING",
            "notification_listener_polling_interval_sec": _NOTICE_STOP_S,
        }
        self._dbos = DBOS(config=config)

    def start(
        self,
        functions: Mapping[JobKind, Callable[..., None]],
        *,
        recoveries: Mapping[JobKind, int],
        limits: Iterable[QueueLimits],
    ) -> None:
        """Begin to work, at once also on what this worker left when it was last killed.

        `recoveries` says how often work may end its worker before it is given up; a kind that is
        not named there is never given up.
        """
        for kind, function in functions.items():
            DBOS.workflow(name=kind.value, max_recovery_attempts=recoveries.get(kind))(function)
        # Before the launch: queues that come later are noticed a second later.
        make_queue(self._database_url)
        with closing(DurableQueue(self._database_url)) as queue:
            queue.set_limits(limits)
        with database_trouble():
            DBOS.launch()

    def requeue_of(self, worker_id: str) -> None:
        """Queue again what a dead worker had in hand.

        Not DBOSClient.resume_workflow: that forgets how often a piece was tried, and a piece that
        ends its worker would then end one worker after the other.
        """
        with database_trouble():
            DBOS._recover_pending_workflows([worker_id])

    def running(self) -> set[str]:
        """Ids of the work that a thread of this process runs."""
        return set(self._dbos._active_workflows_set.activeList())

    def requeue(self, job_id: str) -> None:
        """Queue again a piece that this worker has claimed; nothing if it ended meanwhile."""
        with database_trouble():
            self._dbos._sys_db.reenqueue_for_recovery(
                job_id, [self._worker_id], INTERNAL_QUEUE_NAME
            )

    def stop(self, grace_s: float) -> None:
        """Let what is in hand end within `grace_s`; the rest stays queued."""
        self._finish(grace_s)
        DBOS.destroy(destroy_registry=True)

    def _finish(self, grace_s: float) -> None:
        """Claim nothing more, and wait for what was claimed.

        DBOS's own wait looks once a second and never comes back sooner.
        """
        give_up = time.monotonic() + grace_s
        for stopping in self._dbos.background_thread_stop_events:
            stopping.set()
        quiet_looks = 0
        # Twice, as what was claimed last is in hand only a moment later.
        while quiet_looks < 2 and (left_s := give_up - time.monotonic()) > 0:
            quiet_looks = 0 if self._is_at_work() else quiet_looks + 1
            time.sleep(min(left_s, _NOTICE_STOP_S))

    def _is_at_work(self) -> bool:
        """Whether a queue is still being looked at, or a piece of work is in hand."""
        names = [thread.name for thread in threading.enumerate()]
        if any(name.startswith(_CLAIMER) for name in names):
            return True
        return bool(self.running())


class Requeue(BaseException):
    """Ends a claimed piece of work at a stop without an outcome, so that it runs again later.

    Not an Exception: DBOS writes those down as the outcome.
    """


def make_queue(database_url: str) -> None:
    """Make the queue's tables, or bring them up to date, without working them off."""
    route_log()
    with database_trouble():
        DBOS.migrate(system_database_url=database_url)


def route_log() -> None:
    """Send DBOS's log where all logs go, before DBOS gives it a handler of its own on stderr."""
    logger = logging.getLogger("dbos")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    logger.setLevel(logging.WARNING)
    logger.propagate = True

"""Queue status: depths, ages and parked work with its reasons, for people and metrics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pipeline.domain import RESEARCH_USE_ONLY


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCount:
    """Unfinished jobs of one queue in one state."""

    queue: str
    status: str
    count: int
    oldest_ms: int
    """Creation of the oldest, in milliseconds since 1970."""


class WorkKind(StrEnum):
    """What parked work is about."""

    IMAGE = "image"
    REPORT = "report"
    DELIVERY = "delivery"
    COMMITMENT = "commitment"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatus:
    """One queue, counted."""

    name: str
    waiting: int
    delayed: int
    """Waiting for a smear's quiet time to end, or for the next attempt."""
    in_work: int
    oldest_age_s: float
    """Age of the oldest unfinished job; 0 when there is none."""
    next_attempt_at: datetime | None = None
    """When the first of the jobs that failed is tried again; None when none did."""
    delay_reason: str = ""
    """Why that one is tried again, as `code: message`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedWork:
    """Work that needs an operator; `smearlink retry KEY` tries it again."""

    key: str
    kind: WorkKind
    code: str
    message: str
    since: datetime | None
    smear_id: str = ""
    sop_instance_uid: str = ""
    destination: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowStatus:
    """The state of all jobs at one moment. No patient data."""

    at: datetime
    queues: tuple[QueueStatus, ...]
    parked: tuple[ParkedWork, ...]
    workers: tuple[str, ...]
    """Workers that have jobs in progress."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, is delayed or is in progress."""
        return not any(queue.waiting + queue.delayed + queue.in_work for queue in self.queues)

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values, labelled."""
        record = asdict(self)
        record["at"] = self.at.isoformat()
        for row, queue in zip(record["queues"], self.queues, strict=True):
            row["next_attempt_at"] = _iso(queue.next_attempt_at)
        for row, parked in zip(record["parked"], self.parked, strict=True):
            row["since"] = _iso(parked.since)
        return {"research_use_only": True, "label": RESEARCH_USE_ONLY, **record}


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def queue_statuses(counts: Iterable[QueueCount], now: datetime) -> tuple[QueueStatus, ...]:
    """The queues in the order of their names."""
    by_queue: dict[str, list[QueueCount]] = {}
    for count in counts:
        by_queue.setdefault(count.queue, []).append(count)
    return tuple(_queue_status(name, rows, now) for name, rows in sorted(by_queue.items()))


def _queue_status(name: str, counts: list[QueueCount], now: datetime) -> QueueStatus:
    def total(status: str) -> int:
        return sum(count.count for count in counts if count.status == status)

    oldest_ms = min(count.oldest_ms for count in counts)
    return QueueStatus(
        name=name,
        waiting=total("ENQUEUED"),
        delayed=total("DELAYED"),
        in_work=total("PENDING"),
        oldest_age_s=max(0.0, now.timestamp() - oldest_ms / 1000),
    )


def age_text(seconds: float) -> str:
    """Format an age: 45 s, 12 min, 3.5 h, 2.0 d."""
    for limit, divisor, unit in ((90, 1, "s"), (5400, 60, "min")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} d"

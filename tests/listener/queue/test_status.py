"""What waits where, as values."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from listener.queue.status import (
    ParkedWork,
    QueueCount,
    QueueStatus,
    WorkflowStatus,
    WorkKind,
    queue_statuses,
)

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_a_clock_that_was_set_back_gives_no_negative_age() -> None:
    later = int((NOW + timedelta(hours=1)).timestamp() * 1000)

    (queue,) = queue_statuses(
        [QueueCount(queue="images", status="ENQUEUED", count=1, oldest_ms=later)], NOW
    )

    assert queue.oldest_age_s == 0.0


def test_queues_are_counted_by_state_and_named_in_order() -> None:
    ago = int((NOW - timedelta(minutes=2)).timestamp() * 1000)
    counts = [
        QueueCount(queue=queue, status=status, count=count, oldest_ms=ago)
        for queue, status, count in (
            ("smears", "DELAYED", 3),
            ("images", "ENQUEUED", 5),
            ("images", "PENDING", 1),
        )
    ]

    queues = queue_statuses(counts, NOW)

    assert [queue.name for queue in queues] == ["images", "smears"]
    assert (queues[0].waiting, queues[0].delayed, queues[0].in_work) == (5, 0, 1)
    assert queues[1].delayed == 3
    assert queues[0].oldest_age_s == 120.0


def test_idle_means_that_nothing_waits_is_delayed_or_in_work() -> None:
    def status(**counts: int) -> WorkflowStatus:
        row: dict[str, Any] = {"waiting": 0, "delayed": 0, "in_work": 0, **counts}
        queue = QueueStatus(name="images", oldest_age_s=0.0, **row)
        return WorkflowStatus(at=NOW, queues=(queue,), parked=(), workers=())

    assert status().is_idle
    assert not any(status(**{word: 1}).is_idle for word in ("waiting", "delayed", "in_work"))


def test_its_json_is_labelled_and_can_be_written() -> None:
    parked = ParkedWork(
        key="image:1.2", kind=WorkKind.IMAGE, code="too_small", message="it is small", since=NOW
    )
    status = WorkflowStatus(at=NOW, queues=(), parked=(parked,), workers=("w1",))

    told = json.loads(json.dumps(status.to_json()))

    assert told["research_use_only"] is True
    assert "RESEARCH USE ONLY" in told["label"]
    assert told["parked"][0]["since"] == NOW.isoformat()
    assert told["parked"][0]["code"] == "too_small"

"""The numbers agree with the audit events, and name nobody."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from listener.observability.metrics import COUNTS, CountedAudit, Metrics
from listener.queue.status import ParkedWork, QueueStatus, WorkflowStatus, WorkKind
from pipeline.domain import CalibrationIdentity
from pipeline.errors import RetryLater
from reporting.audit.trail import Event, Outcome
from tests.fakes import RecordingAudit
from tests.findings import MODEL

STATUS = WorkflowStatus(
    at=datetime(2026, 11, 24, tzinfo=UTC),
    queues=(QueueStatus(name="images", waiting=4, delayed=3, in_work=2, oldest_age_s=61.5),),
    parked=tuple(
        ParkedWork(key=f"image:1.{n}", kind=WorkKind.IMAGE, code=code, message="", since=None)
        for n, code in enumerate(("too_small", "too_small", "defect"))
    ),
    workers=(),
)


def test_a_scrape_never_fails_when_the_queues_do() -> None:
    def broken() -> WorkflowStatus:
        raise RetryLater("no database", code="database_unavailable")

    text = _text(Metrics(software_version="1", read_status=broken))

    assert "smearlink_status_readable 0.0" in text
    assert "smearlink_queue_waiting{" not in text


def test_a_folder_that_is_gone_gives_no_free_bytes() -> None:
    def gone() -> int:
        raise FileNotFoundError

    assert "smearlink_disk_free_bytes " not in _text(Metrics(software_version="1", free_bytes=gone))


def test_what_the_audit_refuses_is_not_counted() -> None:
    metrics = Metrics(software_version="1")
    audit = CountedAudit(RecordingAudit(), metrics)

    with pytest.raises(Exception, match="patient_name"):
        audit.record(Event.IMAGE_RECEIVED, patient_name="Doe^Jane")

    assert "smearlink_images_received_total 0.0" in _text(metrics)
    assert "Doe" not in _text(metrics)


@pytest.mark.parametrize("event", list(COUNTS))
def test_every_counted_event_raises_its_own_counter(event: Event) -> None:
    metrics = Metrics(software_version="1")
    fields: dict[str, Any] = {"code": "too_small", "destination": "pacs"}
    audit = CountedAudit(RecordingAudit(), metrics)

    audit.record(event, outcome=Outcome.MINOR_FAILURE, **fields)
    audit.record(event, outcome=Outcome.MINOR_FAILURE, **fields)

    count = COUNTS[event]
    labels = ",".join(f'{name}="{fields[name]}"' for name in sorted(count.labels))
    line = f"{count.name}_total{{{labels}}} 2.0" if labels else f"{count.name}_total 2.0"
    assert line in _text(metrics)
    assert f'smearlink_events_total{{event="{event}",outcome="minor_failure"}} 2.0' in (
        _text(metrics)
    )


def test_cells_and_durations_of_an_analysed_image_are_counted() -> None:
    metrics = Metrics(software_version="1")

    metrics.count(
        Event.IMAGE_ANALYSED, Outcome.SUCCESS, {"cells_found": 7, "leukemic": 2, "duration_ms": 300}
    )

    text = _text(metrics)
    assert 'smearlink_cells_total{kind="leukemic"} 2.0' in text
    assert 'smearlink_step_seconds_bucket{event="image_analysed",le="0.5"} 1.0' in text
    assert 'smearlink_step_seconds_bucket{event="image_analysed",le="0.25"} 0.0' in text


def test_queues_parked_work_model_and_disk_are_told() -> None:
    metrics = Metrics(
        software_version="0.1.0", read_status=lambda: STATUS, free_bytes=lambda: 12345
    )
    metrics.show_model(MODEL)

    text = _text(metrics)

    for line in (
        'smearlink_queue_waiting{queue="images"} 4.0',
        'smearlink_queue_delayed{queue="images"} 3.0',
        'smearlink_queue_in_work{queue="images"} 2.0',
        'smearlink_queue_oldest_age_seconds{queue="images"} 61.5',
        'smearlink_parked{code="too_small",kind="image"} 2.0',
        "smearlink_disk_free_bytes 12345.0",
        'execution_provider="CPUExecutionProvider"',
        f'model_sha256="{MODEL.sha256}"',
        'research_use_only="true"',
    ):
        assert line in text


def test_a_calibration_is_told_beside_the_model() -> None:
    calibration = CalibrationIdentity(
        site="St. Anna", made_on="2026-11-28", smears=9, sha256="c" * 64
    )
    metrics = Metrics(software_version="0.1.0")
    metrics.show_model(MODEL)
    assert "calibration" not in _text(metrics)

    metrics.show_model(replace(MODEL, calibration=calibration))

    assert f'calibration_sha256="{calibration.sha256}"' in _text(metrics)


def _text(metrics: Metrics) -> str:
    return metrics.expose().decode()

"""A peer that nobody knows cannot fill the audit trail, and nothing that happens goes uncounted."""

from __future__ import annotations

from listener.observability.limited_audit import BURST, MAX_KINDS, LimitedAudit
from listener.observability.metrics import CountedAudit, Metrics
from reporting.audit.trail import Event
from tests.fakes import RecordingAudit


def test_a_flood_is_held_back_and_the_next_event_says_how_many_it_stands_for() -> None:
    now = [0.0]
    trail = RecordingAudit()
    audit = LimitedAudit(trail, monotonic=lambda: now[0])

    for _ in range(BURST + 1000):
        audit.record(Event.ASSOCIATION_REJECTED, code="called_ae_unknown")
    now[0] += 1.0
    audit.record(Event.ASSOCIATION_REJECTED, code="called_ae_unknown")

    assert len(trail.recorded) == BURST + 1
    assert trail.recorded[-1].fields["count"] == 1001


def test_another_code_is_not_held_back_with_it() -> None:
    trail = RecordingAudit()
    audit = LimitedAudit(trail, monotonic=lambda: 0.0)

    for _ in range(BURST + 10):
        audit.record(Event.ASSOCIATION_REJECTED, code="called_ae_unknown")
    audit.record(Event.ASSOCIATION_REJECTED, code="calling_ae_unknown")

    assert trail.recorded[-1].fields == {"code": "calling_ae_unknown"}


def test_received_images_are_all_recorded() -> None:
    trail = RecordingAudit()
    audit = LimitedAudit(trail, monotonic=lambda: 0.0)

    for _ in range(10 * BURST):
        audit.record(Event.IMAGE_RECEIVED)

    assert len(trail.recorded) == 10 * BURST


def test_the_metrics_count_what_is_held_back() -> None:
    metrics = Metrics(software_version="1")
    audit = CountedAudit(LimitedAudit(RecordingAudit(), monotonic=lambda: 0.0), metrics)

    for _ in range(BURST + 500):
        audit.record(Event.REQUEST_REFUSED, code="bad_multipart")

    line = f'smearlink_events_total{{event="request_refused",outcome="success"}} {BURST + 500}.0'
    assert line in metrics.expose().decode()


def test_very_many_codes_cost_no_memory() -> None:
    audit = LimitedAudit(RecordingAudit(), monotonic=lambda: 0.0)

    for number in range(MAX_KINDS * 4):
        audit.record(Event.IMAGE_REFUSED, code=f"code_{number}")

    assert len(audit._allowances) <= MAX_KINDS + 1

"""A peer that nobody knows cannot fill the audit trail, and nothing that happens goes uncounted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from listener.observability.limited_audit import BURST, MAX_KINDS, SUMMARY_AFTER_S, LimitedAudit
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


def test_a_flood_that_is_over_is_summarized_with_the_next_event_of_any_kind() -> None:
    now = [0.0]
    trail = RecordingAudit()
    audit = LimitedAudit(trail, monotonic=lambda: now[0])
    for _ in range(BURST + 70):
        audit.record(Event.ASSOCIATION_REJECTED, code="called_ae_unknown")

    now[0] += SUMMARY_AFTER_S
    audit.record(Event.IMAGE_RECEIVED)
    audit.record(Event.IMAGE_RECEIVED)

    summary = trail.recorded[-2]
    assert summary.event is Event.ASSOCIATION_REJECTED
    assert summary.fields == {"code": "called_ae_unknown", "count": 70}
    assert len(trail.recorded) == BURST + 3


def test_nothing_stays_uncounted_at_the_end() -> None:
    trail = RecordingAudit()
    audit = LimitedAudit(trail, monotonic=lambda: 0.0)
    for _ in range(BURST + 5):
        audit.record(Event.REQUEST_REFUSED)

    audit.close()
    audit.close()

    assert trail.recorded[-1].fields == {"count": 5}
    assert len(trail.recorded) == BURST + 1


@given(gaps=st.lists(st.floats(0, 30), max_size=300), codes=st.integers(1, 3))
def test_the_counts_of_the_trail_add_up_to_what_happened(gaps: list[float], codes: int) -> None:
    now = [0.0]
    trail = RecordingAudit()
    audit = LimitedAudit(trail, monotonic=lambda: now[0])
    happened = 0
    for number, gap in enumerate(gaps):
        now[0] += gap
        for _ in range(3 * BURST if number % 50 == 0 else 1):
            audit.record(Event.IMAGE_REFUSED, code=f"code_{number % codes}")
            happened += 1

    audit.close()

    assert sum(one.fields.get("count", 1) for one in trail.recorded) == happened


def test_who_is_not_signed_in_cannot_fill_the_trail_through_the_console() -> None:
    trail = RecordingAudit()
    audit = LimitedAudit(trail, monotonic=lambda: 0.0)

    for _ in range(BURST + 500):
        audit.record(Event.ACCESS_REFUSED, code="not_signed_in")
        audit.record(Event.SIGN_IN_REFUSED, code="wrong_password")

    assert len(trail.of(Event.ACCESS_REFUSED)) == BURST
    assert len(trail.of(Event.SIGN_IN_REFUSED)) == BURST

"""An engineer who watches the log sees what comes, what goes and what needs a person."""

from __future__ import annotations

import io
import json

import pytest

from listener.observability.event_log import LOGGED, LoggedAudit
from listener.observability.logging_setup import SENTENCES, LogFormat
from reporting.audit.trail import Event, Outcome
from tests.fakes import RecordingAudit

IMAGE, SMEAR = "1.2.840.1.7", "1.2.840.1"


def record_a_day(audit: LoggedAudit) -> None:
    audit.record(Event.SERVICE_STARTED, worker_id="w1", execution_provider="CPUExecutionProvider")
    audit.record(Event.IMAGE_RECEIVED, sop_instance_uid=IMAGE, bytes=17)
    audit.record(Event.IMAGE_ANALYSED, sop_instance_uid=IMAGE)
    audit.record(Event.SMEAR_REPORTED, smear_id=SMEAR, version=1, count=9)
    audit.record(Event.REPORT_DELIVERED, smear_id=SMEAR, version=1, destination="pacs", count=9)
    audit.record(
        Event.DELIVERY_PARKED,
        outcome=Outcome.SERIOUS_FAILURE,
        smear_id=SMEAR,
        destination="ehr",
        code="fhir_conflict",
    )
    audit.record(Event.SETTINGS_RELOADED, count=2)
    audit.record(Event.SERVICE_STOPPED, worker_id="w1")


def test_a_day_is_seven_lines_that_name_destination_and_reason(
    log: tuple[LogFormat, io.StringIO],
) -> None:
    log_format, stream = log
    sink = RecordingAudit()

    record_a_day(LoggedAudit(sink))

    lines = stream.getvalue().splitlines()
    assert len(lines) == 7
    assert len(sink.events) == 8
    if log_format == "json":
        parsed = [json.loads(line) for line in lines]
        assert [one["level"] for one in parsed] == ["info"] * 4 + ["error"] + ["info"] * 2
        assert parsed[4]["event"] == "delivery_parked"
        assert (parsed[4]["destination"], parsed[4]["code"]) == ("ehr", "fhir_conflict")
    else:
        assert lines[1].endswith(f"info    image received: {IMAGE}")
        assert "delivered to pacs: 9 results of v1" in lines[3]
        assert "error   delivery to ehr parked: fhir_conflict" in lines[4]
        assert lines[6].endswith("stopped")


def test_every_event_that_is_logged_has_a_sentence() -> None:
    without = {str(event) for event in LOGGED} - set(SENTENCES) - {"result_refused"}

    assert without == set()


def test_a_line_never_says_what_the_trail_does_not_have(
    log: tuple[LogFormat, io.StringIO],
) -> None:
    class Full(RecordingAudit):
        def record(self, *_arguments: object, **_named: object) -> None:
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        LoggedAudit(Full()).record(Event.IMAGE_RECEIVED, sop_instance_uid=IMAGE)

    assert log[1].getvalue() == ""

"""Every event of the trail is a legal DICOM Audit Message, and nothing of it is lost."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from config import codes
from reporting.audit.dicom_export import dicom_message
from reporting.audit.event_codes import MEANINGS
from reporting.audit.trail import Actor, Event, Outcome, read_events
from tests.reporting.audit_schema import schema_problems
from tests.reporting.trails import KEY, open_trail

EVERYTHING: dict[str, Any] = {
    "study_uid": "1.2.3",
    "series_uid": "1.2.3.4",
    "sop_instance_uid": "1.2.3.4.5",
    "sop_class_uid": "1.2.840.10008.5.1.4.1.1.77.1.2",
    "accession": "ACC-5",
    "destination": "ehr",
    "code": "http_503",
    "reasons": ["uncertain", "cut_by_edge"],
    "is_duplicate": False,
}


def recorded(folder: Path, event: Event, **given: Any) -> dict[str, Any]:
    """One event, written to a trail and read back."""
    with open_trail(folder) as trail:
        trail.record(event, **given)
    [entry] = [e for e in read_events(folder) if e["event"] == event][:1]
    return dict(entry)


def parsed(entry: dict[str, Any]) -> ET.Element:
    return ET.fromstring(dicom_message(entry, source="ward7"))  # noqa: S314 - our own


@pytest.mark.parametrize(
    "broken",
    [
        "<AuditMessage/>",
        '<EventID csd-code="1"/>',
        '<AuditSourceTypeCode csd-code="12"/>',
        '<ActiveParticipant UserID="x" UserIsRequestor="yes"/>',
        '<ActiveParticipant UserID="x" UserIsRequestor="true"><Name/></ActiveParticipant>',
        '<ParticipantObjectDetail type="x" value="not base 64"/>',
        "<PatientName>x</PatientName>",
    ],
)
def test_the_schema_finds_what_it_forbids(broken: str) -> None:
    """The judge is awake."""
    assert list(schema_problems(ET.fromstring(broken)))  # noqa: S314 - our own


def test_the_schema_minds_the_order_of_children(tmp_path: Path) -> None:
    message = parsed(recorded(tmp_path, Event.IMAGE_RECEIVED))
    message.append(message[0])
    del message[0]

    assert any("another order" in problem for problem in schema_problems(message))


def test_every_event_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Event)


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("given", [{}, EVERYTHING], ids=["bare", "full"])
def test_every_event_is_a_legal_message(
    tmp_path: Path, event: Event, given: dict[str, Any]
) -> None:
    entry = recorded(
        tmp_path,
        event,
        actor=Actor(ae_title='CAM <1> & "2"', host="10.0.0.7"),
        outcome=Outcome.SERIOUS_FAILURE,
        **given,
    )

    assert list(schema_problems(parsed(entry))) == []


def test_nothing_that_the_line_says_is_lost(tmp_path: Path) -> None:
    entry = recorded(tmp_path, Event.REPORT_DELIVERED, **EVERYTHING)

    message = parsed(entry)

    details = {
        detail.attrib["type"]: base64.b64decode(detail.attrib["value"]).decode()
        for detail in message.iter("ParticipantObjectDetail")
    }
    assert details["series_uid"] == "1.2.3.4"
    assert details["accession_hash"] == KEY.accession_hash("ACC-5")
    assert details["reasons"] == "uncertain cut_by_edge"
    assert details["is_duplicate"] == "false"
    assert details["research_use_only"] == "true"
    assert details["model_sha256"] == "a" * 64
    assert details["software_version"] == "0.1.0"
    assert details["prev"] == entry["prev"]
    assert "absent" in details["Patient"]
    assert entry["hash"] in {
        found.attrib["ParticipantObjectID"]
        for found in message.iter("ParticipantObjectIdentification")
    }


def test_a_received_image_is_a_transfer_from_its_device(tmp_path: Path) -> None:
    actor = Actor(ae_title="SLIDECAM1", host="10.20.0.15")
    message = parsed(recorded(tmp_path, Event.IMAGE_RECEIVED, actor=actor, **EVERYTHING))

    [event_id] = message.iter("EventID")
    assert event_id.attrib == {
        "csd-code": "110104",
        "codeSystemName": "DCM",
        "originalText": "DICOM Instances Transferred",
    }
    source, ours, *_ = message.iter("ActiveParticipant")
    assert source.attrib == {
        "UserID": "SLIDECAM1",
        "UserIsRequestor": "true",
        "NetworkAccessPointID": "10.20.0.15",
        "NetworkAccessPointTypeCode": "2",
    }
    assert [p[0].attrib["csd-code"] for p in (source, ours)] == ["110153", "110152"]
    assert ours.attrib["UserID"] == "smearlink 0.1.0"
    [instance] = message.iter("Instance")
    assert instance.attrib["UID"] == "1.2.3.4.5"


@pytest.mark.parametrize("event", [Event.IMAGE_RECEIVED, Event.IMAGE_ANALYSED, Event.IMAGE_DELETED])
def test_an_instance_stands_in_its_sop_class_or_among_the_details(
    tmp_path: Path, event: Event
) -> None:
    """An SOPClass element always has its UID."""
    given = {"study_uid": "1.2.3", "sop_instance_uid": "1.2.3.4.5"}
    known = recorded(tmp_path / "a", event, sop_class_uid="1.2.840.10008.5.1.4.1.1.7", **given)
    bare = recorded(tmp_path / "b", event, **given)

    [sop_class] = parsed(known).iter("SOPClass")
    assert sop_class.attrib == {"UID": "1.2.840.10008.5.1.4.1.1.7", "NumberOfInstances": "1"}
    assert [one.attrib["UID"] for one in sop_class] == ["1.2.3.4.5"]
    assert not list(parsed(bare).iter("SOPClass"))
    assert "sop_instance_uid" in {
        one.attrib["type"] for one in parsed(bare).iter("ParticipantObjectDetail")
    }


ABOUT_THE_LOG = [event for event in Event if MEANINGS[event].event_id is codes.AUDIT_LOG_USED]


@pytest.mark.parametrize("event", ABOUT_THE_LOG)
def test_use_of_the_log_names_the_log_and_nothing_else(tmp_path: Path, event: Event) -> None:
    """PS3.15 A.5.3.2: one object, a security resource, by URI, called Security Audit Log."""
    name = "audit-20261122-ward7.jsonl"
    entry = recorded(tmp_path, event, file=name, study_uid="1.2.3")

    message = parsed(entry)

    [log] = message.iter("ParticipantObjectIdentification")
    assert message.find("EventIdentification").attrib["EventActionCode"] == "R"
    assert log.attrib == {
        "ParticipantObjectID": f"urn:smearlink:audit:ward7:{entry.get('file', name)}",
        "ParticipantObjectTypeCode": "2",
        "ParticipantObjectTypeCodeRole": "13",
    }
    assert log.find("ParticipantObjectIDTypeCode").attrib == {
        "csd-code": "12",
        "codeSystemName": "RFC-3881",
        "originalText": "URI",
    }
    assert log.findtext("ParticipantObjectName") == "Security Audit Log"
    details = {
        one.attrib["type"]: base64.b64decode(one.attrib["value"]).decode()
        for one in log.iter("ParticipantObjectDetail")
    }
    assert details["hash"] == entry["hash"]


@pytest.mark.parametrize(
    ("host", "kind"), [("10.0.0.7", "2"), ("fe80::1%eth0", "2"), ("cam1.example.org", "1")]
)
def test_a_host_is_an_address_or_a_name(tmp_path: Path, host: str, kind: str) -> None:
    message = parsed(recorded(tmp_path, Event.REQUEST_REFUSED, actor=Actor(host=host)))

    assert message.find("ActiveParticipant").attrib["NetworkAccessPointTypeCode"] == kind


@pytest.mark.parametrize(
    ("outcome", "indicator"),
    [
        (Outcome.SUCCESS, "0"),
        (Outcome.MINOR_FAILURE, "4"),
        (Outcome.SERIOUS_FAILURE, "8"),
        (Outcome.MAJOR_FAILURE, "12"),
    ],
)
def test_the_outcome_is_that_of_the_standard(
    tmp_path: Path, outcome: Outcome, indicator: str
) -> None:
    message = parsed(recorded(tmp_path, Event.IMAGE_PARKED, outcome=outcome))

    assert message[0].attrib["EventOutcomeIndicator"] == indicator


def test_a_message_is_one_line(tmp_path: Path) -> None:
    assert b"\n" not in dicom_message(recorded(tmp_path, Event.CHAIN_STARTED), source="ward7")

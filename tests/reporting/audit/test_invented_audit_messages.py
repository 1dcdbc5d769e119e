"""Peers and machines of odd names in the audit trail: each event stays a legal DICOM message."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from reporting.audit.dicom_export import dicom_message
from reporting.audit.trail import Actor, Event
from tests.reporting.audit.test_dicom_export import recorded
from tests.reporting.audit_schema import schema_problems

ACTORS: Mapping[str, Actor] = {
    "nobody": Actor(),
    "title": Actor(ae_title="SCOPE1", host="10.0.0.7"),
    "title-of-16-characters": Actor(ae_title="SCOPE_OF_ROOM_12", host="10.0.0.7"),
    "title-with-blanks": Actor(ae_title="LAB SCOPE 1", host="10.0.0.7"),
    "title-with-marks-of-xml": Actor(ae_title="A&B<C>\"D'", host="10.0.0.7"),
    "title-with-a-backslash": Actor(ae_title="SCOPE\\1", host="10.0.0.7"),
    "title-that-was-not-ascii": Actor(ae_title="K?V", host="10.0.0.7"),
    "blank-title": Actor(ae_title="", host="10.0.0.7"),
    "address-of-version-6": Actor(ae_title="SCOPE1", host="fe80::1"),
    "address-with-a-zone": Actor(ae_title="SCOPE1", host="fe80::1%eth0"),
    "mapped-address": Actor(ae_title="SCOPE1", host="::ffff:10.0.0.7"),
    "name-of-a-machine": Actor(host="scope-1.lab.example"),
    "person": Actor(user="m.meyer"),
    "person-by-mail-address": Actor(user="meyer@lab.example"),
}


@pytest.mark.invented(kind=23)
@pytest.mark.parametrize("event", [Event.IMAGE_RECEIVED, Event.ASSOCIATION_REJECTED])
@pytest.mark.parametrize("name", ACTORS)
def test_whoever_did_it_the_message_is_legal(name: str, event: Event, tmp_path: Path) -> None:
    entry = recorded(tmp_path, event, actor=ACTORS[name])

    message = ET.fromstring(dicom_message(entry, source="ward7"))  # noqa: S314 - our own

    assert list(schema_problems(message)) == []
    requestor = message.find("ActiveParticipant[@UserIsRequestor='true']")
    assert requestor is not None
    assert requestor.get("UserID")


@pytest.mark.invented(kind=23)
@pytest.mark.parametrize(
    "source", ["ward7", "Ward 7", "a&b", "<x>", "rechner-ü", "host.example", "x" * 255, "1"]
)
def test_whatever_the_machine_is_called_the_message_is_legal(source: str, tmp_path: Path) -> None:
    entry = recorded(tmp_path, Event.IMAGE_RECEIVED)

    message = ET.fromstring(dicom_message(entry, source=source))  # noqa: S314 - our own

    assert list(schema_problems(message)) == []
    described = message.find("AuditSourceIdentification")
    assert described is not None
    assert described.get("AuditSourceID") == source

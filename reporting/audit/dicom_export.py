"""Writes an event of the trail as a DICOM Audit Message: XML by the schema of PS3.15 A.5.1.

It names images by UID and accession numbers by keyed hash. The trail holds no patient, so the
Patient participant that A.5.3.6 and A.5.3.7 require of messages on instances is absent, and the
message says so.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from config import codes
from config.codes import Concept
from reporting.audit.event_codes import MEANINGS, OUTCOME_INDICATOR, details_of, is_address, user_of
from reporting.audit.schema import Event, Outcome

LOCAL = "99SMEARLINK"
"""Coding scheme of our own words (PS3.16 section 8.2: 99 and a name)."""

PATIENT_ABSENT = "absent: this audit trail holds no patient identity"

APPLICATION_SERVER = "4"
SYSTEM_OBJECT = "2"
REPORT, RESOURCE, SECURITY_RESOURCE = "3", "4", "13"
MACHINE_NAME, IP_ADDRESS = "1", "2"
"""AuditSourceTypeCode, ParticipantObjectTypeCode, …Role, NetworkAccessPointTypeCode."""


def dicom_message(entry: Mapping[str, Any], *, source: str) -> bytes:
    """The message of an event as read by `read_events`, UTF-8 on one line.

    `source` names the machine whose trail it is (AuditSourceID).
    """
    message = ET.Element("AuditMessage")
    _identification(message, entry)
    _participants(message, entry)
    audit_source = ET.SubElement(message, "AuditSourceIdentification", AuditSourceID=source)
    ET.SubElement(audit_source, "AuditSourceTypeCode", {"csd-code": APPLICATION_SERVER})
    if MEANINGS[Event(entry["event"])].event_id is codes.AUDIT_LOG_USED:
        _audit_log(message, entry, source)
    else:
        if "study_uid" in entry:
            _study(message, entry)
        _line(message, entry)
    text: str = ET.tostring(message, encoding="unicode")
    return text.encode()


def _identification(message: ET.Element, entry: Mapping[str, Any]) -> None:
    """A.5.1 EventIdentification; beside the type of CID 401 or 403 our own word."""
    event, outcome = Event(entry["event"]), Outcome(entry["outcome"])
    meaning = MEANINGS[event]
    identification = ET.SubElement(
        message,
        "EventIdentification",
        EventActionCode=meaning.action,
        EventDateTime=entry["time"],
        EventOutcomeIndicator=OUTCOME_INDICATOR[outcome],
    )
    ET.SubElement(identification, "EventID", _coded(meaning.event_id))
    if meaning.event_type:
        ET.SubElement(identification, "EventTypeCode", _coded(meaning.event_type))
    ET.SubElement(identification, "EventTypeCode", _own(event))
    if "code" in entry:
        ET.SubElement(identification, "EventOutcomeDescription").text = entry["code"]


def _participants(message: ET.Element, entry: Mapping[str, Any]) -> None:
    """Who did it, our software, and where it went."""
    is_sender = MEANINGS[Event(entry["event"])].event_id is codes.INSTANCES_TRANSFERRED
    _participant(
        message,
        user_of(entry),
        codes.SOURCE_ROLE if is_sender else codes.APPLICATION_ROLE,
        is_requestor=True,
        host=entry["actor"].get("host"),
    )
    software = f"smearlink {entry['software_version']}"
    role = codes.DESTINATION_ROLE if is_sender else codes.APPLICATION_ROLE
    _participant(message, software, role, is_requestor=False)
    if "destination" in entry:
        _participant(message, entry["destination"], codes.DESTINATION_ROLE, is_requestor=False)


def _participant(
    message: ET.Element, user: str, role: Concept, *, is_requestor: bool, host: str | None = None
) -> None:
    attributes = {"UserID": user, "UserIsRequestor": str(is_requestor).lower()}
    if host:
        attributes["NetworkAccessPointID"] = host
        attributes["NetworkAccessPointTypeCode"] = IP_ADDRESS if is_address(host) else MACHINE_NAME
    participant = ET.SubElement(message, "ActiveParticipant", attributes)
    ET.SubElement(participant, "RoleIDCode", _coded(role))


def _study(message: ET.Element, entry: Mapping[str, Any]) -> None:
    """A.5.3.7: the study, and in it the instance where the event tells its SOP class.

    Without the class the instance's UID stands among the details of the line.
    """
    study = _object(message, entry["study_uid"], REPORT, _coded(codes.STUDY_INSTANCE_UID))
    ET.SubElement(study, "ParticipantObjectName").text = "DICOM study"
    _detail(study, "Patient", PATIENT_ABSENT)
    if "sop_class_uid" in entry and "sop_instance_uid" in entry:
        described = ET.SubElement(study, "ParticipantObjectDescription")
        about = {"UID": entry["sop_class_uid"], "NumberOfInstances": "1"}
        sop_class = ET.SubElement(described, "SOPClass", about)
        ET.SubElement(sop_class, "Instance", UID=entry["sop_instance_uid"])


def _audit_log(message: ET.Element, entry: Mapping[str, Any], source: str) -> None:
    """A.5.3.2: the one object of Audit Log Used is the log, by URI; the line is its detail."""
    name = ":".join(filter(None, ("urn:smearlink:audit", source, entry.get("file", ""))))
    log = _object(message, name, SECURITY_RESOURCE, _coded(codes.URI_ID))
    ET.SubElement(log, "ParticipantObjectName").text = "Security Audit Log"
    for kind, value in [*details_of(entry), ("hash", entry["hash"])]:
        _detail(log, kind, value)


def _line(message: ET.Element, entry: Mapping[str, Any]) -> None:
    """The line of the trail itself: its hash, and all else that it says."""
    line = _object(message, entry["hash"], RESOURCE, _own("audit_line"))
    ET.SubElement(line, "ParticipantObjectName").text = "Line of the security audit log"
    for kind, value in details_of(entry):
        _detail(line, kind, value)


def _detail(participant: ET.Element, kind: str, value: str) -> None:
    packed = base64.b64encode(value.encode()).decode()
    ET.SubElement(participant, "ParticipantObjectDetail", type=kind, value=packed)


def _object(message: ET.Element, name: str, role: str, kind: dict[str, str]) -> ET.Element:
    made = ET.SubElement(
        message,
        "ParticipantObjectIdentification",
        ParticipantObjectID=name,
        ParticipantObjectTypeCode=SYSTEM_OBJECT,
        ParticipantObjectTypeCodeRole=role,
    )
    ET.SubElement(made, "ParticipantObjectIDTypeCode", kind)
    return made


def _coded(concept: Concept) -> dict[str, str]:
    code, designator, meaning = concept.dicom
    return {"csd-code": code, "codeSystemName": designator, "originalText": meaning}


def _own(word: str) -> dict[str, str]:
    return {
        "csd-code": word,
        "codeSystemName": LOCAL,
        "originalText": word.replace("_", " ").capitalize(),
    }

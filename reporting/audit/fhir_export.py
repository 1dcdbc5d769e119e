"""An event of the trail as a FHIR AuditEvent (R4B, within what R4 shares)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fhir.resources.R4B.auditevent import AuditEvent
from pydantic import ValidationError

from config import codes
from pipeline.domain import RESEARCH_USE_ONLY
from pipeline.errors import Defect
from reporting.audit.event_codes import MEANINGS, OUTCOME_INDICATOR, details_of, is_address, user_of
from reporting.audit.schema import Event, Outcome
from reporting.derived_uids import derived_id
from reporting.fhir.elements import Element, coded, dicom_identifier, resource
from reporting.fhir.terminology_check import check_codes

MACHINE_NAME, IP_ADDRESS = "1", "2"
"""http://hl7.org/fhir/R4/valueset-network-type.html"""


def fhir_event(entry: Mapping[str, Any], *, source: str) -> str:
    """The resource of an event as read by `read_events`, as JSON on one line.

    Its id follows from the line's hash, so exporting twice gives the same resources. `source`
    names the machine whose trail it is.
    """
    try:
        made = AuditEvent.model_validate(_event(entry, source))
    except ValidationError as err:
        raise Defect(
            f"An audit event is not legal FHIR ({err.error_count()} errors).", code="fhir_structure"
        ) from err
    if problems := check_codes(made):
        raise Defect(f"An audit event holds a wrong code: {problems[0]}.", code="fhir_code")
    return str(made.model_dump_json())


def _event(entry: Mapping[str, Any], source: str) -> Element:
    event = Event(entry["event"])
    meaning = MEANINGS[event]
    code = f" ({entry['code']})" if "code" in entry else ""
    return resource(
        "AuditEvent",
        derived_id("audit-line", entry["hash"]),
        meta={"security": [codes.HEALTHCARE_RESEARCH.fhir]},
        type=meaning.event_id.fhir,
        subtype=[meaning.event_type.fhir] if meaning.event_type else [],
        action=meaning.action,
        recorded=entry["time"],
        outcome=OUTCOME_INDICATOR[Outcome(entry["outcome"])],
        outcomeDesc=f"{event}{code}. {RESEARCH_USE_ONLY}",
        purposeOfEvent=[coded(codes.HEALTHCARE_RESEARCH)],
        agent=_agents(entry),
        source={
            "observer": {"type": "Device", "display": source},
            "type": [codes.APPLICATION_SERVER.fhir],
        },
        entity=_entities(entry),
    )


def _agents(entry: Mapping[str, Any]) -> list[Element]:
    """Who did it, our software, and where it went."""
    is_sender = MEANINGS[Event(entry["event"])].event_id is codes.INSTANCES_TRANSFERRED
    agents: list[Element] = [
        {
            "type": coded(codes.SOURCE_ROLE if is_sender else codes.APPLICATION_ROLE),
            "who": {"display": user_of(entry)},
            "requestor": True,
            **_network(entry["actor"].get("host")),
        },
        {
            "type": coded(codes.DESTINATION_ROLE if is_sender else codes.APPLICATION_ROLE),
            "who": {"type": "Device", "display": f"smearlink {entry['software_version']}"},
            "requestor": False,
        },
    ]
    if "destination" in entry:
        sent_to = {"display": entry["destination"]}
        agents.append({"type": coded(codes.DESTINATION_ROLE), "who": sent_to, "requestor": False})
    return agents


def _network(host: str | None) -> Element:
    if not host:
        return {}
    kind = IP_ADDRESS if is_address(host) else MACHINE_NAME
    return {"network": {"address": host, "type": kind}}


def _entities(entry: Mapping[str, Any]) -> list[Element]:
    """The study where the event names one, then the line of the trail with all that it says."""
    study = {
        "what": {"identifier": dicom_identifier(entry.get("study_uid", ""))},
        "type": codes.SYSTEM_OBJECT.fhir,
        "role": codes.REPORT_ROLE.fhir,
    }
    line = {
        "what": {"identifier": {"value": entry["hash"]}, "display": "Line of the audit trail"},
        "type": codes.SYSTEM_OBJECT.fhir,
        "role": codes.SECURITY_RESOURCE_ROLE.fhir,
        "detail": [{"type": kind, "valueString": value} for kind, value in details_of(entry)],
    }
    return [*([study] if "study_uid" in entry else []), line]

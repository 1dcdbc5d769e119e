"""Every coded value of a Bundle against its value set: what fhir.resources leaves unchecked.

A `code` must stand in the value set of its element, a Coding in our table of concepts with its
published display, and where an element is bound to a set, in that set. An element without an
entry here is a problem too: nothing coded leaves unchecked.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from fhir_core.types import Code
from pydantic import BaseModel

from config import codes
from config.codes import CONCEPTS, Concept

REPORT_STATUS = frozenset(
    {
        "registered",
        "partial",
        "preliminary",
        "final",
        "amended",
        "corrected",
        "appended",
        "cancelled",
        "entered-in-error",
        "unknown",
    }
)
"""http://hl7.org/fhir/R4/valueset-diagnostic-report-status.html"""

OBSERVATION_STATUS = REPORT_STATUS - {"partial", "appended"}
"""http://hl7.org/fhir/R4/valueset-observation-status.html"""

EVENT_STATUS = frozenset(
    {
        "preparation",
        "in-progress",
        "not-done",
        "on-hold",
        "stopped",
        "completed",
        "entered-in-error",
        "unknown",
    }
)
"""http://hl7.org/fhir/R4/valueset-event-status.html"""

MEDIA_TYPES = frozenset({"application/dicom", "application/pdf", "image/png", "text/markdown"})
"""Of BCP 13, those that we send."""

VALUE_SETS: Mapping[str, frozenset[str]] = {
    "Attachment.contentType": MEDIA_TYPES,
    "Attachment.language": frozenset({"en"}),
    "AuditEvent.action": frozenset("CRUDE"),
    "AuditEvent.outcome": frozenset({"0", "4", "8", "12"}),
    "AuditEventAgentNetwork.type": frozenset("12345"),
    "Bundle.type": frozenset({"transaction"}),
    "BundleEntryRequest.method": frozenset({"PUT"}),
    "Device.status": frozenset({"active", "inactive", "entered-in-error", "unknown"}),
    "DeviceDeviceName.type": frozenset(
        {
            "udi-label-name",
            "user-friendly-name",
            "patient-reported-name",
            "manufacturer-name",
            "model-name",
            "other",
        }
    ),
    "DiagnosticReport.status": REPORT_STATUS,
    "DocumentReference.status": frozenset({"current", "superseded", "entered-in-error"}),
    "Extension.valueCode": frozenset({"unknown"}),
    "ImagingStudy.status": frozenset(
        {"registered", "available", "cancelled", "entered-in-error", "unknown"}
    ),
    "Media.status": EVENT_STATUS,
    "Narrative.status": frozenset({"generated", "extensions", "additional", "empty"}),
    "Observation.status": OBSERVATION_STATUS,
    "ProvenanceEntity.role": frozenset({"derivation", "revision", "quotation", "source"}),
    "Quantity.code": frozenset({codes.PERCENT.code}),
}
"""Allowed values of every `code` element that we send, by type and element."""

AI_AGENT_ROLE = "ProvenanceAgent.role"
"""The one element without a display: AI Transparency on FHIR fixes its value without it."""

BINDINGS: Mapping[str, frozenset[Concept]] = {
    "AuditEvent.type": frozenset(
        {
            codes.RESTFUL_OPERATION,
            codes.APPLICATION_ACTIVITY,
            codes.AUDIT_LOG_USED,
            codes.INSTANCES_ACCESSED,
            codes.INSTANCES_TRANSFERRED,
            codes.EXPORT,
            codes.QUERY,
            codes.SECURITY_ALERT,
            codes.USER_AUTHENTICATION,
        }
    ),
    "AuditEvent.subtype": frozenset(
        {
            codes.TRANSACTION,
            codes.APPLICATION_START,
            codes.APPLICATION_STOP,
            codes.NODE_AUTHENTICATION,
            codes.SOFTWARE_CONFIGURATION,
            codes.LOGIN,
            codes.LOGOUT,
            codes.RESTRICTED_FUNCTION,
            codes.USER_SECURITY_CHANGED,
            codes.AUDIT_RECORDING_STARTED,
        }
    ),
    "AuditEvent.purposeOfEvent": frozenset({codes.HEALTHCARE_RESEARCH}),
    "AuditEventAgent.type": frozenset(
        {codes.APPLICATION_ROLE, codes.DESTINATION_ROLE, codes.SOURCE_ROLE}
    ),
    "AuditEventEntity.role": frozenset({codes.REPORT_ROLE, codes.SECURITY_RESOURCE_ROLE}),
    "AuditEventEntity.type": frozenset({codes.SYSTEM_OBJECT}),
    "AuditEventSource.type": frozenset({codes.APPLICATION_SERVER}),
    "Device.type": frozenset({codes.ARTIFICIAL_INTELLIGENCE, codes.AI_ROLE}),
    "DiagnosticReport.category": frozenset({codes.LABORATORY_SECTION, codes.HEMATOLOGY_SECTION}),
    "DiagnosticReport.code": frozenset({codes.DIFFERENTIAL_PANEL}),
    "DocumentReference.category": frozenset({codes.MODEL_CARD_MARKDOWN}),
    "DocumentReference.type": frozenset({codes.MODEL_CARD}),
    "Identifier.type": frozenset({codes.ACCESSION}),
    "ImagingStudySeries.modality": frozenset(codes.MODALITY.values()),
    "Media.type": frozenset({codes.IMAGE}),
    "Meta.security": frozenset({codes.AI_ASSERTED, codes.HEALTHCARE_RESEARCH, codes.PSEUDONYMISED}),
    "Observation.category": frozenset({codes.LABORATORY}),
    "Observation.code": frozenset(
        {codes.BLASTS_PER_LEUKOCYTES, codes.SMEAR_FINDING, *codes.CELL_TYPE_SHARE.values()}
    ),
    "Observation.dataAbsentReason": frozenset({codes.NOT_PERFORMED}),
    "Observation.valueCodeableConcept": frozenset({codes.UNUSABLE_IMAGE}),
    "Provenance.activity": frozenset({codes.CREATED, codes.UPDATED}),
    "Provenance.reason": frozenset({codes.HEALTHCARE_RESEARCH, codes.AI_ASSERTED}),
    AI_AGENT_ROLE: frozenset({codes.AI_ROLE}),
    "ProvenanceAgent.type": frozenset({codes.ASSEMBLER, codes.REVIEWER, codes.VERIFIER}),
    "Specimen.type": frozenset({codes.BLOOD_SMEAR}),
    "SpecimenContainer.type": frozenset({codes.MICROSCOPE_SLIDE}),
}
"""Allowed concepts of every element that holds a Coding or CodeableConcept with one."""

SOP_CLASS = "ImagingStudySeriesInstance.sopClass"
"""The one Coding whose codes are no concepts but UIDs as URNs (R4 ImagingStudy)."""


def check_codes(resource: BaseModel) -> tuple[str, ...]:
    """One sentence for each coded value that may not stand where it stands; () when all may."""
    return tuple(_problems(resource))


def _problems(element: BaseModel) -> Iterator[str]:
    kind = type(element).__name__
    coded = _code_elements(type(element))
    for name in element.model_fields_set:
        where = f"{kind}.{name}"
        for value in _each(getattr(element, name)):
            if name in coded:
                yield from _code_problems(where, value)
            elif isinstance(value, BaseModel):
                yield from _coding_problems(where, value)
                yield from _problems(value)


@cache
def _code_elements(kind: type[BaseModel]) -> frozenset[str]:
    """Elements of FHIR type `code`; a Coding's own is checked with its system instead."""
    if kind.__name__ == "Coding":
        return frozenset()
    return frozenset(
        name for name, field in kind.model_fields.items() if _is_code(field.annotation, field)
    )


def _is_code(annotation: Any, field: Any) -> bool:
    parts = [*getattr(field, "metadata", ()), *_metadata(annotation)]
    return any(type(part) is Code for part in parts)


def _metadata(annotation: Any) -> Iterator[Any]:
    yield from getattr(annotation, "__metadata__", ())
    for inner in typing.get_args(annotation):
        yield from _metadata(inner)


def _each(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        yield from value
    elif value is not None:
        yield value


def _code_problems(where: str, value: str) -> Iterator[str]:
    if where not in VALUE_SETS:
        yield f"{where} has no value set here"
    elif value not in VALUE_SETS[where]:
        yield f"{where} is {value!r}, which is not in its value set"


def _coding_problems(where: str, value: BaseModel) -> Iterator[str]:
    match type(value).__name__:
        case "Coding" if where == SOP_CLASS:
            yield from _sop_class_problems(value)
        case "Coding" if where != "CodeableConcept.coding":
            yield from _concept_problems(where, value)
        case "CodeableConcept":
            for coding in _each(getattr(value, "coding", None)):
                yield from _concept_problems(where, coding)


def _sop_class_problems(coding: Any) -> Iterator[str]:
    if coding.system != "urn:ietf:rfc:3986" or not str(coding.code).startswith("urn:oid:1.2.840."):
        yield f"{SOP_CLASS} is no SOP Class UID"


def _concept_problems(where: str, coding: Any) -> Iterator[str]:
    concept = CONCEPTS.get((coding.system, coding.code))
    if concept is None:
        yield f"{where} holds {coding.system}|{coding.code}, which is not in our table"
    elif coding.display != (None if where == AI_AGENT_ROLE else concept.display):
        yield f"{where} calls {coding.code} {coding.display!r}, not {concept.display!r}"
    elif concept not in BINDINGS.get(where, frozenset()):
        yield f"{where} is {coding.code}, which is not in its value set"

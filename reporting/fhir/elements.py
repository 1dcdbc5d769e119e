"""Builds the elements that all our FHIR resources share: labels, codes, references, quantities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from config import codes
from config.codes import Concept
from pipeline.domain import RESEARCH_USE_ONLY, SmearFindings
from reporting.content.identifiers import BusinessIdentifier, SmearOrigin
from reporting.content.measurements import Share
from reporting.content.sign_off import FHIR_STATUS, sign_off_of
from reporting.derived_uids import derived_id
from reporting.results import ObjectReference, ReportContext

Element: TypeAlias = "dict[str, Any]"
"""A FHIR element or resource as JSON values."""

DICOM_UID_SYSTEM = "urn:dicom:uid"
DATA_ABSENT_URL = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"

SECURITY_LABELS = (codes.AI_ASSERTED, codes.HEALTHCARE_RESEARCH)
"""On every resource: made by an AI, and for research. Why these two: ADR 0006."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SmearReport:
    """Everything that one Bundle is about."""

    smear: SmearFindings
    origin: SmearOrigin
    images: Sequence[ObjectReference]
    """The DICOM objects of the same result set."""
    context: ReportContext

    @property
    def status(self) -> str:
        """Of the DiagnosticReport and its Observations: final only where a person has signed."""
        return FHIR_STATUS[sign_off_of(self.smear)]

    @property
    def labels(self) -> list[Element]:
        """Security labels of every resource and of the Bundle itself."""
        added = (codes.PSEUDONYMISED,) if self.origin.is_pseudonymised else ()
        return [label.fhir for label in (*SECURITY_LABELS, *added)]

    @property
    def issued(self) -> str:
        """Instant of the report, to the millisecond."""
        return self.context.issued_at.isoformat(timespec="milliseconds")

    def resource_id(self, kind: str, *parts: str) -> str:
        """The same for every version of the smear's report and for every version of the network,
        so that an amended report becomes version two of the same resource.
        """
        return derived_id(kind, self.smear.smear_id, self.smear.model.name, *parts)

    @property
    def device_id(self) -> str:
        """One Device for each software, network and hardware that answered."""
        model = self.smear.model
        return derived_id(
            "device", self.context.software_version, model.key, model.execution_provider
        )

    @property
    def model_card_id(self) -> str:
        """Id of the DocumentReference with the network's card."""
        return derived_id("model-card", self.smear.model.key, self.context.model_card)

    @property
    def specimen_id(self) -> str:
        """Id of the Specimen."""
        return derived_id("specimen", self.smear.smear_id)

    def imaging_study_id(self, study_uid: str) -> str:
        """Id of the ImagingStudy of one DICOM study."""
        return self.resource_id("imaging-study", study_uid)

    @property
    def study_uids(self) -> tuple[str, ...]:
        """Studies of the smear, sorted."""
        return tuple(sorted({field.study_uid for field in self.smear.fields}))

    @property
    def subject(self) -> Element:
        """The patient by identifier: a logical reference, as we know no Patient resource."""
        if self.origin.patient is None:
            return {
                "type": "Patient",
                "display": "No Patient ID in the images",
                "extension": [{"url": DATA_ABSENT_URL, "valueCode": "unknown"}],
            }
        return {"type": "Patient", "identifier": identifier(self.origin.patient)}


def resource(kind: str, resource_id: str, **elements: Any) -> Element:
    """A resource; elements that are None or empty are left out, as FHIR asks."""
    kept = {name: value for name, value in elements.items() if value not in (None, [], "")}
    return {"resourceType": kind, "id": resource_id, **kept}


def reference(kind: str, resource_id: str) -> Element:
    """A Reference to a resource of the Bundle."""
    return {"reference": f"{kind}/{resource_id}"}


def identifier(known: BusinessIdentifier, *, kind: Concept | None = None) -> Element:
    """An Identifier with its system, as far as it is known."""
    return {
        **({"type": coded(kind)} if kind else {}),
        **({"system": known.system} if known.system else {}),
        "value": known.value,
        **({"assigner": {"display": known.assigner}} if known.assigner else {}),
    }


def dicom_identifier(uid: str) -> Element:
    """A DICOM UID as FHIR writes it (R4 ImagingStudy, notes)."""
    return {"system": DICOM_UID_SYSTEM, "value": f"urn:oid:{uid}"}


def coded(concept: Concept, text: str = "") -> Element:
    """A CodeableConcept."""
    return {"coding": [concept.fhir], "text": text or concept.display}


def worded(text: str) -> Element:
    """A CodeableConcept for which no published code fits."""
    return {"text": text}


def quantity(value: float, unit: Concept) -> Element:
    """A Quantity with its UCUM unit."""
    return {
        "value": value,
        "unit": unit.display,
        "system": unit.system.url,
        "code": unit.code,
    }


def percent(share: Share) -> Element:
    """A Quantity in %."""
    return quantity(share.percent, codes.PERCENT)


def research_note() -> list[Element]:
    """The research-use label as Annotation."""
    return [{"text": RESEARCH_USE_ONLY}]

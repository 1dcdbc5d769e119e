"""Builds Device, Provenance and AuditEvent: what made the report, from what, and that it did."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

from config import codes
from pipeline.domain import RESEARCH_USE_ONLY, Reviewer
from reporting.content.sign_off import standing_signatures
from reporting.fhir.elements import (
    Element,
    SmearReport,
    coded,
    reference,
    research_note,
    resource,
    worded,
)

AI_CODE = codes.AI_ROLE.code
MODEL_SYSTEM = "urn:smearlink:model-sha256"
"""Networks, by the SHA-256 of their file."""
CALIBRATION_SYSTEM = "urn:smearlink:calibration-sha256"
"""Calibrations of sites, by the SHA-256 of their file."""
MODEL_CARD_URL = f"{codes.AI_TRANSPARENCY}/StructureDefinition/aitransparency.modelCardDescription"
ACCOUNT_SYSTEM = "urn:smearlink:account"
"""Accounts of this service's console."""


def build_device(report: SmearReport) -> Element:
    """The software with its version, the network with its hash, and what really ran it."""
    model = report.smear.model
    finder = [{"type": worded("cell finder SHA-256"), "value": model.finder_sha256}]
    calibration = [
        {"type": worded("site calibration"), "value": one.described}
        for one in (model.calibration,)
        if one
    ]
    return resource(
        "Device",
        report.device_id,
        status="active",
        manufacturer="smearlink",
        deviceName=[
            {"name": "smearlink", "type": "user-friendly-name"},
            {"name": model.name, "type": "model-name"},
        ],
        extension=[{"url": MODEL_CARD_URL, "valueReference": _card_reference(report)}]
        if report.context.model_card
        else [],
        type={
            "coding": [codes.ARTIFICIAL_INTELLIGENCE.fhir, codes.AI_ROLE.fhir],
            "text": codes.ARTIFICIAL_INTELLIGENCE.display,
        },
        version=[
            {"type": worded("software version"), "value": report.context.software_version},
            {"type": worded("network version"), "value": model.version},
            {"type": worded("network SHA-256"), "value": model.sha256},
            {"type": worded("execution provider"), "value": model.execution_provider},
            *(finder if model.finder_sha256 else []),
            *calibration,
        ],
        note=research_note(),
    )


def build_model_card(report: SmearReport) -> Iterator[Element]:
    """The network's card as it ships (guide: AI Model-Card DocumentReference); none without one."""
    model = report.smear.model
    if not report.context.model_card:
        return
    yield resource(
        "DocumentReference",
        report.model_card_id,
        identifier=[{"system": MODEL_SYSTEM, "value": model.sha256}],
        status="current",
        type=coded(codes.MODEL_CARD),
        category=[coded(codes.MODEL_CARD_MARKDOWN)],
        description=f"Model card of {model.name} {model.version}. {RESEARCH_USE_ONLY}.",
        content=[
            {
                "attachment": {
                    "contentType": "text/markdown",
                    "language": "en",
                    "data": base64.b64encode(report.context.model_card.encode()).decode(),
                    "title": "MODEL_CARD.md",
                }
            }
        ],
    )


def _card_reference(report: SmearReport) -> Element:
    """To the card of the Bundle, or by its name where the network came without one."""
    model = report.smear.model
    name = f"MODEL_CARD.md of {model.name} {model.version}, SHA-256 {model.sha256}"
    if not report.context.model_card:
        return {"type": "DocumentReference", "display": name}
    return {**reference("DocumentReference", report.model_card_id), "display": name}


def _calibration_entity(report: SmearReport) -> Iterator[Element]:
    """The calibration of the site, by the hash of its file; none where there is none."""
    calibration = report.smear.model.calibration
    if calibration is not None:
        what = {
            "type": "DocumentReference",
            "identifier": {"system": CALIBRATION_SYSTEM, "value": calibration.sha256},
            "display": f"site-calibration.toml: {calibration.in_words}",
        }
        yield {"role": "derivation", "what": what}


def build_provenance(report: SmearReport, targets: Sequence[Element]) -> Element:
    """Who made `targets` from what; one for each version of the report.

    After the AI Transparency on FHIR guide: reason AIAST, the device in the role of an AI, the
    model's card as an entity; and every person who reviewed or signed as an agent of their own.
    """
    card = {"role": "derivation", "what": _card_reference(report)}
    return resource(
        "Provenance",
        report.resource_id("provenance", str(report.context.version)),
        target=list(targets),
        recorded=report.issued,
        reason=[
            coded(codes.HEALTHCARE_RESEARCH, RESEARCH_USE_ONLY),
            coded(codes.AI_ASSERTED),
        ],
        activity=coded(codes.CREATED if report.context.version == 1 else codes.UPDATED),
        agent=[
            {
                "type": coded(codes.ASSEMBLER),
                # The guide fixes this element: system and code, and nothing else.
                "role": [{"coding": [{"system": codes.AI_ROLE.system.url, "code": AI_CODE}]}],
                "who": reference("Device", report.device_id),
            },
            *_people(report),
        ],
        entity=[
            *(
                {
                    "role": "source",
                    "what": reference("ImagingStudy", report.imaging_study_id(study_uid)),
                }
                for study_uid in report.study_uids
            ),
            card,
            *_calibration_entity(report),
        ],
    )


def _people(report: SmearReport) -> Iterator[Element]:
    """Reviewers, and as verifiers those whose signature stands."""
    review = report.smear.review
    if review is None:
        return
    signed = {one.reviewer.account for one in standing_signatures(report.smear)}
    for person in review.reviewers:
        kind = codes.VERIFIER if person.account in signed else codes.REVIEWER
        yield {"type": coded(kind), "role": [worded(person.role)], "who": practitioner(person)}


def practitioner(person: Reviewer) -> Element:
    """A person by name and account: a logical reference, as we know no Practitioner resource."""
    about = f" ({person.organization})" if person.organization else ""
    return {
        "type": "Practitioner",
        "identifier": {"system": ACCOUNT_SYSTEM, "value": person.account},
        "display": f"{person.name}{about}",
    }


def build_audit_event(report: SmearReport, made: Element) -> Element:
    """That the report was sent as a transaction; one for each version of the report."""
    return resource(
        "AuditEvent",
        report.resource_id("audit-event", str(report.context.version)),
        type=codes.RESTFUL_OPERATION.fhir,
        subtype=[codes.TRANSACTION.fhir],
        action="C" if report.context.version == 1 else "U",
        recorded=report.issued,
        outcome="0",
        outcomeDesc=RESEARCH_USE_ONLY,
        purposeOfEvent=[coded(codes.HEALTHCARE_RESEARCH)],
        agent=[{"who": reference("Device", report.device_id), "requestor": True}],
        source={
            "observer": reference("Device", report.device_id),
            "type": [codes.APPLICATION_SERVER.fhir],
        },
        entity=[{"what": made, "type": codes.SYSTEM_OBJECT.fhir, "role": codes.REPORT_ROLE.fhir}],
    )

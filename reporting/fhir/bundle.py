"""Builds one smear as a FHIR transaction Bundle (R4B, as far as R4 agrees): PUTs under our own ids.

Posting it twice changes nothing; a later version of the report replaces the earlier one under
the same ids.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from fhir.resources.R4B.bundle import Bundle
from pydantic import ValidationError
from pydicom import Dataset

from config import codes
from pipeline.domain import RESEARCH_USE_ONLY, SmearFindings, SOPInstanceUID
from pipeline.errors import Defect
from reporting.content.identifiers import origin_of
from reporting.content.narrative import LIMITS, findings_in_words
from reporting.content.sign_off import comments_in_words, review_in_words, standing_signatures
from reporting.derived_uids import derived_id
from reporting.fhir.elements import (
    Element,
    SmearReport,
    coded,
    identifier,
    reference,
    research_note,
    resource,
)
from reporting.fhir.imaging import build_imaging_studies, build_media, build_replaced_media
from reporting.fhir.observations import build_observations
from reporting.fhir.provenance import (
    build_audit_event,
    build_device,
    build_model_card,
    build_provenance,
    practitioner,
)
from reporting.fhir.terminology_check import check_codes
from reporting.results import ObjectReference, ReportContext, Result, ResultKind

MEDIA_TYPE = "application/fhir+json"


def build_bundle(
    smear: SmearFindings,
    *,
    headers: Mapping[SOPInstanceUID, Dataset],
    image_uids: Sequence[ObjectReference],
    gallery_png: bytes | None,
    pdf: bytes | None,
    context: ReportContext,
) -> Result:
    """The whole report; `headers` are the source images' datasets, pixels not needed.

    Raises `NeedsReview` when the headers name two patients, `Defect` when what was built is not
    legal FHIR or holds a code that is not in its value set.
    """
    report = SmearReport(smear=smear, origin=origin_of(headers), images=image_uids, context=context)
    bundle = _checked(_transaction(report, _resources(report, gallery_png, pdf)))
    bundle_id = derived_id("fhir-bundle", smear.smear_id, smear.model.key, str(context.version))
    return Result(
        kind=ResultKind.FHIR_BUNDLE,
        name=f"{bundle_id}.json",
        media_type=MEDIA_TYPE,
        uid=bundle_id,
        content=bundle.model_dump_json(indent=1).encode(),
    )


def _resources(
    report: SmearReport, gallery_png: bytes | None, pdf: bytes | None
) -> Iterator[Element]:
    """Everything in the Bundle; what is referred to stands before what refers to it."""
    media = list(build_media(report, gallery_png))
    observations = list(build_observations(report))
    diagnostic_report = _diagnostic_report(report, observations, media, pdf)
    made = [_reference_to(r) for r in (diagnostic_report, *observations)]
    yield from build_model_card(report)
    yield build_device(report)
    yield _specimen(report)
    yield from build_imaging_studies(report)
    yield from media
    yield from build_replaced_media(report, media)
    yield from observations
    yield diagnostic_report
    yield build_provenance(report, made)
    yield build_audit_event(report, made[0])


def _diagnostic_report(
    report: SmearReport,
    observations: Iterable[Element],
    media: Iterable[Element],
    pdf: bytes | None,
) -> Element:
    """Preliminary until a person has signed."""
    return resource(
        "DiagnosticReport",
        report.resource_id("diagnostic-report"),
        text=_narrative(report),
        basedOn=[
            {"type": "ServiceRequest", "identifier": identifier(accession, kind=codes.ACCESSION)}
            for accession in report.origin.accessions
        ],
        status=report.status,
        category=[coded(codes.LABORATORY_SECTION), coded(codes.HEMATOLOGY_SECTION)],
        code=coded(codes.DIFFERENTIAL_PANEL),
        subject=report.subject,
        effectiveDateTime=report.origin.acquired_at,
        issued=report.issued,
        specimen=[reference("Specimen", report.specimen_id)],
        resultsInterpreter=[
            practitioner(one.reviewer) for one in standing_signatures(report.smear)
        ],
        result=[_reference_to(observation) for observation in observations],
        imagingStudy=[
            reference("ImagingStudy", report.imaging_study_id(uid)) for uid in report.study_uids
        ],
        media=[
            {"comment": picture["content"]["title"], "link": _reference_to(picture)}
            for picture in media
        ],
        conclusion=" ".join([f"{RESEARCH_USE_ONLY}.", *_sentences(report)]),
        presentedForm=[_printed_form(report, pdf)] if pdf else [],
    )


def _sentences(report: SmearReport) -> list[str]:
    least = report.context.min_cells_for_percent
    return [
        *review_in_words(report.smear, least_cells=least),
        *findings_in_words(report.smear, least_cells=least),
        LIMITS,
        *comments_in_words(report.smear),
    ]


def _narrative(report: SmearReport) -> Element:
    sentences = [RESEARCH_USE_ONLY, *_sentences(report)]
    paragraphs = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    return {
        "status": "generated",
        "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{paragraphs}</div>',
    }


def _printed_form(report: SmearReport, pdf: bytes) -> Element:
    return {
        "contentType": "application/pdf",
        "language": "en",
        "data": base64.b64encode(pdf).decode(),
        "title": "Blood smear report, research use only",
        "creation": report.issued,
    }


def _specimen(report: SmearReport) -> Element:
    """The smear on its slide, by the identifiers in the header."""
    accessions = report.origin.accessions
    return resource(
        "Specimen",
        report.specimen_id,
        identifier=[identifier(specimen) for specimen in report.origin.specimens],
        accessionIdentifier=(
            identifier(accessions[0], kind=codes.ACCESSION) if len(accessions) == 1 else None
        ),
        type=coded(codes.BLOOD_SMEAR),
        subject=report.subject,
        container=[
            {"identifier": [identifier(container)], "type": coded(codes.MICROSCOPE_SLIDE)}
            for container in report.origin.containers
        ],
        note=research_note(),
    )


def _transaction(report: SmearReport, resources: Iterable[Element]) -> Element:
    return {
        "resourceType": "Bundle",
        "meta": {"security": report.labels},
        "type": "transaction",
        "timestamp": report.issued,
        "entry": [
            {
                "fullUrl": f"urn:uuid:{made['id']}",
                "resource": {**made, "meta": {"security": report.labels}},
                "request": {"method": "PUT", "url": f"{made['resourceType']}/{made['id']}"},
            }
            for made in resources
        ],
    }


def _reference_to(made: Mapping[str, Any]) -> Element:
    return reference(made["resourceType"], made["id"])


def _checked(bundle: Element) -> Bundle:
    """Structure by fhir.resources, codes by our own table; both are our promise to the reader."""
    try:
        checked = Bundle.model_validate(bundle)
    except ValidationError as err:
        raise Defect(
            f"A report is not legal FHIR: {err.error_count()} errors, the first at "
            f"{'.'.join(map(str, err.errors()[0]['loc']))}.",
            code="fhir_structure",
        ) from err
    problems = check_codes(checked)
    if problems:
        raise Defect(
            f"A report holds {len(problems)} codes outside their value sets, "
            f"the first: {problems[0]}.",
            code="fhir_code",
        )
    return checked

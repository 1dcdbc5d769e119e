"""The figures of a smear as FHIR Observations, one for each."""

from __future__ import annotations

from collections.abc import Iterator

from config import codes
from config.codes import Concept
from reporting.content.measurements import NOT_COUNTED, Figure, Share, figures_of
from reporting.fhir.elements import (
    Element,
    SmearReport,
    coded,
    percent,
    reference,
    research_note,
    resource,
    worded,
)

METHOD = "Automated cell finding and ResNet-50 classification on microscope images"


def build_observations(report: SmearReport) -> Iterator[Element]:
    """Every figure of the report, in their order."""
    for figure in figures_of(report.smear):
        yield _observation(report, figure)


def _observation(report: SmearReport, figure: Figure) -> Element:
    remark = [{"text": figure.remark}] if figure.remark else []
    return resource(
        "Observation",
        report.resource_id("observation", figure.name),
        status=report.status,
        category=[coded(codes.LABORATORY)],
        code=coded(figure.code) if figure.code else worded(figure.title),
        subject=report.subject,
        effectiveDateTime=report.origin.acquired_at,
        issued=report.issued,
        **_value(figure),
        note=[*research_note(), *remark],
        method=worded(METHOD),
        specimen=reference("Specimen", report.specimen_id),
        device=reference("Device", report.device_id),
        derivedFrom=[
            reference("ImagingStudy", report.imaging_study_id(uid)) for uid in report.study_uids
        ],
        component=[{"code": worded(part.title), **_value(part)} for part in figure.parts],
    )


def _value(figure: Figure) -> Element:
    """`value[x]` by what the figure is, or why there is none."""
    match figure.value:
        case Share() as share:
            return {"valueQuantity": percent(share)}
        case Concept() as concept:
            return {"valueCodeableConcept": coded(concept)}
        case int() as count:
            return {"valueInteger": count}
        case str() as words:
            return {"valueCodeableConcept": worded(words)}
        case None:
            return {"dataAbsentReason": coded(codes.NOT_PERFORMED, NOT_COUNTED)}

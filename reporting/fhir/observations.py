"""Builds the measurements of a smear as FHIR Observations, one for each."""

from __future__ import annotations

from collections.abc import Iterator

from config import codes
from config.codes import Concept
from reporting.content.measurements import Measurement, Share, measurements_of
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

CONFIDENCE_URL = f"{codes.AI_TRANSPARENCY}/StructureDefinition/AIconfidence"
METHOD = "Automated cell finding and ResNet-50 classification on microscope images"


def build_observations(report: SmearReport) -> Iterator[Element]:
    """Every measurement of the report, in their order."""
    for measurement in measurements_of(
        report.smear, least_cells=report.context.min_cells_for_percent
    ):
        yield _observation(report, measurement)


def _observation(report: SmearReport, measurement: Measurement) -> Element:
    remark = [{"text": measurement.remark}] if measurement.remark else []
    return resource(
        "Observation",
        report.resource_id("observation", measurement.name),
        extension=_confidence(report, measurement),
        status=_status(report),
        category=[coded(codes.LABORATORY)],
        code=coded(measurement.code) if measurement.code else worded(measurement.title),
        subject=report.subject,
        effectiveDateTime=report.origin.acquired_at,
        issued=report.issued,
        **_value(measurement),
        note=[*research_note(), *remark],
        method=worded(METHOD),
        specimen=reference("Specimen", report.specimen_id),
        device=reference("Device", report.device_id),
        derivedFrom=[
            reference("ImagingStudy", report.imaging_study_id(uid)) for uid in report.study_uids
        ],
        component=[{"code": worded(part.title), **_value(part)} for part in measurement.parts],
    )


def _confidence(report: SmearReport, measurement: Measurement) -> list[Element]:
    """The 95 % interval of a share that the network alone counted (guide: AI Confidence).

    What people counted is theirs: its interval stands in the components alone.
    """
    if report.smear.review is not None or not isinstance(measurement.value, Share):
        return []
    limits = [part.value for part in measurement.parts if isinstance(part.value, Share)]
    if len(limits) != 2:
        return []
    low, high = (percent(limit) for limit in limits)
    return [{"url": CONFIDENCE_URL, "valueRange": {"low": low, "high": high}}]


def _status(report: SmearReport) -> str:
    """As the report's; an Observation has no "appended" (R4 observation-status)."""
    return "amended" if report.status == "appended" else report.status


def _value(measurement: Measurement) -> Element:
    """`value[x]` by what was measured, or why there is none."""
    match measurement.value:
        case Share() as share:
            return {"valueQuantity": percent(share)}
        case Concept() as concept:
            return {"valueCodeableConcept": coded(concept)}
        case int() as count:
            return {"valueInteger": count}
        case str() as words:
            return {"valueCodeableConcept": worded(words)}
        case None:
            return {"dataAbsentReason": coded(codes.NOT_PERFORMED, measurement.absent)}

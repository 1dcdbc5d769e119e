"""The figures of a smear as FHIR Observations: one for each, always the same set.

A figure that could not be taken is sent with the reason instead of a value, so that an amended
report never leaves a figure of the former one standing.
"""

from __future__ import annotations

from collections.abc import Iterator

from config import codes
from pipeline.domain import CellType, ReferralReason
from pipeline.smear import LEUKOCYTES, referred_cell_count, usable_field_count
from reporting.fhir_parts import (
    Element,
    SmearReport,
    coded,
    percent,
    reference,
    research_note,
    resource,
    worded,
)
from reporting.wording import (
    FLAG_WORDS,
    GRADE_WORDS,
    REASON_WORDS,
    WARNING_WORDS,
    fields_in_words,
    refused_fields_by_flag,
)

METHOD = "Automated cell finding and ResNet-50 classification on microscope images"


def build_observations(report: SmearReport) -> Iterator[Element]:
    """Every figure of the report, the share of blasts first."""
    yield _blast_share(report)
    for cell_type in LEUKOCYTES:
        yield _cell_type_share(report, cell_type)
    yield _white_cells_counted(report)
    yield _cells_referred(report)
    yield _field_quality(report)
    yield _grade(report)


def _blast_share(report: SmearReport) -> Element:
    """Leukemic cells per 100 leukocytes with the limits of the 95 % Wilson interval."""
    fraction = report.smear.leukemic_fraction
    if fraction is None:
        return _nothing_counted(report, "blasts", coded(codes.BLASTS_PER_LEUKOCYTES))
    return _observation(
        report,
        "blasts",
        coded(codes.BLASTS_PER_LEUKOCYTES),
        valueQuantity=percent(fraction.value),
        component=[
            _component("Lower limit of the 95% interval", valueQuantity=percent(fraction.low)),
            _component("Upper limit of the 95% interval", valueQuantity=percent(fraction.high)),
            _component("Cells called leukemic", valueInteger=report.smear.leukemic_count),
        ],
    )


def _cell_type_share(report: SmearReport, cell_type: CellType) -> Element:
    counted = report.smear.white_cells_counted
    code = _cell_type_code(cell_type)
    if not counted:
        return _nothing_counted(report, cell_type, code)
    seen = report.smear.differential.get(cell_type, 0)
    return _observation(
        report,
        cell_type,
        code,
        valueQuantity=percent(seen / counted),
        component=[_component("Cells seen", valueInteger=seen)],
    )


def _cell_type_code(cell_type: CellType) -> Element:
    concept = codes.CELL_TYPE_SHARE.get(cell_type)
    if concept is None:
        return worded(f"{cell_type.replace('_', ' ').capitalize()}s/Leukocytes in Blood")
    return coded(concept)


def _white_cells_counted(report: SmearReport) -> Element:
    warning = report.smear.count_warning
    return _observation(
        report,
        "white-cells-counted",
        worded("White cells counted on the smear"),
        valueInteger=report.smear.white_cells_counted,
        interpretation=[worded(WARNING_WORDS[warning])] if warning else [],
    )


def _cells_referred(report: SmearReport) -> Element:
    return _observation(
        report,
        "cells-referred",
        worded("Cells referred to an expert"),
        valueInteger=referred_cell_count(report.smear),
        component=[
            _component(f"Referred: {REASON_WORDS[reason]}", valueInteger=count)
            for reason in ReferralReason
            if (count := report.smear.referred.get(reason, 0))
        ],
    )


def _field_quality(report: SmearReport) -> Element:
    """Fields used and refused; the DICOM code where not one could be used."""
    used = usable_field_count(report.smear)
    value = worded(fields_in_words(report.smear)) if used else coded(codes.UNUSABLE_IMAGE)
    refused = refused_fields_by_flag(report.smear)
    return _observation(
        report,
        "field-quality",
        worded("Quality of the smear's fields"),
        valueCodeableConcept=value,
        component=[
            _component("Fields analysed", valueInteger=len(report.smear.fields)),
            _component("Fields used", valueInteger=used),
            *(
                _component(f"Fields refused: {FLAG_WORDS[flag]}", valueInteger=refused[flag])
                for flag in sorted(refused)
            ),
        ],
    )


def _grade(report: SmearReport) -> Element:
    return _observation(
        report,
        "grade",
        coded(codes.SMEAR_FINDING),
        valueCodeableConcept=worded(GRADE_WORDS[report.smear.grade]),
        note=[{"text": report.smear.grade_reason}, *research_note()],
    )


def _nothing_counted(report: SmearReport, name: str, code: Element) -> Element:
    absent = coded(codes.NOT_PERFORMED, "No white cell could be counted")
    return _observation(report, name, code, dataAbsentReason=absent)


def _observation(report: SmearReport, name: str, code: Element, **elements: object) -> Element:
    """What every figure has in common."""
    return resource(
        "Observation",
        report.resource_id("observation", name),
        **{
            "status": report.status,
            "category": [coded(codes.LABORATORY)],
            "code": code,
            "subject": report.subject,
            "effectiveDateTime": report.origin.acquired_at,
            "issued": report.issued,
            "method": worded(METHOD),
            "specimen": reference("Specimen", report.specimen_id),
            "device": reference("Device", report.device_id),
            "derivedFrom": [
                reference("ImagingStudy", report.imaging_study_id(uid)) for uid in report.study_uids
            ],
            "note": research_note(),
            **elements,
        },
    )


def _component(text: str, **value: object) -> Element:
    return {"code": worded(text), **value}

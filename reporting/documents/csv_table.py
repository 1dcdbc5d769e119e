"""Builds the table of a smear: one CSV row per cell, for spreadsheets and research databases.

The first eleven columns are those of the tool that came before, in its order; new columns are
added at the end.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence

from pydicom import Dataset

from pipeline.domain import (
    CELL_TYPES,
    RESEARCH_USE_ONLY,
    Call,
    CellFinding,
    CellType,
    FieldFindings,
    SmearFindings,
    SOPInstanceUID,
)
from pipeline.findings.smear_summary import bucket_of, finding_word, type_word
from reporting.content.identifiers import file_name_of, text_of
from reporting.content.sign_off import sign_off_of
from reporting.derived_uids import derived_id
from reporting.documents.spreadsheet_text import spreadsheet_text
from reporting.results import ObjectReference, ReportContext, Result, ResultKind

COLUMNS = (
    "timestamp",
    "source",
    "annotated_image",
    "cell_index",
    "x",
    "y",
    "width",
    "height",
    "label",
    "probability_leukemic",
    "probability_normal",
    "cell_type",
    "call",
    "reasons",
    "model_sha256",
    "research_use_only",
    "frame",
    "probability_type",
    "smear",
    "finding",
    "bucket",
    "field",
    "study_instance_uid",
    "series_instance_uid",
    "instance_number",
    "accession_number",
    "patient_id",
    "issuer_of_patient_id",
    "specimen_id",
    "slide_id",
    "file_name",
    "report_version",
    "report_status",
    "model_call",
    "model_type",
    "decided_by",
    "decision_reason",
)

CALIBRATION_COLUMN = "calibration_sha256"
"""Only in tables of a network that was calibrated for its laboratory."""

MEDIA_TYPE = "text/csv; charset=utf-8"


LABEL: Mapping[Call, str] = {
    Call.LEUKEMIC: "leukemic",
    Call.NORMAL: "normal",
    Call.REFERRED: "refer to an expert",
}
"""For people, where `call` is for programs."""

Row = dict[str, str | int]


def build_table(
    smear: SmearFindings,
    *,
    headers: Mapping[SOPInstanceUID, Dataset],
    image_uids: Sequence[ObjectReference],
    context: ReportContext,
) -> Result:
    """The cells of `smear` as CSV, field by field; boxes in pixels of the source image.

    "field 258 #3" of the pictures is the row with field 258 and cell_index 3. A smear without a
    cell gives the header line alone.
    """
    table_id = derived_id("table", smear.smear_id, smear.model.key)
    text = io.StringIO()
    columns = (*COLUMNS, CALIBRATION_COLUMN) if smear.model.calibration else COLUMNS
    writer = csv.DictWriter(text, columns, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(_rows(smear, headers, _annotated_images(image_uids), context))
    return Result(
        kind=ResultKind.TABLE,
        name=f"{table_id}.csv",
        media_type=MEDIA_TYPE,
        uid=table_id,
        content=text.getvalue().encode(),
    )


def _rows(
    smear: SmearFindings,
    headers: Mapping[SOPInstanceUID, Dataset],
    annotated: Mapping[tuple[SOPInstanceUID | None, int | None], str],
    context: ReportContext,
) -> Iterator[Row]:
    for number, field in enumerate(smear.fields, start=1):
        of_field: Row = {
            "timestamp": context.issued_at.isoformat(timespec="seconds"),
            "annotated_image": annotated.get((field.sop_instance_uid, field.frame), ""),
            "smear": smear.smear_id,
            "field": number,
            "report_version": context.version,
            "report_status": sign_off_of(smear),
            **_image_columns(field, headers[field.sop_instance_uid]),
        }
        for cell in field.cells:
            yield {**of_field, **_cell_columns(field, cell)}


def _image_columns(field: FieldFindings, header: Dataset) -> Row:
    """Which image of which order the field is, by identifiers alone.

    A formula of a spreadsheet must not come in by an identifier.
    """
    specimen = next(iter(header.get("SpecimenDescriptionSequence") or ()), Dataset())
    return {
        "study_instance_uid": field.study_uid,
        "series_instance_uid": field.series_uid,
        "instance_number": _number_or_text(text_of(header, "InstanceNumber")),
        "accession_number": spreadsheet_text(text_of(header, "AccessionNumber")),
        "patient_id": spreadsheet_text(text_of(header, "PatientID")),
        "issuer_of_patient_id": spreadsheet_text(text_of(header, "IssuerOfPatientID")),
        "specimen_id": spreadsheet_text(text_of(specimen, "SpecimenIdentifier")),
        "slide_id": spreadsheet_text(text_of(header, "ContainerIdentifier")),
        "file_name": spreadsheet_text(file_name_of(header)),
    }


def _number_or_text(words: str) -> str:
    return words if re.fullmatch("-?[0-9]+", words) else spreadsheet_text(words)


def _cell_columns(field: FieldFindings, finding: CellFinding) -> Row:
    probability = finding.prediction.leukemic_probability
    box = finding.cell.box
    return {
        "source": field.sop_instance_uid,
        "frame": field.frame,
        "cell_index": finding.cell.index,
        "x": box.x,
        "y": box.y,
        "width": box.width,
        "height": box.height,
        "label": LABEL[finding.call],
        "probability_leukemic": f"{probability:.4f}",
        "probability_normal": f"{1 - probability:.4f}",
        "cell_type": _cell_type(finding),
        "probability_type": _type_probability(finding),
        "call": finding.call,
        "reasons": " ".join(finding.reasons),
        "model_sha256": field.model.sha256,
        **_calibration_column(field),
        "research_use_only": RESEARCH_USE_ONLY,
        "finding": finding_word(finding),
        "bucket": bucket_of(finding),
        **_decision_columns(finding),
    }


def _calibration_column(field: FieldFindings) -> Row:
    calibration = field.model.calibration
    return {CALIBRATION_COLUMN: calibration.sha256} if calibration else {}


def _cell_type(finding: CellFinding) -> str:
    """As reports name it; a lineage of blasts only where a person told it."""
    if finding.decision is not None:
        return str(finding.cell_type)
    return type_word(finding.cell_type).replace(" ", "_")


def _decision_columns(finding: CellFinding) -> Row:
    """What the network said, and who said otherwise or the same; `call` is what holds."""
    decision = finding.decision
    call, cell_type = finding.call, finding.cell_type
    if decision is not None:
        call, cell_type = decision.model_call or call, decision.model_type or cell_type
    return {
        "model_call": call,
        "model_type": type_word(cell_type).replace(" ", "_"),
        "decided_by": spreadsheet_text(decision.reviewer.name) if decision else "",
        "decision_reason": spreadsheet_text(" ".join(decision.reason.split())) if decision else "",
    }


def _type_probability(finding: CellFinding) -> str:
    """Of `cell_type` as it stands in the table; empty for a type that only a person tells."""
    if finding.cell_type is CellType.UNDETERMINED:
        return f"{max(finding.prediction.type_probabilities):.4f}"
    word = type_word(finding.cell_type)
    own = [
        probability
        for one, probability in zip(CELL_TYPES, finding.prediction.type_probabilities, strict=True)
        if type_word(one) == word
    ]
    return f"{sum(own):.4f}" if own else ""


def _annotated_images(
    references: Sequence[ObjectReference],
) -> Mapping[tuple[SOPInstanceUID | None, int | None], str]:
    return {
        (reference.source, reference.frame): reference.sop_instance_uid
        for reference in references
        if reference.kind is ResultKind.ANNOTATED_FIELD
    }

"""The table of a smear: one CSV row a cell, for spreadsheets and for research databases.

The first eleven columns are those of the tool that came before, in its order.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence

from pipeline.domain import (
    RESEARCH_USE_ONLY,
    Call,
    CellFinding,
    FieldFindings,
    SmearFindings,
    SOPInstanceUID,
)
from reporting.derived_uids import derived_id
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
)

MEDIA_TYPE = "text/csv; charset=utf-8"

LABEL: Mapping[Call, str] = {
    Call.LEUKEMIC: "leukemic",
    Call.NORMAL: "normal",
    Call.REFERRED: "refer to an expert",
}
"""For people, where `call` is for programs."""

LineOfCell = dict[str, str | int]


def build_table(
    smear: SmearFindings, *, image_uids: Sequence[ObjectReference], context: ReportContext
) -> Result:
    """The cells of `smear` as CSV, field by field; boxes in pixels of the source image.

    A smear without a cell gives the header line alone.
    """
    table_id = derived_id("table", smear.smear_id, smear.model.key)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(_lines(smear, _annotated_images(image_uids), context))
    return Result(
        kind=ResultKind.TABLE,
        name=f"{table_id}.csv",
        media_type=MEDIA_TYPE,
        uid=table_id,
        content=text.getvalue().encode(),
    )


def _lines(
    smear: SmearFindings,
    annotated: Mapping[tuple[SOPInstanceUID | None, int | None], str],
    context: ReportContext,
) -> Iterator[LineOfCell]:
    for field in smear.fields:
        image = annotated.get((field.sop_instance_uid, field.frame), "")
        for cell in field.cells:
            yield {
                "timestamp": context.issued_at.isoformat(timespec="seconds"),
                "annotated_image": image,
                "smear": smear.smear_id,
                **_cell_columns(field, cell),
            }


def _cell_columns(field: FieldFindings, finding: CellFinding) -> LineOfCell:
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
        "cell_type": finding.cell_type,
        "probability_type": f"{finding.type_probability:.4f}",
        "call": finding.call,
        "reasons": " ".join(finding.reasons),
        "model_sha256": field.model.sha256,
        "research_use_only": RESEARCH_USE_ONLY,
    }


def _annotated_images(
    references: Sequence[ObjectReference],
) -> Mapping[tuple[SOPInstanceUID | None, int | None], str]:
    return {
        (reference.source, reference.frame): reference.sop_instance_uid
        for reference in references
        if reference.kind is ResultKind.ANNOTATED_FIELD
    }

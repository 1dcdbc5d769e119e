"""Every decision as a finding of the structured report: what was decided, and nothing beyond it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from pydicom import Dataset

from pipeline.domain import Call, CellKind, CellType, ReferralReason
from reporting.dicom.sr_measurement_groups import cell_finding
from reporting.results import ResultKind
from tests.findings import make_cell, make_cell_finding, make_field_findings
from tests.reporting.made import made

DOUBT = (ReferralReason.UNCERTAIN,)
DECIDED: Mapping[str, tuple[Call, CellType, tuple[ReferralReason, ...], str]] = {
    "blast": (Call.LEUKEMIC, CellType.BLAST, (), "blast"),
    "lymphoblast": (Call.LEUKEMIC, CellType.LYMPHOBLAST, (), "blast"),
    "myeloblast": (Call.LEUKEMIC, CellType.MYELOBLAST, (), "blast"),
    "leukemic-promyelocyte": (Call.LEUKEMIC, CellType.PROMYELOCYTE, (), "blast"),
    "neutrophil": (Call.NORMAL, CellType.NEUTROPHIL, (), "neutrophil"),
    "eosinophil": (Call.NORMAL, CellType.EOSINOPHIL, (), "eosinophil"),
    "basophil": (Call.NORMAL, CellType.BASOPHIL, (), "basophil"),
    "lymphocyte": (Call.NORMAL, CellType.LYMPHOCYTE, (), "lymphocyte"),
    "monocyte": (Call.NORMAL, CellType.MONOCYTE, (), "monocyte"),
    "erythroblast": (Call.NORMAL, CellType.ERYTHROBLAST, (), "cell"),
    "platelet": (Call.NORMAL, CellType.PLATELET, (), "platelet"),
    "untold": (Call.NORMAL, CellType.UNDETERMINED, (), "undetermined"),
    "referred-myeloblast": (Call.REFERRED, CellType.MYELOBLAST, DOUBT, "referred"),
    "referred-neutrophil": (Call.REFERRED, CellType.NEUTROPHIL, DOUBT, "referred"),
    "referred-untold": (Call.REFERRED, CellType.UNDETERMINED, DOUBT, "referred"),
    "cut": (Call.REFERRED, CellType.LYMPHOCYTE, (ReferralReason.CUT_BY_EDGE,), "referred"),
    "smudge": (Call.REFERRED, CellType.SMUDGE_CELL, (ReferralReason.SMUDGE_CELL,), "smudge"),
    "smudge-taken-for-a-blast": (
        Call.REFERRED,
        CellType.BLAST,
        (ReferralReason.SMUDGE_CELL,),
        "smudge",
    ),
}
LINEAGES = ("lymphoblast", "myeloblast")


def cell_group(report: Dataset) -> Dataset:
    """The group of the only cell: the one with a tracking identifier that names a cell."""
    for measurements in report.ContentSequence:
        for group in measurements.get("ContentSequence", []):
            items = group.get("ContentSequence", [])
            if any("cell" in str(item.get("TextValue", "")).lower() for item in items):
                found: Dataset = group
                if any(item.ValueType == "SCOORD" for item in items):
                    return found
    raise AssertionError("the report has no group of a cell")


@pytest.mark.invented(kind=22)
@pytest.mark.parametrize("name", DECIDED)
def test_a_finding_is_what_was_decided(name: str) -> None:
    call, cell_type, reasons, word = DECIDED[name]
    kind = CellKind.SMUDGE_CELL if "smudge" in word else CellKind.WHITE_CELL
    cell = make_cell(1, 100, 100, kind=kind)
    finding = replace(make_cell_finding(cell, call, cell_type=cell_type), reasons=reasons)

    meaning = cell_finding(finding).display.lower()

    assert word in meaning
    assert not any(lineage in meaning for lineage in LINEAGES)


@pytest.mark.invented(kind=22)
@pytest.mark.parametrize("name", DECIDED)
def test_the_report_says_the_same_of_the_cell(name: str) -> None:
    call, cell_type, reasons, word = DECIDED[name]
    kind = CellKind.SMUDGE_CELL if "smudge" in word else CellKind.WHITE_CELL
    cell = make_cell(1, 100, 100, kind=kind)
    finding = replace(make_cell_finding(cell, call, cell_type=cell_type), reasons=reasons)

    report = made(ResultKind.STRUCTURED_REPORT, make_field_findings(cells=[finding]))

    said = {
        str(item.ConceptNameCodeSequence[0].CodeMeaning): str(
            item.ConceptCodeSequence[0].CodeMeaning
        ).lower()
        for item in cell_group(report).ContentSequence
        if item.ValueType == "CODE"
    }
    assert word in said["Finding"]

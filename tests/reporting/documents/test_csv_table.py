"""A row a cell: complete, in order, labelled, and readable by any spreadsheet."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pipeline.domain import RESEARCH_USE_ONLY, Call, QualityFlag, SmearFindings
from reporting.documents.csv_table import COLUMNS, build_table
from reporting.results import ObjectReference, ReportContext, Result, ResultKind
from tests.findings import make_field_findings, make_smear_findings
from tests.reporting.headers import make_headers

CONTEXT = ReportContext(
    version=1,
    issued_at=datetime(2026, 11, 22, 20, 0, 30, tzinfo=UTC),
    software_version="0.1.0",
    compress_images=True,
    kinds=frozenset(ResultKind),
)


def table_of(smear: SmearFindings, *images: ObjectReference, **header: str) -> Result:
    return build_table(
        smear, headers=make_headers(smear, **header), image_uids=images, context=CONTEXT
    )


def rows(smear: SmearFindings, *images: ObjectReference) -> list[dict[str, str]]:
    content = table_of(smear, *images).content.decode()
    return list(csv.DictReader(io.StringIO(content, newline="")))


def annotated(smear: SmearFindings, number: int, uid: str) -> ObjectReference:
    field = smear.fields[number]
    return ObjectReference(
        kind=ResultKind.ANNOTATED_FIELD,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
        sop_instance_uid=uid,
        series_instance_uid="2.25.1",
        study_instance_uid=field.study_uid,
        instance_number=number + 1,
        source=field.sop_instance_uid,
        frame=field.frame,
    )


def test_a_smear_of_refused_fields_gives_the_header_alone() -> None:
    blurred = make_field_findings(flags=frozenset({QualityFlag.OUT_OF_FOCUS}), is_usable=False)

    assert rows(make_smear_findings([blurred])) == []


def test_the_columns_of_the_older_tool_come_first() -> None:
    assert COLUMNS[:11] == (
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
    )


def test_every_cell_has_its_row_in_order() -> None:
    smear = make_smear_findings()
    expected = [
        (field.sop_instance_uid, str(cell.cell.index), str(cell.call))
        for field in smear.fields
        for cell in field.cells
    ]

    assert [(r["source"], r["cell_index"], r["call"]) for r in rows(smear)] == expected


def test_a_row_names_the_picture_that_shows_its_cell() -> None:
    smear = make_smear_findings()

    table = rows(smear, annotated(smear, 1, "2.25.7"))

    shown = {r["source"]: r["annotated_image"] for r in table}
    assert shown == {
        smear.fields[0].sop_instance_uid: "",
        smear.fields[1].sop_instance_uid: "2.25.7",
    }


def test_every_row_says_research_use_only() -> None:
    assert {r["research_use_only"] for r in rows(make_smear_findings())} == {RESEARCH_USE_ONLY}


def test_probabilities_add_up_and_referred_cells_say_why() -> None:
    for row in rows(make_smear_findings()):
        assert float(row["probability_leukemic"]) + float(row["probability_normal"]) == 1
        assert bool(row["reasons"]) == (row["call"] == Call.REFERRED)


def test_a_replay_gives_the_same_bytes_and_another_network_another_table() -> None:
    smear = make_smear_findings()
    other = replace(smear, model=replace(smear.model, sha256="aa" * 32))

    first, again, changed = (table_of(s) for s in (smear, smear, other))

    assert first == again
    assert first.uid != changed.uid
    assert first.name == f"{first.uid}.csv"


def test_a_row_leads_to_its_file_order_and_patient() -> None:
    """`field 2 #1` of a picture is the row with field 2 and cell_index 1."""
    smear = make_smear_findings()
    content = table_of(smear, ImageComments="File: blast 7.png", InstanceNumber="4").content

    table = list(csv.DictReader(io.StringIO(content.decode(), newline="")))

    [row] = [r for r in table if (r["field"], r["cell_index"]) == ("2", "1")]
    assert row["source"] == smear.fields[1].sop_instance_uid
    assert (row["file_name"], row["instance_number"]) == ("blast 7.png", "4")
    assert (row["accession_number"], row["patient_id"]) == ("ACC-5", "PID-77")
    assert (row["report_version"], row["report_status"]) == ("1", "unsigned")


@pytest.mark.parametrize("words", ["=HYPERLINK(1)", "+1", "-2+3", "@SUM(1)"])
@pytest.mark.parametrize("keyword", ["AccessionNumber", "PatientID", "ContainerIdentifier"])
def test_no_identifier_becomes_a_formula(keyword: str, words: str) -> None:
    content = table_of(make_smear_findings(), **{keyword: words}).content.decode()

    table = list(csv.DictReader(io.StringIO(content, newline="")))

    column = {"ContainerIdentifier": "slide_id", "PatientID": "patient_id"}
    assert {row[column.get(keyword, "accession_number")] for row in table} == {f"'{words}"}


def test_a_negative_number_stays_a_number() -> None:
    content = table_of(make_smear_findings(), InstanceNumber="-4").content.decode()

    assert {row["instance_number"] for row in csv.DictReader(io.StringIO(content))} == {"-4"}


def test_no_lineage_is_claimed() -> None:
    assert {r["cell_type"] for r in rows(make_smear_findings()) if r["call"] == "leukemic"} == {
        "blast"
    }

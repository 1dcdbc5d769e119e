"""Over random findings, reviewed or not, every output has the same numbers and its parts add up."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from pipeline.domain import (
    CELL_TYPES,
    Call,
    CellKind,
    CellType,
    ReferralReason,
    SmearFindings,
    SmearId,
)
from pipeline.findings.decision import BLASTS
from pipeline.findings.review import CLASSES, Act, ReviewEvent, cell_key, fold, review_smear
from pipeline.findings.smear_summary import gather_smear
from pipeline.rendering import gallery_summary
from pipeline.rendering.gallery import compose_gallery
from pipeline.rendering.pen import Pen
from reporting.results import ResultKind
from tests.findings import make_cell, make_cell_finding, make_field_findings
from tests.reporting.made import read, results_of
from tests.reporting.pdf_reader import printed_text
from tests.reporting.reviews import READER
from tests.reporting.sources import make_source

KINDS = (
    ResultKind.STRUCTURED_REPORT,
    ResultKind.FHIR_BUNDLE,
    ResultKind.HL7_MESSAGE,
    ResultKind.TABLE,
    ResultKind.PDF_REPORT,
)
LEAST_CELLS = 4

NORMAL_TYPES = [t for t in CELL_TYPES if t not in BLASTS] + [CellType.UNDETERMINED]
CELLS = st.one_of(
    st.tuples(st.just(Call.LEUKEMIC), st.sampled_from(sorted(BLASTS & {*CELL_TYPES}))),
    st.tuples(st.just(Call.NORMAL), st.sampled_from(NORMAL_TYPES)),
    st.tuples(st.just(Call.REFERRED), st.sampled_from(list(CELL_TYPES))),
    st.tuples(st.just(Call.REFERRED), st.just(None)),  # a smudge
)
DECISIONS = st.dictionaries(st.integers(0, 11), st.sampled_from(CLASSES), max_size=6)


@dataclass(frozen=True, slots=True)
class Counts:
    """What one output says: cells found, counted, referred, apart; the differential."""

    found: int
    counted: int
    referred: int
    apart: int
    differential: Mapping[str, int]


def smear_of(cells: list[tuple[Call, CellType | None]], decisions: dict[int, str]) -> SmearFindings:
    made = []
    for number, (call, cell_type) in enumerate(cells, start=1):
        is_smudge = cell_type is None
        kind = CellKind.SMUDGE_CELL if is_smudge else CellKind.WHITE_CELL
        cell = make_cell(number, 40 * number, 60, radius=18, kind=kind)
        reason = ReferralReason.SMUDGE_CELL if is_smudge else ReferralReason.UNCERTAIN
        made.append(
            make_cell_finding(
                cell, call, cell_type=cell_type or CellType.MYELOBLAST, reasons=[reason]
            )
        )
    field = make_field_findings(cells=made)
    smear = gather_smear(SmearId("smear-1"), [field])
    events = [
        ReviewEvent(
            id=f"event-{number}",
            revision=number,
            at=datetime(2026, 11, 23, tzinfo=UTC),
            reviewer=READER,
            act=Act.RECLASSIFY,
            cells=(cell_key(field, made[index].cell),),
            to=to,
        )
        for number, (index, to) in enumerate(sorted(decisions.items()), start=1)
        if index < len(made)
    ]
    return review_smear(smear, fold(events)) if events else smear


def expected(smear: SmearFindings) -> Counts:
    cells = [one for field in smear.fields for one in field.cells]
    referred = sum(one.call is Call.REFERRED for one in cells)
    return Counts(
        found=len(cells),
        counted=smear.white_cells_counted,
        referred=referred,
        apart=len(cells) - referred - smear.white_cells_counted,
        differential=_without_zeros(
            Counter(
                "blast" if one.call is Call.LEUKEMIC else str(one.cell_type).replace("_", " ")
                for one in cells
                if one.call is Call.LEUKEMIC
                or (one.call is Call.NORMAL and one.cell_type not in NOT_COUNTED)
            )
        ),
    )


NOT_COUNTED = {
    CellType.PLATELET,
    CellType.ERYTHROBLAST,
    CellType.SMUDGE_CELL,
    CellType.UNDETERMINED,
}


def _without_zeros(counts: Mapping[str, int]) -> dict[str, int]:
    return {word: count for word, count in counts.items() if count}


def in_table(content: bytes) -> Counts:
    rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    buckets = Counter(row["bucket"] for row in rows)
    differential = Counter(
        "blast" if row["call"] == "leukemic" else row["finding"]
        for row in rows
        if row["bucket"] == "counted"
    )
    return Counts(
        found=len(rows),
        counted=buckets["counted"],
        referred=buckets["referred"],
        apart=buckets["undetermined"] + buckets["not_leukocyte"],
        differential=_without_zeros(differential),
    )


def in_bundle(content: bytes) -> Counts:
    observations = {
        made["code"]["text"]: made
        for entry in json.loads(content)["entry"]
        if (made := entry["resource"])["resourceType"] == "Observation"
    }
    numbers = {text: made.get("valueInteger", 0) for text, made in observations.items()}
    counts = {
        _word(text): part["valueInteger"]
        for text, made in observations.items()
        for part in made.get("component", ())
        if part["code"]["text"] in ("Cells seen", "Cells called leukemic")
    }
    return _counts(numbers, counts)


def in_message(content: bytes) -> Counts:
    numbers: dict[str, int] = {}
    counts: dict[str, int] = {}
    title = ""
    for line in content.decode().split("\r"):
        obx = line.split("|")
        if obx[0] != "OBX":
            continue
        words = obx[3].split("^")[1]
        if words in ("Cells seen", "Cells called leukemic"):
            counts[_word(title)] = int(obx[5])
        elif obx[2] == "NM" and obx[6].startswith("{cells}"):
            numbers[words] = int(obx[5])
        if "/Leukocytes" in words:
            title = words
    return _counts(numbers, counts)


def in_pdf(content: bytes) -> Counts:
    words = printed_text(content)
    numbers = {
        title: int(found[1])
        for title in TITLES
        if (found := re.search(rf"{re.escape(title)}: (\d+)", words))
    }
    table = words.split("Differential", 1)[1].split("White cells counted", 1)[0]
    rows = re.findall(r"([A-Z][a-z ]+)s/Leukocytes in Blood (\d+)", table)
    return _counts(numbers, {_word(title): int(count) for title, count in rows})


TITLES = (
    "Cells found",
    "White cells counted on the smear",
    "Cells referred to an expert",
    "Cells of undetermined type, in no percentage",
    "Erythroblasts found, in no percentage",
    "Platelets found, in no percentage",
    "Smudge cells found, in no percentage",
)


def _word(title: str) -> str:
    return title.split("/")[0].removesuffix("s").lower()


def _counts(numbers: Mapping[str, int], differential: Mapping[str, int]) -> Counts:
    found, counted, referred, *apart = (numbers.get(title, 0) for title in TITLES)
    return Counts(found, counted, referred, sum(apart), _without_zeros(differential))


def in_structured_report(report: Dataset) -> Counts:
    [group] = [
        item
        for item in _items(report)
        if item.ValueType == "CONTAINER"
        and any(_name(one) == "Cells found" for one in item.get("ContentSequence", ()))
    ]
    numbers = {
        _name(item): int(item.MeasuredValueSequence[0].NumericValue)
        for item in group.ContentSequence
        if item.ValueType == "NUM" and "share" not in _name(item).lower()
    }
    differential = {
        name.removesuffix(", count").lower(): count
        for name, count in numbers.items()
        if name.endswith(", count")
    }
    apart = ("Cells of undetermined type", "Erythroblasts", "Platelets taken for cells")
    smudges = numbers.get("Smudge cells", 0)
    return Counts(
        found=numbers["Cells found"],
        counted=numbers["White cells counted"],
        referred=numbers["Cells referred to an expert"],
        apart=sum(numbers[name] for name in apart) + smudges,
        differential=_without_zeros(differential),
    )


def _items(dataset: Dataset) -> list[Dataset]:
    found: list[Dataset] = []
    for item in dataset.get("ContentSequence", ()):
        found += [item, *_items(item)]
    return found


def _name(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeMeaning) if names else ""


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(CELLS, max_size=12), DECISIONS)
def test_every_output_says_the_same_numbers_and_they_add_up(
    cells: list[tuple[Call, CellType | None]], decisions: dict[int, str]
) -> None:
    smear = smear_of(cells, decisions)
    sources = {str(f.sop_instance_uid): make_source("microscopic", f) for f in smear.fields}

    results = {
        one.kind: one
        for one in results_of(smear, sources, *KINDS, min_cells_for_percent=LEAST_CELLS)
    }

    truth = expected(smear)
    assert truth.found == truth.counted + truth.referred + truth.apart
    assert sum(truth.differential.values()) == truth.counted
    said = {
        "CSV": in_table(results[ResultKind.TABLE].content),
        "FHIR": in_bundle(results[ResultKind.FHIR_BUNDLE].content),
        "HL7": in_message(results[ResultKind.HL7_MESSAGE].content),
        "PDF": in_pdf(results[ResultKind.PDF_REPORT].content),
        "SR": in_structured_report(read(results[ResultKind.STRUCTURED_REPORT])),
    }
    assert said == dict.fromkeys(said, truth)
    assert in_gallery(smear) == truth
    percentages = [r for r in results.values() if r.kind is ResultKind.PDF_REPORT]
    assert (" %" in printed_text(percentages[0].content)) == (truth.counted >= LEAST_CELLS)


class _Recorder(Pen):
    """A pen that remembers what it wrote."""

    def __init__(self, written: list[str]) -> None:
        super().__init__()
        object.__setattr__(self, "written", written)

    def write(self, canvas: Any, text: str, at: Any, **how: Any) -> None:
        self.written.append(text)  # type: ignore[attr-defined]


def in_gallery(smear: SmearFindings) -> Counts:
    """What the differential of the gallery says: each row is a word, then its number."""
    written: list[str] = []
    canvas = compose_gallery(smear, [], least_cells=LEAST_CELLS)
    gallery_summary.draw_differential(_Recorder(written), canvas, smear, least_cells=LEAST_CELLS)
    rows = written[2 : written.index(gallery_summary.CHART_NOTE[0])]
    numbers = {
        word: int(figure.split()[0]) for word, figure in zip(rows[::2], rows[1::2], strict=True)
    }
    found, referred = numbers.pop("all cells found"), numbers.pop("referred to an expert")
    apart = sum(numbers.pop(word, 0) for word in APART_WORDS)
    return Counts(found, sum(numbers.values()), referred, apart, _without_zeros(numbers))


APART_WORDS = ("type undetermined", "erythroblast", "platelet", "smudge cell")


@pytest.mark.parametrize("cells", [[], [(Call.REFERRED, None)]])
def test_a_smear_without_a_counted_cell_adds_up(cells: list[tuple[Call, CellType | None]]) -> None:
    assert in_gallery(smear_of(cells, {})) == expected(smear_of(cells, {}))

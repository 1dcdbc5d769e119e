"""Over random findings, reviewed or not, every output has the same numbers and its parts add up."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
from reporting.results import ResultKind
from tests.findings import make_cell, make_cell_finding, make_field_findings
from tests.reporting.counts_said import LEAST_CELLS, expected, in_gallery, said_by
from tests.reporting.made import results_of
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

NORMAL_TYPES = [t for t in CELL_TYPES if t not in BLASTS] + [CellType.UNDETERMINED]
CELLS = st.one_of(
    st.tuples(st.just(Call.LEUKEMIC), st.sampled_from(sorted(BLASTS & {*CELL_TYPES}))),
    st.tuples(st.just(Call.NORMAL), st.sampled_from(NORMAL_TYPES)),
    st.tuples(st.just(Call.REFERRED), st.sampled_from(list(CELL_TYPES))),
    st.tuples(st.just(Call.REFERRED), st.just(None)),  # a smudge
)
DECISIONS = st.dictionaries(st.integers(0, 11), st.sampled_from(CLASSES), max_size=6)


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
    said = said_by(results.values())
    assert said == dict.fromkeys(said, truth)
    assert in_gallery(smear) == truth
    percentages = [r for r in results.values() if r.kind is ResultKind.PDF_REPORT]
    assert (" %" in printed_text(percentages[0].content)) == (truth.counted >= LEAST_CELLS)


@pytest.mark.parametrize("cells", [[], [(Call.REFERRED, None)]])
def test_a_smear_without_a_counted_cell_adds_up(cells: list[tuple[Call, CellType | None]]) -> None:
    assert in_gallery(smear_of(cells, {})) == expected(smear_of(cells, {}))

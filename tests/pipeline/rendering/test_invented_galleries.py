"""Smears of few and very many fields and cells: the gallery shows those that matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from pipeline.domain import Call, FieldFindings, QualityFlag, ReferralReason, SmearFindings
from pipeline.rendering.gallery import MOST_CELLS, most_suspicious
from pipeline.rendering.gallery_summary import fields_by_urgency
from tests.findings import make_cell, make_cell_finding, make_field_findings, make_smear_findings

L, R, N = Call.LEUKEMIC, Call.REFERRED, Call.NORMAL


def field(number: int, calls: Sequence[Call], *, is_usable: bool = True) -> FieldFindings:
    cells = [
        make_cell_finding(make_cell(index, 50 * index, 50), call)
        for index, call in enumerate(calls, start=1)
    ]
    return make_field_findings(
        sop_instance_uid=f"1.2.3.{number:05d}",
        cells=cells if is_usable else [],
        is_usable=is_usable,
        flags=frozenset() if is_usable else frozenset({QualityFlag.OUT_OF_FOCUS}),
    )


def smear(*fields: Sequence[Call] | None) -> SmearFindings:
    """A field for each; None is a refused one."""
    return make_smear_findings(
        [
            field(number, calls or (), is_usable=calls is not None)
            for number, calls in enumerate(fields, start=1)
        ]
    )


ORDERS: Mapping[str, tuple[SmearFindings, list[int]]] = {
    "one-field": (smear([N]), [1]),
    "one-refused-field": (smear(None), [1]),
    "all-alike": (smear([N], [N], [N]), [1, 2, 3]),
    "leukemic-last": (smear([N], [N], [L]), [3, 1, 2]),
    "two-leukemic-before-one": (smear([L], [L, L]), [2, 1]),
    "leukemic-before-many-referred": (smear([R] * 30, [L]), [2, 1]),
    "referred-before-normal": (smear([N] * 30, [R]), [2, 1]),
    "refused-first-in-the-smear": (smear(None, [N]), [2, 1]),
    "refused-between": (smear([N], None, [L]), [3, 1, 2]),
    "empty-field-before-refused": (smear(None, []), [2, 1]),
    "equal-leukemic-by-referred": (smear([L], [L, R]), [2, 1]),
    "the-last-of-hundred": (smear(*[[N]] * 99, [L]), [100, *range(1, 100)]),
}


@pytest.mark.invented(kind=4)
@pytest.mark.parametrize("name", ORDERS)
def test_fields_that_matter_are_listed_first(name: str) -> None:
    findings, wanted = ORDERS[name]

    assert [number for number, _ in fields_by_urgency(findings)] == wanted


CELLS: Mapping[str, tuple[SmearFindings, int]] = {
    "none": (smear([]), 0),
    "only-refused": (smear(None, None), 0),
    "fewer-than-there-is-room-for": (smear([L, R, N]), 3),
    "as-many": (smear([R] * MOST_CELLS), MOST_CELLS),
    "one-more": (smear([R] * (MOST_CELLS + 1)), MOST_CELLS),
    "3000-in-one-field": (smear([N] * 3000), MOST_CELLS),
    "one-in-each-of-300-fields": (smear(*[[N]] * 300), MOST_CELLS),
}


@pytest.mark.invented(kind=4)
@pytest.mark.parametrize("name", CELLS)
def test_no_more_cells_than_there_is_room_for(name: str) -> None:
    findings, count = CELLS[name]

    assert len(most_suspicious(findings, MOST_CELLS)) == count


@pytest.mark.invented(kind=4)
@pytest.mark.parametrize("reason", ReferralReason)
def test_a_leukemic_cell_is_never_pushed_off_the_page(reason: ReferralReason) -> None:
    referred = [
        make_cell_finding(make_cell(index, 50, 50), R, probability=0.69, reasons=[reason])
        for index in range(1, 200)
    ]
    last = make_cell_finding(make_cell(200, 50, 50), L, probability=0.7)
    findings = make_smear_findings([make_field_findings(cells=[*referred, last])])

    (_, first), *_ = most_suspicious(findings, MOST_CELLS)

    assert first.cell.index == 200

"""The measurements that FHIR, HL7 and the PDF report: always the same list, and none made up."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import Call, CellType, ReferralReason, SmearFindings
from pipeline.findings.percentages import percent, percent_decimals
from reporting.content.measurements import Measurement, Share, measurements_of
from tests.findings import make_cell, make_cell_finding, make_field_findings, make_smear_findings


def measured(calls: list[Call], *, least_cells: int = 1, **field: Any) -> dict[str, Measurement]:
    smear = make_smear_findings([make_field_findings(calls=calls, **field)])
    return {one.name: one for one in measurements_of(smear, least_cells=least_cells)}


@given(st.lists(st.sampled_from(Call), max_size=10), st.sampled_from([1, 5, 50]))
def test_the_list_is_the_same_for_every_smear(calls: list[Call], least_cells: int) -> None:
    """So a new version never leaves a value of the one before standing."""
    assert list(measured(calls, least_cells=least_cells)) == list(measured([]))


def test_grade_and_counts_come_before_any_share() -> None:
    names = list(measured([Call.LEUKEMIC]))

    assert names[0] == "grade"
    assert names.index("cells-referred") < names.index("blasts")
    assert names.index("white-cells-counted") < names.index("blasts")


def test_nothing_counted_gives_no_share() -> None:
    found = measured([Call.REFERRED] * 3)

    assert found["blasts"].value is None
    assert found["white-cells-counted"].value == 0
    assert not [one for one in found.values() if isinstance(one.value, Share)]
    assert found["cells-referred"].value == 3


def test_below_the_least_count_there_are_counts_and_no_percentage() -> None:
    found = measured([Call.LEUKEMIC] * 10 + [Call.NORMAL] * 3, least_cells=14)

    assert not [one for one in found.values() if isinstance(one.value, Share)]
    assert [part.value for part in found["blasts"].parts] == [10]
    assert "13 white cells were counted" in found["blasts"].absent


def test_shares_are_of_the_counted_cells() -> None:
    found = measured([Call.LEUKEMIC, Call.NORMAL, Call.NORMAL, Call.NORMAL, Call.REFERRED])

    assert found["white-cells-counted"].value == 4
    assert found["blasts"].value == Share(value=0.25, counted=4)
    assert found["lymphocyte"].value == Share(value=0.75, counted=4)
    low, high, count = found["blasts"].parts
    assert isinstance(low.value, Share)
    assert isinstance(high.value, Share)
    assert low.value.value < 0.25 < high.value.value
    assert count.value == 1


def test_no_lineage_is_claimed() -> None:
    assert not {"lymphoblast", "myeloblast"} & set(measured([Call.LEUKEMIC]))


@given(st.integers(1, 10**6))
def test_one_counted_cell_never_rounds_to_nothing_and_no_digit_is_spare(counted: int) -> None:
    assert percent(1 / counted, counted) > 0
    assert percent_decimals(counted) == 0 or round(100 / (counted / 10), percent_decimals(counted))
    assert percent_decimals(counted) <= max(0, len(str(counted)) - 2)


def test_smudges_are_told_per_100_lymphocytes() -> None:
    cells = [
        make_cell_finding(
            make_cell(n + 1, 40 * (n % 20) + 20, 40 * (n // 20) + 20), call, **changed
        )
        for n, (call, changed) in enumerate(
            [(Call.NORMAL, {"cell_type": CellType.LYMPHOCYTE})] * 8
            + [(Call.NORMAL, {"cell_type": CellType.NEUTROPHIL})] * 5
            + [(Call.REFERRED, {"reasons": (ReferralReason.SMUDGE_CELL,)})] * 2
        )
    ]
    smear = make_smear_findings([make_field_findings(cells=cells)])

    assert smudges_told(smear, least_cells=8) == "25 (2 smudge cells, 8 lymphocytes)"
    assert smudges_told(smear, least_cells=9) == "not given, only 8 lymphocytes"


def smudges_told(smear: SmearFindings, *, least_cells: int) -> object:
    found = {one.name: one for one in measurements_of(smear, least_cells=least_cells)}
    parts = {part.name: part.value for part in found["cells-referred"].parts}
    return parts["smudge-cells-per-lymphocytes"]

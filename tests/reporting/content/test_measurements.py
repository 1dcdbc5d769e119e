"""The figures that FHIR, HL7 and the page report: always the same list, and none made up."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import Call
from reporting.content.measurements import Figure, Share, figures_of
from tests.findings import make_field_findings, make_smear_findings


def figures(calls: list[Call], **field: Any) -> dict[str, Figure]:
    smear = make_smear_findings([make_field_findings(calls=calls, **field)])
    return {one.name: one for one in figures_of(smear)}


@given(st.lists(st.sampled_from(Call), max_size=10))
def test_the_list_is_the_same_for_every_smear(calls: list[Call]) -> None:
    """So an amended report never leaves a figure of the former one standing."""
    assert list(figures(calls)) == list(figures([]))


def test_nothing_counted_gives_no_share() -> None:
    found = figures([Call.REFERRED] * 3)

    assert found["blasts"].value is None
    assert found["white-cells-counted"].value == 0
    assert not [one for one in found.values() if isinstance(one.value, Share)]
    assert found["cells-referred"].value == 3


def test_shares_are_of_the_counted_cells() -> None:
    found = figures([Call.LEUKEMIC, Call.NORMAL, Call.NORMAL, Call.NORMAL, Call.REFERRED])

    assert found["white-cells-counted"].value == 4
    assert found["blasts"].value == Share(value=0.25)
    assert found["lymphocyte"].value == Share(value=0.75)
    low, high, count = found["blasts"].parts
    assert isinstance(low.value, Share)
    assert isinstance(high.value, Share)
    assert low.value.value < 0.25 < high.value.value
    assert count.value == 1


@given(st.floats(0, 1))
def test_percent_is_told_to_two_decimals(share: float) -> None:
    assert abs(Share(value=share).percent - 100 * share) <= 0.0051

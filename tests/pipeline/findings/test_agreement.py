"""Agreement as statisticians define it, on examples whose answers are published or plain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.findings.agreement import agree_on_cells, agree_on_shares, kappa_of

BLASTS = frozenset({"blast"})


def test_nothing_compared_is_nothing_claimed() -> None:
    agreement = agree_on_cells([], BLASTS)

    assert (agreement.cells, agreement.kappa, agreement.overall) == (0, None, None)


def test_one_class_alone_has_no_kappa() -> None:
    assert agree_on_cells([("blast", "blast")] * 5, BLASTS).kappa is None


def test_two_smears_give_no_line() -> None:
    assert agree_on_shares([(0.1, 0.1), (0.2, 0.2)]) is None


def test_smears_that_do_not_differ_give_no_line() -> None:
    assert agree_on_shares([(0.1, 0.1)] * 5) is None


def test_kappa_of_a_published_table() -> None:
    """Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions, table 18.1:
    kappa 0.676 with a standard error of 0.088 (n = 100)."""
    counts = [[75, 1, 4], [5, 4, 1], [0, 0, 10]]
    names = ["a", "b", "c"]
    confusion = {
        (names[row], names[column]): counts[row][column] for row in range(3) for column in range(3)
    }

    kappa = kappa_of(confusion)

    assert kappa is not None
    assert kappa.value == pytest.approx(0.676, abs=0.001)
    assert (kappa.high - kappa.low) / 2 / 1.96 == pytest.approx(0.088, abs=0.001)


def test_positive_and_negative_agreement_are_of_the_second_reader() -> None:
    pairs = [("blast", "blast")] * 8 + [("monocyte", "blast")] * 2 + [("monocyte", "monocyte")] * 5

    agreement = agree_on_cells(pairs, BLASTS)

    assert agreement.positive is not None
    assert agreement.negative is not None
    assert agreement.positive.value == pytest.approx(0.8)
    assert agreement.negative.value == 1.0
    assert agreement.confusion[("monocyte", "blast")] == 2


def test_a_doubled_share_has_slope_two() -> None:
    agreement = agree_on_shares([(2 * share, share) for share in (0.01, 0.05, 0.1, 0.2, 0.3, 0.4)])

    assert agreement is not None
    assert agreement.slope.value == pytest.approx(2)
    assert agreement.intercept.value == pytest.approx(0)


def test_a_constant_difference_is_the_bias() -> None:
    agreement = agree_on_shares([(share + 0.02, share) for share in (0.01, 0.05, 0.1, 0.2)])

    assert agreement is not None
    assert agreement.bias.value == pytest.approx(0.02)
    assert agreement.upper_limit.value - agreement.lower_limit.value == pytest.approx(0, abs=1e-9)


SHARES = st.lists(
    st.tuples(st.integers(0, 100), st.integers(0, 100)).map(lambda p: (p[0] / 100, p[1] / 100)),
    min_size=3,
    max_size=30,
)


@given(SHARES)
def test_every_estimate_lies_in_its_interval(pairs: list[tuple[float, float]]) -> None:
    agreement = agree_on_shares(pairs)

    if agreement is not None:
        for estimate in (agreement.slope, agreement.bias, agreement.lower_limit):
            assert estimate.low <= estimate.value + 1e-9
            assert estimate.value <= estimate.high + 1e-9


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), max_size=60))
def test_every_cell_is_in_the_table_once(pairs: list[tuple[str, str]]) -> None:
    agreement = agree_on_cells(pairs, frozenset("a"))

    assert sum(agreement.confusion.values()) == len(pairs)
    if agreement.kappa is not None:
        assert -1 <= agreement.kappa.low <= agreement.kappa.value <= agreement.kappa.high <= 1


def test_readers_who_agree_on_nothing_have_an_interval_as_wide_as_their_few_cells() -> None:
    few = kappa_of({("blast", "monocyte"): 3, ("blast", "neutrophil"): 3})
    many = kappa_of({("blast", "monocyte"): 300, ("blast", "neutrophil"): 300})

    assert few is not None
    assert many is not None
    assert few.value == many.value == 0
    assert few.high > 0.3
    assert many.high < 0.01


def test_full_agreement_on_few_cells_is_not_certain() -> None:
    kappa = kappa_of({("blast", "blast"): 3, ("monocyte", "monocyte"): 3})

    assert kappa is not None
    assert (kappa.value, kappa.high) == (1, 1)
    assert kappa.low < 0.5

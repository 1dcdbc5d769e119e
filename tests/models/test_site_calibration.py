"""A fit to one laboratory: bounded by priors, by least numbers, and judged on smears left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.site_calibration import (
    NORMAL_ABOVE_HALF,
    cell_weights,
    check_enough,
    fit,
    judge,
    logits_of,
    probabilities_of,
)
from pipeline.domain import DecisionPolicy
from pipeline.errors import Rejected

POLICY = DecisionPolicy(refer_above=0.28, leukemic_from=0.72, novelty_limit=1e6, type_from=0.4)

Laboratory = tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.str_]]


def laboratory(
    *,
    slope: float = 1.0,
    offset: float = 0.0,
    smears: int = 12,
    cells: int = 40,
    leukemic_share: float = 0.4,
    seed: int = 1,
) -> Laboratory:
    """Cells whose true logit is slope × said + offset."""
    random = np.random.default_rng(seed)
    count = smears * cells
    is_leukemic = random.random(count) < leukemic_share
    # Two normal distributions one deviation from the middle: the logit of a place is twice it.
    true = 2 * (np.where(is_leukemic, 1.0, -1.0) + random.standard_normal(count))
    names = np.array([f"smear {number // cells}" for number in range(count)])
    return (true - offset) / slope, is_leukemic, names


def named(count: int, smears: int) -> NDArray[np.str_]:
    return np.array([f"smear {number % smears}" for number in range(count)])


# --- what is refused


@pytest.mark.parametrize(
    ("normal", "normal_smears", "leukemic", "leukemic_smears", "missing"),
    [
        (199, 5, 0, 1, "199 normal cells of 5 smears"),
        (400, 4, 0, 1, "400 normal cells of 4 smears"),
        (400, 5, 49, 3, "49 leukemic cells of 3 smears"),
        (400, 5, 90, 2, "90 leukemic cells of 2 smears"),
        (0, 1, 90, 3, "0 normal cells of 0 smears"),
    ],
)
def test_fewer_cells_or_smears_than_a_fit_needs_are_refused(
    normal: int, normal_smears: int, leukemic: int, leukemic_smears: int, missing: str
) -> None:
    is_leukemic = np.repeat([False, True], [normal, leukemic])
    smears = np.concatenate([named(normal, normal_smears), named(leukemic, leukemic_smears)])

    with pytest.raises(Rejected, match=missing) as refusal:
        check_enough(is_leukemic, smears)

    assert refusal.value.code == "calibration_too_few"


def test_leukemic_cells_alone_are_refused() -> None:
    with pytest.raises(Rejected, match="no normal cell") as refusal:
        fit(np.ones(100), np.ones(100, np.bool_), named(100, 5))

    assert refusal.value.code == "calibration_no_normal_cells"


# --- the fit


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (1.6, 3.5), (0.7, -2.0)])
def test_many_smears_bring_back_the_slope_and_offset_of_a_laboratory(
    slope: float, offset: float
) -> None:
    logits, is_leukemic, smears = laboratory(
        slope=slope, offset=offset, smears=400, leukemic_share=0.5
    )

    found = fit(logits, is_leukemic, smears)

    assert found == pytest.approx((slope, offset), rel=0.15, abs=0.25)


def test_few_cells_move_little() -> None:
    logits, is_leukemic, smears = laboratory(offset=4, smears=3, cells=2, leukemic_share=0.5)

    slope, offset = fit(logits, is_leukemic, smears)

    assert 0.7 < slope < 1.5
    assert 0 < offset < 3.5


@given(
    offset=st.floats(-12, 12), slope=st.floats(0.1, 8), seed=st.integers(0, 50),
    share=st.floats(0.05, 0.95),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_fit_is_a_minimum_whatever_the_laboratory(
    offset: float, slope: float, seed: int, share: float
) -> None:
    logits, is_leukemic, smears = laboratory(
        slope=slope, offset=offset, leukemic_share=share, seed=seed
    )

    found = np.array(fit(logits, is_leukemic, smears))

    def loss(place: NDArray[np.float64]) -> float:
        said = place[0] * logits + place[1]
        losses = np.logaddexp(0, np.where(is_leukemic, -said, said))
        prior = (np.log(place[0]) / 0.5) ** 2 / 2 + (place[1] / 2.0) ** 2 / 2
        return float(cell_weights(is_leukemic, smears) @ losses + prior)

    for step in ([0.02, 0], [-0.02, 0], [0, 0.05], [0, -0.05]):
        assert loss(found) <= loss(found * np.exp([step[0], 0]) + [0, step[1]]) + 1e-9


def test_a_label_cut_in_perfect_halves_still_ends() -> None:
    logits = np.repeat([-30.0, 30.0], 200)

    slope, offset = fit(logits, logits > 0, named(400, 8))

    assert 0.2 < slope < 5
    assert abs(offset) < 1


def test_a_smear_of_many_cells_weighs_the_root_of_their_number_and_labels_the_same() -> None:
    is_leukemic = np.repeat([False, False, True], [100, 4, 30])
    smears = np.repeat(["large", "small", "other"], [100, 4, 30])

    weights = cell_weights(is_leukemic, smears)

    assert weights[:100].sum() == pytest.approx(5 * weights[100:104].sum())
    assert weights[:104].sum() == pytest.approx(weights[104:].sum())


# --- normal cells alone


def test_normal_cells_alone_leave_three_in_a_hundred_above_one_half() -> None:
    logits = np.linspace(-6, 2, 400)

    slope, offset = fit(logits, np.zeros(400, np.bool_), named(400, 8))

    assert slope == 1
    assert np.mean(logits + offset >= 0) == pytest.approx(NORMAL_ABOVE_HALF, abs=0.005)


@pytest.mark.parametrize(("place", "expected"), [(-9.0, 3.0), (9.0, -3.0)])
def test_normal_cells_alone_move_no_further_than_three(place: float, expected: float) -> None:
    found = fit(np.full(400, place), np.zeros(400, np.bool_), named(400, 8))

    assert found == (1.0, expected)


# --- judged on smears left out


def test_a_shifted_laboratory_is_answered_better_on_smears_left_out() -> None:
    found = judge(*laboratory(offset=4, smears=20), POLICY)

    assert found.is_better
    assert found.after.log_loss < found.before.log_loss
    assert found.before.sensitivity is not None
    assert found.before.sensitivity < 0.3
    assert found.after.sensitivity is not None
    assert found.after.sensitivity > 0.75


def test_a_laboratory_that_the_network_knows_gains_nothing() -> None:
    """The log loss falls by chance in some of these draws, and never by enough."""
    found = [judge(*laboratory(seed=seed), POLICY) for seed in range(20)]

    fell = [one for one in found if one.after.log_loss < one.before.log_loss]
    assert 0 < len(fell) < 20
    assert not [one for one in found if one.is_better]


def test_normal_cells_are_judged_by_their_share_above_one_half() -> None:
    logits, _, smears = laboratory(offset=-1, leukemic_share=0.0)
    nothing = np.zeros(len(logits), np.bool_)

    found = judge(logits, nothing, smears, POLICY)

    assert found.is_better
    assert not found.has_both_labels
    assert found.before.sensitivity is None
    assert found.after.specificity == pytest.approx(1 - NORMAL_ABOVE_HALF, abs=0.02)


def test_the_same_smears_in_another_order_give_the_same_judgment() -> None:
    logits, is_leukemic, smears = laboratory(offset=2)
    order = np.random.default_rng(0).permutation(len(logits))

    first = judge(logits, is_leukemic, smears, POLICY)
    second = judge(logits[order], is_leukemic[order], smears[order], POLICY)

    assert second.slope == pytest.approx(first.slope)
    assert second.offset == pytest.approx(first.offset)
    assert second.after.log_loss == pytest.approx(first.after.log_loss)


def test_referred_cells_are_neither_called_leukemic_nor_counted_for_it() -> None:
    said = np.repeat([0.1, 0.5, 0.9], [100, 100, 100])

    found = judge(logits_of(said), np.zeros(300, np.bool_), named(300, 6), POLICY)

    assert found.before.referred == pytest.approx(1 / 3)
    assert found.before.called_leukemic == pytest.approx(1 / 2)


# --- logits


@given(st.floats(0, 1))
def test_a_probability_comes_back_from_its_logit(probability: float) -> None:
    back = float(probabilities_of(logits_of(np.array(probability))))

    assert back == pytest.approx(probability, abs=1.1e-6)


def test_zero_one_and_one_half_have_finite_logits() -> None:
    logits = logits_of(np.array([0.0, 0.5, 1.0]))

    assert np.isfinite(logits).all()
    assert logits[1] == 0
    assert logits[0] == pytest.approx(-logits[2])

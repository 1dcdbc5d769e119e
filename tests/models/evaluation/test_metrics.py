"""Figures agree with their definitions, and intervals hold what they were made from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.evaluation.metrics import (
    accuracy,
    area_under_roc,
    balanced_accuracy,
    bootstrap_figure,
    calibration_error,
    macro_f1,
    sensitivity_at_95,
)

NOTHING = np.zeros(0)
LABELS = arrays.arrays(np.bool_, st.integers(2, 40))


def test_figures_of_nothing_have_no_meaning() -> None:
    empty = NOTHING.astype(bool)

    assert area_under_roc(empty, NOTHING) is None
    assert balanced_accuracy(empty, empty) is None
    assert calibration_error(empty, NOTHING) is None
    assert accuracy(NOTHING.astype(int), NOTHING.astype(int)) is None
    assert macro_f1(NOTHING.astype(int), NOTHING.astype(int)) is None
    assert bootstrap_figure(lambda rows: 1.0, []) is None


def test_one_label_alone_cannot_be_ranked() -> None:
    assert area_under_roc(np.array([True, True]), np.array([0.1, 0.9])) is None


def test_sensitivity_at_95_lets_one_normal_cell_in_twenty_through() -> None:
    truths = np.array([False] * 20 + [True] * 4)
    scores = np.array([*np.linspace(0, 0.5, 19), 0.8, 0.4, 0.6, 0.7, 0.9])

    assert sensitivity_at_95(truths, scores) == 0.75
    assert sensitivity_at_95(truths[:20], scores[:20]) is None
    assert sensitivity_at_95(np.zeros(0, dtype=bool), NOTHING) is None


@given(LABELS, st.integers(0, 2**32 - 1))
def test_area_is_the_chance_of_the_right_order(truths: np.ndarray, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 5, len(truths)).astype(float)
    gaps = scores[truths][:, None] - scores[~truths][None]

    area = area_under_roc(truths, scores)

    if truths.all() or not truths.any():
        assert area is None
    else:
        assert area == pytest.approx(float(((gaps > 0) + (gaps == 0) / 2).mean()))


@given(LABELS, st.integers(0, 2**32 - 1))
def test_reversing_the_scores_reverses_the_area(truths: np.ndarray, seed: int) -> None:
    scores = np.random.default_rng(seed).random(len(truths))

    area, reversed_area = area_under_roc(truths, scores), area_under_roc(truths, -scores)

    assert area is None or (reversed_area is not None and area + reversed_area == pytest.approx(1))


def test_calibration_error_is_the_gap_between_said_and_seen() -> None:
    truths = np.array([True] * 5 + [False] * 5)

    assert calibration_error(truths, np.full(10, 0.8)) == pytest.approx(0.3)
    assert calibration_error(truths, truths.astype(float)) == pytest.approx(0)


def test_macro_f1_weighs_rare_classes_like_common_ones() -> None:
    truths = np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, 1])

    assert macro_f1(truths, np.zeros(10, int)) == pytest.approx((18 / 19 + 0) / 2)
    assert macro_f1(truths, truths) == 1


@given(st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=30))
def test_an_interval_holds_its_figure_and_stays_within_the_values(subjects: list[str]) -> None:
    values = np.arange(len(subjects), dtype=float)

    figure = bootstrap_figure(lambda rows: float(values[rows].mean()), subjects, draws=20)

    assert figure is not None
    assert values.min() <= figure.low <= figure.value <= figure.high <= values.max()


def test_one_subject_gives_no_false_width() -> None:
    """A hundred cells of one person are one observation of persons: nothing can be drawn."""
    values = np.arange(100.0)

    figure = bootstrap_figure(lambda rows: float(values[rows].mean()), ["one"] * 100)

    assert figure is not None
    assert figure.low == figure.value == figure.high


def test_strata_keep_both_labels_in_every_draw() -> None:
    truths = np.array([True, False, False, False])

    figure = bootstrap_figure(
        lambda rows: float(truths[rows].any()), list("abcd"), strata=list(truths)
    )

    assert figure is not None
    assert figure.low == 1

"""Types follow a calibrated probability as the network's own graph composes them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.calibrated_classifier import CalibratedClassifier, calibrated
from models.site_calibration import logits_of, probabilities_of
from pipeline.domain import CELL_TYPES, CellType, DecisionPolicy, ModelIdentity, Prediction
from pipeline.findings.decision import LEUKEMIC_TYPES, most_likely_type
from tests.models.graph_types import graph_answer
from tests.models.site_calibrations import make_calibration

HALF = 0.5

types_logits = st.lists(st.floats(-8, 8), min_size=len(CELL_TYPES), max_size=len(CELL_TYPES))
probabilities = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0]))
slopes = st.floats(0.21, 4.9)
offsets = st.floats(-8, 8)


def types_of(said: Prediction) -> NDArray[np.float64]:
    return np.array(said.type_probabilities)


@given(probabilities, types_logits, st.floats(0, 0.99))
def test_a_slope_of_one_without_an_offset_changes_nothing(
    probability: float, logits: list[float], smudge: float
) -> None:
    said = graph_answer(probability, logits, smudge)

    same = calibrated(said, 1.0, 0.0)

    assert same.leukemic_probability == pytest.approx(said.leukemic_probability, abs=1.1e-6)
    assert types_of(same) == pytest.approx(types_of(said), abs=1.1e-6)


@given(probabilities, types_logits, st.floats(0, 1), slopes, offsets)
def test_whatever_the_calibration_types_sum_to_one_and_none_is_negative(
    probability: float, logits: list[float], smudge: float, slope: float, offset: float
) -> None:
    moved = calibrated(graph_answer(probability, logits, smudge), slope, offset)

    assert sum(moved.type_probabilities) == pytest.approx(1, abs=1e-5)
    assert min(moved.type_probabilities) >= -1e-9
    assert 0 <= moved.leukemic_probability <= 1


@given(st.floats(0.02, 0.9), types_logits, st.floats(0, 0.9), st.floats(0.5, 2), st.floats(-3, 3))
def test_types_are_those_that_the_graph_would_compose(
    probability: float, logits: list[float], smudge: float, slope: float, offset: float
) -> None:
    moved = calibrated(graph_answer(probability, logits, smudge), slope, offset)

    expected = graph_answer(moved.leukemic_probability, logits, smudge)

    assert types_of(moved) == pytest.approx(types_of(expected), abs=0.01)


@given(probabilities, types_logits, slopes, offsets)
def test_the_likeliest_type_follows_the_call(
    probability: float, logits: list[float], slope: float, offset: float
) -> None:
    moved = calibrated(graph_answer(probability, logits), slope, offset)

    likeliest = most_likely_type(moved)

    if moved.leukemic_probability >= 0.72:
        assert likeliest in LEUKEMIC_TYPES
    if moved.leukemic_probability <= 0.28:
        assert likeliest is not CellType.BLAST


@given(probabilities, probabilities, slopes, offsets)
def test_cells_keep_their_order(one: float, other: float, slope: float, offset: float) -> None:
    logits = [0.0] * len(CELL_TYPES)
    low, high = sorted((one, other))

    moved = [
        calibrated(graph_answer(probability, logits), slope, offset).leukemic_probability
        for probability in (low, high)
    ]

    assert moved[0] <= moved[1] + 1e-12


@given(types_logits, slopes)
def test_one_half_stays_one_half_without_an_offset(logits: list[float], slope: float) -> None:
    moved = calibrated(graph_answer(HALF, logits), slope, 0.0)

    assert moved.leukemic_probability == pytest.approx(HALF)


def test_a_normal_type_that_rounding_lost_is_not_told() -> None:
    """A network that is sure of a blast says nothing of which normal cell it might be."""
    logits = [0.0] * len(CELL_TYPES)
    logits[CELL_TYPES.index(CellType.MONOCYTE)] = 6.0

    moved = calibrated(graph_answer(1.0, logits), 0.25, -8.0)

    assert moved.leukemic_probability < 0.05
    assert max(moved.type_probabilities) < 0.2


def test_map_novelty_and_smudge_stay() -> None:
    said = graph_answer(0.3, [0.0] * len(CELL_TYPES), smudge=0.4)

    moved = calibrated(said, 1.5, 2.0)

    smudge = CELL_TYPES.index(CellType.SMUDGE_CELL)
    assert moved.novelty == said.novelty
    assert np.array_equal(moved.activation_map, said.activation_map)
    assert moved.type_probabilities[smudge] == said.type_probabilities[smudge]


class Shifted:
    """A network whose logits are all too low."""

    identity = ModelIdentity(name="net", version="1", sha256="a" * 64, execution_provider="CPU")
    policy = DecisionPolicy(refer_above=0.28, leukemic_from=0.72, novelty_limit=1e6)

    def classify(self, crops: NDArray[np.uint8]) -> list[Prediction]:
        return [graph_answer(0.05, [0.0] * len(CELL_TYPES)) for _ in crops]


def test_a_calibrated_classifier_answers_for_its_laboratory_and_says_so() -> None:
    calibration = make_calibration(slope=1.0, offset=4.0, sha256="c" * 64)

    classifier = CalibratedClassifier(Shifted(), calibration)
    (said,) = classifier.classify(np.zeros((1, 224, 224, 3), np.uint8))

    expected = probabilities_of(logits_of(np.array(np.float32(0.05))) + 4.0)
    assert said.leukemic_probability == pytest.approx(float(expected))
    assert classifier.policy == Shifted.policy
    assert classifier.identity.key == "a" * 64 + "c" * 64
    assert classifier.identity.calibration is not None
    assert classifier.identity.calibration.in_words == (
        "calibrated for St. Anna on 2026-11-28 (9 smears)"
    )

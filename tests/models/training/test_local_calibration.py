"""A laboratory calibrates with a few of its smears and is judged on its others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.site_calibration import probabilities_of
from models.training.local_calibration import (
    LEAST_JUDGED,
    SMEARS,
    LabeledCells,
    locally_calibrated,
)
from pipeline.domain import DecisionPolicy

POLICY = DecisionPolicy(refer_above=0.3, leukemic_from=0.7, novelty_limit=1e6)
SUBJECTS, EACH = 40, 30


def shifted_by(offset: float, subjects: int = SUBJECTS) -> LabeledCells:
    """Cells that rank well and whose logits lie `offset` too high."""
    random = np.random.default_rng(4)
    truths = random.random(subjects * EACH) < 0.4
    logits = np.where(truths, 2.0, -2.0) + random.normal(0, 1, len(truths)) + offset
    names = np.repeat([f"s{number:02}" for number in range(subjects)], EACH)
    return LabeledCells(leukemic=probabilities_of(logits), truths=truths, subjects=names)


def test_too_few_subjects_are_not_judged() -> None:
    assert locally_calibrated(shifted_by(0, SMEARS + LEAST_JUDGED - 1), POLICY) is None


def test_an_offset_is_found_by_either_way() -> None:
    told = locally_calibrated(shifted_by(-3), POLICY)

    assert told is not None
    before, normal, both = (told[way] for way in ("before", "normal_cells", "both_labels"))
    assert before["sensitivity"]["value"] < 0.25
    assert normal["sensitivity"]["value"] > 0.9
    assert both["sensitivity"]["value"] > 0.9
    assert both["ece"]["value"] < 0.1 < before["ece"]["value"]
    for one in (before, normal, both):
        assert one["specificity"]["low"] <= one["specificity"]["value"]
        assert one["specificity"]["value"] <= one["specificity"]["high"]


def test_a_laboratory_that_needs_none_is_left_as_it_is() -> None:
    told = locally_calibrated(shifted_by(0), POLICY)

    assert told is not None
    for figure in ("sensitivity", "specificity"):
        before, after = (told[way][figure]["value"] for way in ("before", "both_labels"))
        assert after == pytest.approx(before, abs=0.03)


def test_without_leukemic_cells_only_normal_ones_calibrate() -> None:
    cells = shifted_by(3)
    healthy = replace(
        cells,
        leukemic=cells.leukemic[~cells.truths],
        truths=cells.truths[~cells.truths],
        subjects=cells.subjects[~cells.truths],
    )

    told = locally_calibrated(healthy, POLICY)

    assert told is not None
    assert told["both_labels"] is None
    assert told["normal_cells"]["sensitivity"] is None
    assert told["normal_cells"]["specificity"]["value"] > 0.9
    assert told["before"]["specificity"]["value"] < 0.5


def test_draws_are_the_same_each_time() -> None:
    assert locally_calibrated(shifted_by(1), POLICY) == locally_calibrated(shifted_by(1), POLICY)

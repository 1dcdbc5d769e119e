"""What follows a site calibration is composed as training composes it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="the training environment is not installed")

from models.training.heads import composed, log_chances
from pipeline.domain import CELL_TYPES
from tests.models.graph_types import graph_types


@pytest.mark.parametrize("probability", [0.0, 0.01, 0.3, 0.5, 0.7, 0.99, 1.0])
@pytest.mark.parametrize("smudge", [0.0, 0.4, 1.0])
def test_types_follow_a_probability_as_in_the_heads(probability: float, smudge: float) -> None:
    logits = np.random.default_rng(7).normal(0, 3, len(CELL_TYPES))

    expected = composed(np.array([probability]), np.array([smudge]), logits[None])[0]

    assert graph_types(probability, smudge, list(logits + log_chances())) == pytest.approx(expected)

"""Types as the network's graph composes them, without the training's libraries.

`tests/models/training/test_graph_types.py` holds it to `models.training.heads.composed`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.calibrated_classifier import followed
from pipeline.domain import CELL_TYPES, CellType, Prediction

LEUKEMIC = np.array([kind in (CellType.BLAST, CellType.PROMYELOCYTE) for kind in CELL_TYPES])
NORMAL = np.array([kind not in (CellType.BLAST, CellType.SMUDGE_CELL) for kind in CELL_TYPES])
SMUDGE = np.array([kind is CellType.SMUDGE_CELL for kind in CELL_TYPES])


def graph_types(probability: float, smudge: float, logits: Sequence[float]) -> NDArray[np.float64]:
    """Of one cell; a sum of 1."""
    share = followed(probability)
    cell = share * _among(logits, LEUKEMIC) + (1 - share) * _among(logits, NORMAL)
    return np.asarray((1 - smudge) * cell + smudge * SMUDGE)


def _among(logits: Sequence[float], allowed: NDArray[np.bool_]) -> NDArray[np.float64]:
    odds = np.where(allowed, np.exp(np.array(logits) - max(logits)), 0.0)
    return np.asarray(odds / odds.sum())


def graph_answer(probability: float, logits: Sequence[float], smudge: float = 0.0) -> Prediction:
    """As the graph gives it: at 32 bits."""
    rounded = float(np.float32(probability))
    types = graph_types(rounded, smudge, logits).astype(np.float32)
    return Prediction(
        leukemic_probability=rounded,
        type_probabilities=tuple(float(one) for one in types),
        activation_map=np.ones((7, 7), np.float32),
        novelty=3.0,
    )

"""A classifier whose probabilities are calibrated for one laboratory.

The leukemic probability p becomes sigmoid(slope × logit(p) + offset), and the types follow it as
in the network's own graph (`models.training.heads.composed`, which a test compares with this): a
leukemic cell is a blast or a promyelocyte, a normal one any type but a blast, and what is a smudge
stays apart. Both groups keep their inner shares. Activation map and novelty stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.site_calibration import logits_of, probabilities_of
from models.site_calibration_file import SiteCalibration
from pipeline.analyse import Classifier
from pipeline.domain import CELL_TYPES, CellType, DecisionPolicy, ModelIdentity, Prediction

Shares = TypeVar("Shares", float, NDArray[np.float64])

CALL_POWER = 4
"""How firmly types follow the call, here and in the graph: a cell a little below one half is of a
normal type."""
BLAST = CELL_TYPES.index(CellType.BLAST)
PROMYELOCYTE = CELL_TYPES.index(CellType.PROMYELOCYTE)
SMUDGE = CELL_TYPES.index(CellType.SMUDGE_CELL)
NORMAL = np.array([kind not in (CellType.BLAST, CellType.SMUDGE_CELL) for kind in CELL_TYPES])
OF_NORMAL_ALONE = NORMAL & (np.arange(len(CELL_TYPES)) != PROMYELOCYTE)

LOST = 5e-7
"""Where the share of a group comes down to this, its types are lost in the graph's 32 bits; then
they are taken for equally likely, so that none of them is told."""
UNSEEN = 1e-30
"""Where the share of blasts and promyelocytes comes down to this, a leukemic cell is a blast."""


class CalibratedClassifier:
    """Answers as another classifier does, calibrated; its identity names the calibration."""

    def __init__(self, network: Classifier, calibration: SiteCalibration) -> None:
        self._network = network
        self._calibration = calibration

    @property
    def identity(self) -> ModelIdentity:
        """That of the network, with the calibration."""
        return replace(self._network.identity, calibration=self._calibration.identity)

    @property
    def policy(self) -> DecisionPolicy:
        """Limits of the network."""
        return self._network.policy

    def classify(self, crops: NDArray[np.uint8]) -> list[Prediction]:
        """One prediction per crop, in order, as the network takes them."""
        slope, offset = self._calibration.slope, self._calibration.offset
        return [calibrated(said, slope, offset) for said in self._network.classify(crops)]


def calibrated(said: Prediction, slope: float, offset: float) -> Prediction:
    """The prediction with its probability and types moved by slope and offset of the logit."""
    given = said.leukemic_probability
    moved = float(probabilities_of(slope * logits_of(np.array(given)) + offset))
    types = _composed(np.array(said.type_probabilities, np.float64), given, moved)
    return replace(
        said, leukemic_probability=moved, type_probabilities=tuple(float(one) for one in types)
    )


def _composed(types: NDArray[np.float64], given: float, moved: float) -> NDArray[np.float64]:
    """The types for the probability `moved`, from those for `given`."""
    cell = 1 - types[SMUDGE]
    among_leukemic, among_normal = _groups(types, cell, followed(given))
    share = followed(moved)
    composed = cell * (share * among_leukemic + (1 - share) * among_normal)
    composed[SMUDGE] = types[SMUDGE]
    return np.asarray(composed)


def _groups(
    types: NDArray[np.float64], cell: float, share: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of the types within a leukemic and within a normal cell, a sum of 1 each.

    Of blasts only leukemic cells have a share, and of the other types only normal ones; the
    promyelocyte, which either may be, is the rest of both.
    """
    leukemic, normal = cell * share, cell * (1 - share)
    among_leukemic = np.zeros(len(types))
    among_leukemic[BLAST] = min((types[BLAST] + UNSEEN) / (leukemic + UNSEEN), 1.0)
    among_leukemic[PROMYELOCYTE] = 1 - among_leukemic[BLAST]
    even = NORMAL / NORMAL.sum()
    among_normal = np.where(OF_NORMAL_ALONE, (types + LOST * even) / (normal + LOST), 0.0)
    among_normal /= max(among_normal.sum(), 1.0)
    among_normal[PROMYELOCYTE] = 1 - among_normal.sum()
    return among_leukemic, among_normal


def followed(probability: Shares) -> Shares:
    """The share of leukemic types by the leukemic probability; one half stays one half."""
    ahead, behind = probability**CALL_POWER, (1 - probability) ** CALL_POWER
    return ahead / (ahead + behind)

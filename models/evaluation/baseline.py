"""What colour and area alone can say: the bar that every figure of the network stands beside.

A logistic model on seven plain figures of the masked crop. Its coefficients are fitted by
`python -m models.training.fit_baseline` on training cells and kept in `baseline.toml`.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.findings.crops import CROP_PX, CROP_UM

BASELINE_FILE = Path(__file__).parent / "baseline.toml"
BACKGROUND_LEVEL = 12
"""Brightest channel at or below this is the black around a cell."""

Figures = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Baseline:
    """Logistic model: standardised figures times weights, plus an intercept."""

    mean: Figures
    spread: Figures
    weights: Figures
    intercept: float

    def score(self, figures: Figures) -> Figures:
        """Leukemic probability of N cells from their N×7 figures."""
        logits = (figures - self.mean) / self.spread @ self.weights + self.intercept
        scores: Figures = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
        return scores


def read_baseline(path: Path = BASELINE_FILE) -> Baseline:
    """The committed coefficients."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return Baseline(
        mean=np.array(table["mean"], dtype=np.float64),
        spread=np.array(table["spread"], dtype=np.float64),
        weights=np.array(table["weights"], dtype=np.float64),
        intercept=float(table["intercept"]),
    )


def colour_and_area(crop: NDArray[np.uint8]) -> Figures:
    """Mean and spread of red, green, blue (0 to 1) and log area in µm² of a 224 px masked crop."""
    lit = crop.max(axis=2) > BACKGROUND_LEVEL
    inside = crop[lit] / 255 if lit.any() else np.zeros((1, 3))
    area_um2 = max(int(lit.sum()), 1) * (CROP_UM / CROP_PX) ** 2
    return np.concatenate([inside.mean(axis=0), inside.std(axis=0), [np.log(area_um2)]])

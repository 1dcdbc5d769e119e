"""Draw cells so that colour and size alone do not tell leukemic from normal.

In C-NMC's training patients the normal cells are the smaller and darker ones; in other patients
they are not. A network that learns this is worse than chance there. So each cell weighs the
inverse of how likely its label is by colour and area alone (inverse propensity: Rosenbaum & Rubin
1983, doi:10.1093/biomet/70.1.41), and among the cells drawn neither says anything.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.training.calibrate import subject_weights
from models.training.data import UNKNOWN, CropPack

RIDGE = 1e-3
NEWTON_STEPS = 50
MOST_EVENED = 10.0
"""No cell weighs more than this, however unlike its label its colour and size are."""

Array = NDArray[np.float64]


def evened(pack: CropPack) -> Array:
    """Weight of each row, 1 to MOST_EVENED; 1 in sources that have one label only."""
    weights = np.ones(len(pack.rows))
    truths = np.array([row.leukemic for row in pack.rows])
    sources = np.array([row.source for row in pack.rows])
    for source in np.unique(sources):
        of_it = np.flatnonzero((sources == source) & (truths != UNKNOWN))
        if len(np.unique(truths[of_it])) == 2:
            weights[of_it] = _inverse_propensity(pack, of_it, truths[of_it].astype(np.float64))
    return weights


def _inverse_propensity(pack: CropPack, cells: NDArray[np.intp], truths: Array) -> Array:
    figures = np.stack([_colour_and_area(pack, cell) for cell in cells])
    scaled = (figures - figures.mean(axis=0)) / figures.std(axis=0)
    design = np.column_stack([scaled, np.ones(len(cells))])
    place = fit_logistic(design, truths, subject_weights([pack.rows[cell] for cell in cells]))
    leukemic = 1 / (1 + np.exp(-np.clip(design @ place, -30, 30)))
    return np.asarray(np.minimum(1 / np.where(truths == 1, leukemic, 1 - leukemic), MOST_EVENED))


def _colour_and_area(pack: CropPack, cell: int) -> Array:
    stain = pack.stains[cell]
    area = max(int((pack.masks[cell] > 127).sum()), 1)
    return np.array([*stain.mean, *stain.spread, np.log(area)])


def fit_logistic(design: Array, truths: Array, weights: Array) -> Array:
    """Weighted logistic regression by Newton steps, lightly held to 0."""
    place = np.zeros(design.shape[1])
    ridge = RIDGE * np.eye(design.shape[1])
    for _ in range(NEWTON_STEPS):
        odds = 1 / (1 + np.exp(-np.clip(design @ place, -30, 30)))
        gradient = design.T @ (weights * (odds - truths)) + ridge @ place
        curvature = (design * (weights * odds * (1 - odds))[:, None]).T @ design + ridge
        place = place - np.linalg.solve(curvature, gradient)
    return place

"""What a calibration with a few smears of its own does for a laboratory that was left out.

Draws of `SMEARS` subjects stand for what a laboratory labels before it takes the network into use
(`smearlink calibrate`); its other subjects are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.metrics import calibration_error, sensitivity, specificity
from models.site_calibration import fit, logits_of, probabilities_of

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SMEARS = 10
"""Labeled by the laboratory."""
LEAST_JUDGED = 4
"""Subjects that are left to judge by."""
DRAWS = 20
SEED = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabeledCells:
    """Cells of one laboratory whose label is known, as heads that never saw it answer."""

    leukemic: Array
    """Probabilities."""
    truths: Mask
    subjects: NDArray[np.str_]


def locally_calibrated(cells: LabeledCells, band: tuple[float, float]) -> dict[str, Any] | None:
    """Figures before and after, each the mean over draws with their range (5 to 95 of 100).

    None where too few subjects are left to judge by. `both_labels` is None for a laboratory
    without leukemic cells.
    """
    names = np.unique(cells.subjects)
    if len(names) < SMEARS + LEAST_JUDGED:
        return None
    draws = list(_draws(cells))
    has_both = bool(cells.truths.any())
    return {
        "smears": SMEARS,
        "draws": DRAWS,
        "before": _summed(cells, draws, band, lambda _: (1.0, 0.0)),
        "normal_cells": _summed(
            cells, draws, band, lambda own: _fitted(cells, own & ~cells.truths)
        ),
        "both_labels": _summed(cells, draws, band, lambda own: _fitted(cells, own))
        if has_both
        else None,
    }


def _draws(cells: LabeledCells) -> Iterator[Mask]:
    """The cells of each draw's subjects: they hold both labels where the laboratory has both."""
    random = np.random.default_rng(SEED)
    names = np.unique(cells.subjects)
    wanted = len(np.unique(cells.truths))
    found = 0
    while found < DRAWS:
        own = np.isin(cells.subjects, random.choice(names, SMEARS, replace=False))
        if len(np.unique(cells.truths[own])) == wanted:
            found += 1
            yield own


def _fitted(cells: LabeledCells, learned: Mask) -> tuple[float, float]:
    return fit(logits_of(cells.leukemic[learned]), cells.truths[learned], cells.subjects[learned])


def _summed(
    cells: LabeledCells,
    draws: Sequence[Mask],
    band: tuple[float, float],
    fitted: Callable[[Mask], tuple[float, float]],
) -> dict[str, Mapping[str, float] | None]:
    each = []
    for own in draws:
        slope, offset = fitted(own)
        said = probabilities_of(slope * logits_of(cells.leukemic[~own]) + offset)
        each.append(_figures(said, cells.truths[~own], band))
    return {name: _mean_and_range([one[name] for one in each]) for name in each[0]}


def _figures(said: Array, truths: Mask, band: tuple[float, float]) -> dict[str, float | None]:
    is_referred = (said >= band[0]) & (said < band[1])
    healthy = ~truths & ~is_referred
    return {
        "sensitivity": sensitivity(truths, said >= 0.5),
        "specificity": specificity(truths, said >= 0.5),
        "called_leukemic": float((said[healthy] >= band[1]).mean()) if healthy.any() else None,
        "referred": float(is_referred.mean()),
        "ece": calibration_error(truths, said),
    }


def _mean_and_range(values: Sequence[float | None]) -> Mapping[str, float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, high = np.quantile(known, [0.05, 0.95])
    return {
        "value": round(float(np.mean(known)), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }

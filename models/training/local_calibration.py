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

from models.site_calibration import Figures, cell_weights, figures_of, fit, logits_of
from pipeline.domain import DecisionPolicy

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SMEARS = 10
"""Labeled by the laboratory."""
LEAST_JUDGED = 4
"""Subjects that are left to judge by."""
DRAWS = 20
SEED = 10
KEYS: Mapping[str, str] = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "called_leukemic": "called_leukemic",
    "referred": "referred",
    "calibration_error": "ece",
}
"""Of the figures, as `models/evaluation.json` calls them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabeledCells:
    """Cells of one laboratory whose label is known, as heads that never saw it answer."""

    leukemic: Array
    """Probabilities."""
    truths: Mask
    subjects: NDArray[np.str_]


def locally_calibrated(cells: LabeledCells, policy: DecisionPolicy) -> dict[str, Any] | None:
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
        "before": _summed(cells, draws, policy, lambda _: (1.0, 0.0)),
        "normal_cells": _summed(
            cells, draws, policy, lambda own: _fitted(cells, own & ~cells.truths)
        ),
        "both_labels": _summed(cells, draws, policy, lambda own: _fitted(cells, own))
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
    policy: DecisionPolicy,
    fitted: Callable[[Mask], tuple[float, float]],
) -> dict[str, Mapping[str, float] | None]:
    each = []
    for own in draws:
        slope, offset = fitted(own)
        truths = cells.truths[~own]
        weights = cell_weights(truths, cells.subjects[~own])
        logits = slope * logits_of(cells.leukemic[~own]) + offset
        each.append(figures_of(logits, truths, weights, policy))
    return {key: _mean_and_range(each, name) for name, key in KEYS.items()}


def _mean_and_range(each: Sequence[Figures], name: str) -> Mapping[str, float] | None:
    known = [value for one in each if (value := getattr(one, name)) is not None]
    if not known:
        return None
    low, high = np.quantile(known, [0.05, 0.95])
    return {
        "value": round(float(np.mean(known)), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }

"""Fits a network's probabilities to one laboratory: a slope and an offset of the logit.

A laboratory's stain and camera move the logits of all its cells together, while their order
holds; a few labeled smears of the laboratory tell by how much. See docs/adr/0039.

Probabilities are turned into logits by `logits_of`. `is_leukemic` holds one truth per cell, and
`smears` names the smear of each: cells of one smear are alike, so a smear of n cells weighs as much
as √n independent ones, and both labels weigh the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.evaluation.metrics import calibration_error, sensitivity, specificity
from pipeline.domain import DecisionPolicy
from pipeline.errors import Rejected

Logits = NDArray[np.float64]
Truths = NDArray[np.bool_]
Smears = NDArray[np.str_]

LEAST_PROBABILITY = 1e-6
"""Nearer to 0 or 1 the network's arithmetic says no more."""

OFFSET_SPREAD = 2.0
"""Standard deviation of the offset before a cell is seen: laboratories left out lie within ±4."""
LOG_SLOPE_SPREAD = 0.5
STEPS = 50

NORMAL_ABOVE_HALF = 0.03
"""Of the normal cells of a laboratory that has no leukemic ones to show, this share is left at or
above one half."""
MOST_OFFSET_OF_NORMAL_CELLS = 3.0
"""Normal cells say nothing about how far down the leukemic ones go."""

LEAST_SMEARS, LEAST_NORMAL_CELLS = 5, 200
LEAST_LEUKEMIC_SMEARS, LEAST_LEUKEMIC_CELLS = 3, 50

FOLDS = 5
LEAST_GAIN_ERRORS = 2.0
"""A fall in log loss counts from this many standard errors: in a laboratory that the network knows,
one fit in three seems to gain a little, and next to none does (docs/adr/0039)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How the cells of a laboratory are answered; None where no cell tells."""

    sensitivity: float | None
    """Leukemic cells at or above one half."""
    specificity: float | None
    """Normal cells below one half."""
    called_leukemic: float | None
    """Of the normal cells outside the band of the policy, those called leukemic."""
    referred: float
    """Cells of both labels in the band of the policy."""
    calibration_error: float
    log_loss: float
    """Weighted as the fit weighs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgment:
    """Slope and offset of all cells, and what such a fit does to smears that it did not see."""

    slope: float
    offset: float
    before: Figures
    after: Figures
    """Of cells of smears left out of the fit."""
    has_both_labels: bool
    gain_error: float
    """Standard error of the fall in log loss, over smears."""

    @property
    def is_better(self) -> bool:
        """Whether smears left out are answered better after than before.

        With both labels the log loss falls by more than chance would have it, from smear to smear.
        With normal cells alone, the share of them above one half comes nearer to
        `NORMAL_ABOVE_HALF`.
        """
        if self.has_both_labels:
            gain = self.before.log_loss - self.after.log_loss
            return gain > LEAST_GAIN_ERRORS * self.gain_error
        before, after = (_from_target(one) for one in (self.before, self.after))
        return after < before


def logits_of(probabilities: NDArray[np.floating]) -> Logits:
    """Logits of probabilities, which may be 0 or 1."""
    inside = np.clip(
        np.asarray(probabilities, np.float64), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY
    )
    return np.asarray(np.log(inside) - np.log1p(-inside))


def probabilities_of(logits: Logits) -> NDArray[np.float64]:
    """The inverse of `logits_of`."""
    return np.asarray(0.5 * (1 + np.tanh(np.asarray(logits, np.float64) / 2)))


def raw_probability(calibrated: float, slope: float, offset: float) -> float:
    """The probability that the network itself gave, from that under a calibration."""
    return float(probabilities_of((logits_of(np.array(calibrated)) - offset) / slope))


def fit(logits: Logits, is_leukemic: Truths, smears: Smears) -> tuple[float, float]:
    """Slope and offset that bring the logits of a laboratory to its labels.

    With normal cells alone the slope is 1. No least number of cells is asked for; see
    `check_enough`. Raises Rejected (calibration_no_normal_cells) without a normal cell.
    """
    if is_leukemic.all():
        raise Rejected(
            "There is no normal cell: how far down normal cells go cannot be told from leukemic "
            "ones. Add smears with normal cells.",
            code="calibration_no_normal_cells",
        )
    if not is_leukemic.any():
        return 1.0, _offset_of_normal_cells(logits, smears)
    return _most_probable(logits, is_leukemic, cell_weights(is_leukemic, smears))


def cell_weights(is_leukemic: Truths, smears: Smears) -> NDArray[np.float64]:
    """Of each cell; within a label a smear of n cells weighs √n, and both labels weigh the same."""
    weights = np.zeros(len(smears))
    for label in (False, True):
        chosen = is_leukemic == label
        if chosen.any():
            _, inverse, counts = np.unique(smears[chosen], return_inverse=True, return_counts=True)
            weights[chosen] = 1 / np.sqrt(counts[inverse])
    whole = weights.sum()
    for label in (False, True):
        chosen = is_leukemic == label
        if chosen.any() and not chosen.all():
            weights[chosen] *= whole / 2 / weights[chosen].sum()
    return weights


def _most_probable(
    logits: Logits, is_leukemic: Truths, weights: NDArray[np.float64]
) -> tuple[float, float]:
    """Maximum a posteriori by Newton steps over log slope and offset, halved until they gain."""
    place = np.zeros(2)
    loss = _penalized_loss(place, logits, is_leukemic, weights)
    for _ in range(STEPS):
        stretched = np.exp(place[0]) * logits
        said = probabilities_of(stretched + place[1])
        missed = weights * (said - is_leukemic)
        spread = weights * said * (1 - said)
        tight = np.array([LOG_SLOPE_SPREAD**-2, OFFSET_SPREAD**-2])
        gradient = np.array([missed @ stretched, missed.sum()]) + tight * place
        # Gauss-Newton: the second derivative of exp(log slope) is left out, so that it is positive.
        cross = spread @ stretched
        curvature = np.array([[spread @ stretched**2, cross], [cross, spread.sum()]])
        step = np.linalg.solve(curvature + np.diag(tight), gradient)
        while np.abs(step).max() > 1e-9:
            tried = _penalized_loss(place - step, logits, is_leukemic, weights)
            if tried <= loss:
                break
            step = step / 2
        if np.abs(step).max() <= 1e-9:
            break
        place, loss = place - step, tried
    return float(np.exp(place[0])), float(place[1])


def _penalized_loss(
    place: NDArray[np.float64],
    logits: Logits,
    is_leukemic: Truths,
    weights: NDArray[np.float64],
) -> float:
    penalty = (place[0] / LOG_SLOPE_SPREAD) ** 2 / 2 + (place[1] / OFFSET_SPREAD) ** 2 / 2
    return float(weights @ _losses(np.exp(place[0]) * logits + place[1], is_leukemic) + penalty)


def _losses(logits: Logits, is_leukemic: Truths) -> NDArray[np.float64]:
    return np.asarray(np.logaddexp(0, np.where(is_leukemic, -logits, logits)))


def _offset_of_normal_cells(logits: Logits, smears: Smears) -> float:
    """The offset that leaves `NORMAL_ABOVE_HALF` of the cells at or above one half."""
    weights = cell_weights(np.zeros(len(logits), np.bool_), smears)
    order = np.argsort(logits)
    below = np.cumsum(weights[order]) / weights.sum()
    place = int(np.searchsorted(below, 1 - NORMAL_ABOVE_HALF))
    limit = logits[order][min(place, len(logits) - 1)]
    most = MOST_OFFSET_OF_NORMAL_CELLS
    return float(np.clip(-limit, -most, most))


def check_enough(is_leukemic: Truths, smears: Smears) -> None:
    """Raise Rejected (calibration_too_few) where a fit would follow chance."""
    normal, leukemic = ~is_leukemic, is_leukemic
    normal_smears = len(np.unique(smears[normal]))
    if normal_smears < LEAST_SMEARS or normal.sum() < LEAST_NORMAL_CELLS:
        raise Rejected(
            f"There are {int(normal.sum())} normal cells of {normal_smears} smears; a calibration "
            f"needs {LEAST_NORMAL_CELLS} of {LEAST_SMEARS}. Label more smears.",
            code="calibration_too_few",
        )
    leukemic_smears = len(np.unique(smears[leukemic]))
    is_short = leukemic_smears < LEAST_LEUKEMIC_SMEARS or leukemic.sum() < LEAST_LEUKEMIC_CELLS
    if leukemic.any() and is_short:
        raise Rejected(
            f"There are {int(leukemic.sum())} leukemic cells of {leukemic_smears} smears; with "
            f"leukemic cells a calibration needs {LEAST_LEUKEMIC_CELLS} of "
            f"{LEAST_LEUKEMIC_SMEARS}. Label more, or leave them out with --normal-cells-only.",
            code="calibration_too_few",
        )


def judge(logits: Logits, is_leukemic: Truths, smears: Smears, policy: DecisionPolicy) -> Judgment:
    """Fit to all cells, and judge fits to four fifths of the smears on the fifth left out.

    Raises Rejected (calibration_too_few, calibration_no_normal_cells) as `check_enough` and `fit`.
    """
    check_enough(is_leukemic, smears)
    slope, offset = fit(logits, is_leukemic, smears)
    weights = cell_weights(is_leukemic, smears)
    left_out = np.empty(len(logits))
    for held in _folds(is_leukemic, smears):
        own_slope, own_offset = fit(logits[~held], is_leukemic[~held], smears[~held])
        left_out[held] = own_slope * logits[held] + own_offset
    return Judgment(
        slope=slope,
        offset=offset,
        before=figures_of(logits, is_leukemic, weights, policy),
        after=figures_of(left_out, is_leukemic, weights, policy),
        has_both_labels=bool(is_leukemic.any()),
        gain_error=_gain_error(
            weights * (_losses(logits, is_leukemic) - _losses(left_out, is_leukemic)),
            is_leukemic,
            smears,
            weights,
        ),
    )


def _gain_error(
    gains: NDArray[np.float64],
    is_leukemic: Truths,
    smears: Smears,
    weights: NDArray[np.float64],
) -> float:
    """Of the sum of the gains: whole smears vary, within each label, whose weight is fixed."""
    spread = 0.0
    for label in (False, True):
        chosen = is_leukemic == label
        _, inverse = np.unique(smears[chosen], return_inverse=True)
        count = int(inverse.max(initial=-1)) + 1
        if count < 2:
            continue
        mean = gains[chosen].sum() / weights[chosen].sum()
        apart = np.bincount(inverse, gains[chosen] - mean * weights[chosen])
        spread += count / (count - 1) * float((apart**2).sum())
    return float(np.sqrt(spread) / weights.sum())


def _folds(is_leukemic: Truths, smears: Smears) -> Sequence[Truths]:
    """Which cells each fit leaves out; smears with leukemic cells are dealt out first."""
    names = np.unique(smears)
    marked = frozenset(smears[is_leukemic])
    ordered = sorted(names, key=lambda name: (name not in marked, name))
    count = min(FOLDS, len(ordered))
    return [np.isin(smears, ordered[place::count]) for place in range(count)]


def figures_of(
    logits: Logits,
    is_leukemic: Truths,
    weights: NDArray[np.float64],
    policy: DecisionPolicy,
) -> Figures:
    """How cells with these logits are answered; `weights` are those of `cell_weights`."""
    said = probabilities_of(logits)
    is_called = said >= policy.leukemic_from
    is_referred = (said >= policy.refer_above) & ~is_called
    return Figures(
        sensitivity=sensitivity(is_leukemic, said >= 0.5),
        specificity=specificity(is_leukemic, said >= 0.5),
        called_leukemic=_share(is_called[~is_leukemic & ~is_referred]),
        referred=float(is_referred.mean()),
        calibration_error=calibration_error(is_leukemic, said) or 0.0,
        log_loss=float(weights @ _losses(logits, is_leukemic) / weights.sum()),
    )


def _share(values: Truths) -> float | None:
    return float(values.mean()) if len(values) else None


def _from_target(figures: Figures) -> float:
    return abs((1 - (figures.specificity or 0.0)) - NORMAL_ABOVE_HALF)

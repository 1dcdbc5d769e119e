"""Figures with honest intervals: ranking, calls, calibration, and a bootstrap over subjects.

numpy only. Truths are boolean (True = leukemic), probabilities 0 to 1, all of one length N.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Truths = NDArray[np.bool_]
Scores = NDArray[np.float64]
Labels = NDArray[np.int64]
Measure = Callable[[NDArray[np.int64]], float | None]
"""A figure of the rows with these indices (a row drawn twice counts twice), or None."""

BOOTSTRAP_DRAWS = 400
BOOTSTRAP_SEED = 3
CALIBRATION_BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure with its 95 % interval by bootstrap over subjects."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """Rounded to four digits: more would pretend a precision that no pack here has."""
        return {
            "value": round(self.value, 4),
            "low": round(self.low, 4),
            "high": round(self.high, 4),
        }


def bootstrap_figure(
    measure: Measure,
    subjects: Sequence[str],
    *,
    strata: Sequence[object] | None = None,
    draws: int = BOOTSTRAP_DRAWS,
    seed: int = BOOTSTRAP_SEED,
) -> Figure | None:
    """`measure` on all rows, with its interval when whole subjects are drawn with replacement.

    Rows without a subject (empty text) are subjects of their own. `strata` (one value a row,
    e.g. the label) keeps the number of subjects of each kind, so that few subjects of one label
    do not vanish from a draw. None when the figure has no meaning on the whole.
    """
    rows = np.arange(len(subjects))
    value = measure(rows) if len(rows) else None
    if value is None:
        return None
    groups = _rows_by_subject(subjects, strata)
    random = np.random.default_rng(seed)
    drawn = [measure(_draw_subjects(groups, random)) for _ in range(draws)]
    known = [figure for figure in drawn if figure is not None]
    if not known:
        return Figure(value=value, low=value, high=value)
    low, high = np.quantile(known, [0.025, 0.975])
    return Figure(value=value, low=min(value, float(low)), high=max(value, float(high)))


def _rows_by_subject(
    subjects: Sequence[str], strata: Sequence[object] | None
) -> list[list[NDArray[np.int64]]]:
    """One list of subjects (each an array of row indices) a stratum."""
    by_subject: dict[str, list[int]] = {}
    for row, subject in enumerate(subjects):
        by_subject.setdefault(subject or f"row {row}", []).append(row)
    by_stratum: dict[frozenset[object], list[NDArray[np.int64]]] = {}
    for rows in by_subject.values():
        stratum = frozenset(strata[row] for row in rows) if strata is not None else frozenset()
        by_stratum.setdefault(stratum, []).append(np.array(rows, dtype=np.int64))
    return list(by_stratum.values())


def _draw_subjects(
    groups: list[list[NDArray[np.int64]]], random: np.random.Generator
) -> NDArray[np.int64]:
    return np.concatenate(
        [group[index] for group in groups for index in random.integers(0, len(group), len(group))]
    )


def area_under_roc(truths: Truths, scores: Scores) -> float | None:
    """Chance that a leukemic cell ranks above a normal one, ties half; None if one-sided."""
    positives = int(truths.sum())
    negatives = len(truths) - positives
    if positives == 0 or negatives == 0:
        return None
    rank_sum = float(_ranks(scores)[truths].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def _ranks(scores: Scores) -> Scores:
    """1-based ranks, tied values sharing their mean."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Scores = (last - (counts - 1) / 2)[inverse]
    return ranks


def sensitivity(truths: Truths, calls: Truths) -> float | None:
    """Share of the leukemic that were called leukemic."""
    return _share(calls[truths])


def specificity(truths: Truths, calls: Truths) -> float | None:
    """Share of the normal that were not called leukemic."""
    return _share(~calls[~truths])


def sensitivity_at_95(truths: Truths, scores: Scores) -> float | None:
    """Share of the leukemic above the score that at most 5 % of the normal exceed."""
    if truths.all() or not truths.any():
        return None
    normal = np.sort(scores[~truths])
    limit = normal[len(normal) - 1 - len(normal) // 20]
    return _share(scores[truths] > limit)


def balanced_accuracy(truths: Truths, calls: Truths) -> float | None:
    """Mean of sensitivity and specificity; None where one label is missing."""
    found, spared = sensitivity(truths, calls), specificity(truths, calls)
    return None if found is None or spared is None else (found + spared) / 2


def _share(values: NDArray[np.bool_]) -> float | None:
    return float(values.mean()) if len(values) else None


def calibration_error(truths: Truths, probabilities: Scores) -> float | None:
    """Expected calibration error over ten equal bins of the probability."""
    if len(truths) == 0:
        return None
    bins = np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    gaps = np.abs(
        np.bincount(bins, truths, CALIBRATION_BINS)
        - np.bincount(bins, probabilities, CALIBRATION_BINS)
    )
    return float(gaps.sum() / counts.sum())


def accuracy(truths: Labels, answers: Labels) -> float | None:
    """Share of the rows whose class was named."""
    return _share(truths == answers)


def macro_f1(truths: Labels, answers: Labels) -> float | None:
    """Mean F1 over the classes that occur in the truth."""
    classes = np.unique(truths)
    if len(classes) == 0:
        return None
    return float(np.mean([_f1(truths == kind, answers == kind) for kind in classes]))


def _f1(truths: Truths, answers: Truths) -> float:
    hits = int((truths & answers).sum())
    return 2 * hits / int(truths.sum() + answers.sum())

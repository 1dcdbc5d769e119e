"""Agreement of two readers of the same cells: confusion, kappa, agreement, and blast shares.

One reader is the network and the other a person, or both are people. Sources: Cohen 1960 and
Fleiss, Cohen and Everitt 1969 (kappa), CLSI EP12 (overall, positive and negative agreement),
Passing and Bablok 1983, Bland and Altman 1986.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from pipeline.domain import Interval
from pipeline.findings.percentages import wilson

SMALLEST_VARIANCE = 1e-12
"""Less is rounding."""

LEAST_SMEARS = 3
"""Fewer pairs give no line and no spread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CellAgreement:
    """How far two readers agree on cells."""

    cells: int
    confusion: Mapping[tuple[str, str], int]
    """Cells by (first reader's class, second reader's class), zeros left out."""
    kappa: Estimate | None
    """None where both readers use one class only: kappa is not defined."""
    overall: Interval | None
    positive: Interval | None
    """Of the second reader's blasts, the share that the first calls blasts; None without one."""
    negative: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareAgreement:
    """How far two readers agree on the blast share of smears; shares are 0 to 1."""

    smears: int
    slope: Estimate
    intercept: Estimate
    """Passing and Bablok: first reader = intercept + slope × second reader."""
    bias: Estimate
    """Mean difference, first minus second (Bland and Altman)."""
    lower_limit: Estimate
    upper_limit: Estimate
    """95 % limits of agreement."""


def agree_on_cells(pairs: Sequence[tuple[str, str]], blasts: frozenset[str]) -> CellAgreement:
    """Compare the classes that two readers gave the same cells, in pairs (first, second)."""
    confusion: dict[tuple[str, str], int] = {}
    for pair in sorted(pairs):
        confusion[pair] = confusion.get(pair, 0) + 1
    positive = [first in blasts for first, second in pairs if second in blasts]
    negative = [first not in blasts for first, second in pairs if second not in blasts]
    return CellAgreement(
        cells=len(pairs),
        confusion=confusion,
        kappa=kappa_of(confusion),
        overall=_share([first == second for first, second in pairs]),
        positive=_share(positive),
        negative=_share(negative),
    )


def kappa_of(confusion: Mapping[tuple[str, str], int]) -> Estimate | None:
    """Cohen's kappa with the interval of Fleiss, Cohen and Everitt (1969, formula 13).

    Where that has no width, as with no or full agreement, the interval is that of the overall
    agreement (Wilson) with the expected agreement taken as known.
    """
    classes = sorted({name for pair in confusion for name in pair})
    n = sum(confusion.values())
    if n == 0 or len(classes) < 2:
        return None
    p = np.array([[confusion.get((a, b), 0) / n for b in classes] for a in classes])
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    observed, expected = float(np.trace(p)), float(rows @ columns)
    if expected >= 1:
        return None
    kappa = (observed - expected) / (1 - expected)
    diagonal = np.diag(p) * (1 - (rows + columns) * (1 - kappa)) ** 2
    # Off the diagonal the weight is (column's share of a + row's share of b)².
    crossed = p * (columns[:, None] + rows[None, :]) ** 2
    off_diagonal = (1 - kappa) ** 2 * (crossed.sum() - np.trace(crossed))
    variance = diagonal.sum() + off_diagonal - (kappa - expected * (1 - kappa)) ** 2
    if variance < SMALLEST_VARIANCE:
        overall = wilson(round(observed * n), n)
        low, high = ((share - expected) / (1 - expected) for share in (overall.low, overall.high))
        return Estimate(value=kappa, low=max(-1.0, low), high=min(1.0, high))
    error = math.sqrt(variance / n) / (1 - expected)
    reach = NormalDist().inv_cdf(0.975) * error
    return Estimate(value=kappa, low=max(-1.0, kappa - reach), high=min(1.0, kappa + reach))


def agree_on_shares(pairs: Sequence[tuple[float, float]]) -> ShareAgreement | None:
    """Compare the blast shares of smears, in pairs (first, second); None below three smears."""
    if len(pairs) < LEAST_SMEARS:
        return None
    first, second = np.array(pairs, dtype=float).T
    line = _passing_bablok(second, first)
    if line is None:
        return None
    slope, intercept = line
    n = len(pairs)
    difference = first - second
    bias, spread = float(difference.mean()), float(difference.std(ddof=1))
    t = _t_975(n - 1)
    limit_error = spread * math.sqrt(1 / n + 1.96**2 / (2 * (n - 1)))
    return ShareAgreement(
        smears=n,
        slope=slope,
        intercept=intercept,
        bias=_around(bias, t * spread / math.sqrt(n)),
        lower_limit=_around(bias - 1.96 * spread, t * limit_error),
        upper_limit=_around(bias + 1.96 * spread, t * limit_error),
    )


def _passing_bablok(
    x: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    y: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> tuple[Estimate, Estimate] | None:
    """Slope and intercept of y on x; None where no two smears differ in x or y."""
    i, j = np.triu_indices(len(x), k=1)
    dx, dy = x[j] - x[i], y[j] - y[i]
    moved = (dx != 0) | (dy != 0)
    dx, dy = dx[moved], dy[moved]
    with np.errstate(divide="ignore"):
        slopes = np.where(dx == 0, np.copysign(np.inf, dy), dy / np.where(dx == 0, 1, dx))
    slopes = np.sort(slopes[slopes != -1])
    if not len(slopes):
        return None
    shift = int((slopes < -1).sum())
    n, count = len(x), len(slopes)
    reach = 1.96 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low_rank = max(0, round((count - reach) / 2) + shift - 1)
    high_rank = min(count - 1, round((count + reach) / 2) + shift)
    middle = _shifted_median(slopes, shift)
    slope = Estimate(value=middle, low=float(slopes[low_rank]), high=float(slopes[high_rank]))
    if not all(math.isfinite(one) for one in (slope.value, slope.low, slope.high)):
        return None
    intercept = Estimate(
        value=float(np.median(y - slope.value * x)),
        low=float(np.median(y - slope.high * x)),
        high=float(np.median(y - slope.low * x)),
    )
    return slope, intercept


def _shifted_median(slopes: np.ndarray[tuple[int, ...], np.dtype[np.float64]], shift: int) -> float:
    count = len(slopes)
    at = min(count - 1, (count - 1) // 2 + shift)
    if count % 2 or at + 1 >= count:
        return float(slopes[at])
    return float((slopes[at] + slopes[at + 1]) / 2)


def _around(value: float, reach: float) -> Estimate:
    return Estimate(value=value, low=value - reach, high=value + reach)


def _share(hits: Sequence[bool]) -> Interval | None:
    return wilson(sum(hits), len(hits)) if hits else None


def _t_975(freedom: int) -> float:
    """The 97.5 % point of Student's t (Abramowitz and Stegun 26.7.5), within 0.03 from 3 on."""
    z = NormalDist().inv_cdf(0.975)
    terms = (
        z,
        (z**3 + z) / (4 * freedom),
        (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3),
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * freedom**4),
    )
    return sum(terms)

"""Percentages with the digits that the number of counted cells supports, or none at all.

A percentage of a handful of cells misleads whatever its digits, so below a minimum count there is
none; counts are always given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from pipeline.domain import Interval
from pipeline.errors import Defect

Z_95 = 1.959963984540054
"""Two-sided 95 % point of the normal distribution."""

MIN_CELLS_FOR_PERCENT = 50
"""Laboratories report a differential of 50 cells in leukopenia, and none that is shorter."""

WHOLE_PERCENTS_BELOW = 200
"""Below a full count one cell is more than half a percent: whole percents say all there is."""


def has_percentages(counted: int, *, least: int = MIN_CELLS_FOR_PERCENT) -> bool:
    """Whether percentages of `counted` cells are given at all."""
    return counted >= max(least, 1)


def percent_decimals(counted: int) -> int:
    """The fewest decimals with which one cell of `counted` does not round to zero percent."""
    return max(0, math.floor(math.log10(max(counted, 1) / WHOLE_PERCENTS_BELOW)) + 1)


def percent(share: float, counted: int) -> float:
    """A share (0 to 1) of `counted` cells in percent, rounded to the digits that they support."""
    return round(100 * share, percent_decimals(counted))


def percent_text(share: float, counted: int) -> str:
    """As `percent`, in words: `25 %`."""
    return f"{percent(share, counted):.{percent_decimals(counted)}f} %"


def interval_text(interval: Interval, counted: int) -> str:
    """`25 % (95% interval 11 % to 47 %)`."""
    value, low, high = _texts(interval, counted)
    return f"{value} (95% interval {low} to {high})"


def _texts(interval: Interval, counted: int) -> Iterator[str]:
    return (percent_text(share, counted) for share in (interval.value, interval.low, interval.high))


def wilson(k: int, n: int) -> Interval:
    """Share k/n with its 95 % score interval (Wilson 1927); raises `Defect` unless 0 ≤ k ≤ n > 0.

    Chosen over the textbook interval because it stays within 0 to 1 and keeps its promise for
    the small counts and rare cells that a smear gives.
    """
    if not 0 <= k <= n or n == 0:
        raise Defect(f"An interval needs 0 <= k <= n and n > 0, not {k} of {n}.", code="bad_count")
    share = k / n
    squeeze = 1 + Z_95**2 / n
    center = (share + Z_95**2 / (2 * n)) / squeeze
    reach = Z_95 * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2)) / squeeze
    return Interval(
        value=share,
        low=0.0 if k == 0 else max(0.0, center - reach),
        high=1.0 if k == n else min(1.0, center + reach),
    )

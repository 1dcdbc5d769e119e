"""Percentages with the digits that the number of counted cells supports, or none at all.

A percentage of a handful of cells misleads whatever its digits, so below a minimum count there is
none; counts are always given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from pipeline.domain import Interval

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

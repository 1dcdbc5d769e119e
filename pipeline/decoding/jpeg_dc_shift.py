"""Detects DC-coefficient shifts that corrupted data leaves in a decoded JPEG.

A JPEG codes the mean of each block as the difference from the block before (T.81 F.1.1.5.1). A
flipped bit there is still valid code, and lightens, darkens or tints every block that follows: the
rest of its row, and all rows below. No photograph has a step that runs along one row of blocks to
the right edge and continues, one row further down, from the left edge to the same column.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_STEP = 5.0
"""Gray levels; fainter steps cannot be distinguished from camera noise."""
_MOST, _FEW = 0.75, 0.25
"""Of a seam's units: how many step where it has shifted, and how many may elsewhere."""
_LEAST_UNITS = 2
"""Of either part of the step, so that a dark edge along the whole width does not count."""


def has_dc_shift(pixels: NDArray[np.uint8], unit: tuple[int, int]) -> bool:
    """Whether H × W × 3 RGB or H × W × 1 gray pixels show a shift.

    `unit` is the size of a coded unit in rows and columns. A shift that begins in the
    first or the last row is not detected, nor one that a restart marker ends.
    """
    seams = _seams(pixels, unit)
    if seams.shape[0] < 2 or seams.shape[1] < 2 * _LEAST_UNITS:
        return False
    return bool((_shows_shift(seams > _STEP) | _shows_shift(seams < -_STEP)).any())


def _seams(pixels: NDArray[np.uint8], unit: tuple[int, int]) -> NDArray[np.float32]:
    """The step across each seam between rows of units, by channel: seams × units × 1 or 3."""
    high, wide = unit
    rows, columns = pixels.shape[0] // high, pixels.shape[1] // wide
    below = np.arange(1, rows) * high
    lines = [_by_channel(pixels[at, : columns * wide]) for at in (below, below - 1)]
    step = lines[0] - lines[1]
    seams: NDArray[np.float32] = step.reshape(len(below), columns, wide, -1).mean(axis=2)
    return seams


def _by_channel(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """As JPEG codes them: Y, Cr and Cb, or gray."""
    if pixels.shape[2] == 3:
        pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb), dtype=np.uint8)
    return pixels.astype(np.float32)


def _shows_shift(steps: NDArray[np.bool_]) -> NDArray[Any]:
    """Whether a step begins at a unit of a seam and goes on below, left of it: by seam and unit."""
    counts = np.cumsum(steps, axis=1, dtype=np.float32)
    left = np.arange(1, steps.shape[1], dtype=np.float32)[:, np.newaxis]
    right = left[::-1]
    before, all_of = counts[:, :-1], counts[:, -1:]
    here, below = slice(None, -1), slice(1, None)
    after = all_of - before
    is_marked = (
        (after[here] >= _MOST * right)
        & (before[here] <= _FEW * left)
        & (before[below] >= _MOST * left)
        & (after[below] <= _FEW * right)
    )
    marked: NDArray[Any] = is_marked[:, _LEAST_UNITS - 1 : 1 - _LEAST_UNITS]
    return marked

"""Where the labels of a picture go: beside their cells, off every cell and off each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rect = tuple[int, int, int, int]
"""x, y, width, height."""

LABEL_OVERLAP_COST = 6.0
"""Two labels over each other cannot be read."""
CELL_OVERLAP_COST = 2.5
"""A label over a cell hides what it speaks of; a little of a box's corner is no harm."""
DISTANCE_COST = 0.5
"""Cost of a label's own height of distance, as a share of the label's area."""
SWEEPS = 3
"""After the third nobody moves any more, or two take turns."""
RINGS = (0.0, 1.0, 2.2, 3.6, 5.2)
"""How far off the cell a label may stand, in label heights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A label that wants a place: the box of its cell and its own size, in canvas pixels."""

    anchor: Rect
    width: int
    height: int


def place_labels(labels: Sequence[Label], *, width: int, height: int, gap: int) -> list[Rect]:
    """One place inside a width × height canvas for each label.

    The first ones choose first; then each may move again, now that it knows all the others.
    """
    cells = np.array([label.anchor for label in labels], dtype=np.float64).reshape(-1, 4)
    choices = [_choices(label, cells, width, height, gap) for label in labels]
    taken = np.zeros((len(labels), 4))
    for number, choice in enumerate(choices):
        taken[number] = choice.best(taken[:number])
    for _ in range(SWEEPS):
        for number, choice in enumerate(choices):
            taken[number] = choice.best(np.delete(taken, number, axis=0))
    return [(int(x), int(y), int(w), int(h)) for x, y, w, h in taken]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Choices:
    """The places that one label may take, and what each costs before other labels count."""

    rects: NDArray[np.float64]
    """N × 4."""
    cost: NDArray[np.float64]

    def best(self, others: NDArray[np.float64]) -> NDArray[np.float64]:
        """The cheapest place beside `others` (M × 4); of equals the first."""
        cost = self.cost + LABEL_OVERLAP_COST * _overlap(self.rects, others)
        place: NDArray[np.float64] = self.rects[int(np.argmin(cost))]
        return place


def _choices(
    label: Label, cells: NDArray[np.float64], width: int, height: int, gap: int
) -> _Choices:
    places = list(_candidates(label, width, height, gap))
    rects = np.array([rect for rect, _ in places], dtype=np.float64)
    distance = np.array([ring for _, ring in places])
    return _Choices(
        rects=rects,
        cost=CELL_OVERLAP_COST * _overlap(rects, cells)
        + DISTANCE_COST * distance * label.width * label.height,
    )


def _candidates(label: Label, width: int, height: int, gap: int) -> Iterator[tuple[Rect, float]]:
    """Places around the cell, nearest ring first, moved inside the canvas where they stick out."""
    x, y, w, h = label.anchor
    middle_x, middle_y = x + (w - label.width) // 2, y + (h - label.height) // 2
    for ring in RINGS:
        off = gap + round(ring * label.height)
        above, below = y - off - label.height, y + h + off
        left, right = x - off - label.width, x + w + off
        for at_x, at_y in (
            (middle_x, above),
            (middle_x, below),
            (right, middle_y),
            (left, middle_y),
            (x, above),
            (x + w - label.width, above),
            (x, below),
            (x + w - label.width, below),
            (right, y),
            (left, y),
            (right, y + h - label.height),
            (left, y + h - label.height),
        ):
            inside_x = max(0, min(at_x, width - label.width))
            inside_y = max(0, min(at_y, height - label.height))
            yield (inside_x, inside_y, label.width, label.height), ring


def _overlap(rects: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Summed overlap area of each rect with all the others; N × 4 and M × 4 give N."""
    # Most are far from all of these, and add nothing.
    low, high = rects[:, :2].min(axis=0), (rects[:, :2] + rects[:, 2:]).max(axis=0)
    is_near = (others[:, :2] < high) & (others[:, :2] + others[:, 2:] > low)
    others = others[is_near.all(axis=1)]
    start = np.maximum(rects[:, None, :2], others[None, :, :2])
    end = np.minimum(
        rects[:, None, :2] + rects[:, None, 2:], others[None, :, :2] + others[None, :, 2:]
    )
    sides = np.clip(end - start, 0, None)
    overlap: NDArray[np.float64] = (sides[..., 0] * sides[..., 1]).sum(axis=1)
    return overlap

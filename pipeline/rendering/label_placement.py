"""Where the labels of a picture go: beside their cells, off every cell and off each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rect = tuple[int, int, int, int]
"""x, y, width, height."""
Edges = NDArray[np.float64]
"""4 × N: left, top, right and bottom of N rectangles, whole pixels."""

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
    cells = _edges([label.anchor for label in labels])
    choices = [_choices(label, cells, width, height, gap) for label in labels]
    reach = np.array([choice.reach for choice in choices]).reshape(-1, 4).T
    taken = np.zeros((4, len(labels)))
    is_stale = np.zeros(len(labels), dtype=bool)
    """Whose choice may be another one now: a label within its reach came or moved."""

    def place(number: int) -> None:
        others = _touching(taken, choices[number].reach)
        others[number] = False
        found = choices[number].best(taken[:, others])
        if (found != taken[:, number]).any():
            is_stale[_touching(reach, taken[:, number]) | _touching(reach, found)] = True
            taken[:, number] = found
        is_stale[number] = False

    for number in range(len(labels)):
        place(number)
    for _ in range(SWEEPS):
        for number in range(len(labels)):
            if is_stale[number]:
                place(number)
    left, top, right, bottom = taken.astype(int).tolist()
    return [
        (x, y, end_x - x, end_y - y)
        for x, y, end_x, end_y in zip(left, top, right, bottom, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Choices:
    """The places that one label may take, and what each costs before other labels count."""

    places: Edges
    cost: NDArray[np.float64]
    reach: NDArray[np.float64]
    """Edges of the rectangle that holds all places."""

    def best(self, others: Edges) -> NDArray[np.float64]:
        """Edges of the cheapest place beside `others` in its reach; of equals the first."""
        cost = self.cost + LABEL_OVERLAP_COST * _overlap(self.places, others)
        place: NDArray[np.float64] = self.places[:, int(np.argmin(cost))]
        return place


def _choices(label: Label, cells: Edges, width: int, height: int, gap: int) -> _Choices:
    candidates = list(_candidates(label, width, height, gap))
    places = _edges([rect for rect, _ in candidates])
    distance = np.array([ring for _, ring in candidates])
    reach = np.concatenate([places[:2].min(axis=1), places[2:].max(axis=1)])
    near = cells[:, _touching(cells, reach)]
    return _Choices(
        places=places,
        cost=CELL_OVERLAP_COST * _overlap(places, near)
        + DISTANCE_COST * distance * label.width * label.height,
        reach=reach,
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


def _edges(rects: Sequence[Rect]) -> Edges:
    corners = np.array(rects, dtype=np.float64).reshape(-1, 4).T
    corners[2:] += corners[:2]
    return corners


def _touching(edges: Edges, rect: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rectangles have more than an edge in common with the edges of one."""
    left, top, right, bottom = edges
    touching: NDArray[np.bool_] = (
        (left < rect[2]) & (right > rect[0]) & (top < rect[3]) & (bottom > rect[1])
    )
    return touching


def _overlap(places: Edges, others: Edges) -> NDArray[np.float64]:
    """Summed overlap area of each of N places with all M others."""
    left, top, right, bottom = places[:, :, None]
    x = np.minimum(right, others[2]) - np.maximum(left, others[0])
    y = np.minimum(bottom, others[3]) - np.maximum(top, others[1])
    overlap: NDArray[np.float64] = (np.maximum(x, 0) * np.maximum(y, 0)).sum(axis=1)
    return overlap

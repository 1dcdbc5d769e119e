"""How wide red cells are: discs that lie alone, circles in clumps, arcs of their outlines.

Their usual diameter is the one around which most of them gather, so platelets, white cells and
pairs that slipped through do not pull it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.field.masks import Mask, disc, places_of

Lengths = NDArray[np.float64]

ENOUGH_ALONE = 8
LEAST_DISC_PX = 40
ROUND_FROM = 0.93
"""Area of a cell over that of its convex hull; a pair of overlapping cells lies below."""
CIRCLE_TO_DISC = 1.06
"""Red cells are a little oval: the circle inside one is smaller than a disc of its area."""
ARC_TO_DISC = 1.05
"""Measured on fields where cells lie alone: their freest arcs are a little too curved."""
LEAST_ARC_PX = 18
LEAST_TURN = 1.4
"""Of an arc that says how large its circle is, in radians: 80 degrees."""
STRAIGHT = -0.04
"""Turn at a point, in radians, from which an outline bends inwards there."""
MOST_ARC_ERROR = 0.035
"""Of an arc's diameter, how far its points may lie from the circle."""
PEAK_PX = 4
"""Middles of two circles are further apart than this."""
ARC_SIGMA_PX = 2.5
ARC_STEP = 3
GATHERED = 0.16
"""How far diameters of one kind of cell lie from the usual one (logarithms)."""
MOST_UNEXPECTED = 0.5
"""A red cell's width by the nucleus beside it is wrong by less (logarithms; 0.22 usually)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedCells:
    """What was measured on the red cells of a field."""

    diameter_px: float
    """Of the source picture; 0 when none was measured."""
    measured: int


def measure_masks(
    red: Mask,
    white: Mask,
    shrink: float,
    coarseness: Sequence[int],
    *,
    expected_px: float = 0.0,
) -> RedCells:
    """The usual diameter of the red parts: `usual_of` their `diameters_of`."""
    return usual_of(diameters_of(red, white, coarseness), shrink, expected_px=expected_px)


def diameters_of(red: Mask, white: Mask, coarseness: Sequence[int]) -> Lengths:
    """Diameters of the red parts, in pixels of the masks.

    Cells that lie alone are measured by their outline; where fewer than a handful do, also those
    in clumps, by the largest circle that fits into each, and those that the edge cuts, by the
    arcs of their outlines. Curvature is read best where a cell has about 100 steps of
    `coarseness` pixels.
    """
    diameters = _of_discs(red)
    if len(diameters) >= ENOUGH_ALONE:
        return diameters
    arcs = [_of_arcs(red, white, pixels) for pixels in coarseness]
    return np.concatenate([diameters, _of_circles(red), *arcs])


def usual_of(diameters: Lengths, shrink: float, *, expected_px: float = 0.0) -> RedCells:
    """The diameter around which most gather.

    `shrink` is how much smaller the masks were than the source picture. `expected_px`, in pixels
    of the source picture, says how wide red cells would be by what else is known (0: nothing);
    where only a handful agree, what differs from it much is not taken for red cells.
    """
    found = _usual(diameters, shrink)
    if expected_px > 0 and found.measured < ENOUGH_ALONE:
        away = np.abs(np.log(diameters / (expected_px * shrink)))
        found = _usual(diameters[away < MOST_UNEXPECTED], shrink)
    return found


def _usual(diameters: Lengths, shrink: float) -> RedCells:
    """The diameter around which most gather, and how many do."""
    if len(diameters) == 0:
        return RedCells(diameter_px=0.0, measured=0)
    near = np.abs(np.log(diameters / _gathering_point(diameters))) < GATHERED
    return RedCells(
        diameter_px=float(np.median(diameters[near]) / shrink), measured=int(near.sum())
    )


def _gathering_point(diameters: Lengths) -> float:
    """The diameter with most area around it, within about a sixth."""
    logs = np.log(diameters)
    near = np.exp(-0.5 * ((logs[:, None] - logs[None, :]) / 0.10) ** 2)
    weight = (near * diameters[None, :]).sum(axis=1)
    return float(diameters[int(np.argmax(weight))])


def _of_discs(red: Mask) -> Lengths:
    """Diameters of the parts that are disc-like and whole, in pixels."""
    contours, _ = cv2.findContours(red, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    found = [_disc_diameter(contour, red.shape) for contour in contours]
    return np.array([diameter for diameter in found if diameter > 0])


def _disc_diameter(contour: NDArray[Any], shape: tuple[int, ...]) -> float:
    """Diameter of a disc with the contour's area; 0 when it is no red cell that lies alone."""
    x, y, width, height = cv2.boundingRect(contour)
    is_cut = x <= 0 or y <= 0 or x + width >= shape[1] or y + height >= shape[0]
    if is_cut or width * height < LEAST_DISC_PX or max(width, height) > 1.6 * min(width, height):
        return 0.0
    area = cv2.contourArea(contour)
    perimeter = cv2.arcLength(contour, closed=True)
    if area < LEAST_DISC_PX or 4 * np.pi * area < 0.74 * perimeter**2:
        return 0.0
    if area < ROUND_FROM * cv2.contourArea(cv2.convexHull(contour)):
        return 0.0
    # The contour runs through the middles of the outermost pixels.
    return float(2 * np.sqrt(area / np.pi) + 1.0)


def _of_circles(red: Mask) -> Lengths:
    """Diameters of the largest circles inside the red parts, in pixels."""
    depth = cv2.distanceTransform(red, cv2.DIST_L2, 5)
    smooth = np.asarray(cv2.GaussianBlur(depth, (0, 0), 1.2), np.float32)
    rows, columns = _peaks(smooth, depth > 3.5)
    height, width = red.shape
    radii = depth[rows, columns].astype(np.float64)
    to_edge = np.min([columns, rows, width - 1 - columns, height - 1 - rows], axis=0)
    return np.asarray(2 * radii[radii < to_edge + 1.5] * CIRCLE_TO_DISC, dtype=np.float64)


def _peaks(
    heights: NDArray[np.float32], where: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the places that nothing within `PEAK_PX` pixels is higher than."""
    # Few places are highest among their eight neighbors: only there is it looked further.
    rows, columns = places_of((heights >= cv2.dilate(heights, np.ones((3, 3), np.uint8))) & where)
    padded = cv2.copyMakeBorder(heights, *(PEAK_PX,) * 4, cv2.BORDER_CONSTANT, value=-1)
    down, across = np.nonzero(disc(PEAK_PX))
    near = padded[rows[:, None] + down, columns[:, None] + across]
    is_peak = heights[rows, columns] >= near.max(axis=1, initial=-1)
    return rows[is_peak], columns[is_peak]


def _of_arcs(red: Mask, white: Mask, coarseness: int) -> Lengths:
    """Diameters of the circles that free convex stretches of outline belong to, in pixels.

    A clump's outline is made of arcs of its cells, joined at notches; a cell that the picture's
    edge cuts still shows one.
    """
    if coarseness > 1:
        small = (max(red.shape[1] // coarseness, 1), max(red.shape[0] // coarseness, 1))
        red, white = (
            np.asarray(cv2.resize(mask, small, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
            for mask in (red, white)
        )
    contours, _ = cv2.findContours(red, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    loops = [contour[:, 0, :] for contour in contours if len(contour) >= LEAST_ARC_PX]
    if not loops:
        return np.zeros(0)
    return _arc_diameters(_Loops.of(loops), white) * coarseness * ARC_TO_DISC


@dataclass(frozen=True, slots=True, eq=False)
class _Loops:
    """Closed outlines, one after the other, so that one step over arrays serves them all."""

    points: NDArray[np.float64]
    """N × 2, x then y."""
    first: NDArray[np.intp]
    """Of each point: where its outline begins in `points`."""
    length: NDArray[np.intp]
    """Of each point: how many points its outline has."""
    starts: NDArray[np.intp]
    """Where each outline begins."""

    @classmethod
    def of(cls, loops: Sequence[NDArray[Any]]) -> _Loops:
        lengths = np.array([len(loop) for loop in loops], np.intp)
        starts = np.cumsum(lengths) - lengths
        return cls(
            np.concatenate(loops).astype(np.float64),
            np.repeat(starts, lengths),
            np.repeat(lengths, lengths),
            starts,
        )

    def ahead(self, steps: NDArray[np.intp] | int) -> NDArray[np.intp]:
        """For each point, which one lies so many steps further on its own outline."""
        places = np.arange(len(self.points)) - self.first + steps
        return np.asarray(self.first + places % self.length, dtype=np.intp)


def _arc_diameters(loops: _Loops, white: Mask) -> Lengths:
    height, width = white.shape
    x, y = loops.points.astype(np.intp).T
    is_free = (x > 1) & (y > 1) & (x < width - 2) & (y < height - 2) & (white[y, x] == 0)
    points = _smoothed(loops)
    turn = _turns(loops, points)
    order, begins = _stretches(loops, is_free & (turn > STRAIGHT))
    if len(begins) == 0:
        return np.zeros(0)
    counts = np.diff(np.append(begins, len(order)))
    is_arc = counts >= LEAST_ARC_PX
    is_arc &= np.add.reduceat(turn[order], begins) / ARC_STEP >= LEAST_TURN
    order, counts = order[np.repeat(is_arc, counts)], counts[is_arc]
    if len(counts) == 0:
        return np.zeros(0)
    diameters, errors = _fitted_circles(points[order], counts)
    return diameters[errors < MOST_ARC_ERROR * diameters] + 1.0


def _smoothed(loops: _Loops) -> NDArray[np.float64]:
    reach = int(3 * ARC_SIGMA_PX)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / ARC_SIGMA_PX) ** 2)
    weights /= weights.sum()
    # Each outline with its end before its beginning and its beginning after its end.
    lengths = loops.length[loops.starts]
    longer = lengths + 2 * reach
    place = np.arange(longer.sum()) - np.repeat(np.cumsum(longer) - longer + reach, longer)
    wrapped = loops.points[np.repeat(loops.starts, longer) + place % np.repeat(lengths, longer)]
    is_own = (place >= 0) & (place < np.repeat(lengths, longer))
    return np.stack([np.convolve(wrapped[:, k], weights, "same")[is_own] for k in (0, 1)], axis=1)


def _turns(loops: _Loops, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much the outline turns at each point, in radians; outwards is positive."""
    way = points[loops.ahead(ARC_STEP)] - points
    before = way[loops.ahead(-ARC_STEP)]
    turn = np.arctan2(
        before[:, 0] * way[:, 1] - before[:, 1] * way[:, 0], (before * way).sum(axis=1)
    )
    # A closed outline turns once round in all, whichever way it runs.
    whole = np.add.reduceat(turn, loops.starts)
    sense = np.where(whole < 0, -1.0, 1.0)
    return np.asarray(turn * sense[np.searchsorted(loops.starts, loops.first)], np.float64)


def _stretches(
    loops: _Loops, is_good: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Good points in the order of their outlines, and where each unbroken stretch begins.

    Every outline is gone through from a bad point on, so that no stretch is cut in two.
    """
    bad_places = np.where(is_good, len(is_good), np.arange(len(is_good)))
    first_bad = np.minimum.reduceat(bad_places, loops.starts)
    shift = np.where(first_bad < len(is_good), first_bad - loops.starts, 0)
    order = loops.ahead(shift[np.searchsorted(loops.starts, loops.first)])
    good = is_good[order]
    begins = good & ~np.append(False, good[:-1])
    begins[loops.starts] = good[loops.starts]
    kept = np.cumsum(good) - 1
    return order[good], kept[begins]


def _fitted_circles(
    points: NDArray[np.float64], counts: NDArray[np.intp]
) -> tuple[Lengths, Lengths]:
    """Diameters and root mean square errors of circles through stretches (Kasa 1976)."""
    begins = np.cumsum(counts) - counts

    def summed(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.add.reduceat(values, begins), dtype=np.float64)

    def spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.repeat(values, counts, axis=0)

    x, y = (points - spread(np.add.reduceat(points, begins) / counts[:, None])).T
    square = x * x + y * y
    xx, xy, yy, xs, ys = (summed(v) for v in (x * x, x * y, y * y, x * square, y * square))
    whole = np.maximum(xx * yy - xy * xy, 1e-9)
    a, b = (yy * xs - xy * ys) / whole, (xx * ys - xy * xs) / whole
    radii = np.sqrt(np.maximum(summed(square) / counts + (a * a + b * b) / 4, 1e-9))
    away = np.hypot(x - spread(a) / 2, y - spread(b) / 2) - spread(radii)
    return 2 * radii, np.sqrt(summed(away**2) / counts)

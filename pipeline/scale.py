"""How large a pixel is: from the dataset, or from red cells, which are 7.2 µm across.

Red cells that lie alone are measured one by one: their outlines are close to ellipses. Their
usual diameter is the one around which most of them gather, so platelets, white cells and pairs
that slipped through do not pull it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.domain import RGB, Scale, ScaleSource
from pipeline.stain import Density, optical_density, violet

RED_CELL_UM = 7.2
"""Diameter on a dried smear of healthy blood, 6.9 to 7.5 (Dacie and Lewis, 12th ed., ch. 5)."""

NUCLEUS_UM = 8.5
"""Usual width of a white cell's nucleus, for pictures that hold no whole red cell."""

NUCLEUS_WEIGHT = 4.0
"""How many red cells the nucleus counts for."""
LEAST_NUCLEUS_SHARE = 0.04
"""In a picture of one cell, its nucleus covers more of the picture than this."""
ASSUMED_UM_PER_PX = 0.1

LEAST_RED_CELLS = 3
MEASURED_PX = 160_000
"""The picture is shrunk to about this many pixels: red cells of 10 pixels are still round."""
ENOUGH_ALONE = 8
CIRCLE_TO_DISC = 1.06
"""Red cells are a little oval: the circle inside one is smaller than a disc of its area."""
ARC_TO_DISC = 1.05
"""Measured on fields where cells lie alone: their freest arcs are a little too curved."""
ARC_COARSENESS = (1, 2)
"""Pixels to a step along the outline: curvature is read best where a cell has about 100 steps."""
LEAST_ARC_PX = 18
LEAST_TURN = 1.4
"""Of an arc that says how large its circle is, in radians: 80 degrees."""
PLAUSIBLE_UM_PER_PX = (0.02, 1.2)
ROUND_FROM = 0.93
"""Area of a cell over that of its convex hull; a pair of overlapping cells lies below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedCells:
    """What was measured on the red cells of a field."""

    diameter_px: float
    """Of the source picture; 0 when none was measured."""
    measured: int


def find_scale(pixels: RGB, spacing_um: float | None, lamp: Density | None = None) -> Scale:
    """The scale of a field: the dataset's, else from red cells, else assumed."""
    height, width = pixels.shape[:2]
    shrink = min(1.0, (MEASURED_PX / (height * width)) ** 0.5)
    density = optical_density(_shrunk(pixels, shrink), lamp)
    cells = measure_red_cells(density, shrink)
    if spacing_um is not None:
        return _scale(spacing_um, ScaleSource.DATASET, cells)
    nucleus = _nucleus_um_per_px(density) * shrink
    if cells.measured >= LEAST_RED_CELLS:
        um_per_px = RED_CELL_UM / cells.diameter_px
        if cells.measured < ENOUGH_ALONE and nucleus > 0:
            # Few red cells, and parts of others among them: the nucleus has a word in it.
            weight = cells.measured / (cells.measured + NUCLEUS_WEIGHT)
            um_per_px = float(um_per_px**weight * nucleus ** (1 - weight))
        if PLAUSIBLE_UM_PER_PX[0] <= um_per_px <= PLAUSIBLE_UM_PER_PX[1]:
            return _scale(um_per_px, ScaleSource.RED_CELLS, cells)
    return _scale(nucleus or ASSUMED_UM_PER_PX, ScaleSource.ASSUMED, cells)


def _scale(um_per_px: float, source: ScaleSource, cells: RedCells) -> Scale:
    return Scale(
        um_per_px=um_per_px,
        source=source,
        red_cell_diameter_px=cells.diameter_px if cells.measured else None,
        red_cells_measured=cells.measured,
    )


def measure_red_cells(density: Density, shrink: float = 1.0) -> RedCells:
    """The usual diameter of the red cells of the picture.

    Cells that lie alone are measured by their outline; where fewer than a handful do, also those
    in clumps, by the largest circle that fits into each, and those that the edge cuts, by the
    arcs of their outlines. `shrink` is how much smaller the density is than the source picture.
    """
    red, white = _red_and_white(density)
    diameters = _diameters_of_discs(red)
    if len(diameters) < ENOUGH_ALONE:
        in_clumps = _diameters_of_circles(red)
        cut = [_diameters_of_arcs(red, white, coarseness) for coarseness in ARC_COARSENESS]
        diameters = np.concatenate([diameters, in_clumps, *cut])
    if len(diameters) == 0:
        return RedCells(diameter_px=0.0, measured=0)
    usual = _gathering_point(diameters)
    near = np.abs(np.log(diameters / usual)) < 0.16
    return RedCells(
        diameter_px=float(np.median(diameters[near]) / shrink), measured=int(near.sum())
    )


def _shrunk(pixels: RGB, shrink: float) -> RGB:
    if shrink >= 1.0:
        return pixels
    return np.asarray(
        cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA),
        dtype=np.uint8,
    )


def stained_level(density: Density) -> float:
    """Green density from which a pixel is not glass: between glass and red cells (Otsu)."""
    green = np.clip(density[..., 1] * 400, 0, 255).astype(np.uint8)
    # Nuclei would pull the level up: everything darker than most red cells counts as one of them.
    green = np.minimum(green, int(max(np.percentile(green, 90), 24)))
    level, _ = cv2.threshold(green, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return max(float(level) / 400, 0.03)


def _red_and_white(density: Density) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """1 on stained parts that are not violet, their pallor filled; and 1 near violet ones."""
    green = cv2.GaussianBlur(density[..., 1], (0, 0), 0.8)
    stained = (green > stained_level(density)).astype(np.uint8)
    white = np.zeros_like(stained)
    if stained.any():
        colour = violet(density)
        dark = max(0.35, 2.2 * float(np.median(colour[stained > 0])))
        core = cv2.morphologyEx((colour > dark).astype(np.uint8), cv2.MORPH_OPEN, _disc(1))
        white = np.asarray(cv2.dilate(core, _disc(3)), dtype=np.uint8)
        stained[white > 0] = 0
    return _small_holes_filled(stained), white


def _small_holes_filled(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Holes rounder and smaller than the gaps between cells are the pallor of one."""
    contours, family = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    filled = mask.copy()
    for contour, (_, _, _, parent) in zip(contours, family[0] if contours else (), strict=True):
        if parent < 0:
            continue
        area, perimeter = cv2.contourArea(contour), cv2.arcLength(contour, closed=True)
        is_round = 4 * np.pi * area > 0.6 * perimeter**2
        if is_round and area < 0.5 * cv2.contourArea(contours[parent]):
            cv2.drawContours(filled, [contour], -1, 1, cv2.FILLED)
    return filled


def _diameters_of_discs(red: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Diameters of the parts that are disc-like and whole, in pixels."""
    contours, _ = cv2.findContours(red, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    found = [_disc_diameter(contour, red.shape) for contour in contours]
    return np.array([diameter for diameter in found if diameter > 0])


def _disc_diameter(contour: NDArray[Any], shape: tuple[int, ...]) -> float:
    """Diameter of a disc with the contour's area; 0 when it is no red cell that lies alone."""
    area = cv2.contourArea(contour)
    if area < 40:
        return 0.0
    x, y, width, height = cv2.boundingRect(contour)
    is_cut = x <= 0 or y <= 0 or x + width >= shape[1] or y + height >= shape[0]
    if is_cut or max(width, height) > 1.6 * min(width, height):
        return 0.0
    hull = cv2.contourArea(cv2.convexHull(contour))
    perimeter = cv2.arcLength(contour, closed=True)
    if area < ROUND_FROM * hull or 4 * np.pi * area < 0.74 * perimeter**2:
        return 0.0
    # The contour runs through the middles of the outermost pixels.
    return float(2 * np.sqrt(area / np.pi) + 1.0)


def _diameters_of_circles(red: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Diameters of the largest circles inside the red parts, in pixels."""
    depth = cv2.distanceTransform(red, cv2.DIST_L2, 5)
    smooth = cv2.GaussianBlur(depth, (0, 0), 1.2)
    peaks = np.argwhere((smooth >= cv2.dilate(smooth, _disc(4))) & (depth > 3.5))
    height, width = red.shape
    radii = [
        float(depth[y, x])
        for y, x in peaks
        if depth[y, x] < min(x, y, width - 1 - x, height - 1 - y) + 1.5
    ]
    return 2 * np.array(radii, dtype=np.float64) * CIRCLE_TO_DISC


def _diameters_of_arcs(
    red: NDArray[np.uint8], white: NDArray[np.uint8], coarseness: int
) -> NDArray[np.float64]:
    """Diameters of the circles that free convex stretches of outline belong to, in pixels.

    A clump's outline is made of arcs of its cells, joined at notches; a cell that the picture's
    edge cuts still shows one.
    """
    small = (red.shape[1] // coarseness, red.shape[0] // coarseness)
    red = np.asarray(cv2.resize(red, small, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
    white = np.asarray(cv2.resize(white, small, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
    contours, _ = cv2.findContours(red, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    found = [
        diameter * coarseness * ARC_TO_DISC
        for contour in contours
        if len(contour) >= LEAST_ARC_PX
        for diameter in _arc_diameters(contour[:, 0, :], white)
    ]
    return np.array(found, dtype=np.float64)


def _arc_diameters(contour: NDArray[Any], white: NDArray[np.uint8]) -> Iterator[float]:
    height, width = white.shape
    x, y = contour[:, 0], contour[:, 1]
    free = (x > 1) & (y > 1) & (x < width - 2) & (y < height - 2) & (white[y, x] == 0)
    points = _smooth_loop(contour.astype(np.float64), 2.5)
    ahead = np.roll(points, -3, axis=0) - points
    behind = points - np.roll(points, 3, axis=0)
    turn = np.arctan2(
        behind[:, 0] * ahead[:, 1] - behind[:, 1] * ahead[:, 0], (behind * ahead).sum(axis=1)
    )
    # Outer contours run clockwise on the screen: convex stretches turn by positive angles
    # or negative ones, whichever the whole loop does.
    turn *= np.sign(turn.sum()) or 1.0
    for run in _runs(free & (turn > -0.04)):
        if len(run) < LEAST_ARC_PX or turn[run].sum() / 3 < LEAST_TURN:
            continue
        diameter, error = _fitted_circle(points[run])
        if error < 0.035 * diameter:
            yield diameter + 1.0


def _smooth_loop(points: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    reach = int(3 * sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    looped = np.concatenate([points[-reach:], points, points[:reach]])
    return np.stack([np.convolve(looped[:, k], weights, "valid") for k in (0, 1)], axis=1)


def _runs(good: NDArray[np.bool_]) -> Iterator[NDArray[np.intp]]:
    """Indices of each unbroken stretch of a closed loop."""
    if good.all():
        yield np.arange(len(good))
        return
    start = int(np.argmin(good))
    order = np.roll(np.arange(len(good)), -start)
    steps = np.flatnonzero(np.diff(good[order].astype(np.int8)))
    for first, last in zip(steps[::2] + 1, np.append(steps[1::2], len(good) - 1) + 1, strict=False):
        yield order[first:last]


def _fitted_circle(points: NDArray[np.float64]) -> tuple[float, float]:
    """Diameter and root mean square error of the circle through points (Kasa 1976)."""
    middle = points.mean(axis=0)
    x, y = (points - middle).T
    terms = np.stack([x, y, np.ones_like(x)], axis=1)
    (a, b, c), *_ = np.linalg.lstsq(terms, x * x + y * y, rcond=None)
    radius = float(np.sqrt(max(c + (a * a + b * b) / 4, 1e-9)))
    away = np.hypot(x - a / 2, y - b / 2) - radius
    return 2 * radius, float(np.sqrt((away**2).mean()))


def _disc(radius_px: int) -> NDArray[np.uint8]:
    side = 2 * radius_px + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), dtype=np.uint8)


def _gathering_point(diameters: NDArray[np.float64]) -> float:
    """The diameter with most area around it, within about a sixth."""
    logs = np.log(diameters)
    near = np.exp(-0.5 * ((logs[:, None] - logs[None, :]) / 0.10) ** 2)
    weight = (near * diameters[None, :]).sum(axis=1)
    return float(diameters[int(np.argmax(weight))])


def _nucleus_um_per_px(density: Density) -> float:
    """From the violet parts of a picture of one cell, taken for its nucleus; 0 without one."""
    colour = cv2.GaussianBlur(violet(density), (0, 0), 1.0)
    level = max(0.35, 0.5 * float(np.percentile(colour, 99.5)))
    share = float((colour > level).mean())
    if share < LEAST_NUCLEUS_SHARE:
        return 0.0
    um_per_px = NUCLEUS_UM / float(2 * np.sqrt(share * colour.size / np.pi))
    return float(np.clip(um_per_px, *PLAUSIBLE_UM_PER_PX))

"""How large a pixel is: from the dataset, or from red cells, which are 7.2 µm across.

Red cells are told from white ones by their color; once a learned segmenter has seen the field,
by what it says, for where red cells are stained blue their color misleads.
"""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.domain import RGB, Scale, ScaleSource
from pipeline.field.masks import Contour, Mask, disc, with_holes_filled
from pipeline.field.optical_density import Density, stain_hue
from pipeline.field.overview import Overview, halved_overview_of, overview_of, sampled
from pipeline.field.percentiles import median, percentiles
from pipeline.field.red_cell_diameter import (
    ENOUGH_ALONE,
    Lengths,
    RedCells,
    diameters_of,
    measure_masks,
    usual_of,
)
from pipeline.segmentation.network_maps import SURE_LOGIT, SegmentationMaps

RED_CELL_UM = 7.2
"""Diameter on a dried smear of healthy blood, 6.9 to 7.5 (Dacie and Lewis, 12th ed., ch. 5)."""

NUCLEUS_UM = 8.5
"""Usual width of a white cell's nucleus, for pictures that hold no whole red cell."""

SEEN_NUCLEUS_UM = 9.3
NUCLEUS_WEIGHT, SEEN_NUCLEUS_WEIGHT = 17.0, 5.0
"""How many red cells the nucleus counts for: told by its color, and seen by the network, which
tells red cells too much better."""
MOST_APART = 2.4
"""A nucleus is at most so many times as wide as usual, or as narrow."""
LEAST_NUCLEUS_SHARE = 0.04
"""In a picture of one cell, its nucleus covers more of the picture than this."""
BEYOND_DOUBT, LEAST_COVER = 20, 0.04
"""So many red cells of one width that cover so much of the picture are red cells: dots of platelets
on a cell are many, too."""
LOBE_SHARE = 0.25
"""Of the largest lobe's area, at least, in every other one; less is a platelet or dirt."""
MOST_LOBES = 5
ASSUMED_UM_PER_PX = 0.1

LEAST_RED_CELLS, LEAST_BESIDE_NUCLEUS = 3, 2
"""Fewer say nothing; beside a nucleus that agrees, two are as good as four alone."""
ARC_COARSENESS = (2,)
"""Of the overview, while nothing is known of the scale: most red cells are large on it."""
MOST_HALVED_UM = 0.3
"""A pixel of a halved copy: red cells are 24 pixels wide on it at least."""
PLAUSIBLE_UM_PER_PX = (0.02, 1.2)
SEEN_UM = 0.2
"""µm a pixel at which red cells are measured once their place is known: 36 pixels wide."""
LEAST_SURE_PX = 50
RIM_AT = 0.45
"""A red cell's rim has this share of its usual density: a blurred edge is steepest at half, and
the pallor lowers the usual one."""


def find_scale(pixels: RGB, spacing_um: float | None) -> Scale:
    """The scale of a field: the dataset's, else from red cells, else assumed."""
    return overview_and_scale(pixels, spacing_um)[1]


def overview_and_scale(pixels: RGB, spacing_um: float | None) -> tuple[Overview, Scale]:
    """The smallest copy that shows red cells well, and the scale by it."""
    halved = halved_overview_of(pixels)
    if halved is not None:
        scale = scale_of(halved, spacing_um)
        if scale.um_per_px < MOST_HALVED_UM * halved.shrink:
            return halved, scale
    overview = overview_of(pixels)
    return overview, scale_of(overview, spacing_um)


def scale_of(overview: Overview, spacing_um: float | None) -> Scale:
    """The same, where the overview was made already."""
    red, white = _red_and_white(overview)
    diameters = diameters_of(red, white, ARC_COARSENESS)
    cells = usual_of(diameters, overview.shrink)
    if spacing_um is not None:
        return _told(spacing_um, ScaleSource.DATASET, cells)
    covered = cells.measured * np.pi / 4 * (cells.diameter_px * overview.shrink) ** 2
    is_sure = cells.measured >= BEYOND_DOUBT and covered > LEAST_COVER * red.size
    nucleus = 0.0 if is_sure else _nucleus_um_per_px(overview.density) * overview.shrink
    cells = usual_of(diameters, overview.shrink, expected_px=_expected_px(nucleus))
    um_per_px = _agreed(cells, nucleus, NUCLEUS_WEIGHT)
    if um_per_px:
        return _told(um_per_px, ScaleSource.RED_CELLS, cells)
    return _told(nucleus or ASSUMED_UM_PER_PX, ScaleSource.ASSUMED, cells)


def scale_without_red_cells(overview: Overview) -> Scale:
    """The scale of a picture whose red cells are not believed: by a nucleus, else assumed."""
    nucleus = _nucleus_um_per_px(overview.density) * overview.shrink
    nothing = RedCells(diameter_px=0.0, measured=0)
    return _told(nucleus or ASSUMED_UM_PER_PX, ScaleSource.ASSUMED, nothing)


def scale_seen(
    overview: Overview, maps: SegmentationMaps, scale: Scale, nuclei_px: Lengths
) -> Scale:
    """The scale again, from the red cells that the network sees; unchanged if it sees too few.

    `scale` is that at which the network was asked; `nuclei_px` are the widths of whole nuclei
    that it saw, in pixels of the source picture.
    """
    if scale.source is ScaleSource.DATASET:
        return scale
    nucleus = SEEN_NUCLEUS_UM / median(nuclei_px) if len(nuclei_px) else 0.0
    zoom = scale.um_per_px / overview.shrink / SEEN_UM
    cells = _red_cells_seen(overview, maps, zoom, nucleus)
    if cells.measured < LEAST_RED_CELLS:
        # They may be smaller than the scale says.
        cells = _red_cells_seen(overview, maps, 2 * zoom, nucleus)
    told_um = RED_CELL_UM / max(cells.diameter_px, 1e-3)
    if cells.measured >= BEYOND_DOUBT and _is_near(told_um, scale.um_per_px):
        # Red cells of another size than the network was asked for may be noise.
        nucleus = 0.0
    is_few = not nucleus and cells.measured < ENOUGH_ALONE
    if is_few and not _is_near(told_um, scale.um_per_px):
        # Nothing says that these are red cells: what the network was asked at was nearer.
        return scale
    um_per_px = _agreed(cells, nucleus, SEEN_NUCLEUS_WEIGHT)
    if um_per_px:
        return _told(um_per_px, ScaleSource.RED_CELLS, cells)
    if nucleus and scale.source is ScaleSource.ASSUMED:
        return _told(nucleus, ScaleSource.ASSUMED, cells)
    return scale


def _agreed(cells: RedCells, nucleus: float, weight: float) -> float:
    """µm a pixel by red cells and by the nucleus, where one is known; 0 if they cannot be right.

    Few red cells may have parts of others among them: there the nucleus has a word in it. And
    what differs from it too far is no red cell.
    """
    if cells.measured < (LEAST_BESIDE_NUCLEUS if nucleus > 0 else LEAST_RED_CELLS):
        return 0.0
    um_per_px = RED_CELL_UM / cells.diameter_px
    if nucleus > 0 and not _is_near(um_per_px, nucleus):
        return 0.0
    if nucleus > 0 and cells.measured < ENOUGH_ALONE:
        share = cells.measured**2 / (cells.measured**2 + weight)
        um_per_px = float(um_per_px**share * nucleus ** (1 - share))
    low, high = PLAUSIBLE_UM_PER_PX
    return um_per_px if low <= um_per_px <= high else 0.0


def _is_near(one: float, other: float) -> bool:
    """Whether two scales may be of one picture: by its red cells, and by its nuclei."""
    return 1 / MOST_APART < one / other < MOST_APART


def _told(um_per_px: float, source: ScaleSource, cells: RedCells) -> Scale:
    return Scale(
        um_per_px=um_per_px,
        source=source,
        red_cell_diameter_px=cells.diameter_px if cells.measured else None,
        red_cells_measured=cells.measured,
    )


def _expected_px(nucleus: float) -> float:
    """Width of a red cell in pixels of the source picture, by a nucleus; 0 without one."""
    return RED_CELL_UM / nucleus if nucleus > 0 else 0.0


def _red_and_white(overview: Overview) -> tuple[Mask, Mask]:
    """1 on stained parts that are not violet, their pallor filled; and 1 near violet ones."""
    green = cv2.GaussianBlur(overview.green, (0, 0), 0.8)
    stained = (green > overview.stained_from).astype(np.uint8)
    white = np.zeros_like(stained)
    color = stain_hue(overview.density)
    inside = sampled(color)[sampled(stained) > 0]
    if inside.size:
        dark = max(0.35, 2.2 * median(inside))
        core = cv2.morphologyEx((color > dark).astype(np.uint8), cv2.MORPH_OPEN, disc(1))
        white = np.asarray(cv2.dilate(core, disc(3)), dtype=np.uint8)
        stained[white > 0] = 0
    return with_holes_filled(stained, _is_pallor), white


def _red_cells_seen(
    overview: Overview, maps: SegmentationMaps, zoom: float, nucleus: float
) -> RedCells:
    """By what the network says: it tells red from white, density where a cell ends."""
    height, width = overview.green.shape
    zoom = min(zoom, 1.0)
    size = max(round(width * zoom), 8), max(round(height * zoom), 8)
    green = cv2.resize(overview.green, size, interpolation=cv2.INTER_AREA)
    white_logit, red_logit = (
        cv2.resize(np.clip(logit, -3, 3), size) for logit in (maps.white, maps.red)
    )
    white = np.asarray(cv2.dilate((white_logit > 0).astype(np.uint8), disc(2)), dtype=np.uint8)
    is_sure_red = red_logit > SURE_LOGIT
    is_glass = (red_logit < -SURE_LOGIT) & (white_logit < -SURE_LOGIT)
    if min(np.count_nonzero(is_sure_red), np.count_nonzero(is_glass)) < LEAST_SURE_PX:
        return RedCells(diameter_px=0.0, measured=0)
    glass = median(green[is_glass])
    level = glass + RIM_AT * (median(green[is_sure_red]) - glass)
    smooth = cv2.GaussianBlur(green, (0, 0), 0.8)
    stained = ((smooth > level) & (white == 0)).astype(np.uint8)
    red = with_holes_filled(stained, _is_pallor)
    shrink = overview.shrink * size[0] / width
    return measure_masks(red, white, shrink, (1,), expected_px=_expected_px(nucleus))


def _is_pallor(hole: Contour, part: Contour) -> bool:
    """Holes rounder and smaller than the gaps between cells are the pallor of one."""
    area, perimeter = cv2.contourArea(hole), cv2.arcLength(hole, closed=True)
    is_round = 4 * np.pi * area > 0.6 * perimeter**2
    return bool(is_round and area < 0.5 * cv2.contourArea(part))


def _nucleus_um_per_px(density: Density) -> float:
    """From the violet parts of a picture, taken for lobes of one nucleus; 0 without one.

    Where there are too many parts for that, the largest is taken for a nucleus.
    """
    color = np.asarray(cv2.GaussianBlur(stain_hue(density), (0, 0), 1.0), np.float32)
    level = max(0.35, 0.5 * percentiles(sampled(color), 99.5)[0])
    dark = (color > level).astype(np.uint8)
    if np.count_nonzero(dark) < LEAST_NUCLEUS_SHARE * dark.size:
        return 0.0
    stats = cv2.connectedComponentsWithStats(dark)[2][1:]
    left, top, width, height = stats[:, :4].T
    is_whole = (left > 0) & (top > 0)
    is_whole &= (left + width < dark.shape[1]) & (top + height < dark.shape[0])
    parts = stats[:, cv2.CC_STAT_AREA]
    if parts[is_whole].sum() > 0.5 * LEAST_NUCLEUS_SHARE * dark.size:
        parts = parts[is_whole]
    area = float(parts.sum())
    if int((parts > LOBE_SHARE * parts.max()).sum()) > MOST_LOBES:
        area = float(parts.max())
    return float(np.clip(NUCLEUS_UM / (2 * np.sqrt(area / np.pi)), *PLAUSIBLE_UM_PER_PX))

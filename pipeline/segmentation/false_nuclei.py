"""Drops cells whose nucleus is none: heaps of red cells and of platelets, in a strange stain.

A nucleus is darker than red cells; where red cells are stained as dark, it is darker than the rest
of its own cell, and the network is sure of it. Unless it is far darker, its rim is short, however
many lobes it has.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.domain import Box, Cell, Contour
from pipeline.field.masks import Mask
from pipeline.field.optical_density import Map
from pipeline.field.overview import sampled
from pipeline.field.percentiles import median
from pipeline.segmentation.instances import SURE_OF_NUCLEUS
from pipeline.segmentation.morphometry import PixelTransform

DARKER_THAN_RED_CELLS, FAR_DARKER = 1.4, 1.9
DARKER_THAN_REST = 1.5
"""Green density of a nucleus over that of red cells, and of the rest of its cell. Where red cells
are stained blue, a blast that fills its cell has neither; a smudge cell is far darker."""
RAGGED_FROM = 2.7
"""Length of a nucleus's rims over that of a circle of its area: of 621 white cells of six sources
2.3 at most; six round lobes of one size have 2.6, heaps of red cells up to 3.9."""
BEYOND_DOUBT = 0.8
"""Confidence from which a nucleus is believed whatever its density: no false cell reached it."""
LEAST_PX = 8
LEAST_RED_PX = 50


def without_false_nuclei(
    cells: Sequence[Cell], green: Map, red: Mask, ground: PixelTransform
) -> list[Cell]:
    """The cells that have a nucleus; `green` and `red`, 1 on red cells, are working pictures."""
    of_red_cells = sampled(green)[sampled(red) > 0]
    usual = median(of_red_cells) if len(of_red_cells) >= LEAST_RED_PX else 0.0
    return [
        cell
        for cell in cells
        if cell.confidence >= BEYOND_DOUBT or not _has_none(cell, green, usual, ground)
    ]


def _has_none(cell: Cell, green: Map, of_red_cells: float, ground: PixelTransform) -> bool:
    """Whether a nucleus is ragged, or hardly darker than red cells and no sure one in a paler cell.

    One that is far darker than red cells is a nucleus.
    """
    view, corner = _view(cell.box, green.shape, ground)
    own = green[view]
    nucleus = _drawn(cell.nucleus_contours, corner, own.shape, ground)
    whole = _drawn((cell.contour,), corner, own.shape, ground)
    inside, rest = own[nucleus > 0], own[(whole > 0) & (nucleus == 0)]
    if len(inside) < LEAST_PX:
        return False
    density = median(inside)
    if density > FAR_DARKER * of_red_cells:
        return False
    if _is_ragged(cell):
        return True
    if density > DARKER_THAN_RED_CELLS * of_red_cells:
        return False
    is_darker_than_rest = len(rest) < LEAST_PX or density > DARKER_THAN_REST * median(rest)
    return not (is_darker_than_rest and cell.confidence >= SURE_OF_NUCLEUS)


def _is_ragged(cell: Cell) -> bool:
    area = sum(cv2.contourArea(lobe) for lobe in cell.nucleus_contours)
    rims = sum(cv2.arcLength(lobe, closed=True) for lobe in cell.nucleus_contours)
    return bool(rims > RAGGED_FROM * 2 * np.sqrt(np.pi * max(area, 1.0)))


def _view(
    box: Box, shape: tuple[int, ...], ground: PixelTransform
) -> tuple[tuple[slice, slice], NDArray[np.int32]]:
    """The part of the working picture that holds a box of the source, and its corner, x and y."""
    first = np.array([box.x, box.y]) / ground.grow
    last = np.array([box.x + box.width, box.y + box.height]) / ground.grow
    limits = np.array([shape[1], shape[0]])
    corner = np.minimum(first.astype(np.int32), limits - 1)
    end = np.minimum(last.astype(np.int32) + 2, limits)
    return (slice(corner[1], end[1]), slice(corner[0], end[0])), corner


def _drawn(
    contours: Sequence[Contour],
    corner: NDArray[np.int32],
    shape: tuple[int, ...],
    ground: PixelTransform,
) -> Mask:
    """1 inside contours, in source pixels, on a part of the working picture."""
    drawn: Mask = np.zeros(shape, np.uint8)
    for contour in contours:
        cv2.fillPoly(drawn, [ground.worked(contour).astype(np.int32) - corner], 1)
    return drawn

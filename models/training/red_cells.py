"""Red cells and platelets of labelled pictures, one by one, to lay on crops for the segmenter."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.training.segmenter_labels import LABEL_UM, Labelled
from pipeline.field.masks import Contour, Mask, with_holes_filled
from pipeline.field.optical_density import Density

RADIUS_UM = (2.4, 4.4)
"""Of the largest disc in a red cell; one is 7 µm wide."""
ALONE = 0.6
"""Of a ring just outside must be no red cell: then the cell is round, and hardly touches others."""
RING_PX = 3
"""From the disc to that ring."""
AROUND_PX = 3
"""Taken along around a red cell, fading out."""
MOST_PALLOR_UM2 = 8.0
"""Of a pale middle that the red label left out."""
MOST = 40
"""Red cells kept of each picture."""
PLATELET_CLEAR = 0.8
"""Of the part around a platelet must be no red cell: then its density is its own."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RedCell:
    """One red cell, or one platelet, at `LABEL_UM` µm a pixel."""

    density: Density
    """Part of its picture."""
    mask: Mask
    """1 where it lies, of the same size."""

    @property
    def width_px(self) -> float:
        return float(np.sqrt(self.mask.sum() * 4 / np.pi))

    def turned(
        self, turn: NDArray[np.float64], there: NDArray[np.float64], side: int
    ) -> tuple[Density, NDArray[np.bool_]]:
        """Its density on nothing, S × S × 3, and where it lies, with its middle at `there`.

        `turn`, 2 × 2, leads from pixels of the result to pixels of the cell.
        """
        zoom = float(np.sqrt(abs(np.linalg.det(turn))))
        soft = cv2.GaussianBlur(self.mask.astype(np.float32), (0, 0), AROUND_PX / 3)
        layers = np.dstack([np.maximum(self.density, 0) * soft[..., None], self.mask])
        layers = cv2.blur(layers, (round(zoom),) * 2) if zoom >= 1.5 else layers
        middle = (np.array(self.mask.shape[::-1]) - 1) / 2
        matrix = np.concatenate([turn, (middle - turn @ there)[:, None]], axis=1)
        flags = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
        laid = cv2.warpAffine(layers, matrix, (side, side), flags=flags)
        return np.ascontiguousarray(laid[..., :3]), laid[..., 3] > 0.5


def red_cells_of(picture: Labelled) -> list[RedCell]:
    """Whole, round parts of the red label that are as large as one red cell.

    None in a picture of a platelet, which the red label may take for a red cell.
    """
    if picture.cell_type == "platelet":
        return []
    red = with_holes_filled((picture.red == 1).astype(np.uint8), _is_pallor)
    inside = cv2.distanceTransform(np.pad(red, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    least, most = (radius / LABEL_UM for radius in RADIUS_UM)
    across = int(least) | 1
    highest = cv2.dilate(inside, np.ones((across, across), np.uint8))
    rows, columns = np.nonzero((inside == highest) & (inside >= least) & (inside <= most))
    found: dict[tuple[int, int], RedCell] = {}
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        cell = _at(picture, red, (row, column), float(inside[row, column]))
        if cell is not None:
            # A flat top has several highest pixels.
            found.setdefault((row // across, column // across), cell)
    return list(found.values())[:MOST]


def platelets_of(picture: Labelled) -> list[RedCell]:
    """Boxed platelets that lie whole on glass."""
    if picture.platelets is None:
        return []
    count, parts, stats, _ = cv2.connectedComponentsWithStats(picture.platelets)
    height, width = picture.platelets.shape
    found = []
    for label in range(1, count):
        left, top, wide, tall = (int(side) for side in stats[label, :4])
        first = np.array([top, left]) - AROUND_PX
        end = np.array([top + tall, left + wide]) + AROUND_PX
        if (first < 0).any() or (end > (height, width)).any():
            continue
        view = slice(first[0], end[0]), slice(first[1], end[1])
        mask = (parts[view] == label).astype(np.uint8)
        around = (picture.red[view] != 1) & (picture.cells[view] == 0)
        if around[mask == 0].mean() >= PLATELET_CLEAR:
            found.append(RedCell(density=picture.density[view], mask=mask))
    return found


def _is_pallor(hole: Contour, _: Contour) -> bool:
    return cv2.contourArea(hole) * LABEL_UM**2 <= MOST_PALLOR_UM2


def _at(picture: Labelled, red: Mask, place: tuple[int, int], radius: float) -> RedCell | None:
    """The red cell with its middle at a place, row and column; None where it is not one alone."""
    reach = round(radius) + RING_PX + AROUND_PX
    (row, column), (height, width) = place, red.shape
    if min(row, column, height - 1 - row, width - 1 - column) < reach:
        return None
    view = slice(row - reach, row + reach + 1), slice(column - reach, column + reach + 1)
    down, across = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    away = np.hypot(down, across)
    ring = np.abs(away - radius - RING_PX) < 1
    near = (away <= radius + RING_PX - 1).astype(np.uint8)
    if (red[view][ring] == 0).mean() < ALONE:
        return None
    return RedCell(density=picture.density[view], mask=red[view] & near)

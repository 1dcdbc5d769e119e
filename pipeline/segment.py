"""Every white cell of a field: scale, nuclei, outlines, and what is known of each.

The work is done on a picture shrunk to about 0.2 µm a pixel; outlines come back in pixels of
the source picture.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.domain import (
    RGB,
    Box,
    Cell,
    CellKind,
    CellShape,
    Contour,
    FieldCells,
    SourceImage,
)
from pipeline.nuclei import Mask, Parts, find_nuclei
from pipeline.outline import find_outlines
from pipeline.quality import judge_quality
from pipeline.scale import find_scale, stained_level
from pipeline.stain import optical_density

WORK_UM = 0.2
"""µm a pixel of the working picture; a nucleus is 40 pixels wide on it."""
MOST_ENLARGED = 2.0
LEAST_NUCLEUS_UM2 = 14.0
"""Below, it is a platelet or a stain deposit."""
LEAST_CENTRAL_UM2 = 2.5
"""In a picture of one cell, the cell may be a platelet."""
SINGLE_CELL_UM = 42.0
"""Pictures this narrow may be of one cell."""


def find_cells(image: SourceImage) -> FieldCells:
    """Scale, quality and white cells of one frame."""
    scale = find_scale(image.pixels, image.spacing_um)
    zoom = min(scale.um_per_px / WORK_UM, MOST_ENLARGED)
    pixels = _resized(image.pixels, zoom)
    um_per_px = scale.um_per_px / zoom
    density = optical_density(pixels)
    stained_from = stained_level(density)
    stained = (density[..., 1] > stained_from).astype(np.uint8)
    nuclei = find_nuclei(density, stained, um_per_px)
    outlines = find_outlines(density, nuclei, stained_from, um_per_px)
    found = [
        cell
        for label in range(1, nuclei.count + 1)
        if (cell := _describe(label, nuclei.parts, outlines, um_per_px)) is not None
    ]
    kept = _white_cells(found, pixels.shape, um_per_px)
    cells = tuple(
        _placed(cell, index, 1 / zoom, image)
        for index, cell in enumerate(sorted(kept, key=_reading_order), start=1)
    )
    return FieldCells(scale=scale, quality=judge_quality(scale), cells=cells)


def central_cell(found: FieldCells, *, width: int, height: int) -> Cell | None:
    """The cell that a picture of a single cell shows: large and near the middle."""
    if not found.cells:
        return None

    def prominence(cell: Cell) -> float:
        across = cell.box.x + cell.box.width / 2 - width / 2
        down = cell.box.y + cell.box.height / 2 - height / 2
        off_centre = (across**2 + down**2) / (0.25 * min(width, height)) ** 2
        return float(np.sqrt(max(cell.shape.area_um2, 1.0)) * np.exp(-off_centre))

    return max(found.cells, key=prominence)


def _resized(pixels: RGB, zoom: float) -> RGB:
    if abs(zoom - 1) < 0.02:
        return pixels
    way = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    height, width = pixels.shape[:2]
    size = (max(round(width * zoom), 8), max(round(height * zoom), 8))
    return np.asarray(cv2.resize(pixels, size, interpolation=way), dtype=np.uint8)


def _white_cells(found: list[Cell], shape: tuple[int, ...], um_per_px: float) -> list[Cell]:
    """Those that are no platelets; in a picture of one cell, its middle one whatever it is."""
    least = {True: 0.4 * LEAST_NUCLEUS_UM2, False: LEAST_NUCLEUS_UM2}
    white = [cell for cell in found if cell.shape.nucleus_area_um2 >= least[cell.is_cut_by_edge]]
    if white or max(shape[:2]) * um_per_px > SINGLE_CELL_UM:
        return white
    small = [cell for cell in found if cell.shape.nucleus_area_um2 >= LEAST_CENTRAL_UM2]
    middle = np.array([shape[1], shape[0]]) / 2
    central = [
        cell
        for cell in small
        if np.abs(cell.contour.mean(axis=0) - middle).max() < 0.25 * min(shape[:2])
    ]
    return sorted(central, key=lambda cell: -cell.shape.area_um2)[:1]


def _reading_order(cell: Cell) -> tuple[int, int]:
    return cell.box.y, cell.box.x


def _describe(label: int, nuclei: Parts, outlines: Parts, um_per_px: float) -> Cell | None:
    """One cell in pixels of the working picture."""
    own = (outlines == label).astype(np.uint8)
    contours, _ = cv2.findContours(own, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return None
    contour = max(contours, key=cv2.contourArea)[:, 0, :]
    nucleus = ((nuclei == label) & (own > 0)).astype(np.uint8)
    lobes, _ = cv2.findContours(nucleus, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    lobes = [lobe[:, 0, :] for lobe in lobes if len(lobe) >= 3]
    x, y, width, height = cv2.boundingRect(contour)
    rows, columns = nuclei.shape
    is_cut = x <= 0 or y <= 0 or x + width >= columns or y + height >= rows
    around = cv2.dilate(own, np.ones((5, 5), np.uint8)) > 0
    touching = bool(np.any((outlines[around] != label) & (outlines[around] > 0)))
    return Cell(
        index=1,
        kind=CellKind.WHITE_CELL,
        box=Box(x=x, y=y, width=width, height=height),
        contour=np.asarray(contour, dtype=np.int32),
        nucleus_contours=tuple(np.asarray(lobe, dtype=np.int32) for lobe in lobes),
        shape=_shape(own, nucleus, contour, len(lobes), um_per_px),
        is_cut_by_edge=is_cut,
        is_touching=touching,
        confidence=0.9,
    )


def _shape(
    own: Mask, nucleus: Mask, contour: NDArray[np.int32], lobes: int, um_per_px: float
) -> CellShape:
    area = float(own.sum())
    perimeter = max(float(cv2.arcLength(contour, closed=True)), 1.0)
    hull = max(float(cv2.contourArea(cv2.convexHull(contour))), 1.0)
    moments = cv2.moments(own, binaryImage=True)
    spread = np.array([[moments["mu20"], moments["mu11"]], [moments["mu11"], moments["mu02"]]])
    small, large = np.linalg.eigvalsh(spread)
    return CellShape(
        area_um2=area * um_per_px**2,
        nucleus_area_um2=float(nucleus.sum()) * um_per_px**2,
        perimeter_um=perimeter * um_per_px,
        equivalent_diameter_um=float(2 * np.sqrt(area / np.pi)) * um_per_px,
        circularity=min(1.0, float(4 * np.pi * area / perimeter**2)),
        solidity=min(1.0, float(cv2.contourArea(contour) / hull)),
        eccentricity=float(np.sqrt(max(0.0, 1 - small / large))) if large > 0 else 0.0,
        nucleus_to_cell_ratio=float(nucleus.sum()) / max(area, 1.0),
        nucleus_lobes=lobes,
    )


def _placed(cell: Cell, index: int, grow: float, image: SourceImage) -> Cell:
    """The cell in pixels of the source picture, with its number."""
    contour = _grown(cell.contour, grow, image)
    x, y, width, height = cv2.boundingRect(contour)
    return replace(
        cell,
        index=index,
        box=Box(x=x, y=y, width=width, height=height),
        contour=contour,
        nucleus_contours=tuple(_grown(lobe, grow, image) for lobe in cell.nucleus_contours),
    )


def _grown(contour: Contour, grow: float, image: SourceImage) -> Contour:
    """Pixel middles stay pixel middles; smoothed, so that enlarging leaves no stairs."""
    if grow > 1.3 and len(contour) > 12:
        closed = np.concatenate([contour[-4:], contour, contour[:4]]).astype(np.float32)
        contour = cv2.GaussianBlur(closed, (1, 9), 1.5)[4:-4]
    moved = (contour.astype(np.float64) + 0.5) * grow - 0.5
    limits = np.array([image.width - 1, image.height - 1])
    return np.asarray(np.clip(np.rint(moved), 0, limits), dtype=np.int32)

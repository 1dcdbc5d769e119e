"""Turns outlines on the working picture into a cell: contours in source pixels, shape in µm.

Areas are those of the pixels that filling a contour covers, for cell and nucleus alike, so that a
mask made of the contours has the same areas and the same ratio. What compares an outline with a
circle or with its hull takes the area that the outline itself encloses.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.domain import Box, Cell, CellKind, CellShape, Contour
from pipeline.field.masks import Mask
from pipeline.segmentation.cell_contours import Outline

LOBE_DEPTH = 0.62
"""A lobe is where a nucleus is thicker than this share of its thickest place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelTransform:
    """How the working picture lies on the source picture."""

    grow: float
    """Source pixels to a pixel of the working picture."""
    um_per_px: float
    """Of the source picture."""
    width: int
    height: int
    """Of the source picture."""

    def placed(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points of the working picture in source pixels; middles of pixels are whole numbers."""
        return (points + 0.5) * self.grow - 0.5

    def worked(self, contour: Contour) -> NDArray[np.float64]:
        """The inverse: points of the source, on the nearest pixels of the working picture."""
        return np.asarray(np.rint((contour + 0.5) / self.grow - 0.5))


def describe(lobes: tuple[Contour, ...], outline: Outline, ground: PixelTransform) -> Cell | None:
    """A cell without number and confidence; None when nothing of it is left.

    `lobes` are the outlines of its nucleus in source pixels.
    """
    if not lobes or len(outline) < 3:
        return None
    exact = ground.placed(outline)
    limits = np.array([ground.width - 1, ground.height - 1])
    is_cut = bool((exact < 0.5).any() or (exact > limits - 0.5).any())
    contour = np.rint(np.clip(exact, 0, limits)).astype(np.int32)
    x, y, width, height = cv2.boundingRect(contour)
    return Cell(
        index=1,
        kind=CellKind.WHITE_CELL,
        box=Box(x=x, y=y, width=width, height=height),
        contour=contour,
        nucleus_contours=lobes,
        shape=_figures(contour, lobes, ground.um_per_px),
        is_cut_by_edge=is_cut,
        is_touching=False,
        confidence=1.0,
    )


def _figures(contour: Contour, lobes: tuple[Contour, ...], um_per_px: float) -> CellShape:
    area, nucleus = _covered_px(contour, lobes)
    enclosed = max(float(cv2.contourArea(contour)), 1.0)
    perimeter = max(float(cv2.arcLength(contour, closed=True)), 1.0)
    hull = max(float(cv2.contourArea(cv2.convexHull(contour))), 1.0)
    moments = cv2.moments(contour)
    spread = np.array([[moments["mu20"], moments["mu11"]], [moments["mu11"], moments["mu02"]]])
    small, large = np.linalg.eigvalsh(spread)
    return CellShape(
        area_um2=area * um_per_px**2,
        nucleus_area_um2=nucleus * um_per_px**2,
        perimeter_um=perimeter * um_per_px,
        equivalent_diameter_um=float(2 * np.sqrt(area / np.pi)) * um_per_px,
        circularity=min(1.0, float(4 * np.pi * enclosed / perimeter**2)),
        solidity=min(1.0, enclosed / hull),
        eccentricity=float(np.sqrt(np.clip(1 - small / large, 0, 1))) if large > 0 else 0.0,
        nucleus_to_cell_ratio=nucleus / area,
        nucleus_lobes=sum(_lobes_of(lobe, um_per_px) for lobe in lobes),
    )


def _covered_px(contour: Contour, lobes: tuple[Contour, ...]) -> tuple[int, int]:
    """Pixels of the filled contour, and those of them that the filled lobes cover.

    Contours run through the centers of their outermost pixels, so these count as covered.
    """
    x, y, width, height = cv2.boundingRect(np.concatenate([contour, *lobes]))
    corner = np.array([x, y], np.int32)
    cell: Mask = np.zeros((height, width), np.uint8)
    nucleus = np.zeros_like(cell)
    cv2.fillPoly(cell, [contour - corner], 1)
    for lobe in lobes:
        cv2.fillPoly(nucleus, [lobe - corner], 1)
    return int(cell.sum()), int((cell & nucleus).sum())


def _lobes_of(contour: Contour, um_per_px: float) -> int:
    """Thick places of one part of a nucleus that thin ones part; at least 1."""
    x, y, width, height = cv2.boundingRect(contour)
    zoom = min(1.0, 0.2 / um_per_px)
    points = np.rint((contour - np.array([x, y])) * zoom).astype(np.int32) + 1
    own: Mask = np.zeros((int(height * zoom) + 4, int(width * zoom) + 4), np.uint8)
    cv2.fillPoly(own, [points], 1)
    depth = cv2.distanceTransform(own, cv2.DIST_L2, 5)
    cores = (depth > LOBE_DEPTH * float(depth.max())).astype(np.uint8)
    return max(1, cv2.connectedComponents(cores, connectivity=8)[0] - 1)

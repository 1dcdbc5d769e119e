"""One cell, cut out at one physical scale and alone on black: exactly what the network sees.

Training uses these same functions, so that what is trained on is what will be seen.
A crop is 24 µm wide whatever the microscope. Cells larger than that lose their rim: shrinking
them would tell the network a size that they do not have.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.domain import RGB, Box, Cell, Scale, SourceImage

CROP_PX = 224
CROP_UM = 24.0
"""Side of a crop. Nearly every white cell fits; the network itself looks at the middle of it."""

BACKGROUND_LEVEL = 12
"""At or below, a pixel of an already masked picture is background (JPEG leaves a little noise)."""


def cut_crops(image: SourceImage, cells: Sequence[Cell], scale: Scale) -> NDArray[np.uint8]:
    """Each cell on black, N × 224 × 224 × 3 uint8 RGB, in the order of `cells`."""
    crops = np.zeros((len(cells), CROP_PX, CROP_PX, 3), np.uint8)
    for index, cell in enumerate(cells):
        left, top, side = crop_frame(cell.box, scale)
        view = _resampled(image.pixels, left, top, side)
        crops[index] = view * (_outline(cell, left, top, side)[..., None] > 0)
    return crops


def cut_masked(pixels: RGB, um_per_px: float) -> NDArray[np.uint8]:
    """A picture whose background is black already, as a crop; 224 × 224 × 3 uint8 RGB."""
    lit = (pixels.max(axis=2) > BACKGROUND_LEVEL).astype(np.uint8)
    x, y, width, height = cv2.boundingRect(lit) if lit.any() else (0, 0, *lit.shape[::-1])
    side = CROP_UM / um_per_px
    view = _resampled(pixels, x + (width - side) / 2, y + (height - side) / 2, side)
    return np.where(view.max(axis=2, keepdims=True) > BACKGROUND_LEVEL, view, 0).astype(np.uint8)


def crop_frame(box: Box, scale: Scale) -> tuple[float, float, float]:
    """Left, top and side, in source pixels, of the square that a cell's crop covers."""
    side = CROP_UM / scale.um_per_px
    left = box.x + (box.width - side) / 2
    top = box.y + (box.height - side) / 2
    return left, top, side


def _resampled(pixels: RGB, left: float, top: float, side: float) -> RGB:
    """A square of the picture at the crop's resolution; black beyond the picture's edge."""
    zoom = CROP_PX / side
    source = pixels
    if zoom < 0.75:
        # Averaging first: a transform alone would skip pixels.
        source = np.asarray(
            cv2.resize(pixels, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA), dtype=np.uint8
        )
        left, top = left * zoom, top * zoom
        zoom = 1.0
    place = np.array([[zoom, 0, -left * zoom], [0, zoom, -top * zoom]], np.float32)
    return np.asarray(
        cv2.warpAffine(source, place, (CROP_PX, CROP_PX), flags=cv2.INTER_LINEAR), dtype=np.uint8
    )


def _outline(cell: Cell, left: float, top: float, side: float) -> NDArray[np.uint8]:
    """255 on the cell, 0 around it, in the crop's pixels."""
    zoom = CROP_PX / side
    contour = (cell.contour + 0.5 - np.array([left, top])) * zoom - 0.5
    mask: NDArray[np.uint8] = np.zeros((CROP_PX, CROP_PX), np.uint8)
    # Four more bits of place: contours are smooth after enlarging, too.
    cv2.fillPoly(mask, [np.rint(contour * 16).astype(np.int32)], 255, shift=4)
    return mask

"""Cell outlines as DICOM coordinates.

An image-relative coordinate counts from the upper left corner of the upper left pixel, so the
center of that pixel is 0.5, 0.5 (PS3.3 C.10.5.1.2 and C.18.6.1.1).

A contour of the findings runs through the centers of its outermost pixels, which belong to the
cell. A polygon through those centers would lose half of each of them, about 2 % of a cell. So an
outline here is grown until it encloses the area of the pixels: the area that is stated for the
cell, and that its mask has.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.domain import Contour

TOLERANCE_PX = 0.75
"""An outline is thinned as long as it stays this close: a tenth of the points, the same shape."""
AREA_TOLERANCE = 1e-5
"""Of the area: a twentieth of a pixel of an ordinary cell."""
MOST_ROUNDS = 64
"""Of growing. One is enough, except for an outline that the borders of its box hold back."""


def outline_points(contour: Contour) -> NDArray[np.float32]:
    """The outline as N × 2 float32 points, x then y, not closed, at least three points.

    It encloses the area of the pixels that filling the contour covers, within their box. Several
    objects name the same outline: the array is shared and cannot be written to.
    """
    return _outline_points(contour.reshape(-1, 2).tobytes(), contour.dtype.str)


@lru_cache(maxsize=1024)
def _outline_points(content: bytes, dtype: str) -> NDArray[np.float32]:
    points = _worked_out(np.frombuffer(content, dtype).reshape(-1, 2))
    points.flags.writeable = False
    return points


def _worked_out(contour: Contour) -> NDArray[np.float32]:
    thinned = cv2.approxPolyDP(contour.reshape(-1, 1, 2), TOLERANCE_PX, True).reshape(-1, 2)
    x, y, width, height = cv2.boundingRect(contour.reshape(-1, 1, 2))
    box = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], np.float64)
    covered = _covered_px(contour, (x, y, width, height))
    # Of a few pixels in a line or a small cross no thinned polygon has the area; their box has.
    for points in (thinned + 0.5, contour.reshape(-1, 2) + 0.5):
        grown = _grown(points, covered, box[0], box[2])
        if _has_area(grown, covered):
            return grown.astype(np.float32)
    return _grown(box, covered, box[0], box[2]).astype(np.float32)


def _covered_px(contour: Contour, box: tuple[int, int, int, int]) -> int:
    x, y, width, height = box
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [contour.reshape(-1, 2) - np.array([x, y], np.int32)], 1)
    return cv2.countNonZero(mask)


def _grown(
    points: NDArray[np.floating[Any]],
    area: float,
    least: NDArray[np.floating[Any]],
    most: NDArray[np.floating[Any]],
) -> NDArray[np.floating[Any]]:
    """The polygon, scaled about its center until it has the area; it never leaves the box."""
    center = points.mean(axis=0)
    for _ in range(MOST_ROUNDS):
        enclosed = _enclosed(points)
        if enclosed == 0 or _is_near(enclosed, area):
            break
        scaled = (points - center) * np.sqrt(area / enclosed) + center
        points = np.clip(scaled, least, most)
    return points


def _has_area(points: NDArray[np.floating[Any]], area: float) -> bool:
    return _is_near(_enclosed(points), area)


def _is_near(enclosed: float, area: float) -> bool:
    return abs(enclosed - area) <= AREA_TOLERANCE * area


def _enclosed(points: NDArray[np.floating[Any]]) -> float:
    """The area of a polygon, by the shoelace formula about its first point."""
    x, y = (points - points[0]).T
    next_x, next_y = np.concatenate((x[1:], x[:1])), np.concatenate((y[1:], y[:1]))
    return abs(float(x @ next_y - y @ next_x)) / 2


def closed(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same points with the first one again at the end, as a closed polyline needs."""
    return np.vstack([points, points[:1]])

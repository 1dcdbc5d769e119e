"""Cell outlines as DICOM coordinates.

An image-relative coordinate counts from the upper left corner of the upper left pixel, so the
centre of that pixel is 0.5, 0.5 (PS3.3 C.10.5.1.2 and C.18.6.1.1).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.domain import Contour

TOLERANCE_PX = 0.75
"""An outline is thinned as long as it stays this close: a tenth of the points, the same shape."""


def outline_points(contour: Contour) -> NDArray[np.float32]:
    """The outline as N × 2 float32 points, x then y, not closed, at least three points."""
    thinned = cv2.approxPolyDP(contour.reshape(-1, 1, 2), TOLERANCE_PX, True).reshape(-1, 2)
    points = thinned if len(thinned) >= 3 else contour
    return (points.astype(np.float32) + np.float32(0.5)).reshape(-1, 2)


def closed(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same points with the first one again at the end, as a closed polyline needs."""
    return np.vstack([points, points[:1]])

"""Finding, judged: boxes that meet, average precision, points inside, and overlap of masks."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from models.evaluation.ground_truth import Boxes, Mask, Points
from pipeline.domain import Contour

MEETING_FROM = 0.5
"""Intersection over union from which a found box is the true one."""


def overlaps(found: Boxes, true: Boxes) -> NDArray[np.float64]:
    """Intersection over union of each found (row) with each true box (column)."""
    left_top = np.maximum(found[:, None, :2], true[None, :, :2])
    ends = found[:, :2] + found[:, 2:], true[:, :2] + true[:, 2:]
    shared = np.clip(np.minimum(ends[0][:, None], ends[1][None]) - left_top, 0, None).prod(axis=2)
    areas = found[:, 2:].prod(axis=1)[:, None] + true[:, 2:].prod(axis=1)[None, :] - shared
    return np.asarray(shared / np.maximum(areas, 1e-9), dtype=np.float64)


def hits(found: Boxes, confidences: Sequence[float], true: Boxes) -> tuple[bool, ...]:
    """Whether each found box is a true one; the surest choose first, each true box once."""
    meeting = overlaps(found, true)
    is_hit = [False] * len(found)
    for index in sorted(range(len(found)), key=lambda place: -confidences[place]):
        if meeting.shape[1] and meeting[index].max() >= MEETING_FROM:
            is_hit[index] = True
            meeting[:, int(meeting[index].argmax())] = 0.0
    return tuple(is_hit)


def average_precision(
    confidences: NDArray[np.float64], is_hit: NDArray[np.bool_], true_count: int
) -> float | None:
    """Area under the curve of precision over recall, precision made to fall (VOC 2010)."""
    if true_count == 0:
        return None
    if len(confidences) == 0:
        return 0.0
    ranked = is_hit[np.argsort(-confidences, kind="stable")]
    right = np.cumsum(ranked)
    precision = right / np.arange(1, len(ranked) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float((falling * ranked).sum() / true_count)


def points_found(points: Points, contours: Sequence[Contour]) -> int:
    """How many points lie inside a contour, each contour answering for one point."""
    free = list(contours)
    count = 0
    for x, y in points:
        held = [cv2.pointPolygonTest(contour, (float(x), float(y)), False) >= 0 for contour in free]
        if any(held):
            del free[held.index(True)]
            count += 1
    return count


def dice(found: Mask, true: Mask) -> float | None:
    """Twice the shared area over the sum of both; None where nothing is true."""
    if not true.any():
        return None
    return float(2 * (found & true).sum() / (found.sum() + true.sum()))


def painted(contours: Sequence[Contour], height: int, width: int) -> Mask:
    """The insides of contours, height × width."""
    drawn = np.zeros((height, width), np.uint8)
    for contour in contours:
        cv2.drawContours(drawn, [contour], -1, 1, cv2.FILLED)
    return np.asarray(drawn > 0)

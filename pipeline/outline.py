"""Whole cells: from each nucleus out to where glass, red cells or another cell begin.

Seeds are the nuclei, the glass and the red cells that are surely red cells; a watershed over the
steepness of the picture puts the border where the picture changes most.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.nuclei import Mask, Nuclei, Parts
from pipeline.stain import Density, Map

REACH_UM = 6.0
"""Cytoplasm ends at most this far from the nucleus."""
RIM_UM = 0.45
"""Cytoplasm is at least this wide, where nothing else is known."""


def find_outlines(density: Density, nuclei: Nuclei, stained_from: float, um_per_px: float) -> Parts:
    """Label image of whole cells, with the labels of their nuclei."""
    if nuclei.count == 0:
        return np.zeros_like(nuclei.parts)
    nucleus = (nuclei.parts > 0).astype(np.uint8)
    away = cv2.distanceTransform(1 - nucleus, cv2.DIST_L2, 5) * um_per_px
    smooth = cv2.GaussianBlur(density, (0, 0), max(0.7, 0.2 / um_per_px))
    clear = _clearness(smooth, stained_from)
    unlike_red = _distance_from_red(smooth, nuclei, stained_from, away, um_per_px)
    far = away > REACH_UM
    small, middle = _disc(max(1, round(0.3 / um_per_px))), _disc(max(1, round(0.6 / um_per_px)))
    outside = ((clear < 1.0) | far).astype(np.uint8)
    red = cv2.morphologyEx((unlike_red < 1.6).astype(np.uint8), cv2.MORPH_OPEN, middle)
    own = ((clear > 1.6) & (unlike_red > 2.6) & ~far & (red == 0)).astype(np.uint8)
    own = cv2.morphologyEx(own, cv2.MORPH_OPEN, small)
    own[nucleus > 0] = 1
    seeds = _claimed(own, nuclei, um_per_px)
    beyond = nuclei.count + 1
    seeds[((outside > 0) | (red > 0)) & (away > RIM_UM) & (seeds == 0)] = beyond
    edges = _steepness(smooth, away, um_per_px)
    cv2.watershed(cv2.merge([edges, edges, edges]), seeds)
    cells = np.where((seeds > 0) & (seeds < beyond), seeds, 0).astype(np.int32)
    return _smoothed(cells, nuclei, um_per_px)


def _claimed(own: Mask, nuclei: Nuclei, um_per_px: float) -> Parts:
    """Cytoplasm given to the nucleus that it is connected with, the nearer one of two."""
    _, pieces = cv2.connectedComponents(own, connectivity=4)
    held = np.unique(pieces[nuclei.parts > 0])
    table = np.zeros(int(pieces.max()) + 1, np.bool_)
    table[held] = True
    connected = table[pieces] & (own > 0)
    _, nearest = cv2.distanceTransformWithLabels(
        (nuclei.parts == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    owners = np.zeros(int(nearest.max()) + 1, np.int32)
    inside = nuclei.parts > 0
    owners[nearest[inside]] = nuclei.parts[inside]
    return np.where(connected, owners[nearest], 0).astype(np.int32)


def _clearness(smooth: Density, stained_from: float) -> Map:
    """How far from glass a pixel is; 1 at the end of what glass reaches by noise."""
    total = smooth.sum(axis=2)
    glass = total[smooth[..., 1] < 0.7 * stained_from]
    if glass.size < 50:
        return np.asarray(total / (1.5 * stained_from), dtype=np.float32)
    middle = float(np.median(glass))
    noise = float(np.percentile(glass, 70)) - middle
    reach = np.clip(3.0 * noise, 0.04, 1.2 * stained_from)
    return np.asarray((total - middle) / reach, dtype=np.float32)


def _steepness(smooth: Density, away: Map, um_per_px: float) -> Mask:
    across = cv2.Sobel(smooth, cv2.CV_32F, 1, 0)
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    steep = np.sqrt((across**2 + down**2).sum(axis=2))
    scale = max(float(np.percentile(steep, 98)), 1e-3)
    # The nucleus has the steepest edge of all: it must not hold the border back.
    steep = steep * np.clip((away - 0.2) / (RIM_UM + 0.2), 0, 1)
    return np.asarray(np.clip(steep / scale * 200, 0, 255), dtype=np.uint8)


def _distance_from_red(
    smooth: Density, nuclei: Nuclei, stained_from: float, away: Map, um_per_px: float
) -> Map:
    """How unlike the field's red cells a pixel is, in spreads; 9 where no red cell is known."""
    stained = smooth[..., 1] > stained_from
    reference = stained & (away > REACH_UM) & (nuclei.violet < nuclei.level)
    if reference.sum() * um_per_px**2 < 30:
        return np.full(away.shape, 9.0, np.float32)
    features = _features(smooth)
    known = features[reference]
    middle = np.median(known, axis=0)
    spread = 1.5 * np.median(np.abs(known - middle), axis=0)
    spread = np.maximum(spread, (0.012, 0.012, 0.012, 0.05))
    distance = np.abs(features - middle) / spread
    return np.asarray(np.sqrt((distance**2).mean(axis=2)), dtype=np.float32)


def _features(smooth: Density) -> Density:
    """Share of each colour in the density, and the density."""
    total = smooth.sum(axis=2, keepdims=True)
    return np.concatenate([smooth / np.maximum(total, 0.05), 0.5 * total], axis=2)


def _smoothed(cells: Parts, nuclei: Nuclei, um_per_px: float) -> Parts:
    """Each cell without threads and notches, in one piece, its nucleus inside."""
    result = np.zeros_like(cells)
    radius = max(1, round(0.7 / um_per_px))
    for label in range(1, nuclei.count + 1):
        both = ((cells == label) | (nuclei.parts == label)).astype(np.uint8)
        x, y, width, height = cv2.boundingRect(both)
        if width == 0:
            continue
        grown = cv2.copyMakeBorder(
            both[y : y + height, x : x + width], *(radius * 2,) * 4, cv2.BORDER_REPLICATE
        )
        own = grown.copy()
        grown = cv2.morphologyEx(grown, cv2.MORPH_OPEN, _disc(radius))
        grown = cv2.morphologyEx(grown, cv2.MORPH_CLOSE, _disc(radius))
        inner = slice(radius * 2, -radius * 2)
        piece = grown[inner, inner] | (nuclei.parts[y : y + height, x : x + width] == label).astype(
            np.uint8
        )
        del own
        contours, _ = cv2.findContours(piece, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        solid = np.zeros_like(piece)
        cv2.drawContours(solid, [max(contours, key=cv2.contourArea)], -1, 1, cv2.FILLED)
        target = result[y : y + height, x : x + width]
        target[(solid > 0) & (target == 0)] = label
    return result


def _disc(radius_px: int) -> NDArray[np.uint8]:
    side = 2 * radius_px + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), dtype=np.uint8)

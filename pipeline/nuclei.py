"""Nuclei: dark violet parts of a field, those of one cell together, touching ones apart.

Everything here is in pixels of the working picture, whose scale is given in µm a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.stain import Density, Map, violet

Mask = NDArray[np.uint8]
Parts = NDArray[np.int32]
"""Label image: 0 elsewhere, 1 to N on the parts."""

LEAST_VIOLET = 0.16
"""Below, nothing is a nucleus, however pale everything else is."""
FULL_VIOLET = 0.9
"""Above, a camera has no light left to tell more from less."""
SPLIT_VIOLET = 0.6
"""Nuclei this dark are all alike when red cells are told from them."""
RICH_SHARE = 0.12
"""Share of the darker class in what is stained, from which it holds nuclei for sure."""
LEAST_LOBE_UM2 = 1.5
BRIDGE_UM = 2.6
"""Lobes of one nucleus lie closer than this."""
WHOLE_NUCLEUS_UM2 = 32.0
"""Two parts that are both larger are nuclei of two cells."""
SPREAD_UM = 15.0
"""Lobes of one nucleus fit into this width."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Nuclei:
    """What is nucleus, and which cell it belongs to."""

    parts: Parts
    """One label a cell."""
    count: int
    red_level: float
    """Violet of red cells in this field."""
    level: float
    """Violet from which a pixel was taken for nucleus, before each was looked at closely."""
    violet: Map


def find_nuclei(density: Density, stained: Mask, um_per_px: float) -> Nuclei:
    """Every nucleus of the working picture, one label a cell."""
    full = np.minimum(violet(density), FULL_VIOLET)
    colour = cv2.GaussianBlur(full, (0, 0), max(0.8, 0.22 / um_per_px))
    red, level = _levels(colour, stained)
    mask = _closely(colour, (colour > level).astype(np.uint8), red, um_per_px)
    apart = _split_touching(mask, um_per_px)
    parts, count = _lobes_together(apart, um_per_px)
    return Nuclei(parts=parts, count=count, red_level=red, level=level, violet=colour)


def _levels(colour: Map, stained: Mask) -> tuple[float, float]:
    """Violet of red cells, and the violet from which a pixel may be nucleus."""
    inside = colour[stained > 0]
    if inside.size < 50:
        return 0.1, 0.35
    grey = (np.clip(inside, 0, SPLIT_VIOLET) * 200).astype(np.uint8)
    split, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    counts = np.bincount(grey, minlength=256).astype(np.float32)
    counts = cv2.GaussianBlur(counts[None, :], (0, 0), 4)[0]
    red_grey = int(np.argmax(counts[: int(split) + 1]))
    dark_grey = int(split) + 1 + int(np.argmax(counts[int(split) + 1 :]))
    valley = float(counts[red_grey : dark_grey + 1].min())
    has_two_kinds = float((grey > split).mean()) > RICH_SHARE and valley < 0.7 * min(
        counts[red_grey], counts[dark_grey]
    )
    red = red_grey / 200
    least = max(LEAST_VIOLET, 1.25 * red + 0.03 if has_two_kinds else 1.5 * red + 0.05)
    dark = inside[inside > least]
    peak = float(np.percentile(dark, 80)) if dark.size else least
    return red, max(least, red + 0.42 * (peak - red))


def _closely(colour: Map, mask: Mask, red: float, um_per_px: float) -> Mask:
    """Each part again, with the level halfway between its own core and what surrounds it."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    exact = np.zeros_like(mask)
    reach = max(2, round(1.6 / um_per_px))
    near, far = _disc(max(1, round(0.5 / um_per_px))), _disc(reach)
    for label in range(1, count):
        x, y, width, height, area = stats[label]
        if area * um_per_px**2 < LEAST_LOBE_UM2:
            continue
        view = _around(x, y, width, height, reach, mask.shape)
        own = (parts[view] == label).astype(np.uint8)
        values = colour[view]
        ring = (cv2.dilate(own, far) > cv2.dilate(own, near)) & (mask[view] == 0)
        outside = float(np.median(values[ring])) if ring.any() else red
        core = float(np.percentile(values[own > 0], 70))
        level = outside + 0.5 * (core - outside)
        fresh = ((values > level) & (cv2.dilate(own, near) > 0)).astype(np.uint8)
        exact[view] |= fresh & ((mask[view] == 0) | (own > 0)).astype(np.uint8)
    return _without_small_holes(cv2.morphologyEx(exact, cv2.MORPH_OPEN, _disc(1)), um_per_px)


def _without_small_holes(mask: Mask, um_per_px: float) -> Mask:
    contours, family = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    filled = mask.copy()
    for contour, (_, _, _, parent) in zip(contours, family[0] if contours else (), strict=True):
        if parent >= 0 and cv2.contourArea(contour) * um_per_px**2 < 3.0:
            cv2.drawContours(filled, [contour], -1, 1, cv2.FILLED)
    return filled


def _split_touching(mask: Mask, um_per_px: float) -> Parts:
    """Label image in which nuclei that only touch at a neck are apart."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    result = np.asarray(parts, dtype=np.int32).copy()
    following = count
    for label in range(1, count):
        x, y, width, height, area = stats[label]
        if area * um_per_px**2 < 1.6 * WHOLE_NUCLEUS_UM2:
            continue
        view = _around(x, y, width, height, 2, mask.shape)
        own = (parts[view] == label).astype(np.uint8)
        pieces, number = _cut_at_necks(own, um_per_px)
        for piece in range(2, number + 1):
            result[view][pieces == piece] = following
            following += 1
    return result


def _cut_at_necks(own: Mask, um_per_px: float) -> tuple[Parts, int]:
    """A part cut into nuclei whose middles are far from any edge compared with the neck."""
    depth = cv2.distanceTransform(own, cv2.DIST_L2, 5) * um_per_px
    deepest = float(depth.max())
    seeds = np.zeros(own.shape, np.int32)
    number = 0
    for fraction in (0.75, 0.65, 0.55):
        count, cores = cv2.connectedComponents(
            (depth > fraction * deepest).astype(np.uint8), connectivity=8
        )
        if count - 1 > max(number, 1):
            seeds, number = np.asarray(cores, dtype=np.int32), count - 1
    if number < 2:
        return own.astype(np.int32), 1
    pieces = _nearest_seed(own, seeds)
    areas = np.bincount(pieces[own > 0], minlength=number + 1)[1:] * um_per_px**2
    if areas.min() < 0.55 * WHOLE_NUCLEUS_UM2:
        return own.astype(np.int32), 1
    return pieces, number


def _nearest_seed(own: Mask, seeds: Parts) -> Parts:
    """Each pixel of a part gets the label of the seed that is nearest inside the part."""
    pieces = seeds.copy()
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
    number = int(seeds.max())
    for _ in range(max(own.shape)):
        grown = pieces.astype(np.uint8)
        empty = (own > 0) & (pieces == 0)
        if not empty.any():
            break
        for piece in range(1, number + 1):
            reached = cv2.dilate((grown == piece).astype(np.uint8), cross) > 0
            pieces[reached & empty & (pieces == 0)] = piece
    return pieces


def _lobes_together(apart: Parts, um_per_px: float) -> tuple[Parts, int]:
    """Parts that belong to one cell get one label; the labels run from 1."""
    labels = [int(label) for label in np.unique(apart) if label]
    outlines = {label: _outline_of(apart, label) for label in labels}
    areas = {label: float((apart == label).sum()) * um_per_px**2 for label in labels}
    labels = [label for label in labels if areas[label] >= LEAST_LOBE_UM2]
    owner = {label: label for label in labels}
    pairs = [
        (gap, one, two)
        for index, one in enumerate(labels)
        for two in labels[index + 1 :]
        if (gap := _gap_um(outlines[one], outlines[two], um_per_px)) < BRIDGE_UM
    ]
    for _, one, two in sorted(pairs):
        first, second = owner[one], owner[two]
        if first == second or min(areas[first], areas[second]) > WHOLE_NUCLEUS_UM2:
            continue
        together = np.concatenate([outlines[first], outlines[second]])
        if _width_um(together, um_per_px) > SPREAD_UM or areas[first] + areas[second] > 110:
            continue
        outlines[first] = together
        areas[first] += areas[second]
        owner = {label: first if who == second else who for label, who in owner.items()}
    table = np.zeros(int(apart.max()) + 1, np.int32)
    groups = sorted(set(owner.values()))
    for label, who in owner.items():
        table[label] = groups.index(who) + 1
    return table[apart], len(groups)


def _outline_of(apart: Parts, label: int) -> NDArray[np.int32]:
    contours, _ = cv2.findContours(
        (apart == label).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    return np.asarray(np.concatenate(contours)[:, 0, :], dtype=np.int32)


def _gap_um(one: NDArray[np.int32], two: NDArray[np.int32], um_per_px: float) -> float:
    if np.abs(one.mean(axis=0) - two.mean(axis=0)).max() * um_per_px > SPREAD_UM:
        return np.inf
    away = one[::2, None, :].astype(np.float32) - two[None, ::2, :]
    return float(np.sqrt((away**2).sum(axis=2).min())) * um_per_px


def _width_um(outline: NDArray[np.int32], um_per_px: float) -> float:
    _, (width, height), _ = cv2.minAreaRect(outline)
    return max(float(width), float(height)) * um_per_px


def _around(
    x: int, y: int, width: int, height: int, reach: int, shape: tuple[int, ...]
) -> tuple[slice, slice]:
    """Rows and columns of a box with a margin, inside the picture."""
    return (
        slice(max(0, y - reach), min(shape[0], y + height + reach)),
        slice(max(0, x - reach), min(shape[1], x + width + reach)),
    )


def _disc(radius_px: int) -> Mask:
    side = 2 * radius_px + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), dtype=np.uint8)

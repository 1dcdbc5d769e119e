"""Nuclei: dark violet parts of a field, those of one cell together, touching ones apart.

Everything here is in pixels of the working picture, whose scale is given in µm a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.field.masks import Mask, around, disc, with_holes_filled
from pipeline.field.optical_density import Density, Map, nuclear_stain
from pipeline.segmentation.nuclear_lobes import Parts, merge_lobes, split_touching

LEAST_STAIN = 0.16
"""Below, nothing is a nucleus, however pale everything else is."""
FULL_STAIN = 0.9
"""Above, a camera has no light left to tell more from less."""
SPLIT_STAIN = 0.6
"""Nuclei this dark are all alike when red cells are told from them."""
RICH_SHARE = 0.12
"""Share of the darker class in what is stained, from which it holds nuclei for sure."""
LEAST_LOBE_UM2 = 1.5
EDGE_AT = 0.5
"""A nucleus ends halfway between its own stain and that around it."""
BLUR_UM = 0.22
RED_SURE_UM2 = 60.0
"""Area of red cells from which their color is known."""
RED_AWAY_UM = 2.5
LIKE_RED_DEG = (5.0, 13.0)
"""Least and most angle between colors that may tell a nucleus from thick or folded red cells."""
LIKE_RED_SHARE = 0.4
"""Of the angle that the field's nuclei show."""
LONELY_SHARE = 0.88
"""Of all that is stained, in the largest part, where there are no red cells."""
LONELY_RED, LONELY_LEVEL = 0.25, 0.55
"""Of the nucleus' own stain: what red cells would have, and where a nucleus may begin."""
INK_FROM = 1.3
"""Density in every color that only ink and the edge of a scan have; nuclei let blue through."""
FAR_DARKER = 3.6
"""Red cells on each other are at most this much darker than one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Nuclei:
    """What is nucleus, and which cell it belongs to."""

    parts: Parts
    """One label a cell, 1 to `count`."""
    count: int
    stain: Map
    """Nuclear stain of each pixel."""
    margin: Map
    """Stain above the level at which the nucleus nearby ends; the outline is where it is 0."""
    red: NDArray[np.float32] | None
    """Usual density of red cells, red, green, blue; None when too little of them is seen."""
    level: float
    """Stain from which a pixel was taken for nucleus, before each was looked at closely."""


def find_nuclei(density: Density, stained: Mask, um_per_px: float) -> Nuclei:
    """Every nucleus of the working picture, one label a cell."""
    raw = np.minimum(nuclear_stain(density, stained), FULL_STAIN)
    stain = np.asarray(
        cv2.GaussianBlur(raw, (0, 0), max(0.7, BLUR_UM / um_per_px)), dtype=np.float32
    )
    red_level, level = _levels(stain, stained)
    mask = (stain > level).astype(np.uint8)
    mask[_ink(density) > 0] = 0
    red = _red_color(density, stained, mask, um_per_px)
    mask = _without_red(mask, density, red, um_per_px)
    mask, margin = _closely(stain, mask, red_level, um_per_px)
    parts, count = merge_lobes(split_touching(mask, um_per_px), stained, um_per_px)
    return Nuclei(parts=parts, count=count, stain=stain, margin=margin, red=red, level=level)


def _ink(density: Density) -> Mask:
    """1 on text, scale bars and black strips, and on their soft rims: no dye is black."""
    black = (density.min(axis=2) > INK_FROM).astype(np.uint8)
    return np.asarray(cv2.dilate(black, disc(2)), dtype=np.uint8) if black.any() else black


def nuclei_of_nothing(stained: Mask) -> Nuclei:
    """None at all, for a picture that is not looked at."""
    blank = np.zeros(stained.shape, np.float32)
    parts = np.zeros(stained.shape, np.int32)
    return Nuclei(parts=parts, count=0, stain=blank, margin=blank - 1, red=None, level=1.0)


def _levels(stain: Map, stained: Mask) -> tuple[float, float]:
    """Nuclear stain of red cells, and that from which a pixel may be nucleus."""
    inside = stain[stained > 0]
    if inside.size < 50:
        return 0.1, 0.35
    if _is_lonely(stained):
        peak = float(np.percentile(inside, 80))
        return LONELY_RED * peak, max(LEAST_STAIN, LONELY_LEVEL * peak)
    gray = (np.clip(inside, 0, SPLIT_STAIN) * 200).astype(np.uint8)
    split, _ = cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    counts = np.bincount(gray, minlength=256).astype(np.float32)
    counts = cv2.GaussianBlur(counts[None, :], (0, 0), 4)[0]
    red_gray = int(np.argmax(counts[: int(split) + 1]))
    dark_gray = int(split) + 1 + int(np.argmax(counts[int(split) + 1 :]))
    valley = float(counts[red_gray : dark_gray + 1].min())
    has_two_kinds = float((gray > split).mean()) > RICH_SHARE and valley < 0.7 * min(
        counts[red_gray], counts[dark_gray]
    )
    red = red_gray / 200
    least = max(LEAST_STAIN, 1.25 * red + 0.03 if has_two_kinds else 1.5 * red + 0.05)
    dark = inside[inside > least]
    peak = float(np.percentile(dark, 80)) if dark.size else least
    return red, max(least, red + 0.42 * (peak - red))


def _is_lonely(stained: Mask) -> bool:
    """Whether what is stained is mostly one thing on bare glass: no red cells to compare with."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(stained, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if count < 2 or float(areas.max()) < LONELY_SHARE * float(areas.sum()):
        return False
    x, y, width, height = (int(side) for side in stats[1 + int(areas.argmax()), :4])
    is_inside = x > 0 and y > 0 and x + width < stained.shape[1] and y + height < stained.shape[0]
    return is_inside and float(areas.max()) < 0.6 * stained.size


def _red_color(
    density: Density, stained: Mask, mask: Mask, um_per_px: float
) -> NDArray[np.float32] | None:
    """Usual density of what is stained and far from every possible nucleus."""
    away = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 3) * um_per_px
    reference = (stained > 0) & (away > RED_AWAY_UM)
    if float(reference.sum()) * um_per_px**2 < RED_SURE_UM2:
        return None
    return np.asarray(np.median(density[reference], axis=0), dtype=np.float32)


def _without_red(
    mask: Mask, density: Density, red: NDArray[np.float32] | None, um_per_px: float
) -> Mask:
    """Without the parts that have the color of red cells: thick, folded or lying on others."""
    if red is None:
        return mask
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA] * um_per_px**2
    labels = [label for label in range(1, count) if areas[label] >= LEAST_LOBE_UM2]
    if not labels:
        return np.zeros_like(mask)
    colors = np.array([_color_of(label, parts, stats, density) for label in labels])
    lengths = np.linalg.norm(colors, axis=1) * float(np.linalg.norm(red))
    angles = np.degrees(np.arccos(np.clip(colors @ red / np.maximum(lengths, 1e-6), -1, 1)))
    darker = colors.sum(axis=1) / max(float(red.sum()), 1e-3)
    weights = areas[labels] * (areas[labels] > 6)
    usual = float(np.average(angles, weights=weights**2)) if weights.any() else 0.0
    limit = float(np.clip(LIKE_RED_SHARE * usual, *LIKE_RED_DEG))
    is_red = (angles < limit) & (darker < FAR_DARKER)
    is_red |= angles / 12 + (darker - 1) / 2.2 < 1
    keep = np.zeros(count, np.uint8)
    keep[[label for label, gone in zip(labels, is_red, strict=True) if not gone]] = 1
    return np.asarray(keep[parts], dtype=np.uint8)


def _color_of(
    label: int, parts: NDArray[Any], stats: NDArray[Any], density: Density
) -> NDArray[np.float32]:
    x, y, width, height = stats[label, :4]
    view = slice(y, y + height), slice(x, x + width)
    return np.asarray(np.median(density[view][parts[view] == label], axis=0), dtype=np.float32)


def _closely(stain: Map, mask: Mask, red_level: float, um_per_px: float) -> tuple[Mask, Map]:
    """Each part again, with the level between its own core and what surrounds it."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    exact = np.zeros_like(mask)
    margin = np.full(stain.shape, -1.0, np.float32)
    reach = max(2, round(1.6 / um_per_px))
    near, far = disc(max(1, round(0.5 / um_per_px))), disc(reach)
    for label in range(1, count):
        x, y, width, height, area = stats[label]
        if area * um_per_px**2 < LEAST_LOBE_UM2:
            continue
        view = around(x, y, width, height, reach, mask.shape)
        own = (parts[view] == label).astype(np.uint8)
        values = stain[view]
        wide = cv2.dilate(own, near)
        ring = (cv2.dilate(own, far) > wide) & (mask[view] == 0)
        outside = float(np.median(values[ring])) if ring.any() else red_level
        core = float(np.percentile(values[own > 0], 70))
        above = values - (outside + EDGE_AT * (core - outside))
        mine = (wide > 0) & ((mask[view] == 0) | (own > 0))
        margin[view][mine] = np.maximum(margin[view][mine], above[mine])
        exact[view] |= ((above > 0) & mine).astype(np.uint8)
    opened = cv2.morphologyEx(exact, cv2.MORPH_OPEN, disc(1))
    most_px = 3.0 / um_per_px**2
    filled = with_holes_filled(
        np.asarray(opened, dtype=np.uint8), lambda hole, _: cv2.contourArea(hole) < most_px
    )
    margin[(filled > 0) & (exact == 0)] = 0.05
    return filled, margin

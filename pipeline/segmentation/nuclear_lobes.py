"""Which dark parts are one nucleus: touching nuclei cut apart, lobes of one cell put together."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.field.masks import Mask, around, windows

Parts = NDArray[np.int32]
"""Label image: 0 elsewhere, 1 to N on the parts."""

LEAST_LOBE_UM2 = 1.5
SMALL_LOBE_UM2 = 14.0
"""Smaller parts are no nucleus of their own."""
BRIDGE_UM = 3.5
"""Lobes of one nucleus lie closer than this."""
ONE_NUCLEUS_UM = 15.5
"""Large lobes of one nucleus fit into this width; two nuclei side by side do not."""
SPREAD_UM = 16.5
"""With a small one among them, into this."""
TWO_NUCLEI_UM = 13.5
"""Two round nuclei of small lymphocytes that touch are wider than this together."""
WHOLE_NUCLEUS_UM2 = 34.0
CUT_FROM_UM2 = 52.0
"""Parts smaller than this are not two nuclei."""
LEAST_PIECE_UM2 = 26.0
CUT_FROM_UM = 13.5
"""Nor those that fit into a circle of this width."""
CLUMP_FROM_UM2 = 175.0
"""Larger parts are no single nucleus."""
FULL_PIECE = 0.86
"""Share of its hull that a nucleus fills which was cut off another."""


def split_touching(mask: Mask, um_per_px: float) -> Parts:
    """Label image in which nuclei that only touch at a neck are apart."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    result = np.asarray(parts, dtype=np.int32).copy()
    following = count
    for label in range(1, count):
        x, y, width, height, area = stats[label]
        if area * um_per_px**2 < CUT_FROM_UM2:
            continue
        view = around(x, y, width, height, 1, mask.shape)
        own = (parts[view] == label).astype(np.uint8)
        pieces, number = _cut_at_necks(own, um_per_px)
        for piece in range(2, number + 1):
            result[view][pieces == piece] = following
            following += 1
    return result


def _cut_at_necks(own: Mask, um_per_px: float) -> tuple[Parts, int]:
    """A part cut into nuclei whose middles are far from any edge compared with the neck."""
    padded = cv2.copyMakeBorder(own, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    deepest = float(depth.max())
    seeds, number = own.astype(np.int32), 1
    for fraction in (0.75, 0.65, 0.55):
        count, cores = cv2.connectedComponents(
            (depth > fraction * deepest).astype(np.uint8), connectivity=8
        )
        if count - 1 > number:
            seeds, number = np.asarray(cores, dtype=np.int32), count - 1
    if number < 2 or _widest(own) * um_per_px < CUT_FROM_UM:
        return own.astype(np.int32), 1
    return _whole_pieces(own, seeds, um_per_px)


def _whole_pieces(own: Mask, seeds: Parts, um_per_px: float) -> tuple[Parts, int]:
    """A part cut at the middle between seeds; seeds whose piece is no nucleus are given up."""
    labels = list(range(1, int(seeds.max()) + 1))
    is_clump = float(own.sum()) * um_per_px**2 > CLUMP_FROM_UM2
    least = 0.0 if is_clump else FULL_PIECE
    while len(labels) > 1:
        pieces = _nearest_seed(own, np.where(np.isin(seeds, labels), seeds, 0).astype(np.int32))
        poor = {label: _fullness(pieces == label, um_per_px) for label in labels}
        worst = min(poor, key=lambda label: poor[label])
        if poor[worst] >= least:
            table = np.zeros(int(seeds.max()) + 1, np.int32)
            table[labels] = np.arange(1, len(labels) + 1)
            return np.asarray(table[pieces], dtype=np.int32), len(labels)
        labels.remove(worst)
    return own.astype(np.int32), 1


def _widest(own: Mask) -> float:
    """Diameter in pixels of the circle around a part."""
    points = np.argwhere(own > 0).astype(np.int32)
    return 2 * float(cv2.minEnclosingCircle(points)[1]) + 1


def _fullness(piece: NDArray[np.bool_], um_per_px: float) -> float:
    """Share of its hull that a piece fills; less than 0 when it is too small for a nucleus."""
    area = float(piece.sum())
    if area * um_per_px**2 < LEAST_PIECE_UM2:
        return area * um_per_px**2 / LEAST_PIECE_UM2 - 1
    rows, columns = np.nonzero(piece)
    hull = cv2.convexHull(np.stack([columns, rows], axis=1).astype(np.int32))
    around_it = cv2.contourArea(hull) + 0.5 * cv2.arcLength(hull, closed=True)
    return area / around_it


def _nearest_seed(own: Mask, seeds: Parts) -> Parts:
    """Each pixel of a part gets the label of the seed that is nearest."""
    _, nearest = cv2.distanceTransformWithLabels(
        (seeds == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    owners = np.zeros(int(nearest.max()) + 1, np.int32)
    owners[nearest[seeds > 0]] = seeds[seeds > 0]
    return np.asarray(np.where(own > 0, owners[nearest], 0), dtype=np.int32)


@dataclass(slots=True, eq=False)
class _Lobe:
    """A part, or parts already put together; lengths in pixels, area in µm²."""

    labels: list[int]
    outline: NDArray[np.int32]
    area_um2: float
    is_round: bool


def merge_lobes(apart: Parts, stained: Mask, um_per_px: float) -> tuple[Parts, int]:
    """Parts that belong to one cell get one label; the labels run from 1."""
    lobes = _lobes(apart, um_per_px)
    while len(lobes) > 1:
        pairs = [
            (gap, one, two)
            for one in range(len(lobes))
            for two in range(one + 1, len(lobes))
            if (gap := _gap_um(lobes[one], lobes[two], um_per_px)) < BRIDGE_UM
        ]
        for _, one, two in sorted(pairs):
            if _is_one_nucleus(lobes[one], lobes[two], stained, um_per_px):
                lobes[one] = _joined(lobes[one], lobes[two])
                del lobes[two]
                break
        else:
            break
    table = np.zeros(int(apart.max()) + 1, np.int32)
    for index, lobe in enumerate(lobes, start=1):
        table[lobe.labels] = index
    return np.asarray(table[apart], dtype=np.int32), len(lobes)


def _lobes(apart: Parts, um_per_px: float) -> list[_Lobe]:
    lobes = []
    for label, (view, pixels) in windows(apart).items():
        area = pixels * um_per_px**2
        if area < LEAST_LOBE_UM2:
            continue
        top, left = view[0].start, view[1].start
        own = (apart[view] == label).astype(np.uint8)
        contours, _ = cv2.findContours(own, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        outline = max(contours, key=len)[:, 0, :] + np.array([left, top])
        hull = max(cv2.contourArea(cv2.convexHull(outline.astype(np.int32))), 1.0)
        _, radius = cv2.minEnclosingCircle(outline.astype(np.int32))
        is_round = pixels > 0.62 * np.pi * (radius + 0.5) ** 2 and pixels > 0.92 * hull
        lobes.append(_Lobe([int(label)], outline.astype(np.int32), area, bool(is_round)))
    return lobes


def _gap_um(one: _Lobe, two: _Lobe, um_per_px: float) -> float:
    apart = np.abs(one.outline.mean(axis=0) - two.outline.mean(axis=0)).max() * um_per_px
    if apart > SPREAD_UM:
        return np.inf
    away = one.outline[::2, None, :].astype(np.float32) - two.outline[None, ::2, :]
    return float(np.sqrt((away**2).sum(axis=2).min())) * um_per_px


def _is_one_nucleus(one: _Lobe, two: _Lobe, stained: Mask, um_per_px: float) -> bool:
    """Whether two parts are lobes of one nucleus, not the nuclei of two cells."""
    both = np.concatenate([one.outline, two.outline])
    width = 2 * float(cv2.minEnclosingCircle(both)[1]) * um_per_px
    if min(one.area_um2, two.area_um2) < SMALL_LOBE_UM2:
        return width < SPREAD_UM and _bridge(both, stained) > 0.6
    if width > ONE_NUCLEUS_UM:
        return False
    if width > TWO_NUCLEI_UM and one.is_round and two.is_round and _both_whole(one, two):
        return False
    return _bridge(both, stained) > 0.8


def _both_whole(one: _Lobe, two: _Lobe) -> bool:
    return min(one.area_um2, two.area_um2) > WHOLE_NUCLEUS_UM2


def _bridge(both: NDArray[np.int32], stained: Mask) -> float:
    """Share of the hull of two parts that is stained: glass between them parts two cells."""
    x, y, width, height = cv2.boundingRect(both)
    hull: Mask = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(both - np.array([x, y], np.int32)), 1)
    inside = stained[y : y + height, x : x + width][hull > 0]
    return float(inside.mean()) if inside.size else 0.0


def _joined(one: _Lobe, two: _Lobe) -> _Lobe:
    return _Lobe(
        one.labels + two.labels,
        np.concatenate([one.outline, two.outline]),
        one.area_um2 + two.area_um2,
        is_round=False,
    )

"""From the maps of a learned segmenter to cells: which pixel belongs to which, and how sure.

Each pixel of a white cell points at the middle of its cell (as in Panoptic-DeepLab, Cheng 2020),
so lobes far apart meet in one middle, and cells that touch have two.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.field.masks import View, disc, places_of, wider, windows
from pipeline.field.optical_density import Map
from pipeline.segmentation.cell_contours import Outline
from pipeline.segmentation.network_maps import SegmentationMaps
from pipeline.segmentation.nuclei import Nuclei

MIDDLE_FROM = 0.3
"""Least probability of a cell's middle."""
APART_UM = 2.0
"""No two middles are nearer than this: two places for one cell otherwise."""
ONE_CELL = 0.5
"""Middles that their pixels place nearer than this, of the distance of cells that touch, are of
one cell."""
WIDEST_CELL_UM = 24.0
"""Middles are not joined to more than a disc of this width."""
SURE_OF_NUCLEUS = 0.6
"""From this confidence on a cell's nucleus is one: on the data pack 98 of 100 white cells have 0.68
and more, platelets hardly ever."""
FINER = 4
"""Outlines are read on maps enlarged so many times."""
STEEP = 3.0
"""Logits beyond which an outline's place does not change."""
MARGIN_OF_LOGIT = 0.1
"""Nuclear margins elsewhere are densities: about a tenth of a logit."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Instances:
    """The cells of a working picture; label k is outline and confidence k - 1."""

    labels: NDArray[np.int32]
    """Whole cells, 1 to N; 0 elsewhere."""
    nuclei: Nuclei
    nuclei_px: NDArray[np.float64]
    """Widths of the nuclei of whole, sure cells, in pixels of the working picture; where the edge
    cuts every cell, that of the largest nucleus alone, which is wider than it looks."""
    outlines: list[Outline]
    """Points of each cell's rim, x then y, in pixels of the working picture."""
    confidences: list[float]


def find_instances(maps: SegmentationMaps, um_per_px: float) -> Instances:
    """Every cell of the maps."""
    white = _probability(maps.white)
    middle = _probability(maps.middle)
    middles = _middles(middle, white, um_per_px)
    owned = _joined(_owned(maps, middles), maps, um_per_px)
    labels = np.zeros_like(owned)
    confidences: list[float] = []
    outlines: list[Outline] = []
    for label, (view, _) in windows(owned).items():
        own = _largest_part(owned[view] == label)
        confidences.append(float(middle[view][own].max()) * float(white[view][own].mean()))
        labels[view][own] = len(confidences)
    for number, (view, _) in windows(labels).items():
        outlines.append(_outline(number, view, labels, maps.white))
    nuclei = _nuclei(maps, labels, len(confidences))
    return Instances(
        labels=labels,
        nuclei=nuclei,
        nuclei_px=_widths(nuclei, labels, confidences),
        outlines=outlines,
        confidences=confidences,
    )


def _widths(
    nuclei: Nuclei, labels: NDArray[np.int32], confidences: list[float]
) -> NDArray[np.float64]:
    """Widths of discs as large as the nuclei of sure cells that the picture's edge does not cut."""
    areas = np.bincount(nuclei.parts.ravel(), minlength=nuclei.count + 1)[1:]
    areas[np.array(confidences) < SURE_OF_NUCLEUS] = 0
    is_cut = np.zeros(nuclei.count + 1, np.bool_)
    is_cut[np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])] = True
    whole = areas[(areas > 0) & ~is_cut[1:]]
    usable = whole if whole.size else np.sort(areas[areas > 0])[-1:]
    return np.asarray(2 * np.sqrt(usable / np.pi), dtype=np.float64)


def _probability(logits: Map) -> Map:
    odds = cv2.exp(np.clip(logits, -30, 30))
    return np.asarray(odds / (1 + odds), dtype=np.float32)


def _middles(middle: Map, white: Map, um_per_px: float) -> NDArray[np.int32]:
    """Label image of the places that are middles of cells, of which these are probabilities."""
    likely = cv2.GaussianBlur(middle, (0, 0), 1.0)
    highest = cv2.dilate(likely, disc(max(2, round(APART_UM / um_per_px))))
    peaks = (likely >= highest - 1e-7) & (likely > MIDDLE_FROM) & (white > 0.4)
    return np.asarray(cv2.connectedComponents(peaks.astype(np.uint8))[1], dtype=np.int32)


def _owned(maps: SegmentationMaps, peaks: NDArray[np.int32]) -> NDArray[np.int32]:
    """Each white pixel under the label of the middle that is nearest to where it points."""
    labels = np.zeros_like(peaks)
    if not peaks.any():
        return labels
    _, nearest = cv2.distanceTransformWithLabels(
        (peaks == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP
    )
    owners = np.zeros(int(nearest.max()) + 1, np.int32)
    owners[nearest[peaks > 0]] = peaks[peaks > 0]
    rows, columns = places_of(maps.white > 0)
    height, width = peaks.shape
    there = np.clip(np.rint(rows + maps.down[rows, columns]), 0, height - 1).astype(np.intp)
    across = np.clip(np.rint(columns + maps.across[rows, columns]), 0, width - 1).astype(np.intp)
    labels[rows, columns] = owners[nearest[there, across]]
    return labels


@dataclass(frozen=True, slots=True)
class _Vote:
    """What the pixels of one middle say together."""

    label: int
    area_px: float
    place: NDArray[np.float64]
    """Where they point on average: row and column."""

    def and_other(self, other: _Vote) -> _Vote:
        area = self.area_px + other.area_px
        place = (self.place * self.area_px + other.place * other.area_px) / area
        return _Vote(self.label, area, place)

    def apart(self, other: _Vote) -> float:
        """Distance of the two places, over that of two discs of these areas that touch."""
        touching = np.sqrt(self.area_px / np.pi) + np.sqrt(other.area_px / np.pi)
        return float(np.linalg.norm(self.place - other.place) / touching)


def _joined(
    labels: NDArray[np.int32], maps: SegmentationMaps, um_per_px: float
) -> NDArray[np.int32]:
    """With two middles of one cell made one: their pixels point at nearly the same place."""
    votes = _votes(labels, maps)
    table = np.arange(int(labels.max()) + 1, dtype=np.int32)
    most_px = np.pi / 4 * (WIDEST_CELL_UM / um_per_px) ** 2
    while len(votes) > 1:
        pairs = [
            (one.apart(two), first, second)
            for first, one in enumerate(votes)
            for second, two in enumerate(votes[:first])
            if one.area_px + two.area_px < most_px
        ]
        nearest, first, second = min(pairs, default=(np.inf, 0, 0))
        if nearest > ONE_CELL:
            break
        one, two = votes[second], votes[first]
        table[table == two.label] = one.label
        votes[second] = one.and_other(two)
        del votes[first]
    return np.asarray(table[labels], dtype=np.int32)


def _votes(labels: NDArray[np.int32], maps: SegmentationMaps) -> list[_Vote]:
    rows, columns = places_of(labels)
    own = labels[rows, columns]
    areas = np.bincount(own)
    down = np.bincount(own, rows + maps.down[rows, columns])
    across = np.bincount(own, columns + maps.across[rows, columns])
    return [
        _Vote(
            int(label), float(areas[label]), np.array([down[label], across[label]]) / areas[label]
        )
        for label in np.flatnonzero(areas)
    ]


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected part of a mask that is not empty."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return np.asarray(parts == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))


def _nuclei(maps: SegmentationMaps, labels: NDArray[np.int32], count: int) -> Nuclei:
    """The nuclear part of each cell, in the words of the classical search."""
    return Nuclei(
        parts=np.where(maps.nucleus > 0, labels, 0).astype(np.int32),
        count=count,
        stain=_probability(maps.nucleus),
        margin=np.asarray(MARGIN_OF_LOGIT * maps.nucleus, dtype=np.float32),
        red=None,
        level=0.5,
    )


def _outline(number: int, view: View, labels: NDArray[np.int32], white: Map) -> Outline:
    """Where the cell's logit crosses 0, read between the pixels, N × 2; `view` holds the cell."""
    view = wider(view, 2, labels.shape)
    own, logits = labels[view], np.clip(white[view], -STEEP, STEEP)
    near = cv2.dilate((own == number).astype(np.uint8), disc(1))
    other = (own > 0) & (own != number)
    logits[near == 0] = -STEEP
    logits[other] = np.minimum(logits[other], -1.0)
    fine = cv2.resize(
        cv2.copyMakeBorder(logits, 1, 1, 1, 1, cv2.BORDER_REPLICATE),
        None,
        fx=FINER,
        fy=FINER,
        interpolation=cv2.INTER_LINEAR,
    )
    contours, _ = cv2.findContours(
        (fine > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    if not contours:
        return np.zeros((0, 2))
    longest = max(contours, key=len)[:, 0, :]
    corner = np.array([view[1].start, view[0].start]) - 1
    return np.asarray((longest + 0.5) / FINER - 0.5 + corner, dtype=np.float64)

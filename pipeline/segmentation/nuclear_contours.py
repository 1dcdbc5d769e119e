"""Outlines of nuclei in pixels of the source picture.

A network is asked at 0.4 µm a pixel: it knows where a nucleus lies, and its rim only roughly.
Between what it is sure is nucleus and what it is sure is the rest of the cell, the stain of that
one cell says on finer pixels where the one ends and the other begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.domain import Contour, SourceImage
from pipeline.field.masks import Mask, View, disc, wider
from pipeline.field.optical_density import Density, Map, optical_density
from pipeline.field.overview import reduced
from pipeline.field.percentiles import median_color
from pipeline.segmentation.morphometry import PixelTransform
from pipeline.segmentation.nuclei import Nuclei

LEAST_LOBE_UM2 = 1.5
LEAST_HOLE_UM2 = 3.0
"""Smaller holes are pale places of the nucleus."""
MOST_MARGIN = 0.3
"""Beyond, an outline's place does not change."""
FINE_UM = 0.2
"""µm a pixel on which the stain is read; finer ones change nothing."""
SURE_MARGIN = 0.2
"""From which the network is sure of nucleus or of its absence: nine times in ten."""
LEAST_SURE_UM2 = 1.2
"""Of both, for their stains to be known."""
STAIN_MARGIN = 0.29
"""What the stain says at most: a little less than the network where it is surest."""
ENDS_AT = 0.4
"""Of the way from the stain of the cytoplasm to that of the nucleus, a drawn nucleus ends here."""
ENOUGH = 500
"""Pixels to tell a stain by; of more, every so many."""
STEADY = 1e-3
"""Added to the spread of densities, for stains that hardly vary."""
GONE = -0.05
"""Margin of what is taken away."""


def nuclear_contours(
    label: int, view: View, nuclei: Nuclei, ground: PixelTransform
) -> tuple[Contour, ...]:
    """Outlines of the parts of a nucleus where its margin is 0; `view` holds the nucleus."""
    place = _Place.of(wider(view, 2, nuclei.parts.shape), ground, finest_um=0.0)
    return _traced(place.laid(_own_margin(label, place.view, nuclei)), place, ground)


def refined_nuclear_contours(
    label: int,
    view: View,
    nuclei: Nuclei,
    cells: NDArray[np.int32],
    image: SourceImage,
    lamp: Density,
    ground: PixelTransform,
) -> tuple[Contour, ...]:
    """The same, the rim drawn where the stain changes; as the network says where it does not.

    `cells` are the whole cells of the working picture, with the labels of their nuclei; `lamp` is
    that of the field.
    """
    place = _Place.of(wider(view, 2, nuclei.parts.shape), ground, finest_um=FINE_UM)
    coarse = _own_margin(label, place.view, nuclei)
    others = (cells[place.view] > 0) & (cells[place.view] != label)
    coarse[others] = -MOST_MARGIN
    margin = place.laid(coarse)
    inside = place.laid((cells[place.view] == label).astype(np.float32)) > 0.5
    density = _density(image, lamp, place)
    sharp = margin + _by_stain(density, margin, inside, LEAST_SURE_UM2 / place.um_per_px**2)
    return _traced(_without_tails(np.asarray(sharp, np.float32), margin > 0), place, ground)


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """A part of the working picture, and the grid laid over it; x before y in arrays."""

    view: View
    grow: float
    corner: NDArray[np.intp]
    """Of the grid in source pixels."""
    size: NDArray[np.intp]
    """In source pixels."""
    steps: NDArray[np.intp]
    """Pixels of the grid."""
    um_per_px: float
    """Of the grid."""

    @classmethod
    def of(cls, view: View, ground: PixelTransform, *, finest_um: float) -> _Place:
        rows, columns = view
        corner = np.floor(np.array([columns.start, rows.start]) * ground.grow).astype(np.intp)
        far = np.ceil(np.array([columns.stop, rows.stop]) * ground.grow).astype(np.intp)
        limits = np.array([ground.width, ground.height])
        corner = np.minimum(corner, limits - 1)
        size = np.clip(far, corner + 1, limits) - corner
        shrink = min(1.0, ground.um_per_px / finest_um) if finest_um else 1.0
        steps = np.maximum(np.rint(size * shrink), 1).astype(np.intp)
        return cls(view, ground.grow, corner, size, steps, ground.um_per_px / shrink)

    def laid(self, values: Map) -> Map:
        """Values of the part of the working picture on the grid."""
        source_px = self.size / self.steps
        start = np.array([self.view[1].start, self.view[0].start])
        shift = (0.5 * source_px + self.corner) / self.grow - 0.5 - start
        back = np.concatenate([np.diag(source_px / self.grow), shift[:, None]], axis=1)
        return np.asarray(
            cv2.warpAffine(
                values,
                back,
                (int(self.steps[0]), int(self.steps[1])),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            ),
            dtype=np.float32,
        )


def _own_margin(label: int, view: View, nuclei: Nuclei) -> Map:
    """The margin of one nucleus and its surroundings, with no other nucleus in it."""
    parts = nuclei.parts[view]
    own = cv2.dilate((parts == label).astype(np.uint8), disc(1))
    own[(parts > 0) & (parts != label)] = 0
    margin = np.clip(nuclei.margin[view], -MOST_MARGIN, MOST_MARGIN)
    return np.where(own > 0, margin, -MOST_MARGIN).astype(np.float32)


def _density(image: SourceImage, lamp: Density, place: _Place) -> Density:
    """Of the grid; the lamp is the same all over a cell."""
    (left, top), (width, height) = place.corner, place.size
    pixels = image.pixels[top : top + height, left : left + width]
    middle = (place.corner + place.size / 2) / np.array([image.width, image.height])
    across, down = np.minimum(middle * lamp.shape[1::-1], np.array(lamp.shape[1::-1]) - 1)
    light = lamp[int(down), int(across)][None, None]
    return optical_density(reduced(pixels, (int(place.steps[0]), int(place.steps[1]))), light)


def _by_stain(
    density: Density, margin: Map, inside: NDArray[np.bool_], least_px: float
) -> NDArray[np.float32]:
    """How far above the level between the stains of nucleus and cytoplasm each pixel lies.

    Along the direction that tells the two apart best (Fisher 1936); 0 where too little is sure.
    """
    nucleus = density[margin > SURE_MARGIN]
    cytoplasm = density[(margin < -SURE_MARGIN) & inside]
    if min(len(nucleus), len(cytoplasm)) < max(least_px, 8):
        return np.zeros_like(margin)
    nucleus, cytoplasm = (colors[:: 1 + len(colors) // ENOUGH] for colors in (nucleus, cytoplasm))
    usual = median_color(nucleus), median_color(cytoplasm)
    spread = _spread(nucleus) + _spread(cytoplasm) + STEADY * np.eye(3)
    way = np.linalg.solve(spread, usual[0] - usual[1]).astype(np.float32)
    there, here = (float(color @ way) for color in usual)
    above = cv2.transform(density, way[None]) - (here + ENDS_AT * (there - here))
    steep = MOST_MARGIN / max(0.5 * (there - here), 1e-6)
    return np.asarray(np.clip(steep * above, -STAIN_MARGIN, STAIN_MARGIN), np.float32)


def _spread(colors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Covariance of N × 3."""
    away = colors - colors.mean(axis=0)
    return np.asarray(away.T @ away / (len(away) - 1), np.float32)


def _without_tails(margin: Map, said: NDArray[np.bool_]) -> Map:
    """The margin with nothing of the nucleus that is one pixel thin, or holds nothing `said`."""
    nucleus = cv2.morphologyEx((margin > 0).astype(np.uint8), cv2.MORPH_OPEN, disc(1))
    _, parts = cv2.connectedComponents(nucleus, connectivity=8)
    is_kept = np.zeros(int(parts.max()) + 1, np.bool_)
    is_kept[parts[said]] = True
    is_kept[0] = False
    return np.where(is_kept[parts], margin, np.minimum(margin, GONE)).astype(np.float32)


def _traced(margin: Map, place: _Place, ground: PixelTransform) -> tuple[Contour, ...]:
    """Where a margin on a grid crosses 0, in source pixels."""
    size = int(place.size[0]), int(place.size[1])
    drawn = margin
    if size != (margin.shape[1], margin.shape[0]):
        drawn = np.asarray(cv2.resize(margin, size, interpolation=cv2.INTER_LINEAR), np.float32)
    nucleus = _rings_opened((drawn > 0).astype(np.uint8), LEAST_HOLE_UM2 / ground.um_per_px**2)
    contours, _ = cv2.findContours(nucleus, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    least_px = LEAST_LOBE_UM2 / ground.um_per_px**2
    limits = np.array([ground.width - 1, ground.height - 1])
    return tuple(
        np.clip(contour[:, 0, :] + place.corner, 0, limits).astype(np.int32)
        for contour in contours
        if cv2.contourArea(contour) >= 0.5 * least_px and len(contour) >= 3
    )


def _rings_opened(nucleus: Mask, least_hole_px: float) -> Mask:
    """The mask with a way out of each large hole, at the ring's thinnest place.

    An outline cannot say that a nucleus is a ring; a nucleus that looks like one is a band whose
    ends meet.
    """
    opened = nucleus
    for hole, around in _holes(nucleus, least_hole_px):
        opened = opened.copy() if opened is nucleus else opened
        apart = np.linalg.norm(hole[:, None] - around[None].astype(np.float32), axis=2)
        inner, outer = np.unravel_index(int(apart.argmin()), apart.shape)
        ends = [tuple(int(side) for side in point) for point in (hole[inner], around[outer])]
        cv2.line(opened, ends[0], ends[1], 0, 1, cv2.LINE_4)
    return opened


def _holes(mask: Mask, least_px: float) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Outlines, N × 2, of each large hole and of the part in which it lies."""
    contours, family = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for contour, (_, _, _, parent) in zip(contours, family[0] if contours else (), strict=True):
        if parent >= 0 and cv2.contourArea(contour) >= least_px:
            yield contour[:, 0, :], contours[parent][:, 0, :]

"""Whole cells: from each nucleus out to where glass, red cells or another cell begin.

From the middle of each nucleus rays go out in all directions. Along a ray a pixel counts for the
cell when it is neither glass nor like the field's red cells, and against it otherwise; where the
sum is greatest, and the picture changes most, the cell ends. All rays are decided together by
dynamic programming, so that the outline is closed and smooth.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.field.optical_density import Density, Map
from pipeline.segmentation.nuclei import Nuclei

RAYS = 48
FARTHEST_UM = 13.5
"""Of an outline from the middle of its nucleus."""
USUAL_CYTOPLASM_UM = 5.0
"""Beyond this width, more cytoplasm costs."""
RIM_UM = 0.3
"""Cytoplasm is at least this wide: the stain fades over the edge of a nucleus."""
SAMPLE = 20_000
"""Pixels that are enough to know a color from."""
GLASS_MIDDLE = 40
"""Percentile of glass that is its usual color."""
LEAST_NOISE = 0.007
GLASS_REACH = 3.5
"""In spreads of its noise."""
SURE_OF_GLASS, SURE_OF_RED = 2.0, 1.2
"""How fast a pixel beyond what glass or red cells reach counts as cytoplasm."""
RED_REACH = 1.5
"""In spreads of the red cells' color."""
STEPS = 3
"""Of the radius from one ray to the next, at most."""
BEND_COST = 0.05
EDGE_WORTH_UM = 1.6
"""How many µm of certain cytoplasm a clear edge is worth."""

Outline = NDArray[np.float64]
"""RAYS × 2: x, y in pixels of the working picture."""


def find_outlines(
    density: Density, nuclei: Nuclei, stained_from: float, um_per_px: float
) -> list[Outline]:
    """The outline of the cell of each nucleus, in the order of its labels."""
    if nuclei.count == 0:
        return []
    smooth = np.asarray(
        cv2.GaussianBlur(density, (0, 0), max(0.7, 0.2 / um_per_px)), dtype=np.float32
    )
    worth = _worth(smooth, nuclei, stained_from, um_per_px)
    middles = _middles(nuclei)
    rays = _Rays(middles, um_per_px, int(np.ceil(FARTHEST_UM / um_per_px)))
    scores = _scores(rays, worth, _steepness(smooth), nuclei, um_per_px)
    radii = _best_loops(scores)
    return rays.points(radii)


class _Rays:
    """Places on the rays of every cell: N × RAYS × radii, a pixel apart."""

    def __init__(self, middles: NDArray[np.float64], um_per_px: float, radii: int) -> None:
        angles = np.arange(RAYS) * 2 * np.pi / RAYS
        self.ways = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        self.middles = middles
        self.radii = np.arange(radii, dtype=np.float64)
        along = self.ways[None, :, None, :] * self.radii[None, None, :, None]
        places = middles[:, None, None, :] + along
        self.x = places[..., 0].astype(np.float32)
        self.y = places[..., 1].astype(np.float32)

    def read(self, picture: Map) -> Map:
        """The picture's values on the rays; beyond its edge, those of the edge."""
        shape = self.x.shape
        flat = (-1, shape[2])
        rows = [
            cv2.remap(
                picture,
                self.x.reshape(flat)[first : first + 16_000],
                self.y.reshape(flat)[first : first + 16_000],
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
            for first in range(0, shape[0] * shape[1], 16_000)
        ]
        return np.asarray(np.concatenate(rows).reshape(shape), dtype=np.float32)

    def labels(self, parts: NDArray[np.int32]) -> NDArray[np.int32]:
        """The label under each place; 0 beyond the picture's edge."""
        height, width = parts.shape
        x, y = np.rint(self.x).astype(np.int32), np.rint(self.y).astype(np.int32)
        inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
        found = parts[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
        return np.asarray(np.where(inside, found, 0), dtype=np.int32)

    def points(self, radii: NDArray[np.float64]) -> list[Outline]:
        """Outlines from N × RAYS radii."""
        return list(self.middles[:, None, :] + self.ways[None] * radii[..., None])


def _middles(nuclei: Nuclei) -> NDArray[np.float64]:
    """The middle of the hull of each nucleus, x and y."""
    middles = np.zeros((nuclei.count, 2))
    for label in range(1, nuclei.count + 1):
        rows, columns = np.nonzero(nuclei.parts == label)
        hull = cv2.convexHull(np.stack([columns, rows], axis=1).astype(np.int32))
        moments = cv2.moments(hull)
        if moments["m00"] > 0:
            middles[label - 1] = moments["m10"], moments["m01"]
            middles[label - 1] /= moments["m00"]
        else:
            middles[label - 1] = columns.mean(), rows.mean()
    return middles


def _worth(smooth: Density, nuclei: Nuclei, stained_from: float, um_per_px: float) -> Map:
    """1 where a pixel is surely of a white cell, -1 where surely not."""
    own = np.tanh(SURE_OF_GLASS * (_clearness(smooth, stained_from) - 1.0))
    if nuclei.red is not None:
        unlike = _distance_from_red(smooth, nuclei, stained_from, um_per_px)
        own = np.minimum(own, np.tanh(SURE_OF_RED * (unlike - RED_REACH)))
    own[nuclei.parts > 0] = 1.0
    return np.asarray(own, dtype=np.float32)


def _clearness(smooth: Density, stained_from: float) -> Map:
    """How far from glass a pixel is; 1 at the end of what glass reaches by noise."""
    green = smooth[..., 1]
    glass = smooth[green < 0.7 * stained_from]
    if len(glass) < 50:
        return np.asarray(smooth.sum(axis=2) / (1.5 * stained_from), dtype=np.float32)
    if len(glass) > SAMPLE:
        glass = glass[:: len(glass) // SAMPLE]
    # Pale cytoplasm and soft rims lie above glass, so only what is clearer tells its noise.
    middle = np.percentile(glass, GLASS_MIDDLE, axis=0)
    below = np.percentile(glass, GLASS_MIDDLE * 0.32, axis=0)
    noise = np.maximum(middle - below, LEAST_NOISE)
    away = np.sqrt((((smooth - middle) / noise) ** 2).sum(axis=2))
    reach = min(GLASS_REACH, 1.2 * stained_from / float(noise[1]))
    return np.asarray(away / max(reach, 1.5), dtype=np.float32)


def _distance_from_red(
    smooth: Density, nuclei: Nuclei, stained_from: float, um_per_px: float
) -> Map:
    """How unlike the field's red cells a pixel is, in spreads."""
    nucleus = (nuclei.parts == 0).astype(np.uint8)
    away = cv2.distanceTransform(nucleus, cv2.DIST_L2, 3) * um_per_px
    reference = (smooth[..., 1] > stained_from) & (away > 5.0) & (nuclei.stain < nuclei.level)
    if float(reference.sum()) * um_per_px**2 < 30:
        return np.full(away.shape, 9.0, np.float32)
    features = _features(smooth)
    known = features[reference]
    middle = np.median(known, axis=0)
    spread = 1.5 * np.median(np.abs(known - middle), axis=0)
    spread = np.maximum(spread, (0.012, 0.012, 0.012, 0.05))
    distance = np.abs(features - middle) / spread
    return np.asarray(np.sqrt((distance**2).mean(axis=2)), dtype=np.float32)


def _features(smooth: Density) -> Density:
    """Share of each color in the density, and the density."""
    total = smooth.sum(axis=2, keepdims=True)
    return np.concatenate([smooth / np.maximum(total, 0.05), 0.5 * total], axis=2)


def _steepness(smooth: Density) -> Map:
    total = smooth.sum(axis=2)
    across = cv2.Sobel(total, cv2.CV_32F, 1, 0, scale=0.125)
    down = cv2.Sobel(total, cv2.CV_32F, 0, 1, scale=0.125)
    return np.asarray(cv2.magnitude(across, down), dtype=np.float32)


def _scores(
    rays: _Rays, worth: Map, steep: Map, nuclei: Nuclei, um_per_px: float
) -> NDArray[np.float32]:
    """How good an end each place is for its ray, N × RAYS × radii."""
    own = np.arange(1, nuclei.count + 1)[:, None, None]
    held = rays.labels(nuclei.parts)
    nearest = rays.labels(_territories(nuclei))
    gain: NDArray[np.floating[Any]] = rays.read(worth)
    gain = np.where((held > 0) & (held != own), -4.0, gain)
    gain = np.where((nearest > 0) & (nearest != own), np.minimum(gain, 0) - 1.0, gain)
    last = _last_radius(held == own)
    beyond = (rays.radii[None, None, :] - last[..., None]) * um_per_px
    gain = gain - 0.35 * np.clip(beyond - USUAL_CYTOPLASM_UM, 0, None)
    total = np.cumsum(gain, axis=2) * um_per_px
    edges = rays.read(steep)
    outer = np.where(beyond > RIM_UM, edges, 0)
    top = np.percentile(outer.reshape(len(outer), -1), 97, axis=1)[:, None, None]
    total = total + EDGE_WORTH_UM * np.minimum(edges / np.maximum(top, 1e-3), 1.2)
    least = _envelope(last + RIM_UM / um_per_px)
    total[rays.radii[None, None, :] < least[..., None]] = -1e6
    return np.asarray(total, dtype=np.float32)


def _territories(nuclei: Nuclei) -> NDArray[np.int32]:
    """The label of the nucleus that is nearest, everywhere."""
    _, nearest = cv2.distanceTransformWithLabels(
        (nuclei.parts == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    owners = np.zeros(int(nearest.max()) + 1, np.int32)
    inside = nuclei.parts > 0
    owners[nearest[inside]] = nuclei.parts[inside]
    return np.asarray(owners[nearest], dtype=np.int32)


def _last_radius(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The outermost radius inside the nucleus, N × RAYS; 0 where the ray misses it."""
    places = np.arange(inside.shape[2])
    return np.asarray((inside * places).max(axis=2), dtype=np.float64)


def _envelope(least: NDArray[np.float64]) -> NDArray[np.float64]:
    """Raised so that it falls by at most STEPS from ray to ray: the outline can follow it."""
    raised = least.copy()
    for _ in range(RAYS // 2):
        sides = np.maximum(np.roll(raised, 1, axis=1), np.roll(raised, -1, axis=1)) - STEPS
        higher = np.maximum(raised, sides)
        if np.array_equal(higher, raised):
            break
        raised = higher
    return raised


def _best_loops(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Radii with the greatest sum of scores, N × RAYS, neighbors at most STEPS apart.

    One and a half turns are walked, and the turn in the middle is taken: by then the start is
    forgotten.
    """
    count, rays, radii = scores.shape
    moves = np.arange(-STEPS, STEPS + 1)
    cost = (BEND_COST * moves**2).astype(np.float32)
    order = np.arange(-rays // 4, rays + rays // 4) % rays
    best = scores[:, order[0]]
    came = np.zeros((len(order), count, radii), np.int8)
    for step in range(1, len(order)):
        padded = np.pad(best, ((0, 0), (STEPS, STEPS)), constant_values=-1e9)
        reached = np.lib.stride_tricks.sliding_window_view(padded, len(moves), axis=1) - cost
        choice = reached.argmax(axis=2)
        came[step] = choice
        best = np.take_along_axis(reached, choice[..., None], axis=2)[..., 0]
        best = best + scores[:, order[step]]
    place = best.argmax(axis=1)
    found = np.zeros((count, rays))
    everyone = np.arange(count)
    for step in range(len(order) - 1, 0, -1):
        if rays // 4 <= step < rays + rays // 4:
            found[:, order[step]] = place
        place = np.clip(place + moves[came[step, everyone, place]], 0, radii - 1)
    closed = np.concatenate([found[:, -1:], found, found[:, :1]], axis=1)
    return np.asarray(0.25 * closed[:, :-2] + 0.5 * found + 0.25 * closed[:, 2:])

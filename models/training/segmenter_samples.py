"""Crops for the segmenter: turned, scaled, stained anew, with cells of others laid on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.training.segmenter_labels import LABEL_UM, UNKNOWN, Labelled
from pipeline.maps import DENSITIES, MAP_COUNT, NETWORK_UM, OFFSET_PX
from pipeline.stain import Density

SIDE = 96
SOURCES = {
    "bccd": 0.25,
    "raabin": 0.24,
    "draaslan": 0.15,
    "zheng1": 0.13,
    "pbc": 0.11,
    "lmu": 0.06,
    "aria": 0.06,
}
"""How often each is drawn."""
DRAWN = ("bccd", "zheng1")
"""Whose masks a person drew; those of the others weigh half."""
WEAK, WEAK_NUCLEUS = 0.5, 0.4
LEAST_SEEN = 0.12
"""Share of a cell below which its rest at the edge of a crop counts as nothing known."""

Sample = tuple[Density, NDArray[np.float32], NDArray[np.float32]]
"""Density 3 × S × S, maps wanted and their weights, both 6 × S × S."""


@dataclass(slots=True, eq=False)
class _Crop:
    density: Density
    labels: NDArray[np.uint8]
    """Cells, nuclei, ignored, red, along the last axis."""
    whole_px: dict[int, float]
    """Area of each cell before the crop's edge cut it."""


class Sampler:
    """Draws crops from labelled pictures."""

    def __init__(self, pictures: Sequence[Labelled], seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._pictures: dict[str, list[Labelled]] = {}
        for picture in pictures:
            self._pictures.setdefault(picture.source, []).append(picture)
        self._names = list(self._pictures)
        weights = np.array([SOURCES[name] for name in self._names])
        self._weights = weights / weights.sum()
        self._areas = {
            picture.file: np.bincount(picture.cells.ravel(), minlength=1) for picture in pictures
        }

    def draw(self) -> Sample:
        """One crop with what the network should say of it."""
        random = self._random
        source = self._names[random.choice(len(self._names), p=self._weights)]
        picture = self._one(source)
        zoom = NETWORK_UM / LABEL_UM * 2 ** float(np.clip(random.normal(-0.05, 0.3), -1, 1))
        crop = self._crop(picture, self._place(picture, zoom), zoom)
        if random.random() < 0.35:
            for _ in range(random.integers(1, 4)):
                self._lay(crop, self._one(source), zoom)
        wanted, weights = _wanted(crop, is_drawn=source in DRAWN)
        return self._restained(crop.density).transpose(2, 0, 1), wanted, weights

    def _one(self, source: str) -> Labelled:
        pictures = self._pictures[source]
        return pictures[self._random.integers(len(pictures))]

    def _place(self, picture: Labelled, zoom: float) -> NDArray[np.float64]:
        """Middle of a crop, x and y: mostly near a white cell."""
        random, size = self._random, np.array(picture.cells.shape[::-1], np.float64)
        areas = self._areas[picture.file]
        labels = np.flatnonzero(areas[1:]) + 1
        if len(labels) and random.random() < 0.75:
            rows, columns = np.nonzero(picture.cells == random.choice(labels))
            middle = np.array([columns.mean(), rows.mean()])
            middle += random.uniform(-0.42, 0.42, 2) * SIDE * zoom
        else:
            middle = random.uniform(0, 1, 2) * size
        reach = np.minimum(0.4 * SIDE * zoom, size / 2)
        return np.clip(middle, reach, size - reach)

    def _crop(self, picture: Labelled, place: NDArray[np.float64], zoom: float) -> _Crop:
        angle = self._random.integers(4) * np.pi / 2
        if self._random.random() < 0.4:
            angle += self._random.uniform(-0.3, 0.3)
        turn = _turn(angle, zoom) @ np.diag([self._random.choice([-1.0, 1.0]), 1.0])
        density, labels = _cut(picture, place, turn, np.full(2, SIDE / 2))
        areas = self._areas[picture.file]
        return _Crop(density, labels, {k: areas[k] / zoom**2 for k in range(1, len(areas))})

    def _lay(self, crop: _Crop, other: Labelled, zoom: float) -> None:
        """A cell of another picture of the source on the crop, often against one of its own."""
        areas = self._areas[other.file]
        labels = np.flatnonzero(areas[1:]) + 1
        if not len(labels):
            return
        label = int(self._random.choice(labels))
        rows, columns = np.nonzero(other.cells == label)
        there = self._neighbouring(crop, float(np.sqrt(areas[label] / np.pi)) / zoom)
        density, marks = _cut(
            other,
            np.array([columns.mean(), rows.mean()]),
            _turn(self._random.uniform(0, 2 * np.pi), zoom),
            there,
        )
        own = marks[..., 0] == label
        if not own.any():
            return
        soft = cv2.GaussianBlur(own.astype(np.float32), (0, 0), max(0.6, 0.75 / zoom))[..., None]
        crop.density = np.asarray(crop.density * (1 - soft) + density * soft, np.float32)
        crop.labels[own] = marks[own]
        number = max(crop.whole_px, default=0) + 1
        crop.labels[own, 0] = number
        crop.whole_px[number] = float(areas[label]) / zoom**2

    def _neighbouring(self, crop: _Crop, radius: float) -> NDArray[np.float64]:
        """Where to lay a cell of that radius: anywhere, or beside another."""
        rows, columns = np.nonzero(crop.labels[..., 0])
        if not len(rows) or self._random.random() > 0.65:
            return self._random.uniform(0.05, 0.95, 2) * SIDE
        pixel = self._random.integers(len(rows))
        rows, columns = np.nonzero(
            crop.labels[..., 0] == crop.labels[rows[pixel], columns[pixel], 0]
        )
        apart = (radius + np.sqrt(len(rows) / np.pi)) * self._random.uniform(0.85, 1.1)
        angle = self._random.uniform(0, 2 * np.pi)
        middle = np.array([columns.mean(), rows.mean()])
        return np.asarray(middle + apart * np.array([np.cos(angle), np.sin(angle)]))

    def _restained(self, density: Density) -> Density:
        """Another stain, lamp, focus, camera and compression."""
        random, changed = self._random, density
        if random.random() < 0.85:
            mixing = np.eye(3) + random.normal(0, 0.08, (3, 3)) * (random.random() < 0.7)
            strength = 2 ** (random.normal(0, 0.3) + random.normal(0, 0.15, 3))
            changed = cv2.transform(changed, (mixing * strength[:, None]).astype(np.float32))
            changed = changed + random.normal(0, 0.02, 3).astype(np.float32)
        focus = random.random()
        if focus < 0.25:
            changed = cv2.GaussianBlur(changed, (0, 0), random.uniform(0.4, 1.2))
        elif focus < 0.35:
            changed = changed + 0.6 * (changed - cv2.GaussianBlur(changed, (0, 0), 1.2))
        if random.random() < 0.15:
            shading = random.normal(0, 0.06, (3, 3, 1)).astype(np.float32).repeat(3, 2)
            changed = changed + cv2.resize(shading, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        if random.random() < 0.5:
            changed = self._photographed(changed)
        return np.clip(changed, *DENSITIES).astype(np.float32)

    def _photographed(self, density: Density) -> Density:
        grey = np.clip(241 * 10 ** -np.clip(density, -0.02, 2) - 1, 0, 255).astype(np.uint8)
        if self._random.random() < 0.5:
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(self._random.integers(45, 95))]
            grey = cv2.imdecode(cv2.imencode(".jpg", grey, quality)[1], cv2.IMREAD_COLOR)
        noisy = grey + self._random.normal(0, self._random.uniform(0, 5), grey.shape)
        return np.asarray(np.log10(241 / (np.clip(noisy, 0, 255) + 1)), np.float32)


def _turn(angle: float, zoom: float) -> NDArray[np.float64]:
    across, down = np.cos(angle) * zoom, np.sin(angle) * zoom
    return np.array([[across, -down], [down, across]])


def _cut(
    picture: Labelled,
    place: NDArray[np.float64],
    turn: NDArray[np.float64],
    there: NDArray[np.float64],
) -> tuple[Density, NDArray[np.uint8]]:
    """A crop in which `place` of the picture lies at `there`; glass beyond the picture."""
    matrix = np.concatenate([turn, (place - turn @ there)[:, None]], axis=1)
    zoom = float(np.sqrt(abs(np.linalg.det(turn))))
    # Averaged first, as the pipeline shrinks: a transform alone would skip pixels.
    soft = cv2.blur(picture.density, (round(zoom),) * 2) if zoom >= 1.5 else picture.density
    stacked = np.stack([picture.cells, picture.nuclei, picture.ignored, picture.red], axis=-1)
    flags = cv2.WARP_INVERSE_MAP
    density = cv2.warpAffine(soft, matrix, (SIDE, SIDE), flags=flags | cv2.INTER_LINEAR)
    labels = cv2.warpAffine(stacked, matrix, (SIDE, SIDE), flags=flags | cv2.INTER_NEAREST)
    return np.asarray(density, np.float32), np.asarray(labels, np.uint8)


def _wanted(crop: _Crop, *, is_drawn: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The maps of `pipeline.maps.Segmenter` and their weights, both 6 × S × S."""
    cells, nuclei, ignored, red = (crop.labels[..., place].copy() for place in range(4))
    unknown = ignored > 0
    wanted = np.zeros((MAP_COUNT, SIDE, SIDE), np.float32)
    down, across = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    for label in np.unique(cells[cells > 0]):
        own = cells == label
        area = int(own.sum())
        if area < max(12.0, LEAST_SEEN * crop.whole_px.get(int(label), area)):
            unknown |= cv2.dilate(own.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
            cells[own] = 0
            continue
        row, column = down[own].mean(), across[own].mean()
        width = max(1.0, 0.32 * float(np.sqrt(area / np.pi)))
        hill = np.exp(-((across - column) ** 2 + (down - row) ** 2) / (2 * width**2))
        wanted[3] = np.maximum(wanted[3], hill)
        wanted[4][own] = (column - across[own]) / OFFSET_PX
        wanted[5][own] = (row - down[own]) / OFFSET_PX
    inside = cells > 0
    wanted[0], wanted[1], wanted[2] = inside, (nuclei == 1) & inside, red == 1
    known = (~unknown).astype(np.float32)
    trust = 1.0 if is_drawn else WEAK
    weights = np.stack([known] * MAP_COUNT)
    weights[0][inside] *= trust
    weights[1][inside] *= trust if is_drawn else WEAK_NUCLEUS
    weights[1][nuclei == UNKNOWN] = 0
    weights[2][red == UNKNOWN] = 0
    weights[4:] *= inside
    return wanted, weights

"""Crops for the segmenter: turned, scaled, stained anew, with cells of others laid on them.

White cells hide what they are laid on; red cells and platelets are seen through, so their densities
add up. A few crops show no smear at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.training.not_smears import draw_scene
from models.training.red_cells import RedCell, platelets_of, red_cells_of
from models.training.segmenter_labels import LABEL_UM, UNKNOWN, Labelled
from pipeline.field.masks import places_of
from pipeline.field.optical_density import Density
from pipeline.segmentation.network_maps import DENSITIES, MAP_COUNT, NETWORK_UM, OFFSET_PX

SIDE = 96
SOURCES = {
    "bccd": 0.25,
    "raabin": 0.20,
    "draaslan": 0.15,
    "zheng1": 0.17,
    "pbc": 0.11,
    "lmu": 0.06,
    "aria": 0.06,
    "deepapl": 0.12,
    "chula": 0.10,
    "hs2": 0.06,
    "iml": 0.05,
    "vivax": 0.01,
}
"""How often each is drawn."""
DRAWN = ("bccd", "zheng1")
"""Whose masks a person drew; those of the others weigh half."""
WEAK, WEAK_NUCLEUS = 0.5, 0.4
RIM_PX = 2
"""Pixels of a crop, to either side of a nucleus's rim, that count as near it."""
RIM_DRAWN, RIM_WEAK = 2.0, 0.0
"""How much more what lies near that rim weighs. A nucleus that a network drew says that there is
one, not where it ends."""
FAINT_SHARE, FAINT = 0.15, (0.25, 0.6)
"""Of the crops that are as faint as by a poor camera, and how much of the density is left."""
RED_SHARE, MOST_RED = 0.3, 5
"""Of the crops that red cells are laid on, and how many in one row at most."""
RED_STEP = (0.3, 1.05)
"""From one red cell of a row to the next, in its width: from a roll of coins to hardly touching."""
MOST_ON_WHITE = 0.3
"""Of a red cell may lie on white ones."""
PLATELET_SHARE, MOST_PLATELETS = 0.1, 6
"""Of the crops that a clump of platelets is laid on, and how many it has at most."""
PLATELET_STEP = (0.4, 1.1)
"""From one platelet of a clump to the next, in its width."""
SCENE_SHARE = 0.03
"""Of the crops that show no smear: nothing in them is cell or nucleus."""
LEAST_SEEN = 0.12
"""Share of a cell below which its rest at the edge of a crop counts as nothing known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stains:
    """How far the colours of a crop may wander; each is a spread, and 0 switches it off."""

    mixing: float = 0.08
    """Of one channel into another."""
    turned: float = 0.0
    """Radians about grey."""
    apart: float = 0.0
    """Doublings by which red cells and cytoplasm, each for itself, part from nuclei."""
    share: float = 0.6
    """Of the crops that are turned, and of those whose parts are stained apart."""
    exchanged: float = 0.0
    """Share of the crops that take the stain of a picture of another source."""
    alike: float = 0.0
    """Share of the crops in which red cells take on the color of nuclei."""
    fringed: float = 0.0
    """Share of the crops with colored fringes and dark rims, as by a plain lens."""
    faint: float = FAINT_SHARE
    red_rows: float = RED_SHARE


STAINS = {
    "usual": Stains(),
    "wider": Stains(mixing=0.12, turned=0.45, apart=0.6),
    "foreign": Stains(
        mixing=0.1,
        turned=0.3,
        apart=0.4,
        share=0.35,
        exchanged=0.35,
        alike=0.12,
        fringed=0.35,
        faint=0.25,
        red_rows=0.5,
    ),
}
"""The first packaged networks learned in the wider ones, then in the usual ones; the present one
learned in the foreign ones last."""
LEAST_COLORED = 150
"""Pixels of a part from which its color is known."""
EXCHANGED_BY = (0.3, 1.2)
"""How much of the way to the other stain a crop goes."""
STEADY = 0.004
"""Variance of density by which a change of stain is held near none where colors hardly tell."""
ALIKE_BY, ALIKE_GREEN = (0.2, 1.0), (0.35, 0.9)
"""How much of the way to the color of nuclei red cells go, and their green density beside that of
nuclei then."""
ALIKE_GAIN = (0.3, 4.0)
FRINGE_PX, FRINGE_BLUR, DARK_RIM = 1.0, 1.2, 0.5
"""Most pixels by which a color is shifted, most blur of one color alone, and most density of a rim
beside the steepness there."""
SATURATION = (0.5, 1.3)
"""Range of that of a crop whose colours are turned."""

Sample = tuple[Density, NDArray[np.float32], NDArray[np.float32]]
"""Density 3 × S × S, maps wanted and their weights, both 6 × S × S."""


@dataclass(slots=True, eq=False)
class _Crop:
    density: Density
    labels: NDArray[np.uint8]
    """Cells, nuclei, ignored, red, along the last axis."""
    whole_px: dict[int, float]
    """Area of each cell before the crop's edge cut it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """The white cells of a picture."""

    labels: NDArray[np.intp]
    areas: NDArray[np.intp]
    middles: NDArray[np.float64]
    """N × 2, x and y."""

    @classmethod
    def of(cls, picture: Labelled) -> _Cells:
        rows, columns = places_of(picture.cells)
        own = picture.cells[rows, columns]
        areas = np.bincount(own)
        labels = np.flatnonzero(areas)
        sums = [np.bincount(own, places)[labels] for places in (columns, rows)]
        return cls(labels, areas[labels], np.stack(sums, axis=1) / areas[labels, None])


class Sampler:
    """Draws crops from labelled pictures."""

    def __init__(
        self, pictures: Sequence[Labelled], seed: int, stains: Stains = STAINS["usual"]
    ) -> None:
        self._stains = stains
        self._random = np.random.default_rng(seed)
        self._pictures: dict[str, list[Labelled]] = {}
        for picture in pictures:
            self._pictures.setdefault(picture.source, []).append(picture)
        self._names = list(self._pictures)
        weights = np.array([SOURCES[name] for name in self._names])
        self._weights = weights / weights.sum()
        self._cells = {picture.file: _Cells.of(picture) for picture in pictures}
        self._red = {picture.file: red_cells_of(picture) for picture in pictures}
        self._platelets = [one for picture in pictures for one in platelets_of(picture)]
        self._colors = _colors_by_source(pictures)

    def draw(self) -> Sample:
        """One crop with what the network should say of it."""
        random = self._random
        if random.random() < SCENE_SHARE:
            return _nothing_in(draw_scene(random, SIDE))
        source = self._names[random.choice(len(self._names), p=self._weights)]
        picture = self._one(source)
        zoom = NETWORK_UM / LABEL_UM * 2 ** float(np.clip(random.normal(-0.05, 0.3), -1, 1))
        crop = self._crop(picture, self._place(picture, zoom), zoom)
        if random.random() < 0.35:
            for _ in range(random.integers(1, 4)):
                self._lay(crop, self._one(source), zoom)
        if random.random() < self._stains.red_rows:
            self._lay_red(crop, self._red[picture.file] or self._red[self._one(source).file], zoom)
        if self._platelets and random.random() < PLATELET_SHARE:
            self._lay_platelets(crop, zoom)
        wanted, weights = _wanted(crop, is_drawn=source in DRAWN)
        crop.density = self._alike(crop, source)
        crop.density = self._exchanged(self._stained_apart(crop), source)
        density = self._restained(self._fringed(crop.density))
        return density.transpose(2, 0, 1), wanted, weights

    def _one(self, source: str) -> Labelled:
        pictures = self._pictures[source]
        return pictures[self._random.integers(len(pictures))]

    def _place(self, picture: Labelled, zoom: float) -> NDArray[np.float64]:
        """Middle of a crop, x and y: mostly near a white cell."""
        random, size = self._random, np.array(picture.cells.shape[::-1], np.float64)
        cells = self._cells[picture.file]
        if len(cells.labels) and random.random() < 0.75:
            middle = cells.middles[random.integers(len(cells.labels))]
            middle = middle + random.uniform(-0.42, 0.42, 2) * SIDE * zoom
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
        cells = self._cells[picture.file]
        whole_px = dict(zip(cells.labels.tolist(), cells.areas / zoom**2, strict=True))
        return _Crop(density, labels, whole_px)

    def _lay(self, crop: _Crop, other: Labelled, zoom: float) -> None:
        """A cell of another picture of the source on the crop, often against one of its own."""
        cells = self._cells[other.file]
        if not len(cells.labels):
            return
        which = self._random.integers(len(cells.labels))
        label, area = int(cells.labels[which]), float(cells.areas[which]) / zoom**2
        there = self._neighbouring(crop, float(np.sqrt(area / np.pi)))
        turn = _turn(self._random.uniform(0, 2 * np.pi), zoom)
        density, marks = _cut(other, cells.middles[which], turn, there)
        own = marks[..., 0] == label
        if not own.any():
            return
        soft = cv2.GaussianBlur(own.astype(np.float32), (0, 0), max(0.6, 0.75 / zoom))[..., None]
        crop.density = np.asarray(crop.density * (1 - soft) + density * soft, np.float32)
        crop.labels[own] = marks[own]
        number = max(crop.whole_px, default=0) + 1
        crop.labels[own, 0] = number
        crop.whole_px[number] = area

    def _lay_red(self, crop: _Crop, red_cells: Sequence[RedCell], zoom: float) -> None:
        """A row of red cells on the crop, that mostly begins on one of its own."""
        random = self._random
        if not red_cells:
            return
        rows, columns = np.nonzero(crop.labels[..., 3] == 1)
        there = random.uniform(0, 1, 2) * SIDE
        if len(rows) and random.random() < 0.8:
            pixel = random.integers(len(rows))
            there = np.array([columns[pixel], rows[pixel]], np.float64)
        angle = random.uniform(0, 2 * np.pi)
        for _ in range(random.integers(1, MOST_RED + 1)):
            cell = red_cells[random.integers(len(red_cells))]
            turn = _turn(random.uniform(0, 2 * np.pi), zoom)
            _add_red(crop, *cell.turned(turn, there, SIDE))
            angle += random.normal(0, 0.5)
            step = random.uniform(*RED_STEP) * cell.width_px / zoom
            there = there + step * np.array([np.cos(angle), np.sin(angle)])

    def _lay_platelets(self, crop: _Crop, zoom: float) -> None:
        """A clump of platelets on the crop: as large as a nucleus, and none."""
        random = self._random
        there = random.uniform(0, 1, 2) * SIDE
        for _ in range(random.integers(1, MOST_PLATELETS + 1)):
            platelet = self._platelets[random.integers(len(self._platelets))]
            turn = _turn(random.uniform(0, 2 * np.pi), zoom)
            density, own = platelet.turned(turn, there, SIDE)
            if not (own & (crop.labels[..., 0] > 0)).any():
                crop.density = crop.density + density
            angle = random.uniform(0, 2 * np.pi)
            step = random.uniform(*PLATELET_STEP) * platelet.width_px / zoom
            there = there + step * np.array([np.cos(angle), np.sin(angle)])

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

    def _stained_apart(self, crop: _Crop) -> Density:
        """Red cells, and cytoplasm, paler or darker beside the nuclei than they were."""
        random, spread = self._random, self._stains.apart
        if not spread or random.random() > self._stains.share:
            return crop.density
        gain = np.ones_like(crop.density)
        for part in _parts(crop.labels):
            soft = cv2.GaussianBlur(part.astype(np.float32), (0, 0), 0.7)[..., None]
            strength = 2 ** (random.normal(0, spread) + random.normal(0, spread / 3, 3))
            gain += soft * (strength - 1).astype(np.float32)
        return np.asarray(crop.density * gain, np.float32)

    def _alike(self, crop: _Crop, source: str) -> Density:
        """Red cells on the way to the color of nuclei: gray-blue or violet, and darker."""
        random = self._random
        known = self._colors.get(source)
        if not (known and self._stains.alike) or random.random() >= self._stains.alike:
            return crop.density
        nucleus, _, red = known[random.integers(len(known))]
        by = random.uniform(*ALIKE_BY)
        color = np.maximum(red, 0.01) ** (1 - by) * np.maximum(nucleus, 0.01) ** by
        color *= random.uniform(*ALIKE_GREEN) * nucleus[1] / color[1]
        gain = np.clip(color / np.maximum(red, 0.01), *ALIKE_GAIN).astype(np.float32)
        part, _ = _parts(crop.labels)
        soft = cv2.GaussianBlur(part.astype(np.float32), (0, 0), 0.7)[..., None]
        return np.asarray(crop.density * (1 + soft * (gain - 1)), np.float32)

    def _exchanged(self, density: Density, source: str) -> Density:
        """The same crop in the stain of a picture of another source."""
        random = self._random
        others = [name for name in self._colors if name != source]
        known = self._colors.get(source)
        if not (known and others and self._stains.exchanged):
            return density
        if random.random() >= self._stains.exchanged:
            return density
        theirs = self._colors[others[random.integers(len(others))]]
        own, other = known[random.integers(len(known))], theirs[random.integers(len(theirs))]
        by = random.uniform(*EXCHANGED_BY)
        return cv2.transform(density, _between_stains(own, own + by * (other - own)))

    def _fringed(self, density: Density) -> Density:
        """Colors that a plain lens shifts and blurs each for itself, and rims that it darkens."""
        random = self._random
        if not self._stains.fringed or random.random() >= self._stains.fringed:
            return density
        planes = []
        steep = np.abs(density[..., 1] - cv2.GaussianBlur(density[..., 1], (0, 0), 1.2))
        for plane in cv2.split(density):
            rim = random.uniform(0, DARK_RIM) * random.uniform(0, 1)
            shift = np.eye(2, 3, dtype=np.float32)
            shift[:, 2] = random.uniform(-FRINGE_PX, FRINGE_PX, 2)
            moved = cv2.warpAffine(plane, shift, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
            blur = random.uniform(0, FRINGE_BLUR)
            if blur > 0.3:
                moved = cv2.GaussianBlur(moved, (0, 0), blur)
            planes.append(moved + np.float32(rim) * steep)
        return np.asarray(cv2.merge(planes), np.float32)

    def _turned(self) -> NDArray[np.float64]:
        """3 × 3: colours turned about grey, and more or less of them; often as they are."""
        random, spread = self._random, self._stains.turned
        if not spread or random.random() > self._stains.share:
            return np.eye(3)
        axis = np.full(3, 3**-0.5)
        turn, _ = cv2.Rodrigues(axis * random.normal(0, spread))
        grey = np.outer(axis, axis)
        return np.asarray(grey + random.uniform(*SATURATION) * (turn - grey))

    def _restained(self, density: Density) -> Density:
        """Another stain, lamp, focus, camera and compression."""
        random, changed = self._random, density
        if random.random() < 0.85:
            mixing = np.eye(3) + random.normal(0, self._stains.mixing, (3, 3)) * (
                random.random() < 0.7
            )
            mixing = mixing @ self._turned()
            strength = 2 ** (random.normal(0, 0.3) + random.normal(0, 0.15, 3))
            changed = cv2.transform(changed, (mixing * strength[:, None]).astype(np.float32))
            changed = changed + random.normal(0, 0.02, 3).astype(np.float32)
        if random.random() < self._stains.faint:
            # A poor camera: a veil over all, and light whose fall and color nobody took out.
            changed = changed * np.float32(random.uniform(*FAINT))
            shading = random.normal(0, 0.02, (3, 3, 3)).astype(np.float32)
            changed = changed + cv2.resize(shading, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
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
        noise = self._random.standard_normal(grey.shape, np.float32)
        noisy = grey + np.float32(self._random.uniform(0, 5)) * noise
        return np.asarray(np.log10(241 / (np.clip(noisy, 0, 255) + 1)), np.float32)


def _colors_by_source(pictures: Sequence[Labelled]) -> dict[str, list[NDArray[np.float64]]]:
    """Of each source, 3 × 3 for each picture that shows them: usual densities of nucleus,
    cytoplasm and red cell.
    """
    found: dict[str, list[NDArray[np.float64]]] = {}
    for picture in pictures:
        is_nucleus = (picture.nuclei == 1) & (picture.cells > 0)
        is_cytoplasm = (picture.nuclei == 0) & (picture.cells > 0)
        parts = is_nucleus, is_cytoplasm, (picture.red == 1) & (picture.cells == 0)
        if min(int(part.sum()) for part in parts) >= LEAST_COLORED:
            colors = [np.median(picture.density[part], axis=0) for part in parts]
            found.setdefault(picture.source, []).append(np.array(colors, np.float64))
    return found


def _between_stains(own: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float32]:
    """3 × 3: the least change of colors that leads from one stain's rows to the other's."""
    change = (other - own).T @ own @ np.linalg.inv(own.T @ own + STEADY * np.eye(3))
    return np.asarray(np.eye(3) + change, np.float32)


def _nothing_in(density: Density) -> Sample:
    """A crop in which nothing is cell or nucleus, red or white."""
    wanted = np.zeros((MAP_COUNT, SIDE, SIDE), np.float32)
    weights = np.ones_like(wanted)
    weights[4:] = 0
    return np.clip(density, *DENSITIES).transpose(2, 0, 1), wanted, weights


def _add_red(crop: _Crop, density: Density, own: NDArray[np.bool_]) -> None:
    """One more red cell, unless too much of it lay on white ones; what is white stays so."""
    if (own & (crop.labels[..., 0] > 0)).sum() > MOST_ON_WHITE * own.sum():
        return
    crop.density = crop.density + density
    free = own & (crop.labels[..., 0] == 0) & (crop.labels[..., 2] == 0)
    crop.labels[free, 3] = 1


def _parts(labels: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Red cells with what may be some, and the cytoplasm of cells whose nucleus is known."""
    cells, nuclei, _, red = (labels[..., place] for place in range(4))
    return (red > 0) & (cells == 0), (cells > 0) & (nuclei == 0)


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
    shift = place - turn @ there
    zoom = float(np.sqrt(abs(np.linalg.det(turn))))
    corners = np.array([[0, SIDE, 0, SIDE], [0, 0, SIDE, SIDE]])
    reached = turn @ corners + shift[:, None]
    size = np.array(picture.cells.shape[::-1])
    first = np.clip(np.floor(reached.min(axis=1)) - 4, 0, size - 1).astype(int)
    last = np.clip(np.ceil(reached.max(axis=1)) + 4, first + 1, size).astype(int)
    view = slice(first[1], last[1]), slice(first[0], last[0])
    matrix = np.concatenate([turn, (shift - first)[:, None]], axis=1)
    # Averaged first, as the pipeline shrinks: a transform alone would skip pixels.
    soft = picture.density[view]
    soft = cv2.blur(soft, (round(zoom),) * 2) if zoom >= 1.5 else soft
    stacked = cv2.merge(
        [m[view] for m in (picture.cells, picture.nuclei, picture.ignored, picture.red)]
    )
    flags = cv2.WARP_INVERSE_MAP
    density = cv2.warpAffine(soft, matrix, (SIDE, SIDE), flags=flags | cv2.INTER_LINEAR)
    labels = cv2.warpAffine(stacked, matrix, (SIDE, SIDE), flags=flags | cv2.INTER_NEAREST)
    return np.asarray(density, np.float32), np.asarray(labels, np.uint8)


_PLACES = np.mgrid[:SIDE, :SIDE].astype(np.float32)
"""Row and column of each pixel of a crop."""


def _wanted(crop: _Crop, *, is_drawn: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The maps of `network_maps.Segmenter` and their weights, both 6 × S × S."""
    cells, nuclei, ignored, red = (crop.labels[..., place].copy() for place in range(4))
    unknown = ignored > 0
    wanted = np.zeros((MAP_COUNT, SIDE, SIDE), np.float32)
    down, across = _PLACES
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
    weights[1] *= _rim_weight(wanted[1], RIM_DRAWN if is_drawn else RIM_WEAK)
    weights[1][nuclei == UNKNOWN] = 0
    weights[2][red == UNKNOWN] = 0
    weights[4:] *= inside
    return wanted, weights


def _rim_weight(nucleus: NDArray[np.float32], near: float) -> NDArray[np.float32]:
    """`near` to both sides of the rims of nuclei, S × S, elsewhere 1."""
    square = np.ones((2 * RIM_PX + 1,) * 2, np.uint8)
    is_near = cv2.morphologyEx(nucleus, cv2.MORPH_GRADIENT, square) > 0
    return np.where(is_near, np.float32(near), np.float32(1))

"""One phantom field: where the cells lie, and the picture of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from listener.demo.phantom.camera import Density, Optics, photograph
from listener.demo.phantom.cells import (
    WHITE_CELLS,
    DrawnCell,
    draw_platelet,
    draw_red_cell,
    draw_smudge_cell,
    draw_white_cell,
)
from listener.demo.phantom.shapes import Map, Patch, cover
from pipeline.domain import RGB, Box, CellType, Contour

RED_CELL_UM = 7.2
BLASTS = (CellType.LYMPHOBLAST, CellType.MYELOBLAST)
HEALTHY_CELLS = (
    *(CellType.NEUTROPHIL,) * 5,
    *(CellType.LYMPHOCYTE,) * 3,
    CellType.MONOCYTE,
    CellType.EOSINOPHIL,
)
"""About the mixture of healthy blood; basophils are too rare to be drawn unless asked for."""

SMUDGE_CELL_UM = (11.0, 16.0)
"""Diameter."""
TRIES = 400
"""Places that are tried for one cell before the field counts as full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a field shows. Sizes of the picture in pixels, of the cells in µm."""

    width: int = 1280
    height: int = 960
    um_per_px: float = 0.1
    white_cells: Sequence[CellType] = HEALTHY_CELLS[2:8]
    touching_pairs: int = 0
    """How many white cells lie against the one before them in the list."""
    smudge_cells: int = 0
    red_cells_per_mm2: float = 12000.0
    platelets_per_mm2: float = 700.0
    optics: Optics = field(default_factory=Optics)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhantomCell:
    """One white cell as it was drawn: the truth. Pixels of the picture."""

    cell_type: CellType
    centre: tuple[float, float]
    box: Box
    contour: Contour
    nucleus_area_um2: float
    area_um2: float

    @property
    def is_leukemic(self) -> bool:
        """Whether the drawn cell is a blast."""
        return self.cell_type in BLASTS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhantomField:
    """The picture (height × width × 3 uint8 RGB) and what is in it."""

    pixels: RGB
    cells: tuple[PhantomCell, ...]
    smudge_cells: tuple[Box, ...]
    """Nuclei that burst; no white cells to be counted."""
    red_cells: int
    platelets: int
    um_per_px: float


@dataclass(frozen=True, slots=True)
class _Place:
    x_um: float
    y_um: float
    radius_um: float

    def gap_um(self, other: _Place) -> float:
        """Free space between two rims; negative where they overlap."""
        apart = float(np.hypot(self.x_um - other.x_um, self.y_um - other.y_um))
        return apart - self.radius_um - other.radius_um


def draw_field(seed: int, recipe: Recipe | None = None) -> PhantomField:
    """Draw one field; the same seed and recipe give the same bytes."""
    recipe = recipe or Recipe()
    random = np.random.default_rng(seed)
    sheet = _Sheet(recipe, random)
    white = _place_white_cells(recipe, random)
    smudged = _place_smudge_cells(recipe, random, white)
    taken = white + smudged
    red = _scatter(recipe, random, recipe.red_cells_per_mm2, _red_radius, taken, overlap_um=1.1)
    platelets = _scatter(
        recipe, random, recipe.platelets_per_mm2, _platelet_radius, taken, overlap_um=0.0
    )
    for place in red:
        sheet.lay(place, draw_red_cell, hides=0.0)
    for place in platelets:
        sheet.lay(place, draw_platelet, hides=0.0)
    smudge_cells = tuple(sheet.lay_smudge(place) for place in smudged)
    cells = tuple(
        sheet.lay_white(kind, place) for kind, place in zip(recipe.white_cells, white, strict=False)
    )
    return PhantomField(
        pixels=photograph(sheet.density, recipe.optics, um_per_px=recipe.um_per_px, random=random),
        cells=cells,
        smudge_cells=smudge_cells,
        red_cells=len(red),
        platelets=len(platelets),
        um_per_px=recipe.um_per_px,
    )


def _place_white_cells(recipe: Recipe, random: np.random.Generator) -> list[_Place]:
    """Whole cells, apart from each other unless a touching pair is asked for."""
    places: list[_Place] = []
    for index, kind in enumerate(recipe.white_cells):
        radius = random.uniform(*WHITE_CELLS[kind].diameter_um) / 2
        touches = 0 < index <= recipe.touching_pairs
        for _ in range(TRIES):
            place = (
                _beside(places[index - 1], radius, random)
                if touches
                else _anywhere(recipe, random, radius, margin_um=radius + 1.5)
            )
            others = places[: index - 1] if touches else places
            if _is_inside(place, recipe) and all(place.gap_um(other) > 1.5 for other in others):
                places.append(place)
                break
        else:
            raise ValueError(
                f"{len(recipe.white_cells)} white cells do not fit: enlarge the picture."
            )
    return places


def _place_smudge_cells(
    recipe: Recipe, random: np.random.Generator, white: Sequence[_Place]
) -> list[_Place]:
    """Whole ones, apart from each other and from white cells."""
    places: list[_Place] = []
    for _ in range(recipe.smudge_cells):
        radius = random.uniform(*SMUDGE_CELL_UM) / 2
        for _ in range(TRIES):
            place = _anywhere(recipe, random, radius, margin_um=1.6 * radius)
            if all(place.gap_um(other) > 0.4 * radius for other in [*white, *places]):
                places.append(place)
                break
        else:
            raise ValueError(f"{recipe.smudge_cells} smudge cells do not fit: enlarge the picture.")
    return places


def _beside(other: _Place, radius_um: float, random: np.random.Generator) -> _Place:
    angle = random.uniform(0, 2 * np.pi)
    apart = (other.radius_um + radius_um) * 0.97
    return _Place(
        other.x_um + apart * float(np.cos(angle)),
        other.y_um + apart * float(np.sin(angle)),
        radius_um,
    )


def _is_inside(place: _Place, recipe: Recipe) -> bool:
    width_um, height_um = recipe.width * recipe.um_per_px, recipe.height * recipe.um_per_px
    reach = place.radius_um * 1.12 + 0.5
    return reach <= place.x_um <= width_um - reach and reach <= place.y_um <= height_um - reach


def _anywhere(
    recipe: Recipe, random: np.random.Generator, radius_um: float, *, margin_um: float
) -> _Place:
    width_um, height_um = recipe.width * recipe.um_per_px, recipe.height * recipe.um_per_px
    margin_x, margin_y = min(margin_um, width_um / 2), min(margin_um, height_um / 2)
    return _Place(
        float(random.uniform(margin_x, width_um - margin_x)),
        float(random.uniform(margin_y, height_um - margin_y)),
        radius_um,
    )


def _red_radius(random: np.random.Generator) -> float:
    return float(np.clip(random.normal(RED_CELL_UM, 0.4), 6.0, 8.4)) / 2


def _platelet_radius(random: np.random.Generator) -> float:
    return float(random.uniform(1.0, 1.6))


def _scatter(
    recipe: Recipe,
    random: np.random.Generator,
    per_mm2: float,
    radius: Callable[[np.random.Generator], float],
    white: Sequence[_Place],
    *,
    overlap_um: float,
) -> list[_Place]:
    """Cells of the background, over the picture's edge too; they overlap by `overlap_um` at most,
    and a little more for one in eight, as in a smear.
    """
    area_mm2 = recipe.width * recipe.height * (recipe.um_per_px / 1000) ** 2
    places: list[_Place] = []
    for _ in range(round(per_mm2 * area_mm2)):
        allowed = overlap_um * (2.5 if random.random() < 0.125 else 0.2)
        for _ in range(TRIES // 10):
            place = _anywhere(recipe, random, radius(random), margin_um=-RED_CELL_UM / 2)
            is_free = all(place.gap_um(other) > -allowed for other in places)
            if is_free and all(place.gap_um(cell) > -0.2 for cell in white):
                places.append(place)
                break
    return places


Draw = Callable[[Patch, np.random.Generator, float], DrawnCell]


@dataclass(frozen=True, slots=True)
class _Window:
    """The part of a patch that lies on the picture: slices of the picture and of the patch."""

    there: tuple[slice, slice]
    here: tuple[slice, slice]
    corner: tuple[int, int]

    @property
    def is_empty(self) -> bool:
        return any(part.stop <= part.start for part in self.there)

    @classmethod
    def around(cls, x: int, y: int, patch: Map, picture: Density) -> _Window:
        """The window of a square patch whose middle lies on pixel x, y of the picture."""
        reach = patch.shape[0] // 2
        rows = _overlap(y - reach, patch.shape[0], picture.shape[0])
        columns = _overlap(x - reach, patch.shape[1], picture.shape[1])
        return cls(
            there=(rows[0], columns[0]),
            here=(rows[1], columns[1]),
            corner=(columns[0].start, rows[0].start),
        )


def _overlap(start: int, length: int, limit: int) -> tuple[slice, slice]:
    first, last = max(start, 0), min(start + length, limit)
    return slice(first, last), slice(first - start, last - start)


def _outline(body: Map) -> Contour:
    """Outer contour of the region inside, N × 2, x then y."""
    inside = (body > 0).astype(np.uint8)
    found, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(max(found, key=cv2.contourArea)[:, 0, :], dtype=np.int32)


def _area_px(distance: Map | None, window: _Window) -> float:
    return 0.0 if distance is None else float((distance[window.here] > 0).sum())


class _Sheet:
    """The glass slide: density that grows as cells are laid on it."""

    def __init__(self, recipe: Recipe, random: np.random.Generator) -> None:
        self._recipe = recipe
        self._random = random
        self.density: Density = np.zeros((recipe.height, recipe.width, 3), np.float32)
        self._taint()

    def _taint(self) -> None:
        """A faint film of plasma, uneven over the field."""
        coarse = self._random.standard_normal((12, 16), np.float32)
        size = (self._recipe.width, self._recipe.height)
        film = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
        self.density += (0.012 + 0.004 * film)[..., None] * np.array([1, 1.2, 1.0], np.float32)

    def lay(self, place: _Place, draw: Draw, *, hides: float) -> tuple[DrawnCell, _Window]:
        """Draw a cell at its place; `hides` is the share of what lies below that it covers."""
        scale = self._recipe.um_per_px
        x, y = place.x_um / scale, place.y_um / scale
        shift = (x - round(x), y - round(y))
        patch = Patch.of(place.radius_um * 1.35, scale, shift)
        drawn = draw(patch, self._random, place.radius_um)
        window = _Window.around(round(x), round(y), drawn.body, self.density)
        if not window.is_empty:
            below = self.density[window.there]
            hidden = hides * cover(drawn.body[window.here], 0.1)
            self.density[window.there] = (
                below * (1 - hidden[..., None]) + drawn.density[window.here]
            )
        return drawn, window

    def lay_smudge(self, place: _Place) -> Box:
        """Draw a smudge cell and say where it lies."""
        drawn, window = self.lay(place, draw_smudge_cell, hides=0.6)
        x, y, width, height = cv2.boundingRect(
            _outline(drawn.body[window.here]) + np.array(window.corner, np.int32)
        )
        return Box(x=x, y=y, width=width, height=height)

    def lay_white(self, kind: CellType, place: _Place) -> PhantomCell:
        """Draw a white cell and say where it lies."""

        def draw(patch: Patch, random: np.random.Generator, radius_um: float) -> DrawnCell:
            return draw_white_cell(kind, patch, random, radius_um)

        drawn, window = self.lay(place, draw, hides=1.0)
        contour = _outline(drawn.body[window.here]) + np.array(window.corner, np.int32)
        x, y, width, height = cv2.boundingRect(contour)
        um2 = self._recipe.um_per_px**2
        return PhantomCell(
            cell_type=kind,
            centre=(place.x_um / self._recipe.um_per_px, place.y_um / self._recipe.um_per_px),
            box=Box(x=x, y=y, width=width, height=height),
            contour=contour,
            nucleus_area_um2=_area_px(drawn.nucleus, window) * um2,
            area_um2=_area_px(drawn.body, window) * um2,
        )

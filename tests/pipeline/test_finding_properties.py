"""What is done to the picture changes the findings of the packaged network only so far.

Each bound holds for every cell of the field: as many cells, middles and areas as before, and the
same scale.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from listener.demo.phantom import PhantomField, Recipe, draw_field
from listener.demo.phantom.camera import Optics
from pipeline.domain import RGB, CellType, FieldCells
from pipeline.segmentation.find_cells import find_cells
from tests.pipeline.smears import field, found_of, image_of, overlap, segmenter

Points = NDArray[np.float64]

UM = 0.14
WIDTH, HEIGHT = 640, 480


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """How far findings may change: µm between middles, and shares of areas and of the scale."""

    middles_um: float
    areas: float
    scale: float


TURNED = Bound(middles_um=0.4, areas=0.08, scale=0.03)
"""The same pixels elsewhere: only the network's grid lies differently."""
PADDED = Bound(middles_um=0.4, areas=0.08, scale=0.03)
STAINED = Bound(middles_um=0.4, areas=0.1, scale=0.04)
SCALED = Bound(middles_um=0.4, areas=0.08, scale=0.04)


@functools.cache
def drawn() -> PhantomField:
    return field(seed=8, width=WIDTH, height=HEIGHT, um=UM)


@functools.cache
def before() -> FieldCells:
    return found_in(drawn().pixels)


def found_in(pixels: RGB) -> FieldCells:
    return find_cells(image_of(np.ascontiguousarray(pixels)), segmenter())


def middles(found: FieldCells) -> Points:
    """Centroids of the areas, N × 2."""
    moments = [cv2.moments(cell.contour) for cell in found.cells]
    return np.array([(m["m10"] / m["m00"], m["m01"] / m["m00"]) for m in moments]).reshape(-1, 2)


def assert_within(
    bound: Bound, after: FieldCells, place: Callable[[Points], Points], zoom: float = 1.0
) -> None:
    """Each cell of the field is found again where `place` puts its middle, as large as it was."""
    assert len(before().cells) == len(drawn().cells)
    assert len(after.cells) == len(before().cells)
    um_per_px = UM / zoom
    apart = np.linalg.norm(place(middles(before()))[:, None] - middles(after)[None], axis=2)
    assert sorted(apart.argmin(axis=1)) == list(range(len(after.cells)))
    assert apart.min(axis=1).max() * um_per_px < bound.middles_um
    for cell, other in zip(before().cells, apart.argmin(axis=1), strict=True):
        changed = after.cells[other].shape.area_um2 / cell.shape.area_um2
        assert abs(np.log(changed)) < bound.areas
    scale = after.scale.um_per_px * zoom / before().scale.um_per_px
    assert abs(np.log(scale)) < bound.scale


@pytest.mark.parametrize(
    ("quarters", "place"),
    [
        (1, lambda p: np.stack([p[:, 1], WIDTH - 1 - p[:, 0]], axis=1)),
        (2, lambda p: np.array([WIDTH - 1, HEIGHT - 1]) - p),
        (3, lambda p: np.stack([HEIGHT - 1 - p[:, 1], p[:, 0]], axis=1)),
    ],
)
def test_turning_turns_the_findings(quarters: int, place: Callable[[Points], Points]) -> None:
    assert_within(TURNED, found_in(np.rot90(drawn().pixels, quarters)), place)


@pytest.mark.parametrize(
    ("flip", "place"),
    [
        (1, lambda p: np.stack([WIDTH - 1 - p[:, 0], p[:, 1]], axis=1)),
        (0, lambda p: np.stack([p[:, 0], HEIGHT - 1 - p[:, 1]], axis=1)),
    ],
)
def test_mirroring_mirrors_the_findings(flip: int, place: Callable[[Points], Points]) -> None:
    assert_within(TURNED, found_in(np.asarray(cv2.flip(drawn().pixels, flip), np.uint8)), place)


@pytest.mark.parametrize("margin", [(40, 24, 16, 32), (5, 0, 3, 0)])
def test_padding_moves_the_findings(margin: tuple[int, int, int, int]) -> None:
    top, bottom, left, right = margin
    padded = cv2.copyMakeBorder(drawn().pixels, top, bottom, left, right, cv2.BORDER_REPLICATE)

    found = found_in(np.asarray(padded, np.uint8))

    assert_within(PADDED, found, lambda p: p + np.array([left, top]))


@pytest.mark.parametrize(
    "strengths", [(0.75, 0.75, 0.75), (1.3, 1.3, 1.3), (1.2, 1.0, 0.85), (0.85, 1.0, 1.2)]
)
def test_another_stain_finds_the_same_cells(strengths: tuple[float, float, float]) -> None:
    """Every density multiplied, as a stronger, weaker, more alkaline or more acid stain would."""
    light = (drawn().pixels + 1.0) / 241
    stained = 241 * light ** np.array(strengths) - 1

    found = found_in(np.clip(np.rint(stained), 0, 255).astype(np.uint8))

    assert_within(STAINED, found, lambda p: p)


@pytest.mark.parametrize("zoom", [0.6, 0.8, 1.5])
def test_another_camera_finds_the_same_cells(zoom: float) -> None:
    size = (round(WIDTH * zoom), round(HEIGHT * zoom))
    way = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    seen = np.asarray(cv2.resize(drawn().pixels, size, interpolation=way), np.uint8)

    assert_within(SCALED, found_in(seen), lambda p: (p + 0.5) * zoom - 0.5, zoom)


CELLS = (CellType.NEUTROPHIL, CellType.LYMPHOCYTE, CellType.LYMPHOBLAST, CellType.MYELOBLAST)


@pytest.mark.parametrize("um", [0.06, 0.1, 0.2, 0.3])
@pytest.mark.parametrize(
    "optics",
    [
        Optics(stain_strength=0.6, blur_um=0.5),
        Optics(stain_strength=1.5, stain_balance=-0.3),
        Optics(stain_balance=0.3, noise=4.0, vignetting=0.25),
    ],
)
def test_the_phantoms_cells_are_found_where_it_put_them(um: float, optics: Optics) -> None:
    """Over its range of stain, focus, light, noise and scale; and no other."""
    recipe = Recipe(
        width=round(75 / um), height=round(60 / um), um_per_px=um, white_cells=CELLS, optics=optics
    )
    truth = draw_field(11, recipe)

    found = found_in(truth.pixels)

    boxes = [cell.box for cell in truth.cells]
    assert found_of(boxes, found.cells) == len(boxes) == len(found.cells)
    assert min(max(overlap(box, cell.box) for cell in found.cells) for box in boxes) > 0.6
    assert found.scale.um_per_px == pytest.approx(um, rel=0.12)


@pytest.mark.parametrize("red_cells_per_mm2", [1500, 6000, 25000])
def test_however_dense_the_field_is(red_cells_per_mm2: float) -> None:
    recipe = Recipe(
        width=WIDTH,
        height=HEIGHT,
        um_per_px=UM,
        white_cells=CELLS,
        red_cells_per_mm2=red_cells_per_mm2,
    )
    truth = draw_field(12, recipe)

    found = found_in(truth.pixels)

    assert found_of([c.box for c in truth.cells], found.cells) == len(CELLS) == len(found.cells)
    assert found.scale.um_per_px == pytest.approx(UM, rel=0.15)

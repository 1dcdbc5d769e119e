"""White cells are found where the phantom put them, whatever is done to the picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from listener.demo.phantom import PhantomField, Recipe, draw_field
from pipeline.domain import RGB, Box, CellType, FieldCells
from pipeline.segmentation.find_cells import central_cell, find_cells
from tests.pipeline.smears import field, found_of, image_of, overlap


def boxes_of(drawn: PhantomField) -> list[Box]:
    return [cell.box for cell in drawn.cells]


@pytest.mark.parametrize("size", [(32, 32), (33, 200), (8, 8)])
def test_tiny_pictures_are_answered(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (*size, 3)).astype(np.uint8)

    assert find_cells(image_of(pixels)).cells == ()


def test_a_field_without_white_cells_has_none() -> None:
    drawn = draw_field(5, Recipe(width=640, height=480, um_per_px=0.12, white_cells=()))

    assert find_cells(image_of(drawn.pixels)).cells == ()


@pytest.mark.parametrize(
    "optics",
    [
        {"stain_strength": 0.6},
        {"stain_strength": 1.5},
        {"stain_balance": -0.3},
        {"stain_balance": 0.3},
        {"blur_um": 0.6},
        {"noise": 4.0},
        {"vignetting": 0.25},
    ],
)
def test_every_phantom_cell_is_found_and_no_other(optics: dict[str, float]) -> None:
    drawn = field(**optics)

    found = find_cells(image_of(drawn.pixels)).cells

    assert found_of(boxes_of(drawn), found) == len(drawn.cells) == len(found)


@pytest.mark.parametrize("um", [0.1, 0.2, 0.25])
def test_the_microscope_does_not_matter(um: float) -> None:
    drawn = field(um=um, width=round(96 / um), height=round(72 / um))

    found = find_cells(image_of(drawn.pixels))

    assert found_of(boxes_of(drawn), found.cells) == len(drawn.cells) == len(found.cells)
    assert found.scale.um_per_px == pytest.approx(um, rel=0.08)


@pytest.mark.parametrize("red_cells", [3000, 25000])
def test_density_does_not_matter(red_cells: float) -> None:
    drawn = draw_field(
        5, Recipe(width=800, height=600, um_per_px=0.12, red_cells_per_mm2=red_cells)
    )

    found = find_cells(image_of(drawn.pixels)).cells

    assert found_of(boxes_of(drawn), found) == len(drawn.cells) == len(found)


def test_cells_that_touch_are_told_apart_and_said_to_touch() -> None:
    blasts = (CellType.LYMPHOBLAST,) * 4
    drawn = draw_field(
        5, Recipe(width=800, height=600, um_per_px=0.12, white_cells=blasts, touching_pairs=2)
    )

    found = find_cells(image_of(drawn.pixels)).cells

    assert found_of(boxes_of(drawn), found) == len(drawn.cells)
    assert sum(cell.is_touching for cell in found) >= 2


def _turned(drawn: PhantomField, flip: int) -> tuple[RGB, list[Box]]:
    """The picture mirrored as `cv2.flip` does, and the boxes with it."""
    height, width = drawn.pixels.shape[:2]
    boxes = [
        Box(
            x=width - box.x - box.width if flip != 0 else box.x,
            y=height - box.y - box.height if flip < 1 else box.y,
            width=box.width,
            height=box.height,
        )
        for box in boxes_of(drawn)
    ]
    return np.asarray(cv2.flip(drawn.pixels, flip), np.uint8), boxes


@pytest.mark.parametrize("flip", [0, 1, -1])
def test_mirroring_and_half_a_turn_mirror_the_findings(flip: int) -> None:
    """The same cells; each box moves by less than a tenth of its area."""
    drawn = field()
    pixels, boxes = _turned(drawn, flip)

    before, after = find_cells(image_of(drawn.pixels)).cells, find_cells(image_of(pixels)).cells

    assert found_of(boxes, after) == len(boxes)
    assert len(before) == len(after)
    areas = [sorted(c.shape.area_um2 for c in cells) for cells in (before, after)]
    assert areas[0] == pytest.approx(areas[1], rel=0.1)


def test_a_quarter_turn_turns_the_findings() -> None:
    drawn = field()
    turned = np.ascontiguousarray(np.rot90(drawn.pixels))

    before, after = find_cells(image_of(drawn.pixels)).cells, find_cells(image_of(turned)).cells

    width = drawn.pixels.shape[1]
    boxes = [
        Box(x=b.y, y=width - b.x - b.width, width=b.height, height=b.width) for b in boxes_of(drawn)
    ]
    assert found_of(boxes, after) == len(boxes) == len(before) == len(after)


def test_padding_with_glass_moves_the_findings_and_nothing_else() -> None:
    """Boxes overlap the moved ones by at least 85 %."""
    drawn = field()
    padded = cv2.copyMakeBorder(drawn.pixels, 40, 24, 16, 32, cv2.BORDER_REPLICATE)

    before = find_cells(image_of(drawn.pixels)).cells
    after = find_cells(image_of(np.asarray(padded, np.uint8))).cells

    assert len(after) == len(before)
    for cell in before:
        b = cell.box
        moved = Box(x=b.x + 16, y=b.y + 40, width=b.width, height=b.height)
        assert max(overlap(moved, other.box) for other in after) > 0.85


@pytest.mark.parametrize("factors", [(0.92, 1.0, 1.0), (1.0, 0.93, 1.0), (0.95, 0.97, 0.9)])
def test_another_lamp_changes_areas_by_less_than_a_tenth(
    factors: tuple[float, float, float],
) -> None:
    drawn = field()
    relit = np.clip(drawn.pixels * np.array(factors), 0, 255).astype(np.uint8)

    before, after = find_cells(image_of(drawn.pixels)).cells, find_cells(image_of(relit)).cells

    assert len(before) == len(after)
    for one, two in zip(before, after, strict=True):
        assert two.shape.area_um2 == pytest.approx(one.shape.area_um2, rel=0.1)


def _with_marks(pixels: RGB) -> RGB:
    """Scale bar, text and an orange pointer, burned in."""
    marked = pixels.copy()
    cv2.rectangle(marked, (600, 560), (760, 568), (0, 0, 0), -1)
    cv2.putText(marked, "20 um 100x", (600, 550), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (0, 0, 0), 2)
    cv2.arrowedLine(marked, (30, 560), (90, 500), (255, 140, 0), 5)
    return marked


def test_scale_bars_text_and_arrows_are_no_cells() -> None:
    drawn = field()

    plain, marked = (
        find_cells(image_of(drawn.pixels)).cells,
        find_cells(image_of(_with_marks(drawn.pixels))).cells,
    )

    assert found_of([cell.box for cell in plain], marked) == len(plain)
    assert len(marked) == len(plain)


def test_the_dataset_is_believed_on_its_spacing() -> None:
    found = find_cells(image_of(field().pixels, spacing_um=0.12))

    assert found.scale.um_per_px == 0.12
    assert found.scale.source == "dataset"


def test_the_cell_in_the_middle_is_the_one_shown() -> None:
    cells = find_cells(image_of(field().pixels))

    central = central_cell(cells, width=800, height=600)

    assert central is not None
    assert central in cells.cells


def test_no_cell_is_shown_where_none_was_found() -> None:
    nothing: FieldCells = find_cells(image_of(np.full((64, 64, 3), 230, np.uint8)))

    assert central_cell(nothing, width=64, height=64) is None

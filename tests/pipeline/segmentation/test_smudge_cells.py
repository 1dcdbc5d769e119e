"""Smudge cells are named and red cells dropped; no white cell is, whatever the stain."""

from __future__ import annotations

import numpy as np
import pytest

from listener.demo.phantom import PhantomField, Recipe, draw_field
from listener.demo.phantom.camera import Optics
from pipeline.domain import Box, Cell, CellKind, CellShape, CellType
from pipeline.segmentation.find_cells import find_cells
from pipeline.segmentation.morphometry import PixelTransform
from pipeline.segmentation.smudge_cells import LEAST_NUCLEI, classify_smudge_cells
from tests.pipeline.smears import image_of, overlap, segmenter

WHITE = (
    CellType.LYMPHOBLAST,
    CellType.LYMPHOCYTE,
    CellType.NEUTROPHIL,
    CellType.MONOCYTE,
    CellType.MYELOBLAST,
    CellType.EOSINOPHIL,
)
SIDE = 120
GLASS, RED_CELL, SMUDGE, NUCLEUS = (0, 0, 0), (0.05, 0.1, 0.1), (0.04, 0.2, 0.02), (0.2, 0.4, 0.05)
GROUND = PixelTransform(grow=2.0, um_per_px=0.2, width=2 * SIDE, height=2 * SIDE)


def cell_at(x: int, y: int) -> Cell:
    """A cell that is all nucleus, 20 source pixels wide, in the middle of its patch."""
    contour = np.array([[x, y], [x + 20, y], [x + 20, y + 20], [x, y + 20]], np.int32)
    shape = CellShape(
        area_um2=16.0,
        nucleus_area_um2=16.0,
        perimeter_um=16.0,
        equivalent_diameter_um=4.5,
        circularity=0.8,
        solidity=1.0,
        eccentricity=0.0,
        nucleus_to_cell_ratio=1.0,
        nucleus_lobes=1,
    )
    return Cell(
        index=1,
        kind=CellKind.WHITE_CELL,
        box=Box(x=x, y=y, width=20, height=20),
        contour=contour,
        nucleus_contours=(contour,),
        shape=shape,
        is_cut_by_edge=False,
        is_touching=False,
        confidence=0.9,
    )


def told(*densities: tuple[float, float, float]) -> list[CellKind | None]:
    """What cells of these nuclear densities are called, beside red cells; None: dropped."""
    density = np.zeros((SIDE, SIDE, 3), np.float32)
    density[100:, :] = RED_CELL
    red = np.zeros((SIDE, SIDE), np.uint8)
    red[100:, :] = 1
    cells = []
    for number, own in enumerate(densities):
        cells.append(cell_at(30 * number + 4, 40))
        density[18:34, 15 * number : 15 * number + 15] = own
    kept = classify_smudge_cells(cells, density, red, GROUND)
    by_place = {cell.box.x: cell.kind for cell in kept}
    return [by_place.get(cell.box.x) for cell in cells]


def test_no_cells_are_no_cells() -> None:
    assert told() == []


def test_what_is_no_denser_than_red_cells_is_no_cell() -> None:
    assert told(RED_CELL, NUCLEUS) == [None, CellKind.WHITE_CELL]


def test_what_is_as_pale_as_red_cells_but_lets_blue_through_is_kept() -> None:
    assert told((0.05, 0.11, 0.0), NUCLEUS) == [CellKind.WHITE_CELL] * 2


def test_a_pale_red_nucleus_beside_others_is_a_smudge_cell() -> None:
    kinds = told(NUCLEUS, SMUDGE, NUCLEUS)

    assert kinds == [CellKind.WHITE_CELL, CellKind.SMUDGE_CELL, CellKind.WHITE_CELL]


def test_a_pale_nucleus_is_not_judged_without_others() -> None:
    """In a pale field, nothing says what is usual there."""
    assert told(*[SMUDGE] * (LEAST_NUCLEI - 1)) == [CellKind.WHITE_CELL] * (LEAST_NUCLEI - 1)
    assert told(*[SMUDGE] * LEAST_NUCLEI) == [CellKind.WHITE_CELL] * LEAST_NUCLEI


def test_a_nucleus_that_is_only_paler_than_very_dark_ones_is_a_white_cell() -> None:
    darker = (0.6, 1.2, 0.15)

    assert told(NUCLEUS, darker, darker) == [CellKind.WHITE_CELL] * 3


def field_with_smudges(optics: Optics) -> PhantomField:
    recipe = Recipe(
        width=800, height=600, um_per_px=0.12, white_cells=WHITE, smudge_cells=3, optics=optics
    )
    return draw_field(4, recipe)


@pytest.mark.parametrize(
    "optics",
    [
        Optics(),
        Optics(stain_strength=0.6),
        Optics(stain_strength=1.4),
        Optics(stain_balance=-0.3),
        Optics(stain_balance=0.3),
        Optics(blur_um=0.5),
    ],
)
def test_the_phantoms_white_cells_stay_white_and_its_smudges_are_not_counted(
    optics: Optics,
) -> None:
    drawn = field_with_smudges(optics)

    found = find_cells(image_of(drawn.pixels), segmenter()).cells

    white = [cell for cell in found if cell.kind is CellKind.WHITE_CELL]
    for truth in drawn.cells:
        assert any(overlap(truth.box, cell.box) > 0.5 for cell in white)
    assert len(white) == len(drawn.cells)


def test_a_smudge_that_is_seen_is_named() -> None:
    drawn = field_with_smudges(Optics())

    found = find_cells(image_of(drawn.pixels), segmenter()).cells

    smudges = [cell for cell in found if cell.kind is CellKind.SMUDGE_CELL]
    assert smudges
    for cell in smudges:
        assert max(overlap(cell.box, box) for box in drawn.smudge_cells) > 0.3

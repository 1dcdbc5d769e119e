"""Areas and their ratio mean the same to whoever fills a contour and to whoever reads a number."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import Cell, Contour
from pipeline.segmentation.find_cells import find_cells
from pipeline.segmentation.morphometry import PixelTransform, describe
from tests.pipeline.smears import field, image_of, segmenter

UM = 0.12


def filled(height: int, width: int, *contours: Contour) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    for contour in contours:
        cv2.fillPoly(mask, [contour], 1)
    return mask


def assert_like_its_masks(cell: Cell, height: int, width: int, um_per_px: float) -> None:
    whole = filled(height, width, cell.contour)
    nucleus = filled(height, width, *cell.nucleus_contours) & whole

    assert cell.shape.area_um2 == pytest.approx(whole.sum() * um_per_px**2)
    assert cell.shape.nucleus_area_um2 == pytest.approx(nucleus.sum() * um_per_px**2)
    assert cell.shape.nucleus_to_cell_ratio == pytest.approx(nucleus.sum() / whole.sum())


def test_areas_of_found_cells_are_those_of_their_masks() -> None:
    image = image_of(field().pixels)

    found = find_cells(image, segmenter())

    assert len(found.cells) >= 5
    for cell in found.cells:
        assert_like_its_masks(cell, image.height, image.width, found.scale.um_per_px)


def ring(x: float, y: float, radius: float) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)


@given(
    st.floats(4, 40),
    st.lists(st.tuples(st.floats(-15, 15), st.floats(-15, 15), st.floats(2, 20)), max_size=4),
)
def test_lobes_beyond_the_cell_or_on_each_other_count_once(
    radius: float, lobes: list[tuple[float, float, float]]
) -> None:
    ground = PixelTransform(grow=1.0, um_per_px=UM, width=120, height=100)
    drawn = tuple(np.rint(ring(60 + x, 50 + y, r)).astype(np.int32) for x, y, r in lobes)

    cell = describe(drawn, ring(60, 50, radius), ground)

    if cell is None:
        assert drawn == ()
    else:
        assert_like_its_masks(cell, 100, 120, UM)
        assert 0 <= cell.shape.nucleus_to_cell_ratio <= 1

"""Red cells are measured where they lie alone, in clumps, and where the edge cuts them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.field.masks import Mask, disc
from pipeline.field.red_cell_diameter import PEAK_PX, _peaks, measure_masks

SIDE = 240


def discs(*places: tuple[int, int, int]) -> Mask:
    """Discs, each across, down and radius."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for x, y, radius in places:
        cv2.circle(mask, (x, y), radius, 1, cv2.FILLED)
    return mask


NOTHING = discs()


@pytest.mark.parametrize("mask", [NOTHING, discs((100, 100, 2)), np.ones_like(NOTHING)])
def test_where_there_is_no_red_cell_none_is_measured(mask: Mask) -> None:
    assert measure_masks(mask, NOTHING, 1.0, (1,)).measured == 0


@pytest.mark.parametrize("shrink", [1.0, 0.5])
def test_cells_that_lie_alone_are_as_wide_as_they_are(shrink: float) -> None:
    alone = discs(*((x, y, 15) for x in (40, 120, 200) for y in (40, 120, 200)))

    found = measure_masks(alone, NOTHING, shrink, (1,))

    assert found.measured == 9
    assert found.diameter_px * shrink == pytest.approx(31, rel=0.04)


def test_cells_in_a_clump_are_measured_one_by_one() -> None:
    clump = discs(*((60 + 26 * k, 120 + 8 * (k % 2), 16) for k in range(5)))

    found = measure_masks(clump, NOTHING, 1.0, (1,))

    assert found.measured >= 5
    assert found.diameter_px == pytest.approx(33, rel=0.1)


def test_the_arc_of_a_cell_that_the_edge_cuts_tells_its_width() -> None:
    cut = discs((3, 60, 20), (3, 160, 20), (120, 236, 20))

    found = measure_masks(cut, NOTHING, 1.0, (1,))

    assert found.measured >= 3
    assert found.diameter_px == pytest.approx(41, rel=0.1)


def test_outlines_beside_white_cells_are_not_read() -> None:
    """The bite that a white cell takes out of a red one is no arc of it."""
    cut = discs((3, 60, 20), (3, 160, 20), (120, 236, 20))

    assert measure_masks(cut, np.ones_like(cut), 1.0, (1,)).measured == 0


def test_specks_do_not_outweigh_cells() -> None:
    cells = ((x, y, 15) for x in (40, 120, 200) for y in (40, 120, 200))
    specks = ((x, y, 4) for x in range(10, SIDE, 20) for y in (80, 160))

    found = measure_masks(discs(*cells, *specks), NOTHING, 1.0, (1,))

    assert found.diameter_px == pytest.approx(31, rel=0.04)


@pytest.mark.parametrize("seed", range(4))
def test_middles_of_circles_are_the_highest_places_around(seed: int) -> None:
    random = np.random.default_rng(seed)
    heights = np.round(random.random((40, 50)) * 6).astype(np.float32)
    where = random.random(heights.shape) < 0.8

    rows, columns = _peaks(heights, where)

    highest = (heights >= cv2.dilate(heights, disc(PEAK_PX))) & where
    assert np.array_equal(np.stack([rows, columns]), np.stack(np.nonzero(highest)))


FEW = ((60, 60, 20), (180, 60, 20))
SPECKS = tuple((x, 200, 6) for x in range(20, SIDE, 60))


@pytest.mark.parametrize(("expected_px", "diameter_px"), [(40.0, 41), (13.0, 13)])
def test_a_few_are_told_from_specks_by_what_else_is_known(
    expected_px: float, diameter_px: float
) -> None:
    found = measure_masks(discs(*FEW, *SPECKS), NOTHING, 1.0, (1,), expected_px=expected_px)

    assert found.measured >= 2
    assert found.diameter_px == pytest.approx(diameter_px, rel=0.1)


def test_many_are_believed_whatever_else_is_known() -> None:
    cells = discs(*((x, y, 15) for x in (40, 120, 200) for y in (40, 120, 200)))

    found = measure_masks(cells, NOTHING, 1.0, (1,), expected_px=90.0)

    assert found.diameter_px == pytest.approx(31, rel=0.04)

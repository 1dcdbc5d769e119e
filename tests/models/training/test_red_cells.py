"""Only whole, round red cells and whole platelets are taken, each with its own density."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from models.training.red_cells import platelets_of, red_cells_of
from models.training.segmenter_labels import Labelled

RADIUS_PX = 18
STAINED = 0.3


def picture(*places: tuple[int, int]) -> Labelled:
    """Red cells of 7 µm at those places, x and y, whose pale middles the label leaves out."""
    density = np.zeros((200, 200, 3), np.float32)
    red, nothing = np.zeros((200, 200), np.uint8), np.zeros((200, 200), np.uint8)
    for place in places:
        cv2.circle(red, place, RADIUS_PX, 1, cv2.FILLED)
        cv2.circle(red, place, 5, 0, cv2.FILLED)
    density[red > 0] = STAINED
    return Labelled(
        file="bccd/images/drawn.jpg",
        source="bccd",
        cell_type="",
        density=density,
        cells=nothing,
        nuclei=nothing,
        ignored=nothing,
        red=red,
    )


def test_a_cell_alone_is_found_with_its_pale_middle() -> None:
    (cell,) = red_cells_of(picture((100, 60)))

    assert cell.width_px == pytest.approx(2 * RADIUS_PX, abs=1.5)


def test_a_cell_that_the_edge_cuts_is_left() -> None:
    assert red_cells_of(picture((10, 100))) == []


def test_a_cell_between_two_others_is_left() -> None:
    assert len(red_cells_of(picture((80, 100), (100, 100), (120, 100)))) == 2


def test_cells_that_touch_one_other_are_found_both() -> None:
    assert len(red_cells_of(picture((60, 100), (60 + 2 * RADIUS_PX, 100)))) == 2


def test_a_platelet_is_no_red_cell() -> None:
    """The red label of such a picture may be the platelet."""
    assert red_cells_of(replace(picture((100, 60)), cell_type="platelet")) == []


def test_a_turned_cell_lies_where_it_is_wanted_and_nowhere_else() -> None:
    (cell,) = red_cells_of(picture((100, 60)))
    half = 2 * np.array([[0.0, -1.0], [1.0, 0.0]])

    density, own = cell.turned(half, np.array([30.0, 40.0]), 96)

    rows, columns = np.nonzero(own)
    assert (columns.mean(), rows.mean()) == pytest.approx((30, 40), abs=0.6)
    assert own.sum() == pytest.approx(np.pi * (RADIUS_PX / 2) ** 2, rel=0.15)
    assert density.max() == pytest.approx(STAINED, abs=0.02)
    assert not density[60:].any()


def with_platelets(smear: Labelled, *places: tuple[int, int]) -> Labelled:
    platelets = np.zeros_like(smear.red)
    for place in places:
        cv2.circle(platelets, place, 6, 1, cv2.FILLED)
    return replace(smear, platelets=platelets)


def test_a_picture_whose_platelets_nobody_boxed_has_none() -> None:
    assert platelets_of(picture((100, 60))) == []


def test_a_platelet_on_glass_is_taken() -> None:
    (platelet,) = platelets_of(with_platelets(picture((100, 60)), (150, 150)))

    assert platelet.width_px == pytest.approx(12, abs=1.5)


@pytest.mark.parametrize("place", [(3, 100), (100, 60), (197, 197)])
def test_a_platelet_cut_by_the_edge_or_on_a_red_cell_is_left(place: tuple[int, int]) -> None:
    assert platelets_of(with_platelets(picture((100, 60)), place)) == []

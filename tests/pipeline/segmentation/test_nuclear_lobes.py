"""Nuclei that touch are cut apart; lobes of one cell stay together."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.field.masks import Mask, windows
from pipeline.segmentation.nuclear_lobes import merge_lobes, split_touching

UM = 0.2


def drawn(*discs: tuple[float, float, float]) -> Mask:
    """Discs at x, y with a radius, all µm."""
    mask: Mask = np.zeros((200, 200), np.uint8)
    for x, y, radius in discs:
        cv2.circle(mask, (round(x / UM), round(y / UM)), round(radius / UM), 1, -1)
    return mask


def cells_in(mask: Mask) -> int:
    stained = np.asarray(cv2.dilate(mask, np.ones((41, 41), np.uint8)), np.uint8)
    return merge_lobes(split_touching(mask, UM), stained, UM)[1]


def test_nothing_is_no_nucleus() -> None:
    assert cells_in(drawn()) == 0
    assert windows(np.zeros((9, 9), np.int32)) == {}


@pytest.mark.parametrize("apart_um", [8.2, 8.8, 12.0])
def test_two_round_nuclei_are_two_cells(apart_um: float) -> None:
    assert cells_in(drawn((12, 20, 4.5), (12 + apart_um, 20, 4.5))) == 2


def test_three_small_lobes_are_one_cell() -> None:
    assert cells_in(drawn((16, 18, 2.2), (21, 18, 2.2), (18.5, 22.5, 2.2))) == 1


def test_lobes_with_glass_between_are_two_cells() -> None:
    mask = drawn((12, 20, 2.6), (17.8, 20, 2.6))

    assert merge_lobes(split_touching(mask, UM), mask, UM)[1] == 2

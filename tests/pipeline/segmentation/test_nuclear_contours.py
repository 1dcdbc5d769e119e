"""Nuclei end where the stain of their own cell changes, and a ring keeps its hole."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.evaluation.detection import painted
from pipeline.domain import RGB, Contour
from pipeline.field.optical_density import Map
from pipeline.segmentation.morphometry import PixelTransform
from pipeline.segmentation.nuclear_contours import nuclear_contours, refined_nuclear_contours
from pipeline.segmentation.nuclei import Nuclei
from tests.pipeline.smears import image_of

UM = 0.1
GROW = 4
SIDE = 60
GROUND = PixelTransform(grow=GROW, um_per_px=UM, width=SIDE * GROW, height=SIDE * GROW)
WHOLE = slice(0, SIDE), slice(0, SIDE)
LAMP = np.full((1, 1, 3), 240, np.float32)
NUCLEUS, CYTOPLASM, GLASS = (90, 60, 140), (190, 170, 210), (240, 240, 240)


def away(side: int = SIDE) -> NDArray[np.float64]:
    """Distance of each pixel from the middle, in pixels of the working picture."""
    places = (np.arange(side) + 0.5) / side * SIDE
    return np.asarray(np.hypot(places[:, None] - SIDE / 2, places[None] - SIDE / 2))


def nuclei_of(margin: NDArray[np.float64]) -> Nuclei:
    values: Map = margin.astype(np.float32)
    parts = (values > 0).astype(np.int32)
    return Nuclei(parts=parts, count=1, stain=values, margin=values, red=None, level=0.5)


def picture(radius: float) -> RGB:
    """A cell whose nucleus has that radius, in pixels of the working picture."""
    distance = away(SIDE * GROW)[..., None]
    cell = np.where(distance < 25, CYTOPLASM, GLASS)
    return np.where(distance < radius, NUCLEUS, cell).astype(np.uint8)


def sharpened(nuclei: Nuclei, pixels: RGB) -> tuple[Contour, ...]:
    cells = (away() < 25).astype(np.int32)
    return refined_nuclear_contours(1, WHOLE, nuclei, cells, image_of(pixels), LAMP, GROUND)


def area(contours: tuple[Contour, ...]) -> float:
    """In pixels of the working picture."""
    return float(painted(contours, SIDE * GROW, SIDE * GROW).sum()) / GROW**2


@pytest.mark.parametrize("said", [14.0, 15.0, 16.0])
def test_the_stain_says_where_a_nucleus_ends(said: float) -> None:
    unsure = nuclei_of(0.1 * (said - away()))

    assert area(nuclear_contours(1, WHOLE, unsure, GROUND)) == pytest.approx(
        np.pi * said**2, rel=0.03
    )
    assert area(sharpened(unsure, picture(15))) == pytest.approx(np.pi * 15**2, rel=0.03)


def test_without_a_change_of_stain_the_network_is_believed() -> None:
    unsure = nuclei_of(0.1 * (15 - away()))

    assert area(sharpened(unsure, picture(25))) == pytest.approx(np.pi * 15**2, rel=0.05)


def test_what_the_network_is_sure_of_stays() -> None:
    sure = nuclei_of(np.where(away() < 15, 0.6, -0.6))

    for radius in (10, 20):
        assert area(sharpened(sure, picture(radius))) == pytest.approx(np.pi * 15**2, rel=0.1)


def test_a_nucleus_that_fills_its_cell_is_as_the_network_says() -> None:
    nuclei = nuclei_of(np.where(away() < 24, 0.6, -0.6))

    assert area(sharpened(nuclei, picture(24))) == pytest.approx(np.pi * 24**2, rel=0.05)


@pytest.mark.parametrize(("hole", "kept"), [(6.0, True), (1.5, False)])
def test_a_large_hole_is_no_part_of_a_nucleus(hole: float, kept: bool) -> None:
    ring = nuclei_of(np.where((away() < 15) & (away() > hole), 0.3, -0.3))

    (contour,) = nuclear_contours(1, WHOLE, ring, GROUND)

    whole = np.pi * (15**2 - (hole**2 if kept else 0))
    assert area((contour,)) == pytest.approx(whole, rel=0.05)

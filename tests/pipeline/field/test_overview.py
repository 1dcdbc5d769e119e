"""The small copy of a field: halved where its red cells stay large, else of a set size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.domain import Scale, ScaleSource
from pipeline.field.overview import OVERVIEW_PX, halved_overview_of, overview_of
from pipeline.field.quality import judge_quality
from pipeline.segmentation.network_maps import resized
from pipeline.segmentation.pixel_scale import overview_and_scale
from tests.pipeline.smears import field


def test_a_picture_of_large_cells_is_halved() -> None:
    overview, scale = overview_and_scale(field(width=640, height=480, um=0.1).pixels, None)

    assert overview.pixels.shape == (240, 320, 3)
    assert scale.um_per_px == pytest.approx(0.1, rel=0.1)


def test_a_picture_of_small_cells_is_not() -> None:
    overview, scale = overview_and_scale(field(width=640, height=480, um=0.3).pixels, None)

    assert overview.pixels.size / 3 == pytest.approx(OVERVIEW_PX, rel=0.01)
    assert scale.um_per_px == pytest.approx(0.3, rel=0.1)


def test_the_last_row_and_column_of_odd_sides_stand_twice() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (481, 641, 3)).astype(np.uint8)

    overview = halved_overview_of(pixels)

    assert overview is not None
    assert overview.pixels.shape == (241, 321, 3)
    assert (overview.pixels[-1, -1] == pixels[-1, -1]).all()


@pytest.mark.parametrize("side", [400, 801])
def test_what_is_small_or_large_already_is_not_halved(side: int) -> None:
    assert halved_overview_of(np.zeros((side, side, 3), np.uint8)) is None


@pytest.mark.parametrize("blur", [0.5, 4.0, 8.0])
def test_focus_is_judged_alike_on_both_copies(blur: float) -> None:
    """A blurred field whose cells look large, so that its scale is not believed."""
    pixels = field(width=640, height=480, um=0.1).pixels
    pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), blur), np.uint8)
    scale = Scale(um_per_px=0.07, source=ScaleSource.RED_CELLS)

    halved, usual = (
        judge_quality(pixels, scale, overview=copy).figures["sharpness"]
        for copy in (halved_overview_of(pixels), overview_of(pixels))
    )

    assert halved == pytest.approx(usual, rel=0.25)


@pytest.mark.parametrize("size", [(640, 480), (1200, 800), (1201, 801)])
@pytest.mark.parametrize("zoom", [0.05, 0.13, 0.31, 0.62])
def test_what_was_halved_already_gives_the_same_picture(size: tuple[int, int], zoom: float) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (*size[::-1], 3)).astype(np.uint8)

    for overview in (halved_overview_of(pixels), overview_of(pixels)):
        if overview is not None:
            assert (resized(pixels, zoom, overview.halved) == resized(pixels, zoom)).all()

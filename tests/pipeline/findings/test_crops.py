"""A crop has one size, one physical scale, and one cell on black."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.domain import Box, Scale, ScaleSource
from pipeline.findings.crops import CROP_PX, CROP_UM, crop_frame, cut_crops, cut_masked
from pipeline.segmentation.find_cells import find_cells
from tests.pipeline.smears import field, image_of


def test_no_cell_makes_no_crop() -> None:
    scale = Scale(um_per_px=0.1, source=ScaleSource.DATASET)

    crops = cut_crops(image_of(field().pixels), [], scale)

    assert crops.shape == (0, CROP_PX, CROP_PX, 3)


@pytest.mark.parametrize("um", [0.05, 0.1, 0.4])
def test_a_frame_is_as_wide_as_the_scale_says_and_centred_on_the_cell(um: float) -> None:
    scale = Scale(um_per_px=um, source=ScaleSource.DATASET)

    left, top, side = crop_frame(Box(x=100, y=200, width=40, height=20), scale)

    assert side * um == pytest.approx(CROP_UM)
    assert (left + side / 2, top + side / 2) == pytest.approx((120, 210))


def test_around_a_cell_all_is_black_and_its_size_is_kept() -> None:
    image = image_of(field().pixels, spacing_um=0.12)
    found = find_cells(image)

    crops = cut_crops(image, found.cells, found.scale)

    for cell, crop in zip(found.cells, crops, strict=True):
        lit_um2 = (crop.max(axis=2) > 0).sum() * (CROP_UM / CROP_PX) ** 2
        assert lit_um2 == pytest.approx(cell.shape.area_um2, rel=0.15)
        assert not crop[0].any()


def test_a_masked_picture_keeps_black_black() -> None:
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[30:70, 30:70] = 120

    crop = cut_masked(pixels, 0.1)

    assert crop.shape == (CROP_PX, CROP_PX, 3)
    assert crop[CROP_PX // 2, CROP_PX // 2].tolist() == [120, 120, 120]
    assert not crop[0].any()

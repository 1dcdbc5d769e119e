"""The sheet of stages can be drawn of every picture, and says what was found."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.rendering.segmentation_stages import COLUMNS, TILE_PX, draw_stages
from tests.pipeline.smears import field, image_of


@pytest.mark.parametrize("size", [(40, 40), (64, 300)])
def test_a_refused_picture_has_its_sheet_too(size: tuple[int, int]) -> None:
    sheet = draw_stages(image_of(np.full((*size, 3), 200, np.uint8)))

    assert sheet.shape[1] == COLUMNS * TILE_PX
    assert sheet.dtype == np.uint8


def test_the_source_picture_is_left_alone() -> None:
    image = image_of(field().pixels)
    before = image.pixels.copy()

    draw_stages(image)

    assert np.array_equal(image.pixels, before)


def test_cells_that_were_kept_are_drawn_on_the_last_stage() -> None:
    sheet = draw_stages(image_of(field().pixels))

    last = sheet[sheet.shape[0] // 2 :, 2 * TILE_PX :]
    red = (last[..., 0] > 200) & (last[..., 1] < 60) & (last[..., 2] < 60)
    assert red.sum() > 200

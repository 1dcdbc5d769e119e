"""Fields that lack color or their lower part, in each way in which cameras and disks do it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import cv2
import numpy as np
import pytest

from pipeline.domain import RGB, QualityFlag, Scale, ScaleSource
from pipeline.field.quality import judge_quality
from tests.pipeline.smears import field

SCALE = Scale(um_per_px=0.12, source=ScaleSource.RED_CELLS, red_cells_measured=50)


@cache
def smear() -> RGB:
    pixels: RGB = field().pixels
    return pixels


def gray_by(*weights: float) -> RGB:
    mixed = smear().astype(np.float32) @ np.array(weights, np.float32)
    return np.repeat(np.rint(mixed).astype(np.uint8)[:, :, None], 3, axis=2)


def jpeg(pixels: RGB, quality: int) -> RGB:
    coded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)


def cast(pixels: RGB, red: int, blue: int) -> RGB:
    """A little color all over, as a lamp gives it."""
    shifted = pixels.astype(np.int16) + np.array([red, 0, blue])
    return np.clip(shifted, 0, 255).astype(np.uint8)


def lower(share: float, color: tuple[int, int, int], *, ripple: int = 0) -> RGB:
    """The field with its lower part replaced by one color."""
    pixels = smear().copy()
    start = round((1 - share) * len(pixels))
    pixels[start:] = color
    if ripple:
        pixels[start::2] += ripple
    return pixels


GRAYS: Mapping[str, Callable[[], RGB]] = {
    "mean": lambda: gray_by(1 / 3, 1 / 3, 1 / 3),
    "luminance": lambda: gray_by(0.299, 0.587, 0.114),
    "green-alone": lambda: gray_by(0, 1, 0),
    "red-alone": lambda: gray_by(1, 0, 0),
    "blue-alone": lambda: gray_by(0, 0, 1),
    "jpeg-of-90": lambda: jpeg(gray_by(0, 1, 0), 90),
    "jpeg-of-30": lambda: jpeg(gray_by(0, 1, 0), 30),
    "half-the-light": lambda: gray_by(0, 0.5, 0),
    "warm-lamp": lambda: cast(gray_by(0, 0.9, 0), 3, -3),
    "cold-lamp": lambda: cast(gray_by(0, 0.9, 0), -3, 3),
    "shrunk": lambda: cv2.resize(gray_by(0, 1, 0), None, fx=0.5, fy=0.5).astype(np.uint8),
}
CUT: Mapping[str, Callable[[], RGB]] = {
    "one-tenth": lambda: lower(0.1, (128, 128, 128)),
    "a-third": lambda: lower(0.33, (128, 128, 128)),
    "half": lambda: lower(0.5, (128, 128, 128)),
    "nine-tenths": lambda: lower(0.9, (128, 128, 128)),
    "one-level-brighter": lambda: lower(0.4, (129, 129, 129)),
    "one-level-darker": lambda: lower(0.4, (127, 127, 127)),
    "with-a-ripple": lambda: lower(0.4, (127, 127, 127), ripple=1),
    "of-a-gray-picture": lambda: np.vstack(
        [gray_by(0, 1, 0)[:300], np.full_like(gray_by(0, 1, 0)[:300], 128)]
    ),
}


@pytest.mark.invented(kind=6)
@pytest.mark.parametrize("name", GRAYS)
def test_a_picture_without_color_is_said_to_be_one(name: str) -> None:
    quality = judge_quality(GRAYS[name](), SCALE)

    assert not quality.is_usable
    assert QualityFlag.GRAYSCALE in quality.flags
    assert QualityFlag.NOT_A_SMEAR not in quality.flags


@pytest.mark.invented(kind=6)
@pytest.mark.parametrize("name", CUT)
def test_a_picture_without_its_lower_part_is_said_to_be_one(name: str) -> None:
    quality = judge_quality(CUT[name](), SCALE)

    assert not quality.is_usable
    assert QualityFlag.TRUNCATED in quality.flags
    assert QualityFlag.NOT_A_SMEAR not in quality.flags

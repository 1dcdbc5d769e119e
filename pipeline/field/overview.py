"""A small copy of a field, made once: light, scale and quality are read off it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.domain import RGB
from pipeline.field.optical_density import (
    Density,
    Map,
    estimate_illumination,
    green_of,
    optical_density,
    stained_level,
)

Pixel = TypeVar("Pixel", bound=np.generic)

OVERVIEW_PX = 160_000
"""The copy has about this many pixels: red cells of 10 pixels are still round."""
HALF = 0.5
SAMPLE_PX = 20_000
"""Usual values are read off about this many pixels."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overview:
    """The copy, its light, and what it holds back of it."""

    pixels: RGB
    halved: RGB
    """The field, halved as often as was exact on the way to the copy; whole if never."""
    shrink: float
    """How much smaller than the source picture, 1 at most."""
    coarser: float
    """Pixels of the usual copy to one of this, along a side; more than 1 where it was halved."""
    lamp: Density
    """Of the field, at any size (see `pipeline.field.optical_density.estimate_illumination`)."""
    density: Density
    green: Map
    """The density in green light."""
    stained_from: float
    """Green density from which a pixel is not glass."""


def overview_of(pixels: RGB) -> Overview:
    """The copy of a field."""
    height, width = pixels.shape[:2]
    shrink = _shrink(pixels)
    size = max(round(width * shrink), 1), max(round(height * shrink), 1)
    halved = _halved_towards(pixels, size)
    return _overview(_averaged(halved, size), halved, shrink, coarser=1.0)


def halved_overview_of(pixels: RGB) -> Overview | None:
    """A smaller copy, which is made, and read, in half the time; None of a picture too large or
    too small for that.
    """
    usual = _shrink(pixels)
    if not HALF <= usual < 1:
        return None
    small = _halved(pixels)
    is_exact = pixels.shape[0] % 2 == 0 and pixels.shape[1] % 2 == 0
    return _overview(small, small if is_exact else pixels, HALF, coarser=usual / HALF)


def _shrink(pixels: RGB) -> float:
    return float(min(1.0, (OVERVIEW_PX / (pixels.shape[0] * pixels.shape[1])) ** 0.5))


def _overview(small: RGB, halved: RGB, shrink: float, *, coarser: float) -> Overview:
    lamp = estimate_illumination(small)
    density = optical_density(small, lamp)
    green = green_of(density)
    return Overview(
        pixels=small,
        halved=halved,
        shrink=shrink,
        coarser=coarser,
        lamp=lamp,
        density=density,
        green=green,
        stained_from=stained_level(green),
    )


def reduced(pixels: RGB, size: tuple[int, int]) -> RGB:
    """The picture at a smaller size (width, height), each pixel the mean of those it stands for.

    Halved as long as that is exact, for halving is several times as fast as any other step.
    """
    return _averaged(_halved_towards(pixels, size), size)


def _halved_towards(pixels: RGB, size: tuple[int, int]) -> RGB:
    small = pixels
    while _can_be_halved(small, size):
        small = _averaged(small, (small.shape[1] // 2, small.shape[0] // 2))
    return small


def enlarged(pixels: RGB, size: tuple[int, int]) -> RGB:
    """The picture at a larger size (width, height)."""
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _halved(pixels: RGB) -> RGB:
    """Each two by two pixels as one; of an odd side, the last stands twice."""
    height, width = pixels.shape[:2]
    even = cv2.copyMakeBorder(pixels, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return _averaged(np.asarray(even, np.uint8), (even.shape[1] // 2, even.shape[0] // 2))


def _can_be_halved(pixels: RGB, size: tuple[int, int]) -> bool:
    height, width = pixels.shape[:2]
    is_even = height % 2 == 0 and width % 2 == 0
    return bool(is_even and width >= 2 * size[0] and height >= 2 * size[1])


def _averaged(pixels: RGB, size: tuple[int, int]) -> RGB:
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def sampled(values: NDArray[Pixel]) -> NDArray[Pixel]:
    """Every so many rows and columns of a picture, about `SAMPLE_PX` pixels in all."""
    step = max(1, round((values.shape[0] * values.shape[1] / SAMPLE_PX) ** 0.5))
    return values[::step, ::step]

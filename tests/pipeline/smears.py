"""Phantom fields as the pipeline takes them, and how what was found compares with the truth."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from listener.demo.phantom import PhantomField, Recipe, draw_field
from listener.demo.phantom.camera import Optics
from models.segmenter import OnnxSegmenter
from pipeline.domain import RGB, Box, Cell, SOPInstanceUID, SourceImage


def image_of(pixels: RGB, spacing_um: float | None = None) -> SourceImage:
    return SourceImage(
        sop_instance_uid=SOPInstanceUID("2.25.1"), frame=1, pixels=pixels, spacing_um=spacing_um
    )


@cache
def field(
    seed: int = 3, *, width: int = 800, height: int = 600, um: float = 0.12, **optics: Any
) -> PhantomField:
    """Drawn once for all tests of a process, so nobody may draw on it."""
    recipe = Recipe(width=width, height=height, um_per_px=um, optics=Optics(**optics))
    drawn = draw_field(seed, recipe)
    drawn.pixels.setflags(write=False)
    return drawn


def by_a_poor_camera(pixels: RGB) -> RGB:
    """The field with a pink rim, a dark blue middle and a veil that leaves half of its
    contrast: what a camera on a teaching microscope makes of it."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    away = np.clip(x**2 + y**2, 0, 1)[..., None]
    lamp = (1 - away) * np.array([110, 120, 125]) + away * np.array([190, 120, 140])
    clear = pixels.astype(np.float32) / np.array([236, 230, 226])
    grain = np.random.default_rng(5).normal(0, 1.0, pixels.shape)
    return np.clip(np.rint(lamp * (0.55 + 0.45 * clear) + grain), 0, 255).astype(np.uint8)


@cache
def segmenter() -> OnnxSegmenter:
    """The packaged one, read once for all tests of a process."""
    return OnnxSegmenter.load()


def overlap(one: Box, two: Box) -> float:
    """Intersection over union."""
    wide = min(one.x + one.width, two.x + two.width) - max(one.x, two.x)
    high = min(one.y + one.height, two.y + two.height) - max(one.y, two.y)
    shared = max(wide, 0) * max(high, 0)
    return shared / (one.width * one.height + two.width * two.height - shared)


def found_of(boxes: Sequence[Box], cells: Sequence[Cell]) -> int:
    """How many boxes have a found cell that overlaps by at least half."""
    return sum(any(overlap(box, cell.box) >= 0.5 for cell in cells) for box in boxes)

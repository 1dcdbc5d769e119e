"""Draws scenes that are no smear, so that the segmenter learns to see nothing in them."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.domain import RGB
from pipeline.field.optical_density import Density, estimate_illumination, optical_density

MOST_SHAPES = 8
CLOUDY = 0.4
"""Of the scenes have clouds of color over them."""


def draw_scene(random: np.random.Generator, side: int) -> Density:
    """Density, S × S × 3, of a cutout of a drawn scene: shapes of any color before a wall."""
    whole = 3 * side
    picture = np.empty((whole, whole, 3), np.float32)
    picture[:] = random.uniform(40, 250, 3)
    for _ in range(random.integers(0, MOST_SHAPES)):
        _add_shape(random, picture, side)
    picture *= (
        1 - random.uniform(0, 0.4) * np.linspace(0, 1, whole, dtype=np.float32)[:, None, None]
    )
    if random.random() < CLOUDY:
        coarse = random.normal(0, 1, (random.integers(4, 60),) * 2 + (3,)).astype(np.float32)
        clouds = cv2.resize(coarse, (whole, whole), interpolation=cv2.INTER_CUBIC)
        picture += np.float32(random.uniform(3, 40)) * clouds
    picture = cv2.GaussianBlur(picture, (0, 0), random.uniform(0.3, 2.5))
    picture = picture + np.float32(random.uniform(0, 6)) * random.standard_normal(
        picture.shape, np.float32
    )
    pixels: RGB = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    density = optical_density(pixels, estimate_illumination(pixels))
    top, left = random.integers(0, whole - side, 2)
    return np.ascontiguousarray(density[top : top + side, left : left + side])


def _add_shape(random: np.random.Generator, picture: Density, side: int) -> None:
    """One ellipse, polygon or line of one color, on the picture itself."""
    color = random.uniform(0, 255, 3).tolist()
    at = random.uniform(0, len(picture), 2)
    size = side * random.uniform(0.05, 1.2, 2)
    kind = random.random()
    if kind < 0.6:
        axes = max(1, int(size[0])), max(1, int(size[1]))
        turn = random.uniform(0, 180)
        middle = int(at[0]), int(at[1])
        cv2.ellipse(picture, middle, axes, turn, 0, 360, color, -1, cv2.LINE_AA)
    elif kind < 0.85:
        corners = at + random.normal(0, 1, (random.integers(3, 7), 2)) * size
        cv2.fillPoly(picture, [corners.astype(np.int32)], color, cv2.LINE_AA)
    else:
        ends = np.stack([at, at + random.normal(0, 2, 2) * size]).astype(int).tolist()
        cv2.line(picture, ends[0], ends[1], color, int(random.integers(1, 12)), cv2.LINE_AA)

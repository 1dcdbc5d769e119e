"""Soft outlines and grain: the strokes that the phantom's cells are drawn with.

Distances are in µm, positive inside; coordinates count from the middle of a square patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A square sheet to draw one cell on: x and y of each pixel in µm."""

    x: Map
    y: Map
    um_per_px: float

    @classmethod
    def of(cls, reach_um: float, um_per_px: float, shift_px: tuple[float, float]) -> Patch:
        """`reach_um` to each side of a middle that lies `shift_px` off a pixel's center."""
        reach = int(np.ceil(reach_um / um_per_px)) + 2
        steps = np.arange(-reach, reach + 1, dtype=np.float32)
        x, y = np.meshgrid((steps - shift_px[0]) * um_per_px, (steps - shift_px[1]) * um_per_px)
        return cls(x.astype(np.float32), y.astype(np.float32), um_per_px)


def blob(
    patch: Patch,
    random: np.random.Generator,
    *,
    radius_um: float,
    at: tuple[float, float] = (0.0, 0.0),
    roughness: float = 0.04,
    stretch: float = 1.0,
) -> Map:
    """Distance inside a round shape with a wavy rim; `stretch` is the ratio of its axes."""
    turn = random.uniform(0, np.pi)
    dx, dy = patch.x - at[0], patch.y - at[1]
    along = (dx * np.cos(turn) + dy * np.sin(turn)) / np.sqrt(stretch)
    across = (dy * np.cos(turn) - dx * np.sin(turn)) * np.sqrt(stretch)
    angle = np.arctan2(across, along)
    rim = np.ones_like(angle)
    for waves in range(2, 7):
        height = random.normal(0, roughness / waves**0.5)
        rim += height * np.cos(waves * angle + random.uniform(0, 2 * np.pi))
    return _map(radius_um * rim - np.hypot(along, across))


def bridge(patch: Patch, start: Sequence[float], end: Sequence[float], width_um: float) -> Map:
    """Distance inside a thread from `start` to `end`."""
    run = np.array(end) - np.array(start)
    length = max(float(np.hypot(*run)), 1e-6)
    along = ((patch.x - start[0]) * run[0] + (patch.y - start[1]) * run[1]) / length
    along = np.clip(along, 0, length)
    away = np.hypot(
        patch.x - start[0] - along * run[0] / length, patch.y - start[1] - along * run[1] / length
    )
    return _map(width_um / 2 - away)


def union(distances: Sequence[Map], melt_um: float = 0.25) -> Map:
    """Distance inside any of the shapes; where two meet, the corner is rounded."""
    total = np.logaddexp.reduce(np.stack(distances) / melt_um, axis=0) * melt_um
    return _map(total)


def cover(distance: Map, softness_um: float) -> Map:
    """0 outside, 1 inside, rising over about four times `softness_um`."""
    return _map(1 / (1 + np.exp(-np.clip(distance / softness_um, -40, 40))))


def grain(patch: Patch, random: np.random.Generator, *, size_um: float) -> Map:
    """Noise of mean 0 and variance 1 with clumps of about `size_um`."""
    noise = random.standard_normal(patch.x.shape, np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), max(size_um / 2 / patch.um_per_px, 0.3))
    return _map((smooth - smooth.mean()) / (smooth.std() + 1e-6))


def granules(
    patch: Patch, random: np.random.Generator, *, size_um: float, share: float, edge: float = 0.35
) -> Map:
    """Separate grains: 1 within one, 0 between them; they cover about `share` of the patch."""
    height = grain(patch, random, size_um=size_um)
    level = float(np.quantile(height, 1 - share))
    return cover(height - level, edge)


def _map(values: NDArray[Any]) -> Map:
    return np.asarray(values, dtype=np.float32)

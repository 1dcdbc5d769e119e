"""Light through stained cells: optical density to the photograph of a microscope camera."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.domain import RGB

Density = NDArray[np.float32]
"""Optical density of red, green and blue light, height × width × 3; 0 is clear glass."""

PIXEL_SPREAD_PX = 0.6
"""Blur of the lens and the Bayer filter of a picture in focus, standard deviation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optics:
    """What microscope and stain do to a field; the defaults are a well-adjusted one."""

    lamp: tuple[float, float, float] = (236.0, 230.0, 226.0)
    """Gray level of clear glass in red, green and blue."""
    stain_strength: float = 1.0
    """Factor on every optical density: 0.7 is pale, 1.3 dark."""
    stain_balance: float = 0.0
    """-0.3 is pinkish (acid buffer), 0.3 bluish (alkaline buffer)."""
    blur_um: float = 0.0
    """Defocus, standard deviation."""
    vignetting: float = 0.06
    """Loss of light from the middle to the corners, 0 to 1."""
    noise: float = 1.6
    """Standard deviation of the camera noise in gray levels."""


def photograph(
    density: Density, optics: Optics, *, um_per_px: float, random: np.random.Generator
) -> RGB:
    """The field as the camera sees it, height × width × 3 uint8 RGB."""
    balance = np.array([1 + optics.stain_balance, 1, 1 - optics.stain_balance], np.float32)
    clear = 10.0 ** (-density * balance * np.float32(optics.stain_strength))
    sigma = float(np.hypot(PIXEL_SPREAD_PX, optics.blur_um / um_per_px))
    light = np.asarray(cv2.GaussianBlur(clear, (0, 0), sigma), dtype=np.float32)
    gray = light * np.array(optics.lamp, np.float32) * _illumination(density.shape, optics)
    gray = gray + _camera_noise(density.shape, random) * optics.noise
    return np.asarray(np.clip(np.rint(gray), 0, 255), dtype=np.uint8)


def _illumination(shape: tuple[int, ...], optics: Optics) -> Density:
    """Brightest a little off the middle, as in most microscopes."""
    height, width = shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    falloff = 1 - optics.vignetting * ((x - 0.15) ** 2 + (y + 0.1) ** 2) / 2
    return np.asarray(falloff, dtype=np.float32)[..., None]


def _camera_noise(shape: tuple[int, ...], random: np.random.Generator) -> Density:
    """Noise of unit variance, mostly gray, a little of it colored."""
    gray = random.standard_normal((*shape[:2], 1), np.float32)
    colored = random.standard_normal(shape, np.float32)
    return 0.8 * gray + 0.6 * colored

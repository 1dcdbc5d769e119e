"""What a cell may look like on another microscope, in another stain, cut by another hand.

Everything works on one crop: uint8 RGB S×S×3 with its cell mask (uint8, 0 or 255), and ends in
the masked centre of it, uint8 RGB, of the side that the network sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.domain import RGB

Mask = NDArray[np.uint8]
Random = np.random.Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Jitter:
    """How far each property of a crop may wander; 0 switches it off."""

    scale: float = 0.12
    shift: float = 0.04
    """Of the crop's side."""
    outline_px: int = 3
    stain_gain: float = 0.18
    """Spread of the optical density of each channel."""
    stain_offset: float = 0.05
    borrowed_stain: float = 0.5
    """Share of crops that take on, in part, the stain of another cell of any source."""
    gamma: float = 0.12
    blur: float = 0.3
    sharpen: float = 0.15
    jpeg: float = 0.35
    cutout: float = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Stain:
    """Mean and spread of the optical density of a cell, per channel."""

    mean: NDArray[np.float32]
    spread: NDArray[np.float32]


def optical_density(crop: RGB) -> NDArray[np.float32]:
    """-ln((I + 1) / 256), so that black is 5.5 and white is 0."""
    return _DENSITY[crop]


_DENSITY = (-np.log((np.arange(256, dtype=np.float32) + 1) / 256)).astype(np.float32)


def measure_stain(crop: RGB, mask: Mask) -> Stain:
    """Stain of the pixels inside the outline."""
    inside = optical_density(crop)[mask > 127]
    if len(inside) == 0:
        return Stain(mean=np.full(3, 0.5, np.float32), spread=np.full(3, 0.2, np.float32))
    return Stain(mean=inside.mean(axis=0), spread=inside.std(axis=0) + 0.02)


def augment(
    crop: RGB, mask: Mask, side: int, stain: Stain, other: Stain, jitter: Jitter, random: Random
) -> RGB:
    """One random view of a cell. `stain` is its own, `other` that of a cell drawn at random."""
    warp = _random_warp(crop.shape[0], side, jitter, random)
    size = (side, side)
    crop = cv2.warpAffine(crop, warp, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.warpAffine(_jitter_outline(mask, jitter, random), warp, size)
    crop = _restain(crop, stain, other, jitter, random)
    crop = _refocus(crop, jitter, random)
    crop = apply_mask(crop, mask)
    if random.random() < jitter.jpeg:
        crop = _recompress(crop, random)
    if random.random() < jitter.cutout:
        crop = _cut_out(crop, random)
    return crop


def plain_view(crop: RGB, mask: Mask, side: int) -> RGB:
    """The view that the service sees: masked, then its centre, as the ONNX graph cuts it."""
    margin = (crop.shape[0] - side) // 2
    return apply_mask(crop, mask)[margin : margin + side, margin : margin + side]


def apply_mask(crop: RGB, mask: Mask) -> RGB:
    """Black outside the outline, soft where the mask is."""
    return cv2.multiply(crop, cv2.merge([mask, mask, mask]), scale=1 / 255)


def _random_warp(source: int, side: int, jitter: Jitter, random: Random) -> NDArray[np.float64]:
    angle = random.uniform(0, 2 * np.pi)
    scale = np.exp(random.uniform(-jitter.scale, jitter.scale))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if random.random() < 0.5:
        turn[:, 0] *= -1
    target = side / 2 + random.uniform(-jitter.shift, jitter.shift, 2) * side
    return np.column_stack([turn, target - turn @ np.full(2, source / 2)])


def _jitter_outline(mask: Mask, jitter: Jitter, random: Random) -> Mask:
    pixels = int(random.integers(-jitter.outline_px, jitter.outline_px + 1))
    if pixels == 0:
        return mask
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(pixels) + 1,) * 2)
    return cv2.dilate(mask, kernel) if pixels > 0 else cv2.erode(mask, kernel)


def _restain(crop: RGB, stain: Stain, other: Stain, jitter: Jitter, random: Random) -> RGB:
    """Move the optical density channel by channel, now and then towards another cell's stain."""
    gain = np.exp(random.normal(0, jitter.stain_gain, 3) * 0.6 + random.normal(0, 0.1))
    offset = random.normal(0, jitter.stain_offset, 3)
    mean = stain.mean
    if random.random() < jitter.borrowed_stain:
        strength = random.uniform(0, 1)
        gain *= 1 + strength * (np.clip(other.spread / stain.spread, 0.5, 2) - 1)
        offset += strength * (other.mean - stain.mean)
    gamma = np.exp(random.uniform(-jitter.gamma, jitter.gamma))
    table = gamma * (mean + offset + (_DENSITY[:, None] - mean) * gain)
    pixels = np.clip(np.exp(-table) * 256 - 1, 0, 255).astype(np.uint8)
    return cv2.LUT(crop, pixels[:, None, :].reshape(256, 1, 3))


def _refocus(crop: RGB, jitter: Jitter, random: Random) -> RGB:
    chance = random.random()
    if chance < jitter.blur:
        return cv2.GaussianBlur(crop, (0, 0), random.uniform(0.3, 1.2))
    if chance < jitter.blur + jitter.sharpen:
        soft = cv2.GaussianBlur(crop, (0, 0), 1.0)
        amount = random.uniform(0.2, 0.9)
        return cv2.addWeighted(crop, 1 + amount, soft, -amount, 0)
    return crop


def _recompress(crop: RGB, random: Random) -> RGB:
    quality = int(random.integers(50, 96))
    blue_first = cv2.cvtColor(crop, cv2.COLOR_RGB2BGR)
    _, stream = cv2.imencode(".jpg", blue_first, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.cvtColor(cv2.imdecode(stream, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def _cut_out(crop: RGB, random: Random) -> RGB:
    side = crop.shape[0]
    width, height = random.integers(side // 10, side // 4, 2)
    x, y = random.integers(0, side - width), random.integers(0, side - height)
    cut = crop.copy()
    cut[y : y + height, x : x + width] = 0
    return cut

"""Light and stain: from gray levels to optical density, whatever the lamp and its shadows.

Densities are float32, height × width × 3 in the order red, green, blue; clear glass is 0 and a
density of 0.3 halves the light. Beer and Lambert: densities of what lies on each other add up,
and a stronger stain multiplies them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.domain import RGB

Density = NDArray[np.float32]
Map = NDArray[np.float32]

GLASS_SHARE = 0.10
"""At least this share of a field's pixels is taken for clear glass, or for what is clearest."""
GLASS_LEVEL = 240.0
"""Gray level that the lamp is brought to; a little below white, so that glass is not clipped."""
_DENSITY_OF_LEVEL = np.log10((GLASS_LEVEL + 1) / (np.arange(256) + 1.0)).astype(np.float32)
LAMP_PX = 120
"""Longer side of the copy: shading has no detail."""
GRID = 12
"""The lamp is measured in this many cells along the longer side."""
EVEN_RANGE = (0.75, 1.08)
"""What is believed of an even lamp, times its usual level: beyond, a surface has left the glass."""
LEAST_SHADED, LEAST_PARTS = 12, 48
"""Parts of a picture from which shading, and the shading of a poor camera, are told."""
UNEVEN_FROM = 1.35
"""Most light over least light; fields of good cameras have 1.2 at most, poor ones 1.6 and more."""
UNEVEN_RANGE = (0.3, 1.5)
MOST_UNEVEN_CONTRAST = 0.4
"""A poor camera's field is faint as well; what has more contrast may be a scene with its shadows.
"""
STIFFNESS = 0.001
"""What holds the terms of third and fourth degree, for each part of the picture."""


def optical_density(pixels: RGB, lamp: Density | None = None) -> Density:
    """Density of each pixel against the lamp as it shines at that place.

    `lamp` is that of the same field, where it was measured already.
    """
    height, width = pixels.shape[:2]
    light = estimate_illumination(pixels) if lamp is None else lamp
    light = np.asarray(
        cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32
    )
    flat = cv2.divide(pixels, light, scale=GLASS_LEVEL, dtype=cv2.CV_8U)
    return np.asarray(cv2.LUT(flat, _DENSITY_OF_LEVEL), dtype=np.float32)


def estimate_illumination(pixels: RGB) -> Density:
    """Gray level of clear glass, with its shading, on a coarse copy of the field.

    A surface of second degree through the brightest pixels of each part of the picture. Parts
    without glass do not pull it down: they lie under the surface and lose their weight. Where
    that surface is far from flat, as with a poor camera, one of fourth degree follows the light.
    """
    height, width = pixels.shape[:2]
    step = max(1, max(height, width) // LAMP_PX)
    size = (max(width // step, 1), max(height // step, 1))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    places, levels = _glass_of_each_part(small)
    usual = np.percentile(levels, 90, axis=0)
    surface, (low, high) = _surface(small.shape, places, levels, degree=2), EVEN_RANGE
    if len(places) >= LEAST_PARTS and _unevenness(surface) > UNEVEN_FROM:
        closer = _surface(small.shape, places, levels, degree=4)
        if _contrast(small, closer) < MOST_UNEVEN_CONTRAST:
            surface, (low, high) = closer, UNEVEN_RANGE
    least = np.maximum(low * usual, 1.0)
    most = np.maximum(np.minimum(high * usual, 255.0), 1.0)
    planes = [np.clip(p, *ends) for p, *ends in zip(surface, least, most, strict=True)]
    return np.asarray(cv2.merge(planes), dtype=np.float32)


def _unevenness(surface: Sequence[Map]) -> float:
    """How much more light falls on one place than on another, in the color that shows it most."""
    return max(float(plane.max()) / max(float(plane.min()), 1.0) for plane in surface)


def _contrast(small: Density, surface: Sequence[Map]) -> float:
    """Green density below which 99 of 100 pixels lie, if the light is as this surface says."""
    green = np.maximum(small[..., 1], 1.0)
    return float(np.percentile(np.log10(np.maximum(surface[1], 1.0) / green), 99))


def _glass_of_each_part(small: Density) -> tuple[NDArray[np.float32], Density]:
    """Place (-1 to 1) and brightest gray level of each part, brightest by its darkest color."""
    height, width = small.shape[:2]
    side = max(8, int(np.ceil(max(height, width) / GRID)))
    places, levels = [], []
    for top, tall, rows in _stretches(height, side):
        for left, wide, columns in _stretches(width, side):
            block = small[top : top + tall * rows, left : left + wide * columns]
            parts = block.reshape(rows, tall, columns, wide, 3).swapaxes(1, 2)
            levels.append(_brightest(parts.reshape(rows * columns, tall * wide, 3)))
            down, across = np.mgrid[:rows, :columns].reshape(2, -1) * side + side / 2
            places.append(
                np.stack([(across + left) / width * 2 - 1, (down + top) / height * 2 - 1], axis=1)
            )
    return np.concatenate(places).astype(np.float32), np.concatenate(levels)


def _stretches(length: int, side: int) -> Iterator[tuple[int, int, int]]:
    """Start, side and number of the whole parts along a length, and of the rest."""
    whole, rest = divmod(length, side)
    if whole:
        yield 0, side, whole
    if rest:
        yield whole * side, rest, 1


def _brightest(parts: Density) -> Density:
    """The usual color of the brightest pixels of each part, N × pixels × 3."""
    count = max(round(parts.shape[1] * GLASS_SHARE), 1)
    chosen = np.argpartition(parts[..., 1], -count, axis=1)[:, -count:, None]
    brightest = np.sort(np.take_along_axis(parts, chosen, axis=1), axis=1)
    return np.asarray(brightest[:, count // 2], dtype=np.float32)


def _surface(
    shape: tuple[int, ...], places: NDArray[np.float32], levels: Density, degree: int
) -> list[Map]:
    """A plane for each color, height × width, that lies on the brightest of the parts."""
    powers = _powers(degree if len(places) >= LEAST_SHADED else 0)
    factors = _upper_factors(places, levels, powers)
    height, width = shape[:2]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    planes = []
    for of_color in factors.T:
        plane = np.zeros((height, width), np.float32)
        for factor, (across, down) in zip(of_color, powers, strict=True):
            plane += factor * x**across * y**down
        planes.append(plane)
    return planes


def _powers(degree: int) -> list[tuple[int, int]]:
    """Of x and of y in each term of a surface, the lowest first."""
    return [(total - down, down) for total in range(degree + 1) for down in range(total + 1)]


def _upper_factors(
    places: NDArray[np.float32], levels: Density, powers: list[tuple[int, int]]
) -> NDArray[np.float32]:
    """Factors of the terms (rows) for each color (columns); parts below the surface give way.

    Terms beyond the second degree are held small, so that they only follow what lies all over.
    """
    x, y = places[:, 0], places[:, 1]
    terms = np.stack([x**across * y**down for across, down in powers], axis=1)
    held = [place for place, power in enumerate(powers) if sum(power) > 2]
    stiff = np.zeros((len(held), len(powers)), np.float32)
    stiff[np.arange(len(held)), held] = (STIFFNESS * len(places)) ** 0.5
    none = np.zeros((len(held), levels.shape[1]), np.float32)
    weights = np.ones(len(places), np.float32)
    factors = np.zeros((terms.shape[1], 3), np.float32)
    for _ in range(4):
        root = np.sqrt(weights)[:, None]
        rows, wanted = np.concatenate([terms * root, stiff]), np.concatenate([levels * root, none])
        factors = np.linalg.lstsq(rows, wanted, rcond=None)[0].astype(np.float32)
        missing = np.max(terms @ factors - levels, axis=1)
        weights = np.exp(-np.maximum(missing, 0) / 8.0).astype(np.float32) + 1e-3
    return factors


def green_of(density: Density) -> Map:
    """Its density in green light, which every stain of a smear holds back."""
    return np.asarray(cv2.extractChannel(density, 1), dtype=np.float32)


def stained_level(green: Map) -> float:
    """Green density from which a pixel is not glass: between glass and red cells (Otsu)."""
    gray = np.clip(green * 400, 0, 255).astype(np.uint8)
    # Nuclei would pull the level up: everything darker than most red cells counts as one of them.
    counts = np.cumsum(cv2.calcHist([gray], [0], None, [256], [0, 256]))
    most = int(np.searchsorted(counts, 0.9 * counts[-1]))
    gray = np.minimum(gray, np.uint8(max(most, 24)))
    level, _ = cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return max(float(level) / 400, 0.03)


_VIOLET = np.array([[1.0, 1.0, -1.0]], np.float32)


def stain_hue(density: Density) -> Map:
    """How much azure violet of nuclei a pixel holds: red and green are held back, blue is not.

    Haemoglobin holds back green and blue, so red cells stay near a quarter of a nucleus.
    """
    return np.asarray(cv2.transform(density, _VIOLET), dtype=np.float32)


BLUE_RED_CELLS = (0.8, 1.05)
"""Red over green density of red cells: below the first they are red, above the second blue."""


def nuclear_stain(density: Density, stained: NDArray[np.uint8]) -> Map:
    """Like `stain_hue`; where red cells are blue, what holds back green but not red.

    `stained` is 1 where something lies on the glass; its less violet half is taken for red cells.
    """
    color = stain_hue(density)
    inside = color[stained > 0]
    if inside.size < 50:
        return color
    red_cells = density[(stained > 0) & (color <= np.median(inside))]
    red, green, _ = np.median(red_cells, axis=0)
    low, high = BLUE_RED_CELLS
    blue = float(np.clip((red / max(green, 1e-3) - low) / (high - low), 0, 1))
    if blue == 0:
        return color
    weights = np.array([[1 - 2 * blue, 1 + blue, blue - 1]], np.float32)
    return np.asarray(cv2.transform(density, weights), dtype=np.float32)

"""A hundred pictures that are no blood smear, drawn anew from a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np

from pipeline.domain import RGB

Draw = Callable[[np.random.Generator, int, int], RGB]

EACH = 10
SIZES = ((480, 640), (512, 512), (224, 224), (768, 1024), (300, 400))


def not_smears(kind: Draw) -> Iterator[tuple[str, RGB]]:
    """Ten of one of the `KINDS`: a name and the picture."""
    for number in range(EACH):
        height, width = SIZES[number % len(SIZES)]
        random = np.random.default_rng([number, len(kind.__name__)])
        yield f"{kind.__name__[1:]}-{number}", kind(random, height, width)


def _noise(random: np.random.Generator, height: int, width: int) -> RGB:
    channels = int(random.choice([1, 3]))
    values = random.integers(0, 256, (height, width, channels)).astype(np.uint8)
    return np.repeat(values, 3 // channels, axis=2)


def _cloudy_noise(random: np.random.Generator, height: int, width: int) -> RGB:
    """Colored clouds of one size."""
    coarse = random.normal(128, 60, (height, width, 3)).astype(np.float32)
    sigma = float(random.uniform(3, 25))
    clouds = cv2.GaussianBlur(coarse, (0, 0), sigma)
    clouds = 128 + (clouds - clouds.mean()) * random.uniform(30, 55) / max(
        float(clouds.std()), 1e-3
    )
    return _bytes(clouds)


def _text_page(random: np.random.Generator, height: int, width: int) -> RGB:
    page = np.full((height, width, 3), random.integers(225, 256), np.uint8)
    ink = tuple(int(level) for level in random.integers(0, 90, 3))
    for base in range(24, height, int(random.integers(18, 34))):
        words = "".join(random.choice(list("abcdefghij klmnop qrstu"), 80))
        cv2.putText(page, words, (12, base), cv2.FONT_HERSHEY_SIMPLEX, 0.5, ink, 1, cv2.LINE_AA)
    return page


def _gradient(random: np.random.Generator, height: int, width: int) -> RGB:
    ends = random.integers(0, 256, (2, 3)).astype(np.float32)
    turn = random.uniform(0, np.pi)
    y, x = np.mgrid[0:height, 0:width]
    along = (x * np.cos(turn) + y * np.sin(turn)) / (width + height)
    along = (along - along.min()) / (along.max() - along.min())
    return _bytes(ends[0] + along[..., None] * (ends[1] - ends[0]) + random.normal(0, 1, (1, 1, 3)))


def _radiograph(random: np.random.Generator, height: int, width: int) -> RGB:
    """Gray: a bright trunk with ribs on black."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    body = 170 * np.exp(-((x / 0.75) ** 4) - (y / 1.1) ** 6)
    lungs = sum(np.exp(-(((x - side) / 0.22) ** 2) - (y / 0.55) ** 2) for side in (-0.35, 0.35))
    ribs = 18 * np.sin(random.uniform(14, 24) * (y + 0.3 * x**2))
    gray = body - 90 * lungs + ribs * lungs + random.normal(0, 5, (height, width))
    if random.random() < 0.3:
        gray = 255 - gray
    return np.repeat(_bytes(gray)[..., None], 3, axis=2)


def _landscape(random: np.random.Generator, height: int, width: int) -> RGB:
    """Like a photograph outdoors: sky, a ridge, leaves."""
    y = np.linspace(0, 1, height)[:, None, None]
    sky = np.array([120, 170, 235]) * (1 - 0.3 * y) + 60 * y
    ridge = 0.45 + 0.12 * np.cumsum(random.normal(0, 0.05, width))
    ground = np.linspace(0, 1, height)[:, None] > ridge[None, :]
    leaves = cv2.GaussianBlur(
        random.normal(0, 90, (height, width, 1)).astype(np.float32), (0, 0), 2
    )
    green = np.array([70, 110, 45]) + leaves[..., None] * np.array([1.0, 1.2, 0.7])
    picture = np.where(ground[..., None], green, np.broadcast_to(sky, (height, width, 3)))
    return _bytes(picture + random.normal(0, 4, (height, width, 3)))


def _portrait(random: np.random.Generator, height: int, width: int) -> RGB:
    """Like a photograph of a face: skin, hair and cloth before a wall."""
    wall = random.integers(90, 220, 3).astype(np.float32)
    picture = np.broadcast_to(wall, (height, width, 3)).copy()
    middle, axes = (width // 2, int(height * 0.42)), (int(width * 0.16), int(height * 0.26))
    cloth, hair = random.integers(20, 200, 3).tolist(), random.integers(15, 90, 3).tolist()
    cv2.ellipse(picture, (width // 2, height), (width // 3, height // 3), 0, 0, 360, cloth, -1)
    cv2.ellipse(picture, (middle[0], middle[1] - axes[1] // 3), axes, 0, 0, 360, hair, -1)
    skin = (np.array([224, 172, 140]) * random.uniform(0.5, 1.05)).tolist()
    cv2.ellipse(picture, middle, (int(axes[0] * 0.85), int(axes[1] * 0.85)), 0, 0, 360, skin, -1)
    for side in (-1, 1):
        eye = (middle[0] + side * axes[0] // 3, middle[1] - axes[1] // 6)
        cv2.circle(picture, eye, max(axes[0] // 9, 2), (40, 30, 30), -1)
    shaded = picture * (1 - 0.25 * np.linspace(0, 1, width))[None, :, None]
    soft = cv2.GaussianBlur(shaded.astype(np.float32), (0, 0), 1.5)
    return _bytes(soft + random.normal(0, 4, (height, width, 3)))


def _flat_discs(random: np.random.Generator, height: int, width: int) -> RGB:
    """Discs of one color on a ground of one color, without any shade."""
    ground, color = random.integers(0, 256, (2, 3))
    picture = np.full((height, width, 3), ground, np.uint8)
    for _ in range(int(random.integers(3, 40))):
        at = int(random.integers(0, width)), int(random.integers(0, height))
        cv2.circle(picture, at, int(random.integers(8, 40)), color.tolist(), -1)
    return picture


def _stripes(random: np.random.Generator, height: int, width: int) -> RGB:
    colors = random.integers(0, 256, (2, 3))
    wide, turn = random.uniform(3, 30), random.uniform(0, np.pi)
    y, x = np.mgrid[0:height, 0:width]
    first = np.sin((x * np.cos(turn) + y * np.sin(turn)) / wide) > 0
    return np.where(first[..., None], colors[0], colors[1]).astype(np.uint8)


def _square_code(random: np.random.Generator, height: int, width: int) -> RGB:
    """Like a QR code: black squares on white."""
    modules = random.integers(0, 2, (29, 29)).astype(np.uint8) * 255
    code = cv2.resize(modules, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.repeat(code[..., None], 3, axis=2)


def _bytes(values: np.ndarray) -> RGB:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


KINDS: tuple[Draw, ...] = (
    _noise,
    _cloudy_noise,
    _text_page,
    _gradient,
    _radiograph,
    _landscape,
    _portrait,
    _flat_discs,
    _stripes,
    _square_code,
)

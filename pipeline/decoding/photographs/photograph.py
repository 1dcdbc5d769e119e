"""A decoded photograph, and the checks and conversions that every format shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.decoding.frames import ImageLimits
from pipeline.domain import RGB
from pipeline.errors import Rejected

FORMATS = "JPEG, PNG, TIFF, BMP, GIF, WebP or AVIF"
MAX_PROFILE_BYTES = 16 * 1024 * 1024
_ICC_HEADER_BYTES = 128


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Photograph:
    """One picture, upright, without what a camera notes about places, owners and devices."""

    pixels: RGB
    icc_profile: bytes | None = None
    """Of RGB pixels; None where the file has none that is whole."""
    baseline_jpeg: bytes | None = None
    """The compressed frame where it can be stored as it is (DICOM JPEG Baseline)."""
    is_gray: bool = False


def check_size(rows: int, columns: int, limits: ImageLimits) -> None:
    """Refuse by the header, before anything is decoded."""
    if rows < 1 or columns < 1:
        raise Rejected("has no pixels", code="not_an_image")
    if rows * columns > limits.max_megapixels * 1e6:
        raise Rejected(
            f"claims {rows * columns / 1e6:.0f} megapixels, more than "
            f"{limits.max_megapixels:g} (image.max_megapixels)",
            code="too_large",
        )


def truncated() -> Rejected:
    """The file ends before its pixels do."""
    return Rejected("breaks off: copy or export it again", code="truncated_pixel_data")


def damaged(how: str) -> Rejected:
    """The pixels cannot be what was written."""
    return Rejected(f"is damaged ({how}): copy or export it again", code="corrupt_pixel_data")


def unsupported(what: str) -> Rejected:
    """A whole file, of a kind that is not read."""
    return Rejected(what, code="not_an_image")


def several_pages() -> Rejected:
    """One file is one field."""
    return Rejected("has several pages or frames: export one field per file", code="bad_count")


def color_on_white(color: NDArray[Any], alpha: NDArray[Any] | None) -> RGB:
    """H × W gray or H × W × 3 RGB of 8 or 16 bits, over white where it is transparent."""
    shown = to_8_bit(color)
    if shown.ndim == 2:
        shown = np.repeat(shown[:, :, np.newaxis], 3, axis=2)
    if alpha is None:
        return np.ascontiguousarray(shown)
    opacity = (alpha >> 8 if alpha.dtype == np.uint16 else alpha).astype(np.uint16)
    if opacity.min() == 255:
        return np.ascontiguousarray(shown)
    weight = opacity[:, :, np.newaxis]
    return ((shown * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)


def premultiplied_on_white(color: NDArray[Any], alpha: NDArray[Any]) -> RGB:
    """The same for colors that were multiplied by their opacity when they were stored."""
    shown = (color >> 8 if color.dtype == np.uint16 else color).astype(np.uint16)
    opacity = (alpha >> 8 if alpha.dtype == np.uint16 else alpha).astype(np.uint16)
    over_white = np.minimum(shown + (255 - opacity[:, :, np.newaxis]), 255)
    return np.asarray(over_white, dtype=np.uint8)


def to_8_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Samples of 8 or 16 bits as 8.

    Cameras of 10, 12 or 14 bits store right-aligned samples in 16. The background of a smear is
    bright, so the depth is the smallest that holds the brightest sample.
    """
    if values.dtype == np.uint8:
        return np.asarray(values)
    brightest = int(values.max(initial=0))
    bits = next(depth for depth in (8, 10, 12, 14, 16) if brightest < 1 << depth)
    highest = (1 << bits) - 1
    table = (np.arange(1 << bits, dtype=np.uint32) * 255 + highest // 2) // highest
    shown: NDArray[np.uint8] = np.take(table.astype(np.uint8), values)
    return shown


def upright(pixels: RGB, orientation: int) -> RGB:
    """Turned and mirrored as EXIF and TIFF orientation 1 to 8 ask (EXIF 2.32, 4.6.4)."""
    turned = pixels
    if orientation in (5, 6, 7, 8):
        turned = turned.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    return np.ascontiguousarray(turned)


def rgb_profile(profile: bytes | None) -> bytes | None:
    """The ICC profile where it is whole and describes RGB (ICC.1:2010 section 7.2), else None."""
    if profile is None or len(profile) < _ICC_HEADER_BYTES:
        return None
    size = int.from_bytes(profile[:4], "big")
    is_whole = _ICC_HEADER_BYTES <= size <= len(profile) and profile[36:40] == b"acsp"
    return bytes(profile[:size]) if is_whole and profile[16:20] == b"RGB " else None

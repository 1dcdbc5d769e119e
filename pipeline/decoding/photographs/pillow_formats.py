"""Reads BMP, GIF, WebP and AVIF files with Pillow, whose decoders refuse what breaks off."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.GifImagePlugin import GifImageFile

from pipeline.decoding.frames import ImageLimits
from pipeline.decoding.photographs.photograph import (
    Photograph,
    check_size,
    color_on_white,
    damaged,
    rgb_profile,
    several_pages,
    truncated,
    unsupported,
)
from pipeline.errors import Rejected

Box = tuple[int, int, int, int]

_FORMATS = ("BMP", "GIF", "WEBP", "AVIF")
_GRAY = frozenset({"1", "L", "LA"})
_V5_HEADER_BYTES = 124
_EMBEDDED = b"DEBM"
"""PROFILE_EMBEDDED of a BITMAPV5HEADER, little-endian."""


def read_with_pillow(content: bytes, limits: ImageLimits) -> Photograph:
    """Decode one still picture, upright by its EXIF orientation."""
    with warnings.catch_warnings(), _opened(content) as image:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        columns, rows = image.size
        check_size(rows, columns, limits)
        if getattr(image, "n_frames", 1) > 1:
            raise several_pages()
        box = _drawn_box(image)
        try:
            image.load()
        except (OSError, SyntaxError) as err:
            raise truncated() from err
        is_gray = image.mode in _GRAY
        shown = ImageOps.exif_transpose(image)
        profile = image.info.get("icc_profile") or _bmp_profile(content)
        if shown.mode == "CMYK":
            raise unsupported("is CMYK: export it as RGB")
        pixels = np.asarray(_without_undrawn(shown.convert("RGBA"), box))
    return Photograph(
        pixels=color_on_white(pixels[:, :, :3], _opacity(pixels[:, :, 3], content)),
        icc_profile=None if is_gray else rgb_profile(profile),
        is_gray=is_gray,
    )


def _drawn_box(image: Image.Image) -> Box | None:
    """Left, top, right and bottom of what a GIF draws on its screen (GIF89a section 20)."""
    if not isinstance(image, GifImageFile) or not image.tile:
        return None
    return image.tile[0].extents


def _without_undrawn(shown: Image.Image, box: Box | None) -> Image.Image:
    """Transparent where a GIF draws nothing; Pillow fills with the first color."""
    if box is None or box == (0, 0, *shown.size):
        return shown
    drawn = Image.new("RGBA", shown.size)
    drawn.paste(shown.crop(box), box)
    return drawn


def _opened(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=_FORMATS)
    except Image.DecompressionBombError as err:
        raise Rejected("claims more pixels than any photograph has", code="too_large") from err
    except (UnidentifiedImageError, SyntaxError) as err:
        raise unsupported("has no header that can be read: copy or export it again") from err
    except OSError as err:
        raise damaged("it cannot be decoded") from err


def _opacity(alpha: np.ndarray, content: bytes) -> np.ndarray | None:
    """Many programs leave the fourth byte of a BMP at 0, and mean an opaque picture."""
    is_unused = content[:2] == b"BM" and not alpha.any()
    return None if is_unused else alpha


def _bmp_profile(content: bytes) -> bytes | None:
    """The profile embedded behind a BITMAPV5HEADER; Pillow does not read it."""
    size = int.from_bytes(content[14:18], "little")
    if content[:2] != b"BM" or size != _V5_HEADER_BYTES or content[70:74] != _EMBEDDED:
        return None
    offset, length = (int.from_bytes(content[at : at + 4], "little") for at in (126, 130))
    return content[14 + offset : 14 + offset + length]

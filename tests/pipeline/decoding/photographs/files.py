"""Photograph files of every kind, made in memory."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

PIXELS: NDArray[np.uint8]
_rows, _columns = np.mgrid[0:96, 0:128]
PIXELS = (
    np.dstack([230 - _columns // 2, 200 - _rows, 190 + (_columns * _rows) % 40])
    .clip(0, 255)
    .astype(np.uint8)
)
PIXELS[30:60, 40:80] = (90, 40, 140)
HEIGHT, WIDTH = PIXELS.shape[:2]
ICC_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pillow(form: str, pixels: NDArray[Any] = PIXELS, **options: Any) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, form, **options)
    return target.getvalue()


def oriented(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = value
    return exif


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def png(
    raw: bytes,
    *,
    columns: int = WIDTH,
    rows: int = HEIGHT,
    depth: int = 8,
    color: int = 2,
    chunks: bytes = b"",
    packed: bytes | None = None,
) -> bytes:
    """A PNG whose rows, with their filter bytes, are `raw`."""
    header = struct.pack(">LLBBBBB", columns, rows, depth, color, 0, 0, 0)
    data = zlib.compress(raw) if packed is None else packed
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + chunks
        + png_chunk(b"IDAT", data)
        + png_chunk(b"IEND", b"")
    )


def png_16(samples: NDArray[np.uint16]) -> bytes:
    rows = (b"\0" + row.astype(">u2").tobytes() for row in samples)
    return png(b"".join(rows), depth=16)


def tiff(
    pixels: NDArray[Any] = PIXELS,
    *,
    photometric: int = 2,
    compression: int = 1,
    strips: list[bytes] | None = None,
    rows_per_strip: int | None = None,
    order: Literal["<", ">"] = "<",
    **tags: int | tuple[int, ...],
) -> bytes:
    """A TIFF of one page; `strips` are stored as they are. More tags by number: `t338=0`."""
    rows, columns = pixels.shape[:2]
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    data = [pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()] if strips is None else strips
    offsets, body, position = [], b"", 8
    for strip in data:
        offsets.append(position)
        body += strip + b"\0" * (len(strip) % 2)
        position = 8 + len(body)
    entries: dict[int, tuple[int, ...]] = {
        256: (columns,),
        257: (rows,),
        258: (pixels.dtype.itemsize * 8,) * samples,
        259: (compression,),
        262: (photometric,),
        273: tuple(offsets),
        277: (samples,),
        278: (rows_per_strip or rows,),
        279: tuple(len(strip) for strip in data),
        284: (1,),
    }
    for name, value in tags.items():
        entries[int(name[1:])] = value if isinstance(value, tuple) else (value,)
    directory = struct.pack(order + "H", len(entries))
    extra_at = 8 + len(body) + 2 + 12 * len(entries) + 4
    extra = b""
    for tag, values in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(values)}L", *values)
        place = packed.ljust(4, b"\0")
        if len(values) > 1:
            place = struct.pack(order + "L", extra_at + len(extra))
            extra += packed
        directory += struct.pack(order + "HHL", tag, 4, len(values)) + place
    mark = b"II*\0" if order == "<" else b"MM\0*"
    start = struct.pack(order + "L", 8 + len(body))
    return mark + start + body + directory + bytes(4) + extra


def bmp_bitfields(alpha: NDArray[np.uint8] | int) -> bytes:
    """A BMP of 32 bits whose header names an alpha channel (BITMAPV4HEADER)."""
    four = np.empty((HEIGHT, WIDTH, 4), np.uint8)
    four[..., :3], four[..., 3] = PIXELS[..., ::-1], alpha
    body = four[::-1].tobytes()
    header = struct.pack("<LllHHLLllLL", 108, WIDTH, HEIGHT, 1, 32, 3, len(body), 2835, 2835, 0, 0)
    header += struct.pack("<LLLL", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    head = b"BM" + struct.pack("<LHHL", 14 + len(header) + len(body), 0, 0, 14 + len(header))
    return head + header + body


def bmp_v5(profile: bytes) -> bytes:
    """A BMP of 24 bits with an embedded color profile (BITMAPV5HEADER)."""
    body = PIXELS[::-1, :, ::-1].tobytes()
    header = struct.pack("<LllHHLLllLL", 124, WIDTH, HEIGHT, 1, 24, 0, len(body), 0, 0, 0, 0)
    header += bytes(16) + b"DEBM" + bytes(48)
    header += struct.pack("<LLLL", 4, 124 + len(body), len(profile), 0)
    head = b"BM" + struct.pack("<LHHL", 14 + len(header) + len(body), 0, 0, 14 + len(header))
    return head + header + body + profile


def lab() -> bytes:
    """CIELab of 8 bits, a* and b* signed."""
    signed = cv2.cvtColor(PIXELS, cv2.COLOR_RGB2LAB) ^ np.array([0, 128, 128], np.uint8)
    return tiff(signed, photometric=8)


def spoiled(content: bytes, *, at: float = 0.5, length: int = 30) -> bytes:
    """The file with zeros in the middle."""
    start = int(len(content) * at)
    return content[:start] + bytes(length) + content[start + length :]


def flipped(content: bytes, *, at: float = 0.5, length: int = 30) -> bytes:
    """The file with other bits in the middle, none of them a JPEG marker."""
    start = int(len(content) * at)
    middle = bytes((byte ^ 0x55) & 0x7F for byte in content[start : start + length])
    return content[:start] + middle + content[start + length :]

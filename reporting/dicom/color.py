"""Color as DICOM wants it: CIELab values for layers and segments, an ICC profile for sRGB."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

SRGB_TO_XYZ_D50: NDArray[np.float64] = np.array(
    [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
)
"""Linear sRGB to XYZ, adapted to D50 (Bradford), as the profile connection space asks."""
D50: NDArray[np.float64] = np.array([0.9642, 1.0, 0.8249])


def cielab(color: tuple[int, int, int]) -> list[int]:
    """An sRGB color (0 to 255) as the three unsigned 16-bit values of PS3.3 C.10.7.1.1."""
    share = np.array(color) / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    ratio = SRGB_TO_XYZ_D50 @ linear / D50
    x, y, z = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    lightness, a, b = 116 * y - 16, 500 * (x - y), 200 * (y - z)
    scaled = lightness / 100 * 65535, (a + 128) / 255 * 65535, (b + 128) / 255 * 65535
    return [round(min(65535.0, max(0.0, float(value)))) for value in scaled]


def srgb_profile() -> bytes:
    """An ICC profile of class `scnr` for sRGB (ICC.1:2010, three-component matrix).

    DICOM takes an input or color-space profile here, not the display profile that color
    libraries give (PS3.3 C.11.15); written by hand, so the bytes never change.
    """
    columns = SRGB_TO_XYZ_D50.T
    curve = b"para\x00\x00\x00\x00" + struct.pack(">HH", 3, 0) + _curve_parameters()
    tags = {
        b"desc": _text("sRGB"),
        b"cprt": _text("No copyright"),
        b"wtpt": _xyz(D50),
        b"rXYZ": _xyz(columns[0]),
        b"gXYZ": _xyz(columns[1]),
        b"bXYZ": _xyz(columns[2]),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    return _assembled(tags)


def _curve_parameters() -> bytes:
    """Of the sRGB transfer function (IEC 61966-2-1): g, a, b, c, d."""
    return b"".join(_fixed(value) for value in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))


def _assembled(tags: dict[bytes, bytes]) -> bytes:
    """Header, tag table and tag data; equal data is stored once."""
    start = 128 + 4 + 12 * len(tags)
    offsets: dict[bytes, int] = {}
    body = b""
    for data in tags.values():
        if data not in offsets:
            offsets[data] = start + len(body)
            body += data + b"\x00" * (-len(data) % 4)
    table = struct.pack(">I", len(tags)) + b"".join(
        name + struct.pack(">II", offsets[data], len(data)) for name, data in tags.items()
    )
    return _header(start + len(body)) + table + body


def _header(size: int) -> bytes:
    """ICC.1:2010 section 7.2, with a fixed creation date."""
    return (
        struct.pack(">I", size)
        + b"\x00\x00\x00\x00\x04\x20\x00\x00scnrRGB XYZ "
        + struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
        + b"acsp"
        + b"\x00" * 28
        + b"".join(_fixed(value) for value in D50)
        + b"\x00" * 48
    )


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ \x00\x00\x00\x00" + b"".join(_fixed(float(value)) for value in values)


def _text(words: str) -> bytes:
    """A multi-localised text of one English record."""
    coded = words.encode("utf-16-be")
    return (
        b"mluc\x00\x00\x00\x00"
        + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(coded), 28)
        + coded
    )

"""Decodes JPEG frames strictly (ITU-T T.81): what libjpeg warns of is refused, or repaired first.

Its decoder needs to know the color space beforehand.
"""

from __future__ import annotations

from typing import Any

import simplejpeg
from numpy.typing import NDArray

from pipeline.decoding.codestream import FRAME_HEADERS, Segment, segments
from pipeline.decoding.jpeg_dc_shift import has_dc_shift
from pipeline.decoding.jpeg_headers import (
    APP0,
    APP14,
    has_every_scan,
    with_plain_headers,
    without_notes,
)
from pipeline.errors import Rejected

_SCAN = b"\xff\xda"
_MAX_SCANS = 100
"""Progressive encoders write about ten; each one costs the decoder a pass over all pixels."""
_ADOBE_BYTES = 12
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x65\x00\x00\x00\x00"
"""An APP14 segment up to its last byte, the color transform: 0 none, 1 YCbCr."""


def decode_jpeg(frame: bytes, *, photometric: str) -> tuple[NDArray[Any], str]:
    """Decode baseline JPEG: H × W gray or H × W × 3 RGB, uint8, and its color space now.

    A frame that says by itself whether it is YCbCr is believed: by a JFIF or Adobe segment, by
    components named R, G and B, or by coarser chroma, which RGB never has. Otherwise Photometric
    Interpretation decides (PS3.5 8.2.1), where libjpeg would always guess YCbCr.

    Raises Rejected `corrupt_pixel_data` for whatever libjpeg warns of, and for colors that
    shift half-way: cells must not be judged on what a decoder made up.
    """
    if frame.count(_SCAN) > _MAX_SCANS:
        raise _corrupt("it has more scans than any encoder writes")
    plain = without_notes(with_plain_headers(frame))
    stated = plain if _states_color(plain) else _with_color(plain, photometric)
    factors = _sampling_factors(frame)
    is_gray = len(factors) == 1
    try:
        pixels = simplejpeg.decode_jpeg(stated, "GRAY" if is_gray else "RGB", strict=True)
    except ValueError as err:
        raise _corrupt(str(err)) from err
    if has_dc_shift(pixels, _unit(factors)):
        raise _corrupt("its colors shift from one block on")
    if not has_every_scan(frame):
        raise Rejected("A compressed frame lacks some of its scans", code="truncated_pixel_data")
    if is_gray:
        return pixels[:, :, 0], photometric if photometric in _ONE_SAMPLE else "MONOCHROME2"
    return pixels, "RGB"


_ONE_SAMPLE = frozenset({"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"})


def _sampling_factors(frame: bytes) -> bytes:
    """Of each component, across in the upper and down in the lower half (ITU-T T.81 B.2.2)."""
    for segment in segments(frame):
        if segment.marker in FRAME_HEADERS and len(segment.body) in (9, 15):
            return bytes(segment.body[7::3])
    raise Rejected("A frame is not a JPEG of one or three components", code="decode_failed")


def _unit(factors: bytes) -> tuple[int, int]:
    """Rows and columns of one minimum coded unit (ITU-T T.81 A.2)."""
    if len(factors) == 1:
        return 8, 8
    return 8 * max(one & 15 for one in factors), 8 * max(one >> 4 for one in factors)


def _corrupt(how: str) -> Rejected:
    return Rejected(f"The pixel data is damaged: {how}", code="corrupt_pixel_data")


def _states_color(frame: bytes) -> bool:
    """Whether libjpeg will see for itself which color space the frame has."""
    for segment in segments(frame):
        if segment.marker in FRAME_HEADERS:
            return not _is_full_color(segment) or bytes(segment.body[6::3]) == b"RGB"
        body = bytes(segment.body[:_ADOBE_BYTES])
        if segment.marker == APP0 and body.startswith(b"JFIF"):
            return True
        # libjpeg skips a shorter Adobe segment, and so do we
        is_whole = len(body) == _ADOBE_BYTES
        if segment.marker == APP14 and body.startswith(b"Adobe") and is_whole:
            return True
    return True


def _is_full_color(header: Segment) -> bool:
    """Three components of one resolution (ITU-T T.81 B.2.2)."""
    return len(header.body) == 15 and header.body[7] == header.body[10] == header.body[13]


def _with_color(frame: bytes, photometric: str) -> bytes:
    """The frame with an Adobe segment that says what Photometric Interpretation says."""
    transform = b"\0" if photometric == "RGB" else b"\1"
    return frame[:2] + _ADOBE + transform + frame[2:]

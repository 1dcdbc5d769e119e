"""Look into a compressed frame before decoding it: its size, its end, and its colour space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Any

import simplejpeg
from numpy.typing import NDArray

from pipeline.decoding.jpeg_dc_shift import has_dc_shift
from pipeline.errors import Rejected

_EOI, _SOS = 0xD9, 0xDA
_SIZ = 0x51
_APP0, _APP14 = 0xE0, 0xEE
_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15 of JPEG (ITU-T T.81 table B.1), and SOF55 of JPEG-LS."""
_END = b"\xff\xd9"
_END_WITHIN = 64
"""How much padding may follow the end marker."""

_J2K_START = b"\xff\x4f\xff\x51"
_JP2_WITHIN = 64 * 1024
"""How long the boxes before the codestream may be; a colour profile is the largest."""

_SIZE = Struct(">BHH")
_SIZ_SIZE = Struct(">HLLLL")
_SEGMENT_LENGTH = Struct(">H")
_ADOBE_BYTES = 12
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x65\x00\x00\x00\x00"
"""An APP14 segment up to its last byte, the colour transform: 0 none, 1 YCbCr."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One marker segment; `body` is without marker and length."""

    marker: int
    body: memoryview


def check_frame(frame: bytes, *, rows: int, columns: int) -> None:
    """Hold a JPEG, JPEG-LS or JPEG 2000 frame to the size that its dataset gives.

    Raises Rejected `decode_failed` when the sizes differ or the frame is none of these, and
    `truncated_pixel_data` when its end is missing: decoders fill what is missing with gray.
    """
    if coded_size(frame) != (rows, columns):
        raise Rejected("A frame's own size is not Rows by Columns", code="decode_failed")
    if _END not in frame[-_END_WITHIN:]:
        raise Rejected("A compressed frame breaks off", code="truncated_pixel_data")


def coded_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns by the frame's own header; None when there is no such header."""
    for segment in segments(frame):
        if segment.marker in _FRAME_HEADERS and len(segment.body) >= _SIZE.size:
            _, rows, columns = _SIZE.unpack_from(segment.body)
            return rows, columns
        if segment.marker == _SIZ and len(segment.body) >= _SIZ_SIZE.size:
            _, right, bottom, left, top = _SIZ_SIZE.unpack_from(segment.body)
            return bottom - top, right - left
    return None


def segments(frame: bytes) -> Iterator[Segment]:
    """The marker segments before the entropy-coded data; none when it is no such stream."""
    position = _first_marker(frame) + 2
    view = memoryview(frame)
    while position + 4 <= len(frame) and view[position] == 0xFF:
        marker = view[position + 1]
        (length,) = _SEGMENT_LENGTH.unpack_from(view, position + 2)
        yield Segment(marker=marker, body=view[position + 4 : position + 2 + length])
        if marker in (_SOS, _EOI):
            return
        position += 2 + length


def _first_marker(frame: bytes) -> int:
    """Where the stream begins: at once, or inside a JP2 file, which some writers embed."""
    if frame[4:8] == b"jP  ":
        return max(0, frame.find(_J2K_START, 0, _JP2_WITHIN))
    return 0


def decode_jpeg(frame: bytes, *, photometric: str) -> tuple[NDArray[Any], str]:
    """Decode baseline JPEG: H × W gray or H × W × 3 RGB, uint8, and its colour space now.

    A frame that says by itself whether it is YCbCr (a JFIF or Adobe segment) is believed, and
    so is one with coarser chroma, which RGB never has. Otherwise Photometric Interpretation
    decides (PS3.5 8.2.1), where libjpeg would always guess YCbCr.

    Raises Rejected `corrupt_pixel_data` for whatever libjpeg warns of, and for colours that
    slipped half-way: cells must not be judged on what a decoder made up.
    """
    stated = frame if _states_colour(frame) else _with_colour(frame, photometric)
    factors = _sampling_factors(frame)
    is_gray = len(factors) == 1
    try:
        pixels = simplejpeg.decode_jpeg(stated, "GRAY" if is_gray else "RGB", strict=True)
    except ValueError as err:
        raise _corrupt(str(err)) from err
    if has_dc_shift(pixels, _unit(factors)):
        raise _corrupt("Its colours slip from one block on")
    return (pixels[:, :, 0], photometric) if is_gray else (pixels, "RGB")


def _sampling_factors(frame: bytes) -> bytes:
    """Of each component, across in the upper and down in the lower half (ITU-T T.81 B.2.2)."""
    for segment in segments(frame):
        if segment.marker in _FRAME_HEADERS and len(segment.body) in (9, 15):
            return bytes(segment.body[7::3])
    raise Rejected("A frame is no JPEG of one or three components", code="decode_failed")


def _unit(factors: bytes) -> tuple[int, int]:
    """Rows and columns of one minimum coded unit (ITU-T T.81 A.2)."""
    if len(factors) == 1:
        return 8, 8
    return 8 * max(one & 15 for one in factors), 8 * max(one >> 4 for one in factors)


def _corrupt(how: str) -> Rejected:
    return Rejected(f"The pixel data is damaged: {how}", code="corrupt_pixel_data")


def _states_colour(frame: bytes) -> bool:
    """Whether libjpeg will see for itself which colour space the frame has."""
    for segment in segments(frame):
        if segment.marker in _FRAME_HEADERS:
            return not _is_full_colour(segment)
        body = bytes(segment.body[:_ADOBE_BYTES])
        if segment.marker == _APP0 and body.startswith(b"JFIF"):
            return True
        # A shorter Adobe segment is passed over by libjpeg, and so by us
        is_whole = len(body) == _ADOBE_BYTES
        if segment.marker == _APP14 and body.startswith(b"Adobe") and is_whole:
            return True
    return True


def _is_full_colour(header: Segment) -> bool:
    """Three components of one resolution (ITU-T T.81 B.2.2)."""
    return len(header.body) == 15 and header.body[7] == header.body[10] == header.body[13]


def _with_colour(frame: bytes, photometric: str) -> bytes:
    """The frame with an Adobe segment that says what Photometric Interpretation says."""
    transform = b"\0" if photometric == "RGB" else b"\1"
    return frame[:2] + _ADOBE + transform + frame[2:]

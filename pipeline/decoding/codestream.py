"""Reads the headers of a compressed frame: size, components, color transform, and where it ends.

JPEG (ITU-T T.81), JPEG-LS (ITU-T T.87) and JPEG 2000 (ITU-T T.800), also inside a JP2 file.
Nothing is decoded here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto
from struct import Struct

from pipeline.errors import Rejected

_SOI, _EOI, SOS = 0xD8, 0xD9, 0xDA
_SOC, _SIZ, _COD, _SOT = 0x4F, 0x51, 0x52, 0x90
_SOF55 = 0xF7
_HUFFMAN_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), _SOF55}) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15 of JPEG (ITU-T T.81 table B.1), and SOF55 of JPEG-LS."""
_END = b"\xff\xd9"
_MARKER_IN_SCAN = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
"""What ends entropy-coded data: neither a stuffed byte nor a restart marker (T.81 B.1.1.5)."""

_J2K_START = b"\xff\x4f\xff\x51"
_JP2_START = b"jP  "
_JP2_WITHIN = 64 * 1024
"""How long the boxes before the codestream may be; a color profile is the largest."""

_SIZE = Struct(">BHHB")
"""Precision, rows, columns, components (T.81 B.2.2)."""
_SIZ_SIZE = Struct(">HLLLL")
_SIZ_COMPONENTS = Struct(">HB")
"""Csiz, and Ssiz of the first component (T.800 A.5.1)."""
_SIZ_COMPONENTS_AT = 34
_COD_TRANSFORM_AT = 4
"""Scod, progression order, layers (2 bytes), then the component transform (T.800 A.6.1)."""
_TILE_PART = Struct(">HHHL")
"""SOT, its length, the tile's number, and the length of the tile-part (T.800 A.4.2)."""
_SEGMENT_LENGTH = Struct(">H")


class Process(Enum):
    """Which decoder a frame needs, whatever its transfer syntax says."""

    JPEG = auto()
    """Sequential or progressive with Huffman codes: SOF0, SOF1, SOF2."""
    JPEG_OTHER = auto()
    """Lossless, hierarchical or with arithmetic codes."""
    JPEG_LS = auto()
    JPEG_2000 = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One marker segment; `body` is without marker and length."""

    marker: int
    body: memoryview
    at: int
    """Where its marker stands in the frame."""
    end: int
    """Where the next one may begin; beyond the frame where this one breaks off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Codestream:
    """What a compressed frame says of itself."""

    process: Process
    rows: int
    columns: int
    components: int
    bits: int
    """Precision of the first component."""
    is_signed: bool = False
    has_color_transform: bool = False
    """JPEG 2000: the decoder turns the components back into RGB (T.800 annex G)."""


def check_frame(frame: bytes, *, rows: int, columns: int) -> Codestream:
    """Read a JPEG, JPEG-LS or JPEG 2000 frame's header and compare it with its dataset.

    Raises Rejected `decode_failed` when the sizes differ or the frame is none of these,
    `truncated_pixel_data` when its end is missing (decoders fill what is missing with gray), and
    `bad_count` when another image follows. Padding of any length may follow.
    """
    found = read_codestream(frame)
    if found is None or (found.rows, found.columns) != (rows, columns):
        raise Rejected("A frame's own size is not Rows by Columns", code="decode_failed")
    end = end_of_image(frame)
    if end is None:
        raise Rejected("A compressed frame breaks off", code="truncated_pixel_data")
    if begins_image(frame[end:].lstrip(b"\0")):
        raise Rejected("Two images are stored as one frame", code="bad_count")
    return found


def read_codestream(frame: bytes) -> Codestream | None:
    """What the frame's own header says; None when there is no such header."""
    found: Codestream | None = None
    for segment in segments(frame):
        if segment.marker in FRAME_HEADERS and len(segment.body) >= _SIZE.size:
            bits, rows, columns, components = _SIZE.unpack_from(segment.body)
            return Codestream(
                process=_process(segment.marker),
                rows=rows,
                columns=columns,
                components=components,
                bits=bits,
            )
        if segment.marker == _SIZ:
            found = _image_size(segment.body)
        if segment.marker == _COD and found and len(segment.body) > _COD_TRANSFORM_AT:
            return replace(found, has_color_transform=bool(segment.body[_COD_TRANSFORM_AT]))
    return found


def _process(marker: int) -> Process:
    if marker == _SOF55:
        return Process.JPEG_LS
    return Process.JPEG if marker in _HUFFMAN_FRAMES else Process.JPEG_OTHER


def _image_size(body: memoryview) -> Codestream | None:
    if len(body) < _SIZ_COMPONENTS_AT + _SIZ_COMPONENTS.size:
        return None
    _, right, bottom, left, top = _SIZ_SIZE.unpack_from(body)
    components, depth = _SIZ_COMPONENTS.unpack_from(body, _SIZ_COMPONENTS_AT)
    return Codestream(
        process=Process.JPEG_2000,
        rows=bottom - top,
        columns=right - left,
        components=components,
        bits=(depth & 0x7F) + 1,
        is_signed=bool(depth & 0x80),
    )


def begins_image(data: bytes) -> bool:
    """Whether a codestream, or a JP2 file, begins here."""
    return data[:3] == b"\xff\xd8\xff" or data[:4] == _J2K_START or data[4:8] == _JP2_START


def end_of_image(frame: bytes) -> int | None:
    """Where the end marker ends; None when the stream breaks off before it.

    Segments and tile-parts are skipped by their length, so that an end marker inside one of them,
    that of a thumbnail for example, is not taken for it.
    """
    start = _first_marker(frame)
    if start is None:
        return None
    is_jpeg_2000 = frame[start : start + 4] == _J2K_START
    position = start + 2
    while True:
        position = _after_fill(frame, position)
        marker = _marker_at(frame, position)
        if marker is None:
            return None
        if marker == _EOI:
            return position + 2
        if is_jpeg_2000 and marker == _SOT:
            return _end_of_tile_parts(frame, position)
        position += 2 + _length_at(frame, position + 2)
        if marker == SOS and not is_jpeg_2000:
            found = _MARKER_IN_SCAN.search(frame, position)
            if found is None:
                return None
            position = found.start()


def _end_of_tile_parts(frame: bytes, position: int) -> int | None:
    while position + _TILE_PART.size <= len(frame):
        marker, _, _, length = _TILE_PART.unpack_from(frame, position)
        if marker != 0xFF00 | _SOT:
            break
        if length == 0:  # the last tile-part, up to the end marker
            end = frame.find(_END, position + _TILE_PART.size)
            return None if end < 0 else end + len(_END)
        position += max(length, _TILE_PART.size)
    return position + len(_END) if frame[position : position + 2] == _END else None


def segments(frame: bytes) -> Iterator[Segment]:
    """The marker segments before the entropy-coded data; none in other data."""
    start = _first_marker(frame)
    if start is None:
        return
    position = _after_fill(frame, start + 2)
    while _marker_at(frame, position) is not None and position + 4 <= len(frame):
        segment = _segment_at(frame, position)
        yield segment
        if segment.marker in (SOS, _EOI, _SOT):
            return
        position = _after_fill(frame, segment.end)


def all_segments(frame: bytes) -> Iterator[Segment]:
    """The marker segments of a JPEG, those between its scans included."""
    position = _after_fill(frame, 2)
    while _marker_at(frame, position) not in (None, _EOI) and position + 4 <= len(frame):
        segment = _segment_at(frame, position)
        yield segment
        position = segment.end
        if segment.marker == SOS:
            found = _MARKER_IN_SCAN.search(frame, position)
            position = len(frame) if found is None else found.start()
        position = _after_fill(frame, position)


def _segment_at(frame: bytes, position: int) -> Segment:
    end = position + 2 + _length_at(frame, position + 2)
    body = memoryview(frame)[position + 4 : end]
    return Segment(marker=frame[position + 1], body=body, at=position, end=end)


def _after_fill(frame: bytes, position: int) -> int:
    """Any number of FFH may precede a marker (T.81 B.1.1.2)."""
    while frame[position : position + 2] == b"\xff\xff":
        position += 1
    return position


def _first_marker(frame: bytes) -> int | None:
    """Where the stream begins: at once, or inside a JP2 file, which some writers embed."""
    if frame[:2] == bytes((0xFF, _SOI)) or frame[:4] == _J2K_START:
        return 0
    if frame[4:8] == _JP2_START:
        found = frame.find(_J2K_START, 0, _JP2_WITHIN)
        return None if found < 0 else found
    return None


def _marker_at(frame: bytes, position: int) -> int | None:
    return (
        frame[position + 1]
        if frame[position : position + 1] == b"\xff" and (position + 1 < len(frame))
        else None
    )


def _length_at(frame: bytes, position: int) -> int:
    """Length of a segment with its own two bytes; a shorter one is taken as 2."""
    if position + 2 > len(frame):
        return 2
    (length,) = _SEGMENT_LENGTH.unpack_from(frame, position)
    return max(int(length), 2)

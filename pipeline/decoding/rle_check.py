"""Checks that an RLE frame is complete: decoders fill in what is missing and drop surplus.

A damaged length shifts everything after it, and the color planes no longer coincide.
"""

from __future__ import annotations

from struct import Struct

from pipeline.errors import Rejected

_OFFSETS = Struct("<16L")
_NO_OPERATION = 128
_PADDING = bytes((0, _NO_OPERATION))


def check_rle(frame: bytes, *, segments: int, segment_bytes: int) -> None:
    """Check that a frame has `segments` segments of `segment_bytes` decoded bytes each (PS3.5 G.3).

    Raises Rejected `truncated_pixel_data` when the last segment breaks off, `decode_failed` when
    there is no such header, `corrupt_pixel_data` when a segment gives too few or too many bytes.
    """
    if len(frame) < _OFFSETS.size:
        raise Rejected("A frame has no RLE header", code="decode_failed")
    number, *offsets = _OFFSETS.unpack_from(frame)
    if number != segments:
        raise Rejected("A frame does not have one RLE segment per byte plane", code="decode_failed")
    ends = [*offsets[1:number], len(frame)]
    for start, end in zip(offsets[:number], ends, strict=True):
        last = _end_of_segment(frame, start, segment_bytes)
        if end == len(frame) < last:
            raise Rejected("An RLE frame breaks off", code="truncated_pixel_data")
        if last > end or frame[last:end].strip(_PADDING):
            raise Rejected(
                "The pixel data is damaged: an RLE segment does not have one byte per pixel",
                code="corrupt_pixel_data",
            )


def begins_rle(fragment: bytes) -> bool:
    """Whether an RLE frame begins here: nothing else has such a header (PS3.5 G.5)."""
    if len(fragment) < _OFFSETS.size:
        return False
    number, *offsets = _OFFSETS.unpack_from(fragment)
    used, unused = offsets[:number], offsets[number:]
    return bool(used) and used[0] == _OFFSETS.size and used == sorted(used) and not any(unused)


def _end_of_segment(frame: bytes, start: int, segment_bytes: int) -> int:
    """End of the run that completes `segment_bytes`; beyond the frame if there is none.

    Raises Rejected `corrupt_pixel_data` when that run is longer.
    """
    at, made = start, 0
    while made < segment_bytes:
        if at >= len(frame):
            return len(frame) + 1
        head = frame[at]
        if head < _NO_OPERATION:
            made += head + 1
            at += head + 2
        elif head > _NO_OPERATION:
            made += 257 - head
            at += 2
        else:
            at += 1
    if made != segment_bytes:
        raise Rejected(
            "The pixel data is damaged: an RLE run crosses the end of its plane",
            code="corrupt_pixel_data",
        )
    return at

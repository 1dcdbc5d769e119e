"""RLE segments give one byte a pixel each, no fewer and no more (PS3.5 annex G)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decoding.rle_check import check_rle
from pipeline.errors import Rejected

FOUR = bytes([3]) + b"abcd"
"""A literal run of four bytes."""
FOUR_ALIKE = bytes([257 - 4]) + b"a"


def rle(*segments: bytes, number: int | None = None) -> bytes:
    offsets, at = [], 64
    for segment in segments:
        offsets.append(at)
        at += len(segment)
    offsets += [0] * (15 - len(offsets))
    header = struct.pack("<16L", len(segments) if number is None else number, *offsets)
    return header + b"".join(segments)


def why(frame: bytes, *, segments: int = 1, segment_bytes: int = 8) -> str:
    with pytest.raises(Rejected) as caught:
        check_rle(frame, segments=segments, segment_bytes=segment_bytes)
    return caught.value.code


@pytest.mark.parametrize(
    "segment",
    [
        FOUR + FOUR_ALIKE,
        FOUR + FOUR_ALIKE + b"\0",
        FOUR + b"\x80" + FOUR,
        FOUR_ALIKE + FOUR + b"\0\0\x80",
    ],
    ids=["runs", "padded", "no operation", "much padding"],
)
def test_a_whole_segment_passes(segment: bytes) -> None:
    check_rle(rle(segment, segment, segment), segments=3, segment_bytes=8)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"", "decode_failed"),
        (bytes(64), "decode_failed"),
        (rle(FOUR + FOUR, number=2), "decode_failed"),
        (rle(FOUR + FOUR, number=2**32 - 1), "decode_failed"),
        (rle(FOUR), "truncated_pixel_data"),
        (rle(FOUR + FOUR[:3]), "truncated_pixel_data"),
        (rle(b""), "truncated_pixel_data"),
        (rle(FOUR + bytes([4]) + b"abcde"), "corrupt_pixel_data"),
        (rle(FOUR + FOUR + FOUR), "corrupt_pixel_data"),
        (rle(FOUR + bytes([129]) + b"a"), "corrupt_pixel_data"),
    ],
    ids=[
        *("nothing", "no segment", "too few offsets", "a billion", "half", "broken off", "empty"),
        *("over the end", "goes on", "a run over the end"),
    ],
)
def test_what_is_refused(frame: bytes, code: str) -> None:
    assert why(frame) == code


def test_a_segment_that_is_short_while_others_are_whole() -> None:
    assert why(rle(FOUR, FOUR + FOUR), segments=2) == "corrupt_pixel_data"


def test_offsets_beyond_the_frame() -> None:
    frame = struct.pack("<16L", 1, 2**31, *[0] * 14) + FOUR + FOUR

    assert why(frame) == "truncated_pixel_data"


@given(st.binary(max_size=300))
def test_any_bytes_are_answered(tail: bytes) -> None:
    try:
        check_rle(struct.pack("<16L", 1, 64, *[0] * 14) + tail, segments=1, segment_bytes=100)
    except Rejected as err:
        assert err.code in ("truncated_pixel_data", "corrupt_pixel_data")

"""LZW as libtiff writes it is decoded exactly; what does not fit is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from pipeline.decoding.photographs.tiff_lzw import decode_lzw
from pipeline.errors import Rejected


def encoded(raw: bytes) -> bytes:
    """One strip by libtiff."""
    target = io.BytesIO()
    row = np.frombuffer(raw, np.uint8)[np.newaxis]
    Image.fromarray(row).save(target, "TIFF", compression="tiff_lzw")
    content = target.getvalue()
    with Image.open(io.BytesIO(content)) as image:
        assert isinstance(image, TiffImageFile)
        (offset,), (count,) = image.tag_v2[273], image.tag_v2[279]
    return content[offset : offset + count]


@given(st.binary(min_size=1, max_size=3000))
def test_any_bytes_come_back(raw: bytes) -> None:
    assert decode_lzw(encoded(raw), expected=len(raw)) == raw


@pytest.mark.parametrize("size", [1, 255, 4096, 60_000])
@pytest.mark.parametrize("kinds", [1, 2, 16, 256])
def test_tables_that_fill_up(size: int, kinds: int) -> None:
    raw = np.random.default_rng(size).integers(0, kinds, size).astype(np.uint8).tobytes()

    assert decode_lzw(encoded(raw), expected=size) == raw


@pytest.mark.parametrize("expected", [1, 999, 1001, 10**6])
def test_another_length_than_that_of_the_pixels(expected: int) -> None:
    coded = encoded(bytes(range(250)) * 4)

    with pytest.raises(Rejected) as caught:
        decode_lzw(coded, expected=expected)

    assert caught.value.code == "corrupt_pixel_data"


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 40, bytes(40), b"\x80\x40" * 9])
def test_junk(data: bytes) -> None:
    with pytest.raises(Rejected):
        decode_lzw(data, expected=1000)

"""A compressed frame is looked into before it is decoded, and whatever it holds is answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import get_frame
from pydicom.uid import (
    JPEG2000,
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
)

from pipeline.decoding.codestream import check_frame, read_codestream, segments
from pipeline.errors import Rejected
from tests.builders import build_image

MARKED = (JPEGBaseline8Bit, JPEG2000Lossless, JPEG2000, HTJ2KLossless, JPEGLSLossless)


def frame_of(syntax: UID) -> bytes:
    image = build_image(transfer_syntax=syntax)
    return get_frame(image.PixelData, 0, number_of_frames=1)


def why(frame: bytes, *, rows: int = 80, columns: int = 96) -> str:
    with pytest.raises(Rejected) as caught:
        check_frame(frame, rows=rows, columns=columns)
    return caught.value.code


class TestCheckFrame:
    @pytest.mark.parametrize("syntax", MARKED, ids=lambda syntax: syntax.name)
    def test_a_whole_frame_passes(self, syntax: UID) -> None:
        frame = frame_of(syntax)

        check_frame(frame, rows=80, columns=96)

        found = read_codestream(frame)
        assert found is not None
        assert (found.rows, found.columns, found.components, found.bits) == (80, 96, 3, 8)

    @pytest.mark.parametrize("syntax", MARKED, ids=lambda syntax: syntax.name)
    def test_padding_after_the_end_passes(self, syntax: UID) -> None:
        check_frame(frame_of(syntax) + bytes(7), rows=80, columns=96)

    @pytest.mark.parametrize("syntax", MARKED, ids=lambda syntax: syntax.name)
    def test_rows_and_columns_exchanged(self, syntax: UID) -> None:
        assert why(frame_of(syntax), rows=96, columns=80) == "decode_failed"

    @pytest.mark.parametrize("syntax", MARKED, ids=lambda syntax: syntax.name)
    def test_no_end_marker(self, syntax: UID) -> None:
        assert why(frame_of(syntax)[:-8]) == "truncated_pixel_data"

    @pytest.mark.parametrize(
        "junk", [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xc0\x00", b"GIF89a" * 9]
    )
    def test_what_is_no_codestream(self, junk: bytes) -> None:
        assert why(junk) == "decode_failed"

    def test_a_size_that_breaks_off(self) -> None:
        assert read_codestream(b"\xff\xd8\xff\xc0\x00\x05\x08\x00\x50") is None

    def test_segments_of_no_length_come_to_an_end(self) -> None:
        assert read_codestream(b"\xff\xd8" + b"\xff\xe0\x00\x00" * 50) is None

    @given(st.binary(max_size=200))
    def test_any_bytes_are_read_to_an_end(self, tail: bytes) -> None:
        assert all(one.marker < 256 for one in segments(b"\xff\xd8" + tail))

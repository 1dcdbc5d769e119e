"""JPEG frames are decoded as they are, or refused: nothing is made up."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.decoding.jpeg_frame import decode_jpeg
from pipeline.errors import Rejected
from tests.builders import picture


def pillow_jpeg(**options: object) -> bytes:
    target = io.BytesIO()
    Image.fromarray(picture()).save(target, "JPEG", quality=95, **options)
    return target.getvalue()


class TestDecodeJpeg:
    @pytest.mark.parametrize("junk", [b"", b"\xff\xd8\xff\xd9", b"\xff\xd8" + bytes(300)])
    def test_no_jpeg(self, junk: bytes) -> None:
        with pytest.raises(Rejected) as caught:
            decode_jpeg(junk, photometric="RGB")

        assert caught.value.code == "decode_failed"

    def test_four_inks_are_refused(self) -> None:
        target = io.BytesIO()
        Image.fromarray(picture()).convert("CMYK").save(target, "JPEG")

        with pytest.raises(Rejected) as caught:
            decode_jpeg(target.getvalue(), photometric="RGB")

        assert caught.value.code == "decode_failed"

    def test_bytes_between_the_data_and_the_end(self) -> None:
        frame = pillow_jpeg()

        with pytest.raises(Rejected, match="extraneous") as caught:
            decode_jpeg(frame[:-2] + b"left over" * 9 + frame[-2:], photometric="YBR_FULL")

        assert caught.value.code == "corrupt_pixel_data"

    def test_data_that_ends_early_under_an_intact_end_marker(self) -> None:
        frame = pillow_jpeg()

        with pytest.raises(Rejected, match="premature end") as caught:
            decode_jpeg(frame[: len(frame) // 2] + b"\xff\xd9", photometric="YBR_FULL")

        assert caught.value.code == "corrupt_pixel_data"

    def test_a_restart_marker_that_was_lost(self) -> None:
        frame = cv2.imencode(".jpg", picture(), [cv2.IMWRITE_JPEG_RST_INTERVAL, 2])[1].tobytes()

        with pytest.raises(Rejected) as caught:
            decode_jpeg(frame.replace(b"\xff\xd3", b"\x12\x34"), photometric="YBR_FULL")

        assert caught.value.code == "corrupt_pixel_data"

    @pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
    @pytest.mark.parametrize("progressive", [False, True])
    @pytest.mark.parametrize("blocks", [0, 3])
    def test_each_way_in_which_encoders_write(
        self, subsampling: str, progressive: bool, blocks: int
    ) -> None:
        frame = pillow_jpeg(
            subsampling=subsampling, progressive=progressive, restart_marker_blocks=blocks
        )

        pixels, photometric = decode_jpeg(frame, photometric="YBR_FULL_422")

        assert photometric == "RGB"
        assert np.abs(pixels.astype(int) - picture()).mean() < 3

    @pytest.mark.parametrize("factor", [0x411111, 0x441111, 0x221111, 0x121111, 0x222111])
    def test_odd_sampling_of_the_chroma(self, factor: int) -> None:
        options = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
        shown = cv2.cvtColor(picture(), cv2.COLOR_RGB2BGR)
        frame = cv2.imencode(".jpg", shown, options)[1].tobytes()

        pixels, _ = decode_jpeg(frame, photometric="YBR_FULL_422")

        assert np.abs(pixels.astype(int) - picture()).mean() < 5

    def test_scans_without_number_are_not_decoded(self) -> None:
        frame = pillow_jpeg(progressive=True)
        last = frame.rindex(b"\xff\xda")

        with pytest.raises(Rejected, match="more scans") as caught:
            decode_jpeg(frame[:-2] + frame[last:-2] * 200 + frame[-2:], photometric="YBR_FULL")

        assert caught.value.code == "corrupt_pixel_data"

    def test_gray_keeps_its_photometric_interpretation(self) -> None:
        target = io.BytesIO()
        Image.fromarray(picture()[:, :, 1]).save(target, "JPEG", quality=95)

        pixels, photometric = decode_jpeg(target.getvalue(), photometric="MONOCHROME1")

        assert (pixels.shape, photometric) == ((80, 96), "MONOCHROME1")

    def test_rgb_that_says_so_is_not_taken_for_ycbcr(self) -> None:
        pixels, _ = decode_jpeg(pillow_jpeg(keep_rgb=True, subsampling=0), photometric="YBR_FULL")

        assert np.abs(pixels.astype(int) - picture()).mean() < 3

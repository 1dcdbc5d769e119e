"""Devices label pixels wrongly: the codestream decides, padding is no fault, no frame is lost."""

from __future__ import annotations

import io
import struct
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from openjpeg.utils import encode_array
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate, encapsulate_extended, get_frame
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from pipeline.decoding.frames import ImageLimits, read_frames
from pipeline.domain import RGB
from pipeline.errors import Rejected
from tests.builders import build_image, picture

MARKED = (JPEGBaseline8Bit, JPEG2000Lossless, JPEG2000, HTJ2KLossless, JPEGLSLossless)
"""Syntaxes whose frames end with a marker."""


def frame_of(syntax: UID, *, number: int = 1) -> bytes:
    image = build_image(transfer_syntax=syntax, pixels=picture(number=number))
    return get_frame(image.PixelData, 0, number_of_frames=1)


def items(*parts: bytes, table: bytes = b"") -> bytes:
    """A basic offset table and fragments, as they are."""
    padded = [table, *(part + b"\0" * (len(part) % 2) for part in parts)]
    return b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(part)) + part for part in padded)


def coded(syntax: UID, pixel_data: bytes, *, frames: int | None = None) -> FileDataset:
    image = build_image(transfer_syntax=syntax)
    image.PixelData = pixel_data
    if frames is not None:
        image.NumberOfFrames = frames
    return image


def pixels_of(image: FileDataset) -> RGB:
    (frame,) = read_frames(image)
    return frame.pixels


def code_of(image: FileDataset) -> str:
    with pytest.raises(Rejected) as caught:
        list(read_frames(image, limits=ImageLimits()))
    return caught.value.code


def mean_error(pixels: NDArray[Any], wanted: NDArray[Any]) -> float:
    assert pixels.shape == wanted.shape
    return float(np.abs(pixels.astype(int) - wanted).mean())


class TestFramesThatTheHeaderDoesNotCount:
    @pytest.mark.parametrize("syntax", [*MARKED, RLELossless], ids=lambda syntax: syntax.name)
    def test_every_frame_is_read_where_number_of_frames_is_absent(self, syntax: UID) -> None:
        image = coded(syntax, items(frame_of(syntax), frame_of(syntax, number=7)))

        assert [frame.frame for frame in read_frames(image)] == [1, 2]

    @pytest.mark.parametrize("syntax", [*MARKED, RLELossless], ids=lambda syntax: syntax.name)
    @pytest.mark.parametrize("stated", [1, 2])
    def test_more_frames_than_stated_are_refused(self, syntax: UID, stated: int) -> None:
        frames = [frame_of(syntax, number=number) for number in range(1, stated + 2)]

        assert code_of(coded(syntax, items(*frames), frames=stated)) == "bad_count"

    @pytest.mark.parametrize("syntax", MARKED, ids=lambda syntax: syntax.name)
    def test_two_frames_in_one_fragment(self, syntax: UID) -> None:
        joined = frame_of(syntax) + frame_of(syntax, number=7)

        assert len(list(read_frames(coded(syntax, items(joined))))) == 2
        assert code_of(coded(syntax, items(joined), frames=1)) == "bad_count"

    def test_an_offset_table_that_lists_two(self) -> None:
        first, second = frame_of(JPEGBaseline8Bit), frame_of(JPEGBaseline8Bit, number=7)
        table = struct.pack("<LL", 0, len(first) + len(first) % 2 + 8)
        pixel_data = items(first, second, table=table)

        assert code_of(coded(JPEGBaseline8Bit, pixel_data, frames=1)) == "bad_count"
        assert len(list(read_frames(coded(JPEGBaseline8Bit, pixel_data)))) == 2

    def test_an_extended_offset_table(self) -> None:
        frames = [frame_of(JPEG2000Lossless), frame_of(JPEG2000Lossless, number=7)]
        image = coded(JPEG2000Lossless, b"")
        image.PixelData, image.ExtendedOffsetTable, image.ExtendedOffsetTableLengths = (
            encapsulate_extended(frames)
        )

        assert len(list(read_frames(image))) == 2

    @pytest.mark.parametrize("size", [64, 500, 1000])
    def test_a_frame_in_many_fragments_is_one(self, size: int) -> None:
        frame = frame_of(JPEGBaseline8Bit)
        pieces = [frame[at : at + size] for at in range(0, len(frame), size)]

        for stated in (None, 1):
            image = coded(JPEGBaseline8Bit, items(*pieces), frames=stated)
            assert pixels_of(image).shape == (80, 96, 3)

    def test_frames_in_unequal_fragments_without_an_offset_table(self) -> None:
        first, second = frame_of(JPEG2000Lossless), frame_of(JPEG2000Lossless, number=7)
        half = len(first) // 4 * 2
        image = coded(JPEG2000Lossless, items(first[:half], first[half:], second), frames=2)

        shown = [frame.pixels for frame in read_frames(image)]

        assert np.array_equal(shown[0], picture())
        assert np.array_equal(shown[1], picture(number=7))

    def test_native_frames(self) -> None:
        image = build_image()
        image.PixelData = picture().tobytes() + picture(number=7).tobytes()

        assert len(list(read_frames(image))) == 2
        image.NumberOfFrames = 1
        assert code_of(image) == "bad_count"

    @pytest.mark.parametrize("syntax", [*MARKED, RLELossless], ids=lambda syntax: syntax.name)
    def test_fewer_frames_than_stated(self, syntax: UID) -> None:
        image = coded(syntax, items(frame_of(syntax)), frames=2)

        assert code_of(image) == "truncated_pixel_data"

    def test_more_frames_than_the_site_allows(self) -> None:
        image = coded(JPEGBaseline8Bit, items(*[frame_of(JPEGBaseline8Bit)] * 65))

        assert code_of(image) == "bad_count"

    def test_a_thumbnail_inside_a_frame_is_not_a_frame(self) -> None:
        frame = frame_of(JPEGBaseline8Bit)
        thumbnail = cv2.imencode(".jpg", picture(32, 32))[1].tobytes()
        note = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail

        for stated in (None, 1):
            image = coded(JPEGBaseline8Bit, items(frame[:2] + note + frame[2:]), frames=stated)
            assert pixels_of(image).shape == (80, 96, 3)


class TestPadding:
    @pytest.mark.parametrize("syntax", MARKED, ids=lambda syntax: syntax.name)
    @pytest.mark.parametrize("padding", [1, 2, 63, 64, 512, 4096, 100_000])
    def test_zeros_behind_the_end_marker(self, syntax: UID, padding: int) -> None:
        image = coded(syntax, items(frame_of(syntax) + bytes(padding)), frames=1)

        assert pixels_of(image).shape == (80, 96, 3)

    @pytest.mark.parametrize("syntax", [*MARKED, RLELossless], ids=lambda syntax: syntax.name)
    @pytest.mark.parametrize("stated", [None, 1])
    def test_a_fragment_of_zeros(self, syntax: UID, stated: int | None) -> None:
        pixel_data = items(frame_of(syntax), bytes(256), bytes(2))

        assert pixels_of(coded(syntax, pixel_data, frames=stated)).shape == (80, 96, 3)

    @pytest.mark.parametrize("junk", [b"\xff" * 300, b" " * 300, b"made by a camera" * 20])
    def test_what_a_device_notes_behind_the_end_marker(self, junk: bytes) -> None:
        image = coded(JPEGBaseline8Bit, items(frame_of(JPEGBaseline8Bit) + junk), frames=1)

        assert pixels_of(image).shape == (80, 96, 3)

    @pytest.mark.parametrize("syntax", MARKED, ids=lambda syntax: syntax.name)
    @pytest.mark.parametrize("padding", [b"", bytes(2), bytes(600)])
    def test_padding_does_not_stand_for_a_missing_end(self, syntax: UID, padding: bytes) -> None:
        image = coded(syntax, items(frame_of(syntax)[:-40] + padding), frames=1)

        assert code_of(image) == "truncated_pixel_data"

    @pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLSLossless])
    def test_an_end_marker_in_a_note_does_not_stand_for_a_missing_end(self, syntax: UID) -> None:
        frame = frame_of(syntax)
        note = b"\xff\xfe\x00\x06\xff\xd9\xff\xd9"

        image = coded(syntax, items(frame[:2] + note + frame[2:-40]), frames=1)

        assert code_of(image) == "truncated_pixel_data"

    @pytest.mark.parametrize("filler", [b"\0", b"\xff", b" "])
    @pytest.mark.parametrize("padding", [1, 2, 64, 511, 4096])
    def test_native_pixels(self, filler: bytes, padding: int) -> None:
        image = build_image()
        image.PixelData += filler * padding

        assert np.array_equal(pixels_of(image), picture())

    def test_zeros_as_long_as_a_native_frame(self) -> None:
        for stated in (None, 1):
            image = build_image()
            image.PixelData += bytes(len(image.PixelData) * 2)
            if stated:
                image.NumberOfFrames = stated
            assert np.array_equal(pixels_of(image), picture())


YCC = np.asarray(Image.fromarray(picture()).convert("YCbCr"))


def jpeg_2000(samples: NDArray[Any], *, transform: bool) -> bytes:
    photometric = 0 if samples.ndim == 2 or not transform else 1
    return bytes(
        encode_array(
            np.ascontiguousarray(samples), photometric_interpretation=photometric, use_mct=transform
        )
    )


class TestColorsOfJpeg2000:
    @pytest.mark.parametrize("syntax", [JPEG2000, JPEG2000Lossless], ids=lambda one: one.name)
    @pytest.mark.parametrize("label", ["YBR_ICT", "YBR_RCT", "YBR_FULL", "YBR_FULL_422"])
    def test_ycbcr_without_a_transform(self, syntax: UID, label: str) -> None:
        """As Aperio's compression 33003 is wrapped."""
        image = coded(syntax, items(jpeg_2000(YCC, transform=False)))
        image.PhotometricInterpretation = label

        assert mean_error(pixels_of(image), picture()) < 1

    @pytest.mark.parametrize("syntax", [JPEG2000, JPEG2000Lossless], ids=lambda one: one.name)
    @pytest.mark.parametrize("label", ["YBR_ICT", "YBR_RCT", "YBR_FULL", "YBR_FULL_422", "RGB"])
    def test_a_transform_under_any_label(self, syntax: UID, label: str) -> None:
        image = coded(syntax, items(jpeg_2000(picture(), transform=True)))
        image.PhotometricInterpretation = label

        assert mean_error(pixels_of(image), picture()) == 0

    def test_rgb_without_a_transform(self) -> None:
        image = coded(JPEG2000Lossless, items(jpeg_2000(picture(), transform=False)))
        image.PhotometricInterpretation = "RGB"

        assert mean_error(pixels_of(image), picture()) == 0

    @pytest.mark.parametrize("label", ["YBR_FULL", "YBR_RCT", "YBR_ICT", "RGB"])
    def test_htj2k_with_its_transform_under_any_label(self, label: str) -> None:
        image = build_image(transfer_syntax=HTJ2KLossless)
        image.PhotometricInterpretation = label

        assert mean_error(pixels_of(image), picture()) == 0

    @pytest.mark.parametrize("stored", [8, 12, 16])
    def test_depth_by_the_codestream(self, stored: int) -> None:
        """16 bits of the codestream under another Bits Stored; the narrower of both is right."""
        deep = picture().astype(np.uint16) << (stored - 8)
        image = coded(JPEG2000Lossless, items(jpeg_2000(deep, transform=False)))
        image.PhotometricInterpretation = "RGB"
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, stored, stored - 1

        assert mean_error(pixels_of(image), picture()) <= 1

    def test_a_jp2_file_as_a_frame(self) -> None:
        target = io.BytesIO()
        Image.fromarray(picture()).save(target, "JPEG2000", irreversible=False, mct=1)
        image = coded(JPEG2000Lossless, items(target.getvalue()))
        image.PhotometricInterpretation = "YBR_FULL"

        assert mean_error(pixels_of(image), picture()) == 0


GRAY = picture()[:, :, 1]
AS_RGB = np.repeat(GRAY[:, :, None], 3, axis=2)


def jpeg(pixels: NDArray[Any], **options: Any) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "JPEG", quality=95, **options)
    return target.getvalue()


class TestComponents:
    @pytest.mark.parametrize("label", ["RGB", "YBR_FULL", "YBR_FULL_422"])
    def test_gray_jpeg_under_a_color_label(self, label: str) -> None:
        image = coded(JPEGBaseline8Bit, items(jpeg(GRAY)))
        image.PhotometricInterpretation = label

        assert mean_error(pixels_of(image), AS_RGB) < 2

    @pytest.mark.parametrize("label", ["RGB", "YBR_RCT", "YBR_ICT", "YBR_FULL"])
    def test_gray_jpeg_2000_under_a_color_label(self, label: str) -> None:
        image = coded(JPEG2000Lossless, items(jpeg_2000(GRAY, transform=False)))
        image.PhotometricInterpretation = label

        assert mean_error(pixels_of(image), AS_RGB) == 0

    @pytest.mark.parametrize("label", ["RGB", "YBR_FULL"])
    def test_gray_jpeg_ls_under_a_color_label(self, label: str) -> None:
        gray = build_image(transfer_syntax=JPEGLSLossless, photometric="MONOCHROME2")
        image = coded(JPEGLSLossless, gray.PixelData)
        image.PhotometricInterpretation = label

        assert mean_error(pixels_of(image), AS_RGB) == 0

    @pytest.mark.parametrize("label", ["MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"])
    @pytest.mark.parametrize(
        ("syntax", "frame"),
        [
            (JPEGBaseline8Bit, jpeg(picture(), subsampling=0)),
            (JPEGBaseline8Bit, jpeg(picture(), keep_rgb=True)),
            (JPEG2000Lossless, jpeg_2000(picture(), transform=True)),
            (JPEG2000Lossless, jpeg_2000(picture(), transform=False)),
            (JPEGLSLossless, frame_of(JPEGLSLossless)),
        ],
        ids=["jpeg", "jpeg-rgb", "j2k-mct", "j2k", "jpeg-ls"],
    )
    def test_color_under_a_gray_label(self, label: str, syntax: UID, frame: bytes) -> None:
        image = coded(syntax, items(frame))
        image.PhotometricInterpretation, image.SamplesPerPixel = label, 1

        assert mean_error(pixels_of(image), picture()) < 3

    def test_components_named_rgb_under_a_ycbcr_label(self) -> None:
        whole = jpeg(picture(), keep_rgb=True, subsampling=0)
        adobe = whole.index(b"\xff\xee")
        frame = whole[:adobe] + whole[adobe + 16 :]
        assert b"Adobe" not in frame
        image = coded(JPEGBaseline8Bit, items(frame))
        image.PhotometricInterpretation = "YBR_FULL"

        assert mean_error(pixels_of(image), picture()) < 3

    def test_a_rle_frame_of_one_plane_under_rgb_is_refused(self) -> None:
        gray = build_image(transfer_syntax=RLELossless, photometric="MONOCHROME2")

        assert code_of(coded(RLELossless, gray.PixelData)) == "decode_failed"

    def test_two_and_four_components_are_refused(self) -> None:
        cmyk = Image.fromarray(picture()).convert("CMYK")
        target = io.BytesIO()
        cmyk.save(target, "JPEG")

        assert code_of(coded(JPEGBaseline8Bit, items(target.getvalue()))) == "decode_failed"


class TestDepth:
    """Bits that are not samples, and YCbCr of more than 8 bits."""

    @pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
    @pytest.mark.parametrize("label", ["YBR_FULL", "YBR_FULL_422"])
    def test_native_ybr(self, bits: int, label: str) -> None:
        image = build_image(photometric=label, bits=bits)

        assert mean_error(pixels_of(image), picture()) < 3

    def test_native_ybr_in_planes(self) -> None:
        image = build_image(photometric="YBR_FULL", bits=12, planar=1)

        assert mean_error(pixels_of(image), picture()) < 3

    @pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
    def test_compressed_ybr_of_16_bits(self, syntax: UID) -> None:
        image = build_image(pixels=YCC, bits=16, transfer_syntax=syntax)
        image.PhotometricInterpretation = "YBR_FULL"

        assert mean_error(pixels_of(image), picture()) < 3

    def test_the_reversible_transform_of_16_bits(self) -> None:
        image = build_image(photometric="YBR_RCT", bits=16, transfer_syntax=JPEG2000Lossless)

        assert mean_error(pixels_of(image), picture()) < 1

    @pytest.mark.parametrize(("bits", "high"), [(12, 15), (12, 13), (10, 15), (10, 9), (8, 15)])
    @pytest.mark.parametrize("label", ["RGB", "YBR_FULL"])
    def test_samples_that_are_not_right_aligned(self, bits: int, high: int, label: str) -> None:
        image = build_image(photometric=label, bits=16)
        stored = np.frombuffer(image.PixelData, "<u2").astype(np.uint32) >> (16 - bits)
        noise = np.arange(stored.size) & ((1 << (high + 1 - bits)) - 1)
        shifted = (stored << (high + 1 - bits)) | noise
        image.PixelData = shifted.astype("<u2").tobytes()
        image.BitsStored, image.HighBit = bits, high

        assert mean_error(pixels_of(image), picture()) < 3

    @pytest.mark.parametrize("label", ["RGB", "MONOCHROME2"])
    def test_overlays_in_the_bits_above(self, label: str) -> None:
        plain = build_image(photometric=label, bits=12)
        stored = np.frombuffer(plain.PixelData, "<u2").copy()
        stored[::3] |= 0xA000
        image = build_image(photometric=label, bits=12)
        image.PixelData = stored.tobytes()

        assert np.array_equal(pixels_of(image), pixels_of(plain))

    def test_signed_samples_keep_their_sign(self) -> None:
        image = build_image(photometric="MONOCHROME2", bits=12)
        image.PixelRepresentation = 1
        values = picture()[:, :, 1].astype(np.int32) * 8 - 1024
        image.PixelData = (values & 0x0FFF).astype("<u2").tobytes()
        image.WindowCenter, image.WindowWidth = 0, 2048

        assert mean_error(pixels_of(image)[:, :, :1], picture()[:, :, 1:2]) < 1


def test_pixel_data_of_native_syntaxes_is_never_taken_for_fragments() -> None:
    image = build_image(transfer_syntax=ExplicitVRLittleEndian)
    image.PixelData = encapsulate([frame_of(JPEGBaseline8Bit)])

    assert code_of(image) == "truncated_pixel_data"

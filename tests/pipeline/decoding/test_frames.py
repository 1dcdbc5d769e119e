"""Every kind of image is decoded to its true colors, or refused with a code that says why not."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.filereader import read_dataset
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from pipeline.decoding.frames import (
    ENCAPSULATED_SYNTAXES,
    NATIVE_SYNTAXES,
    ImageLimits,
    read_frames,
)
from pipeline.domain import RGB
from pipeline.errors import Rejected
from tests.builders import (
    HTJ2K_FRAMES,
    LOSSLESS_SYNTAXES,
    LOSSY_SYNTAXES,
    build_image,
    dataset_bytes,
    every_kind,
    picture,
)

COMPRESSED = tuple(sorted(ENCAPSULATED_SYNTAXES))
MARKED = tuple(syntax for syntax in COMPRESSED if syntax != RLELossless)
"""Codestreams that have an end marker."""


ENCODED = [(image, dataset_bytes(image)) for _, image in every_kind()]


def code_of(dataset: Dataset, **limits: Any) -> str:
    """Why an image is refused."""
    with pytest.raises(Rejected) as caught:
        list(read_frames(dataset, limits=ImageLimits(**limits)))
    return caught.value.code


def pixels_of(dataset: Dataset) -> RGB:
    """The one frame of an image."""
    (frame,) = read_frames(dataset)
    return frame.pixels


def changed(image: FileDataset, **values: Any) -> FileDataset:
    for keyword, value in values.items():
        if value is None:
            delattr(image, keyword)
        else:
            setattr(image, keyword, value)
    return image


class TestNotAnImage:
    def test_an_object_without_pixels_and_rows(self) -> None:
        image = changed(build_image(), PixelData=None, Rows=None)

        assert code_of(image) == "not_an_image"

    def test_an_empty_dataset(self) -> None:
        assert code_of(Dataset()) == "not_an_image"

    def test_an_image_without_pixel_data(self) -> None:
        assert code_of(changed(build_image(), PixelData=None)) == "no_pixel_data"

    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGBaseline8Bit])
    def test_an_image_with_empty_pixel_data(self, syntax: UID) -> None:
        image = changed(build_image(transfer_syntax=syntax), PixelData=b"")

        assert code_of(image) == "no_pixel_data"

    @pytest.mark.parametrize(
        "keyword",
        [
            "Rows",
            "Columns",
            "BitsAllocated",
            "SamplesPerPixel",
            "PhotometricInterpretation",
            "SOPInstanceUID",
        ],
    )
    def test_an_image_that_does_not_say_what_its_pixels_are(self, keyword: str) -> None:
        assert code_of(changed(build_image(), **{keyword: None})) == "not_an_image"

    def test_real_world_attributes_for_pixels(self) -> None:
        image = build_image()
        del image.PixelData
        image.FloatPixelData = bytes(4)

        assert code_of(image) == "no_pixel_data"


class TestLength:
    @pytest.mark.parametrize("kept", [1, 100, 96 * 80 * 3 - 1])
    @pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422", "MONOCHROME2"])
    def test_native_pixels_that_end_too_early(self, kept: int, photometric: str) -> None:
        image = build_image(photometric=photometric)
        kept = min(kept, len(image.PixelData) - 1)

        assert code_of(changed(image, PixelData=image.PixelData[:kept])) == "truncated_pixel_data"

    def test_a_frame_that_is_missing(self) -> None:
        image = changed(build_image(frames=2), NumberOfFrames=3)

        assert code_of(image) == "truncated_pixel_data"

    @pytest.mark.parametrize("surplus", [b"ab", b"\x01\x02" * 60])
    def test_native_pixels_that_go_on_for_too_long(self, surplus: bytes) -> None:
        image = build_image()
        image.PixelData += surplus

        assert code_of(image) == "wrong_length"

    def test_one_byte_of_padding_is_no_fault(self) -> None:
        pixels = picture(33, 33)
        image = build_image(pixels=pixels)
        assert len(image.PixelData) == 33 * 33 * 3 + 1

        assert np.array_equal(pixels_of(image), pixels)

    def test_422_with_an_odd_number_of_columns(self) -> None:
        image = changed(build_image(photometric="YBR_FULL_422"), Columns=95)

        assert code_of(image) == "wrong_length"

    @pytest.mark.parametrize("syntax", MARKED, ids=lambda syntax: syntax.name)
    @pytest.mark.parametrize("kept", [0.5, 0.9])
    def test_a_codestream_that_breaks_off(self, syntax: UID, kept: float) -> None:
        image = build_image(transfer_syntax=syntax)
        frame = get_frame(image.PixelData, 0, number_of_frames=1)
        image.PixelData = encapsulate([frame[: int(len(frame) * kept)]])

        assert code_of(image) in ("truncated_pixel_data", "decode_failed")

    @pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: syntax.name)
    def test_fragments_that_break_off(self, syntax: UID) -> None:
        image = build_image(transfer_syntax=syntax)

        assert code_of(changed(image, PixelData=image.PixelData[:200])) in (
            "truncated_pixel_data",
            "decode_failed",
        )


class TestSize:
    def test_one_pixel(self) -> None:
        image = changed(build_image(), Rows=1, Columns=1, PixelData=bytes(4))

        assert code_of(image) == "too_small"

    def test_no_pixel(self) -> None:
        assert code_of(changed(build_image(), Rows=0)) == "too_small"

    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEG2000])
    def test_200_megapixels_are_refused_by_their_header(self, syntax: UID) -> None:
        image = changed(build_image(transfer_syntax=syntax), Rows=10_000, Columns=20_000)

        assert code_of(image) == "too_large"

    @pytest.mark.parametrize("frames", [-1, 65, 2**31 - 1])
    def test_no_frame_and_too_many(self, frames: int) -> None:
        assert code_of(changed(build_image(), NumberOfFrames=frames)) == "bad_count"

    @pytest.mark.parametrize("syntax", MARKED, ids=lambda syntax: syntax.name)
    def test_a_codestream_larger_than_its_header_is_never_decoded(self, syntax: UID) -> None:
        image = build_image(transfer_syntax=syntax)

        assert code_of(changed(image, Rows=64, Columns=64)) == "decode_failed"

    def test_a_codestream_that_claims_200_megapixels_is_never_decoded(self) -> None:
        image = build_image(transfer_syntax=JPEGBaseline8Bit)
        frame = bytearray(get_frame(image.PixelData, 0, number_of_frames=1))
        at = frame.index(b"\xff\xc0") + 5
        frame[at : at + 4] = (10_000).to_bytes(2, "big") + (20_000).to_bytes(2, "big")
        image.PixelData = encapsulate([bytes(frame)])

        assert code_of(image) == "decode_failed"

    def test_the_sites_own_limit(self) -> None:
        assert code_of(build_image(), max_megapixels=0.007) == "too_large"


class TestFormat:
    @pytest.mark.parametrize(
        "syntax",
        [UID("1.2.276.0.7230010.3.4.99"), JPEGLossless, ExplicitVRBigEndian, UID("")],
        ids=["private", "jpeg-lossless", "big-endian", "none"],
    )
    def test_a_transfer_syntax_that_is_not_read(self, syntax: UID) -> None:
        image = build_image()
        image.file_meta.TransferSyntaxUID = syntax

        assert code_of(image) == "unsupported_transfer_syntax"

    def test_a_dataset_without_a_header(self) -> None:
        image = build_image()
        image.file_meta = FileMetaDataset()

        assert code_of(image) == "unsupported_transfer_syntax"

    @pytest.mark.parametrize("photometric", ["ARGB", "CMYK", "HSV", "YBR_PARTIAL_420", "", "rgb"])
    def test_a_color_space_that_is_not_read(self, photometric: str) -> None:
        image = changed(build_image(), PhotometricInterpretation=photometric)

        assert code_of(image) == "unsupported_photometric"

    @pytest.mark.parametrize("photometric", ["YBR_RCT", "YBR_ICT"])
    def test_a_transform_of_jpeg_2000_on_native_pixels(self, photometric: str) -> None:
        image = changed(build_image(), PhotometricInterpretation=photometric)

        assert code_of(image) == "unsupported_photometric"

    @pytest.mark.parametrize(
        ("samples", "photometric"), [(3, "MONOCHROME2"), (1, "RGB"), (4, "RGB")]
    )
    def test_samples_that_do_not_fit_the_color_space(self, samples: int, photometric: str) -> None:
        image = build_image(photometric=photometric)

        assert code_of(changed(image, SamplesPerPixel=samples)) == "unsupported_photometric"

    @pytest.mark.parametrize("bits", [0, 1, 12, 32, 64])
    def test_a_bit_depth_that_is_not_read(self, bits: int) -> None:
        image = changed(build_image(), BitsAllocated=bits, BitsStored=bits)

        assert code_of(image) == "unsupported_bit_depth"

    def test_more_bits_stored_than_allocated(self) -> None:
        assert code_of(changed(build_image(), BitsStored=9)) == "unsupported_bit_depth"

    @pytest.mark.parametrize(("stored", "high"), [(12, 10), (12, 16), (8, 6), (16, 14)])
    def test_a_high_bit_that_does_not_fit(self, stored: int, high: int) -> None:
        image = changed(build_image(bits=16), BitsStored=stored, HighBit=high)

        assert code_of(image) == "unsupported_bit_depth"

    @pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: syntax.name)
    @pytest.mark.parametrize(
        "junk", [b"junk" * 50, bytes(200), b"\xff\xd8\xff\xd9" * 20], ids=["text", "zeros", "ends"]
    )
    def test_pixels_that_are_no_codestream(self, syntax: UID, junk: bytes) -> None:
        image = changed(build_image(transfer_syntax=syntax), PixelData=encapsulate([junk]))

        assert code_of(image) in ("decode_failed", "truncated_pixel_data")

    @pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: syntax.name)
    def test_pixels_that_are_not_even_encapsulated(self, syntax: UID) -> None:
        image = changed(build_image(transfer_syntax=syntax), PixelData=bytes(range(256)))

        assert code_of(image) in ("decode_failed", "truncated_pixel_data")

    def test_a_palette_without_its_table(self) -> None:
        image = build_image(photometric="PALETTE COLOR")
        del image.RedPaletteColorLookupTableData

        assert code_of(image) == "decode_failed"


class TestLossless:
    """Pixel-exact: what went into the encoder comes out."""

    @pytest.mark.parametrize("syntax", LOSSLESS_SYNTAXES, ids=lambda syntax: syntax.name)
    def test_rgb(self, syntax: UID) -> None:
        assert np.array_equal(pixels_of(build_image(transfer_syntax=syntax)), picture())

    @pytest.mark.parametrize(
        "syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLSLossless]
    )
    def test_gray(self, syntax: UID) -> None:
        pixels = pixels_of(build_image(transfer_syntax=syntax, photometric="MONOCHROME2"))

        assert np.array_equal(pixels, np.repeat(picture()[:, :, 1:2], 3, axis=2))

    def test_inverted_gray(self) -> None:
        pixels = pixels_of(build_image(photometric="MONOCHROME1"))

        assert np.array_equal(pixels, np.repeat(picture()[:, :, 1:2], 3, axis=2))

    @pytest.mark.parametrize("planar", [0, 1])
    @pytest.mark.parametrize("bits", [8, 12, 16])
    def test_planes_and_depths(self, planar: int, bits: int) -> None:
        pixels = pixels_of(build_image(planar=planar, bits=bits))

        assert int(np.abs(pixels.astype(int) - picture()).max()) <= (0 if bits == 8 else 1)

    @pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
    def test_compressed_rgb_of_16_bits(self, syntax: UID) -> None:
        pixels = pixels_of(build_image(transfer_syntax=syntax, bits=16))

        assert int(np.abs(pixels.astype(int) - picture()).max()) <= 1

    def test_the_reversible_colour_transform(self) -> None:
        image = build_image(transfer_syntax=JPEG2000Lossless, photometric="YBR_RCT")

        assert np.array_equal(pixels_of(image), picture())

    @pytest.mark.parametrize("syntax", sorted(HTJ2K_FRAMES), ids=lambda syntax: syntax.name)
    def test_htj2k_with_its_colour_transform(self, syntax: UID) -> None:
        """The frames were written by OpenJPH, which shares nothing with our decoder."""
        apart = np.abs(pixels_of(build_image(transfer_syntax=syntax)).astype(int) - picture())

        assert int(apart.max()) <= (0 if "Lossless" in syntax.name else 12)
        assert float(apart.mean()) < 2

    def test_a_palette(self) -> None:
        index = picture()[:, :, 1].astype(int)
        shown = [floor + index * (255 - floor) // 255 for floor in (80, 0, 120)]

        pixels = pixels_of(build_image(photometric="PALETTE COLOR"))

        assert np.array_equal(pixels, np.stack(shown, axis=2))

    @pytest.mark.parametrize(
        "syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLSLossless]
    )
    def test_each_frame_of_several(self, syntax: UID) -> None:
        image = build_image(transfer_syntax=syntax, frames=3)

        frames = list(read_frames(image))

        assert [frame.frame for frame in frames] == [1, 2, 3]
        assert all(np.array_equal(frame.pixels, picture()) for frame in frames)

    def test_frames_of_unlike_content_keep_their_order(self) -> None:
        image = build_image(frames=2)
        image.PixelData = picture(number=1).tobytes() + picture(number=7).tobytes()

        frames = list(read_frames(image))

        assert np.array_equal(frames[0].pixels, picture(number=1))
        assert np.array_equal(frames[1].pixels, picture(number=7))


class TestColour:
    """Where something is lost, the colors are still the true ones."""

    @pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422"])
    def test_native_ybr(self, photometric: str) -> None:
        assert_like(pixels_of(build_image(photometric=photometric)))

    def test_native_ybr_in_planes(self) -> None:
        assert_like(pixels_of(build_image(photometric="YBR_FULL", planar=1)))

    @pytest.mark.parametrize(
        "syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless], ids=lambda syntax: syntax.name
    )
    def test_compressed_ybr_without_a_transform(self, syntax: UID) -> None:
        assert_like(pixels_of(build_image(transfer_syntax=syntax, photometric="YBR_FULL")))

    def test_the_irreversible_colour_transform(self) -> None:
        image = build_image(transfer_syntax=JPEG2000, photometric="YBR_ICT")

        assert_like(pixels_of(image), most=24)

    @pytest.mark.parametrize("syntax", LOSSY_SYNTAXES, ids=lambda syntax: syntax.name)
    def test_lossy_syntaxes(self, syntax: UID) -> None:
        assert_like(pixels_of(build_image(transfer_syntax=syntax)), most=40)

    def test_near_lossless_keeps_its_promise(self) -> None:
        pixels = pixels_of(build_image(transfer_syntax=JPEGLSNearLossless))

        assert int(np.abs(pixels.astype(int) - picture()).max()) <= 2

    @pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000, JPEG2000Lossless])
    def test_pillow_sees_the_same(self, syntax: UID) -> None:
        image = build_image(transfer_syntax=syntax)

        apart = pixels_of(image).astype(int) - with_pillow(image)

        assert int(np.abs(apart).max()) <= (0 if syntax == JPEG2000Lossless else 2)

    @pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422"])
    def test_jpeg_that_holds_ybr(self, photometric: str) -> None:
        coded = jpeg(cv2.cvtColor(picture(), cv2.COLOR_RGB2BGR))

        assert_like(pixels_of(jpeg_image(coded, photometric)), most=40)

    def test_jpeg_that_holds_rgb_and_does_not_say_so(self) -> None:
        """PS3.5 8.2.1: Photometric Interpretation decides; libjpeg alone would guess YCbCr."""
        coded = without_jfif(jpeg(cv2.cvtColor(picture(), cv2.COLOR_RGB2BGR), is_rgb=True))

        assert_like(pixels_of(jpeg_image(coded, "RGB")), most=40)

    def test_jpeg_of_gray(self) -> None:
        image = build_image(transfer_syntax=JPEGBaseline8Bit, photometric="MONOCHROME2")

        pixels = pixels_of(image)

        assert int(np.abs(pixels[:, :, 0].astype(int) - picture()[:, :, 1]).max()) <= 8


class TestGray:
    def test_16_bits_are_windowed(self) -> None:
        image = build_image(photometric="MONOCHROME2", bits=16)
        image.WindowCenter, image.WindowWidth = 32768, 65536

        pixels = pixels_of(image)

        assert int(np.abs(pixels[:, :, 0].astype(int) - picture()[:, :, 1]).max()) <= 1

    def test_without_a_window_16_bits_are_stretched(self) -> None:
        pixels = pixels_of(build_image(photometric="MONOCHROME2", bits=12))

        assert (int(pixels.min()), int(pixels.max())) == (0, 255)

    def test_signed_values_are_rescaled_first(self) -> None:
        image = build_image(photometric="MONOCHROME2", bits=16)
        image.PixelRepresentation = 1
        image.RescaleSlope, image.RescaleIntercept = 1, 32768
        stored = picture()[:, :, 1].astype(np.int32) * 257 - 32768
        image.PixelData = stored.astype("<i2").tobytes()
        image.WindowCenter, image.WindowWidth = 32768, 65536

        pixels = pixels_of(image)

        assert int(np.abs(pixels[:, :, 0].astype(int) - picture()[:, :, 1]).max()) <= 1


class TestWhateverComes:
    """Mutated images are decoded or Rejected: nothing else is ever raised."""

    @given(data=st.data())
    def test_mutated_headers(self, data: st.DataObject) -> None:
        image = build_image(photometric=data.draw(st.sampled_from(["RGB", "PALETTE COLOR"])))
        keyword = data.draw(
            st.sampled_from(
                ["Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel"]
            )
        )
        setattr(image, keyword, data.draw(st.integers(0, 65535)))

        survive(image)

    @given(data=st.data())
    def test_mutated_bytes_of_a_file(self, data: st.DataObject) -> None:
        image, whole = data.draw(st.sampled_from(ENCODED))
        coded = bytearray(whole)
        for at in data.draw(st.lists(st.integers(0, len(coded) - 1), min_size=1, max_size=4)):
            coded[at] = data.draw(st.integers(0, 255))

        survive(parsed(bytes(coded), image))

    @pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: syntax.name)
    @given(data=st.data())
    def test_mutated_codestreams(self, syntax: UID, data: st.DataObject) -> None:
        image = build_image(transfer_syntax=syntax)
        frame = bytearray(get_frame(image.PixelData, 0, number_of_frames=1))
        for at in data.draw(st.lists(st.integers(0, len(frame) - 1), min_size=1, max_size=3)):
            frame[at] = data.draw(st.integers(0, 255))
        image.PixelData = encapsulate([bytes(frame)])

        survive(image)


def survive(image: Dataset) -> None:
    try:
        for frame in read_frames(image):
            assert frame.pixels.shape == (image.Rows, image.Columns, 3)
    except Rejected as err:
        assert err.code


def parsed(coded: bytes, image: FileDataset) -> Dataset:
    """The dataset as pydicom reads it, or an empty one when it cannot."""
    try:
        dataset = read_dataset(io.BytesIO(coded), bool(image.is_implicit_VR), True)
    except Exception:  # noqa: BLE001 - what pydicom cannot parse never reaches the pipeline
        return Dataset()
    dataset.file_meta = image.file_meta
    return dataset


def assert_like(pixels: NDArray[Any], *, most: int = 6) -> None:
    """The picture's own colors, but for what a chroma edge or a quantiser may do."""
    apart = np.abs(pixels.astype(int) - picture())
    at_rest = np.median(apart, axis=(0, 1))

    assert float(apart.mean()) < 3
    assert at_rest.max() <= 3
    assert np.percentile(apart, 99) <= most


def with_pillow(image: Dataset) -> NDArray[Any]:
    """One compressed frame by another decoder."""
    frame = get_frame(image.PixelData, 0, number_of_frames=1)
    return np.asarray(Image.open(io.BytesIO(frame)).convert("RGB")).astype(int)


def jpeg(bgr: NDArray[Any], *, is_rgb: bool = False) -> bytes:
    """Baseline JPEG without chroma subsampling; `is_rgb` stores RGB itself."""
    target = io.BytesIO()
    shown = Image.fromarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
    shown.save(target, "JPEG", quality=95, subsampling=0, keep_rgb=is_rgb)
    return target.getvalue()


def without_jfif(coded: bytes) -> bytes:
    """The stream without JFIF and Adobe segments, as many devices write it."""
    kept, at = coded[:2], 2
    while coded[at + 1] != 0xDA:
        length = int.from_bytes(coded[at + 2 : at + 4], "big") + 2
        if coded[at + 1] not in (0xE0, 0xEE):
            kept += coded[at : at + length]
        at += length
    return kept + coded[at:]


def jpeg_image(coded: bytes, photometric: str) -> FileDataset:
    image = build_image(transfer_syntax=JPEGBaseline8Bit)
    image.PhotometricInterpretation = photometric
    image.PixelData = encapsulate([coded])
    return image


def test_every_syntax_is_tested() -> None:
    assert {*LOSSLESS_SYNTAXES, *LOSSY_SYNTAXES} == NATIVE_SYNTAXES | ENCAPSULATED_SYNTAXES

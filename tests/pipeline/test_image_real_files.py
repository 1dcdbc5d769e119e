"""Files of other makers: each is decoded, to the pixels that others see, or refused by a code."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    VLWholeSlideMicroscopyImageStorage,
)

from pipeline.decoding.frames import ImageLimits, read_frames
from pipeline.errors import Rejected

pytestmark = pytest.mark.data

REFUSED = {
    "highdicom/seg_image_sm_control.dcm": "unsupported_bit_depth",
    "highdicom/seg_image_sm_control_labelmap.dcm": "too_small",
    "highdicom/seg_image_sm_control_labelmap_palette_color.dcm": "too_small",
    "highdicom/seg_image_sm_dots.dcm": "unsupported_bit_depth",
    "highdicom/seg_image_sm_dots_tiled_full.dcm": "unsupported_bit_depth",
    "highdicom/seg_image_sm_numbers.dcm": "unsupported_bit_depth",
    "highdicom/sm_image.dcm": "too_small",
    "highdicom/sm_image_control.dcm": "too_small",
    "highdicom/sm_image_dots.dcm": "too_small",
    "highdicom/sm_image_grayscale.dcm": "too_small",
    "highdicom/sm_image_grayscale_reversed.dcm": "too_small",
    "highdicom/sm_image_jpegls.dcm": "too_small",
    "highdicom/sm_image_jpegls_nobot.dcm": "too_small",
    "highdicom/sm_image_numbers.dcm": "too_small",
    "highdicom/sr_document.dcm": "not_an_image",
    "highdicom/sr_document_with_multiple_groups.dcm": "not_an_image",
    "pydicom/ExplVR_BigEnd.dcm": "unsupported_transfer_syntax",
    "pydicom/ExplVR_BigEndNoMeta.dcm": "not_an_image",
    "pydicom/SC_rgb_jpeg_gdcm.dcm": "unsupported_transfer_syntax",  # JPEG Lossless
    "pydicom/SC_rgb_rle_32bit.dcm": "unsupported_bit_depth",
    "pydicom/SC_rgb_rle_32bit_2frame.dcm": "unsupported_bit_depth",
    "pydicom/SC_rgb_small_odd.dcm": "too_small",
    "pydicom/SC_rgb_small_odd_big_endian.dcm": "unsupported_transfer_syntax",
    "pydicom/SC_rgb_small_odd_jpeg.dcm": "too_small",
}
SHOWN = 56 - len(REFUSED)

COLOUR_BARS = "pydicom/SC_rgb_rle.dcm"
"""The picture that every file named SC_rgb_* of 100 × 100 pixels shows, without loss."""
PILLOW_GIVES_UP_ON = "GDCMJ2K_TextGBR.dcm"
"""Its codestream lies in a JP2 file whose boxes Pillow cannot read; ours shows red as red."""
ANY_SIZE = ImageLimits(min_side_px=1, max_frames=100)


def read(path: Path) -> Dataset:
    return dcmread(path, force=True)


def outcome(dataset: Dataset) -> str:
    """The code of a refusal, or nothing."""
    try:
        for frame in read_frames(dataset):
            assert frame.pixels.shape == (dataset.Rows, dataset.Columns, 3)
            assert frame.pixels.dtype == np.uint8
    except Rejected as err:
        return err.code
    return ""


@pytest.fixture
def folder(data_dir: Path) -> Path:
    return data_dir / "dicom"


def test_every_file_is_shown_or_refused_by_its_code(folder: Path) -> None:
    files = sorted(folder.rglob("*.dcm"))

    outcomes = {str(path.relative_to(folder)): outcome(read(path)) for path in files}

    assert {name: code for name, code in outcomes.items() if code} == REFUSED
    assert len([code for code in outcomes.values() if not code]) == SHOWN


def test_the_compressed_ones_look_as_pillow_shows_them(folder: Path) -> None:
    """Pillow has libraries of its own; where it cannot know that a JPEG holds RGB, it is told."""
    seen = 0
    for path in sorted(folder.rglob("*.dcm")):
        image = read(path)
        if path.name == PILLOW_GIVES_UP_ON or not _is_for_pillow(image) or outcome(image):
            continue
        for index, frame in enumerate(read_frames(image)):
            apart = np.abs(frame.pixels.astype(int) - _by_pillow(image, index))
            assert apart.mean() < 1, path.name
            assert np.percentile(apart, 99) <= 8, path.name
        seen += 1

    assert seen >= 12


def test_colour_bars_have_one_look_in_every_syntax(folder: Path) -> None:
    (wanted,) = read_frames(read(folder / COLOUR_BARS))
    for path in sorted((folder / "pydicom").glob("SC_*.dcm")):
        image = read(path)
        if (image.Rows, image.Columns) != (100, 100) or outcome(image):
            continue
        for frame in read_frames(image):
            # the second frame of two is the negative of the first
            shown = frame.pixels if frame.frame == 1 else 255 - frame.pixels
            apart = np.abs(shown.astype(int) - wanted.pixels)
            # 2 × 2 subsampling smears the borders between the bars, and nothing else
            assert float(np.median(apart)) <= 2, path.name
            assert float(apart.mean()) < 8, path.name


def test_one_file_as_native_pixels_deflated_and_compressed(folder: Path) -> None:
    (plain,) = read_frames(read(folder / "pydicom_data" / "OBXXXX1A.dcm"))
    (packed,) = read_frames(read(folder / "pydicom_data" / "OBXXXX1A_rle.dcm"))

    assert np.array_equal(plain.pixels, packed.pixels)


def test_tiles_of_a_slide_are_the_same_native_and_in_jpeg_ls(folder: Path) -> None:
    plain = read_frames(read(folder / "highdicom" / "sm_image.dcm"), limits=ANY_SIZE)
    for name in ("sm_image_jpegls.dcm", "sm_image_jpegls_nobot.dcm"):
        image = read(folder / "highdicom" / name)
        assert image.SOPClassUID == VLWholeSlideMicroscopyImageStorage
        packed = list(read_frames(image, limits=ANY_SIZE))
        assert len(packed) == 25
        assert all(frame.pixels.shape == (10, 10, 3) for frame in packed)
    assert len(list(plain)) == 25


def _is_for_pillow(image: Dataset) -> bool:
    syntax = UID(image.file_meta.get("TransferSyntaxUID", "") or "")
    is_known = syntax in (JPEGBaseline8Bit, JPEG2000, JPEG2000Lossless)
    return is_known and image.BitsAllocated == 8


def _by_pillow(image: Dataset, index: int) -> np.ndarray:
    coded = get_frame(image.PixelData, index, number_of_frames=int(image.get("NumberOfFrames", 1)))
    shown = Image.open(io.BytesIO(coded))
    if image.PhotometricInterpretation == "RGB" and shown.format == "JPEG":
        states = {"jfif", "adobe_transform"} & set(shown.info)
        if not states:
            shown.draft("YCbCr", shown.size)
            return np.asarray(shown).astype(int)
    return np.asarray(shown.convert("RGB")).astype(int)

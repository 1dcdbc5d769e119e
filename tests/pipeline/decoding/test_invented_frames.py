"""DICOM images as devices, gateways and converters write them, devised from public bug reports.

No frame is lost, and each shows the colors that were put in; the rest is refused with a code that
says why.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import jpeg_ls
import numpy as np
import pytest
from numpy.typing import NDArray
from openjpeg.utils import encode_array
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.dataset import FileDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    JPEG2000,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from pipeline.decoding.frames import ImageLimits, read_frames
from pipeline.errors import Rejected
from tests.builders import build_image, file_bytes, picture
from tests.pipeline.decoding.test_mislabeled_pixels import coded, frame_of, items, jpeg

NUMBERS = (1, 7, 9)
FIELDS = [picture(number=number) for number in NUMBERS]
FIELD = FIELDS[0]
GRAY = FIELD[:, :, 1]
GRAY_SHOWN = np.repeat(GRAY[:, :, np.newaxis], 3, axis=2)
RAMP = np.stack([np.arange(256), np.arange(255, -1, -1), np.full(256, 7)], axis=1)
JPEGS, J2KS, LSS, RLES = (
    [frame_of(syntax, number=number) for number in NUMBERS]
    for syntax in (JPEGBaseline8Bit, JPEG2000Lossless, JPEGLSLossless, RLELossless)
)
JPEG = JPEGS[0]
LOSSY = 3.0


def changed(image: FileDataset, **values: Any) -> FileDataset:
    for keyword, value in values.items():
        if value is None:
            delattr(image, keyword)
        else:
            setattr(image, keyword, value)
    return image


def shown(image: FileDataset) -> list[NDArray[np.uint8]]:
    return [frame.pixels for frame in read_frames(image)]


def assert_shows(image: FileDataset, wanted: Sequence[NDArray[Any]], most: float) -> None:
    frames = shown(image)
    assert [frame.shape for frame in frames] == [one.shape for one in wanted]
    for frame, one in zip(frames, wanted, strict=True):
        assert float(np.abs(frame.astype(int) - one).mean()) <= most


def code_of(image: FileDataset) -> str:
    with pytest.raises(Rejected) as caught:
        list(read_frames(image, limits=ImageLimits()))
    return caught.value.code


# --- number of frames


def stating(text: bytes) -> FileDataset:
    """Two JPEG frames, read from a file whose Number of Frames is exactly this text."""
    image = coded(JPEGBaseline8Bit, items(*JPEGS[:2]), frames=9)
    element = b"\x28\0\x08\0IS"
    padded = text + b" " * (len(text) % 2)
    content = file_bytes(image).replace(
        element + b"\x02\x009 ", element + struct.pack("<H", len(padded)) + padded
    )
    return dcmread(io.BytesIO(content))


def bare_items(*parts: bytes) -> bytes:
    """Fragments without the item of the Basic Offset Table."""
    return b"".join(
        struct.pack("<HHL", 0xFFFE, 0xE000, len(part) + len(part) % 2)
        + part
        + b"\0" * (len(part) % 2)
        for part in parts
    )


def unpadded_items(*parts: bytes) -> bytes:
    """Fragments of odd length, which PS3.5 A.4 forbids."""
    return b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(part)) + part for part in (b"", *parts))


def pieces(frame: bytes, size: int = 1000) -> list[bytes]:
    return [frame[at : at + size] for at in range(0, len(frame), size)]


def in_halves(frames: Sequence[bytes]) -> list[bytes]:
    return [half for one in frames for half in (one[: len(one) // 4 * 2], one[len(one) // 4 * 2 :])]


def thumbnail_at_the_start_of_a_fragment() -> bytes:
    """One frame; its second fragment begins with a JPEG, that of its thumbnail."""
    preview = cv2.imencode(".jpg", picture(32, 32))[1].tobytes()
    note = JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(preview) + 2)
    return items(note, preview + JPEG[2:])


def native(*fields: NDArray[np.uint8], **values: Any) -> FileDataset:
    image = build_image()
    image.PixelData = b"".join(field.tobytes() for field in fields)
    return changed(image, **values)


TWO, THREE = FIELDS[:2], FIELDS
ALL_READ: Mapping[str, tuple[Callable[[], FileDataset], Sequence[NDArray[Any]]]] = {
    "number-with-a-blank-behind": (lambda: stating(b"2 "), TWO),
    "number-with-a-blank-before": (lambda: stating(b" 2"), TWO),
    "number-with-a-zero-byte": (lambda: stating(b"2\0"), TWO),
    "number-with-a-leading-zero": (lambda: stating(b"02"), TWO),
    "number-with-a-sign": (lambda: stating(b"+2"), TWO),
    "number-with-a-fraction": (lambda: stating(b"2.0"), TWO),
    "number-empty": (lambda: stating(b""), TWO),
    "number-0": (lambda: stating(b"0"), TWO),
    "jpeg-two-items-a-frame": (
        lambda: coded(JPEGBaseline8Bit, items(*in_halves(JPEGS)), frames=3),
        THREE,
    ),
    "jpeg-two-items-a-frame-uncounted": (
        lambda: coded(JPEGBaseline8Bit, items(*in_halves(JPEGS))),
        THREE,
    ),
    "j2k-many-items-a-frame-uncounted": (
        lambda: coded(JPEG2000Lossless, items(*(part for one in J2KS for part in pieces(one)))),
        THREE,
    ),
    "jpeg-ls-many-items-a-frame-uncounted": (
        lambda: coded(JPEGLSLossless, items(*(part for one in LSS for part in pieces(one)))),
        THREE,
    ),
    "end-marker-cut-in-two": (
        lambda: coded(
            JPEGBaseline8Bit,
            unpadded_items(*(part for one in JPEGS for part in (one[:-1], one[-1:]))),
        ),
        THREE,
    ),
    "empty-items-between": (
        lambda: coded(JPEGBaseline8Bit, unpadded_items(JPEGS[0], b"", JPEGS[1], b"", JPEGS[2])),
        THREE,
    ),
    "offset-table-of-zeros": (
        lambda: coded(JPEGBaseline8Bit, items(*JPEGS, table=bytes(12)), frames=3),
        THREE,
    ),
    "offset-table-of-another-image": (
        lambda: coded(JPEGBaseline8Bit, items(*JPEGS, table=struct.pack("<LL", 0, 77))),
        THREE,
    ),
    "offset-table-left-out": (lambda: coded(JPEGBaseline8Bit, bare_items(*JPEGS)), THREE),
    "offset-table-left-out-and-counted": (
        lambda: coded(JPEGBaseline8Bit, bare_items(*JPEGS), frames=3),
        THREE,
    ),
    "offset-table-left-out-of-j2k": (lambda: coded(JPEG2000Lossless, bare_items(*J2KS)), THREE),
    "offset-table-left-out-of-rle": (lambda: coded(RLELossless, bare_items(*RLES)), THREE),
    "offset-table-left-out-of-one": (lambda: coded(JPEGBaseline8Bit, bare_items(JPEG)), FIELDS[:1]),
    "rle-two-items-a-frame": (
        lambda: coded(RLELossless, items(*in_halves(RLES)), frames=3),
        THREE,
    ),
    "rle-two-items-a-frame-uncounted": (
        lambda: coded(RLELossless, items(*in_halves(RLES))),
        THREE,
    ),
    "rle-one-frame-in-two-items": (
        lambda: coded(RLELossless, items(*in_halves(RLES[:1])), frames=1),
        FIELDS[:1],
    ),
    "bytes-behind-the-delimiter": (
        lambda: coded(
            JPEGBaseline8Bit,
            items(*JPEGS[:2]) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0) + b"left over",
        ),
        TWO,
    ),
    "thumbnail-begins-a-fragment": (
        lambda: coded(JPEGBaseline8Bit, thumbnail_at_the_start_of_a_fragment()),
        FIELDS[:1],
    ),
    "native-uncounted": (lambda: native(*FIELDS), THREE),
    "native-counted-0": (lambda: native(*TWO, NumberOfFrames=0), TWO),
}


@pytest.mark.invented(kind=10)
@pytest.mark.parametrize("name", ALL_READ)
def test_no_frame_is_lost(name: str) -> None:
    build, wanted = ALL_READ[name]

    assert_shows(build(), wanted, LOSSY)


FRAMES_REFUSED: Mapping[str, tuple[Callable[[], FileDataset], set[str]]] = {
    "second-frame-cut": (
        lambda: coded(JPEGBaseline8Bit, items(JPEGS[0], JPEGS[1][:500])),
        {"truncated_pixel_data"},
    ),
    "first-frame-cut": (
        lambda: coded(JPEGBaseline8Bit, items(JPEGS[0][:500], JPEGS[1])),
        {"truncated_pixel_data"},
    ),
    "second-frame-blank": (
        lambda: coded(JPEGBaseline8Bit, items(JPEG, bytes(len(JPEG))), frames=2),
        {"truncated_pixel_data"},
    ),
    "rle-second-frame-without-header": (
        lambda: coded(RLELossless, items(RLES[0], RLES[1][64:]), frames=2),
        {"truncated_pixel_data"},
    ),
    "rle-second-frame-without-header-uncounted": (
        lambda: coded(RLELossless, items(RLES[0], RLES[1][64:])),
        {"corrupt_pixel_data"},
    ),
    "native-two-and-a-half": (
        lambda: native(*TWO, PixelData=TWO[0].tobytes() + TWO[1].tobytes() + b"\7\x09" * 5760),
        {"bad_count"},
    ),
    "native-half-a-frame-more": (
        lambda: native(FIELD, PixelData=FIELD.tobytes() + b"\7\x09" * 5760),
        {"wrong_length"},
    ),
    "number-negative": (lambda: stating(b"-2"), {"bad_count"}),
    "number-in-words": (lambda: stating(b"two"), {"not_an_image"}),
    "number-twice": (lambda: stating(b"2\\2"), {"not_an_image"}),
    "number-of-a-billion": (lambda: stating(b"1e9"), {"bad_count"}),
    "offset-table-left-out-and-one-frame-too-few": (
        lambda: coded(JPEGBaseline8Bit, bare_items(*JPEGS[:2]), frames=3),
        {"truncated_pixel_data"},
    ),
    "offset-table-left-out-and-one-frame-too-many": (
        lambda: coded(JPEGBaseline8Bit, bare_items(*JPEGS[:2]), frames=1),
        {"bad_count"},
    ),
}


@pytest.mark.invented(kind=10)
@pytest.mark.parametrize("name", FRAMES_REFUSED)
def test_frames_that_are_missing_are_missed(name: str) -> None:
    build, codes = FRAMES_REFUSED[name]

    assert code_of(build()) in codes


# --- colors


def lossless_ls(interleave: int, **values: Any) -> FileDataset:
    field = np.ascontiguousarray(FIELD.transpose(2, 0, 1)) if interleave == 0 else FIELD
    frame = bytes(jpeg_ls.encode_array(field, 0, interleave))
    return changed(coded(JPEGLSLossless, items(frame)), **values)


def one_sample(image: FileDataset, label: str = "MONOCHROME2", **values: Any) -> FileDataset:
    return changed(image, SamplesPerPixel=1, PhotometricInterpretation=label, **values)


def deep_gray(**values: Any) -> FileDataset:
    """16 bits from 0 to 51,000 without a window."""
    image = build_image(photometric="MONOCHROME2", bits=16)
    image.PixelData = (GRAY.astype(np.uint16) * 200).tobytes()
    return changed(image, **values)


def lookup(entries: NDArray[Any], **values: Any) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries), 0, 16]
    item.LUTData = entries.astype("<u2").tobytes()
    item["LUTData"].VR = "OW"
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def padded_gray(padding: int, **values: Any) -> FileDataset:
    samples = GRAY.astype(np.uint32) * 100 + 1000
    samples[::7, ::5] = padding
    image = build_image(photometric="MONOCHROME2", bits=16)
    image.PixelData = samples.astype("<u2").tobytes()
    return changed(image, **values)


def stretched_beside(padding: int) -> NDArray[Any]:
    kept = np.ones(GRAY.shape, bool)
    kept[::7, ::5] = False
    low, high = int(GRAY[kept].min()), int(GRAY[kept].max())
    gray = (GRAY.astype(float) - low) * 255 / (high - low)
    gray[~kept] = 255 if padding > 30_000 else 0
    return np.repeat(gray[:, :, np.newaxis], 3, axis=2)


def with_palette(
    indices: NDArray[Any],
    first: int,
    bits: int,
    entries: Sequence[bytes],
    *,
    segmented: bool = False,
) -> FileDataset:
    image = build_image(photometric="PALETTE COLOR", bits=indices.dtype.itemsize * 8)
    image.PixelData = indices.tobytes()
    count = 256 - first if indices.dtype.itemsize == 1 else 0
    for color, table in zip(("Red", "Green", "Blue"), entries, strict=True):
        name = f"{color}PaletteColorLookupTable"
        setattr(image, f"{name}Descriptor", [count, first, bits])
        if segmented:
            delattr(image, f"{name}Data")
        setattr(image, f"Segmented{name}Data" if segmented else f"{name}Data", table)
    return image


def sigmoid(gray: NDArray[Any]) -> NDArray[Any]:
    return 255 / (1 + np.exp(-4 * (gray * 200.0 - 25_500) / 51_000))


YCBCR = cv2.cvtColor(FIELD, cv2.COLOR_RGB2YCrCb)[:, :, [0, 2, 1]]
DEEP_ENTRIES = [(RAMP[:, one].astype(np.uint16) * 257).tobytes() for one in range(3)]
FULL = np.arange(65536)
FULL_ENTRIES = [one.astype("<u2").tobytes() for one in (FULL, 65535 - FULL, FULL * 0 + 1799)]
SEGMENTS = [
    struct.pack("<6H", 0, 1, first, 1, 255, last)
    for first, last in ((0, 65535), (65535, 0), (1799, 1799))
]
FALLING = np.linspace(65535, 0, 51_001)


def turned_by_exif() -> bytes:
    exif = Image.Exif()
    exif[0x112] = 6
    return jpeg(FIELD, exif=exif)


def edge_of_odd_size() -> FileDataset:
    edge = np.ascontiguousarray(FIELD[:79, :95])
    image = coded(JPEGBaseline8Bit, items(jpeg(edge, subsampling=2)))
    return changed(image, Rows=79, Columns=95)


COLORS: Mapping[str, tuple[Callable[[], FileDataset], NDArray[Any], float]] = {
    "jpeg-ls-planes": (lambda: lossless_ls(0), FIELD, 0),
    "jpeg-ls-lines": (lambda: lossless_ls(1), FIELD, 0),
    "jpeg-ls-samples": (lambda: lossless_ls(2), FIELD, 0),
    "jpeg-ls-planes-labeled-planar": (
        lambda: lossless_ls(0, PlanarConfiguration=1),
        FIELD,
        0,
    ),
    "jpeg-ls-samples-labeled-planar": (
        lambda: lossless_ls(2, PlanarConfiguration=1),
        FIELD,
        0,
    ),
    "jpeg-ls-near-gray": (
        lambda: one_sample(
            coded(JPEGLSNearLossless, items(bytes(jpeg_ls.encode_array(GRAY, 3, 0))))
        ),
        GRAY_SHOWN,
        LOSSY,
    ),
    "jpeg-ls-gray-12": (
        lambda: one_sample(
            coded(
                JPEGLSLossless,
                items(bytes(jpeg_ls.encode_array(GRAY.astype(np.uint16) << 4, 0, 0))),
            ),
            BitsAllocated=16,
            BitsStored=12,
            HighBit=11,
            WindowCenter=2048,
            WindowWidth=4096,
        ),
        GRAY_SHOWN,
        1,
    ),
    "rle-labeled-planar": (
        lambda: changed(build_image(transfer_syntax=RLELossless), PlanarConfiguration=1),
        FIELD,
        0,
    ),
    "high-bit-0": (lambda: changed(build_image(), HighBit=0), FIELD, 0),
    "bits-stored-absent": (
        lambda: changed(build_image(), BitsStored=None, HighBit=None),
        FIELD,
        0,
    ),
    "high-bit-absent-12": (lambda: changed(build_image(bits=12), HighBit=None), FIELD, 1),
    "planar-configuration-absent": (
        lambda: changed(build_image(), PlanarConfiguration=None),
        FIELD,
        0,
    ),
    "signed-rgb": (lambda: changed(build_image(), PixelRepresentation=1), FIELD, 0),
    "odd-number-of-bytes": (
        lambda: build_image(pixels=np.ascontiguousarray(FIELD[:79, :95])),
        FIELD[:79, :95],
        0,
    ),
    "implicit-vr": (lambda: build_image(transfer_syntax=ImplicitVRLittleEndian), FIELD, 0),
    "rgb-with-a-window": (
        lambda: changed(build_image(), WindowCenter=40, WindowWidth=400),
        FIELD,
        0,
    ),
    "rgb-with-a-rescale": (
        lambda: changed(build_image(), RescaleSlope=2, RescaleIntercept=-1024),
        FIELD,
        0,
    ),
    "native-422-that-is-444": (
        lambda: changed(build_image(photometric="YBR_FULL_422"), PixelData=YCBCR.tobytes()),
        FIELD,
        LOSSY,
    ),
    "jpeg-partial-422": (
        lambda: changed(
            coded(JPEGBaseline8Bit, items(JPEG)), PhotometricInterpretation="YBR_PARTIAL_422"
        ),
        FIELD,
        LOSSY,
    ),
    "jpeg-partial-420": (
        lambda: changed(
            coded(JPEGBaseline8Bit, items(JPEG)), PhotometricInterpretation="YBR_PARTIAL_420"
        ),
        FIELD,
        LOSSY,
    ),
    "jpeg-color-with-one-sample": (
        lambda: changed(coded(JPEGBaseline8Bit, items(JPEG)), SamplesPerPixel=1),
        FIELD,
        LOSSY,
    ),
    "jpeg-with-12-of-16-bits": (
        lambda: changed(
            coded(JPEGBaseline8Bit, items(JPEG)), BitsAllocated=16, BitsStored=12, HighBit=11
        ),
        FIELD,
        LOSSY,
    ),
    "jpeg-with-24-bits": (
        lambda: changed(
            coded(JPEGBaseline8Bit, items(JPEG)), BitsAllocated=24, BitsStored=24, HighBit=23
        ),
        FIELD,
        LOSSY,
    ),
    "jpeg-turned-by-exif-stays-as-stored": (
        lambda: coded(JPEGBaseline8Bit, items(turned_by_exif())),
        FIELD,
        LOSSY,
    ),
    "jpeg-of-odd-size": (edge_of_odd_size, FIELD[:79, :95], LOSSY),
    "jpeg-inverted-gray": (
        lambda: one_sample(coded(JPEGBaseline8Bit, items(jpeg(255 - GRAY))), "MONOCHROME1"),
        GRAY_SHOWN,
        LOSSY,
    ),
    "jpeg-under-jpeg-2000": (lambda: coded(JPEG2000, items(JPEG)), FIELD, LOSSY),
    "jpeg-ls-under-jpeg": (
        lambda: changed(coded(JPEGBaseline8Bit, items(LSS[0])), PhotometricInterpretation="RGB"),
        FIELD,
        0,
    ),
    "jpeg-ls-under-jpeg-2000": (
        lambda: changed(coded(JPEG2000Lossless, items(LSS[0])), PhotometricInterpretation="RGB"),
        FIELD,
        0,
    ),
    "jpeg-2000-under-jpeg": (
        lambda: changed(coded(JPEGBaseline8Bit, items(J2KS[0])), PhotometricInterpretation="RGB"),
        FIELD,
        0,
    ),
    "jpeg-2000-under-htj2k": (
        lambda: changed(coded(HTJ2KLossless, items(J2KS[0])), PhotometricInterpretation="RGB"),
        FIELD,
        0,
    ),
    "htj2k-under-jpeg-2000": (
        lambda: coded(JPEG2000Lossless, items(frame_of(HTJ2KLossless))),
        FIELD,
        0,
    ),
    "jpeg-2000-12-bits-labeled-16": (
        lambda: changed(
            coded(
                JPEG2000Lossless,
                items(
                    bytes(
                        encode_array(
                            FIELD.astype(np.uint16) << 4,
                            photometric_interpretation=0,
                            use_mct=False,
                            bits_stored=12,
                        )
                    )
                ),
            ),
            BitsAllocated=16,
            BitsStored=16,
            HighBit=15,
            PhotometricInterpretation="RGB",
        ),
        FIELD,
        1,
    ),
    "window-linear-exact": (
        lambda: deep_gray(WindowCenter=25_500, WindowWidth=51_000, VOILUTFunction="LINEAR_EXACT"),
        GRAY_SHOWN,
        1,
    ),
    "window-sigmoid": (
        lambda: deep_gray(WindowCenter=25_500, WindowWidth=51_000, VOILUTFunction="SIGMOID"),
        sigmoid(GRAY_SHOWN),
        1,
    ),
    "voi-lut": (
        lambda: deep_gray(VOILUTSequence=DicomSequence([lookup(FALLING)])),
        255 - GRAY_SHOWN.astype(int),
        2,
    ),
    "modality-lut": (
        lambda: changed(
            build_image(photometric="MONOCHROME2"),
            ModalityLUTSequence=DicomSequence(
                [lookup(255 - np.arange(256), ModalityLUTType="US", LUTDescriptor=[256, 0, 8])]
            ),
        ),
        255 - GRAY_SHOWN.astype(int),
        1,
    ),
    "pixel-padding-65535": (
        lambda: padded_gray(65_535, PixelPaddingValue=65_535),
        stretched_beside(65_535),
        1,
    ),
    "pixel-padding-0": (
        lambda: padded_gray(0, PixelPaddingValue=0),
        stretched_beside(0),
        1,
    ),
    "pixel-padding-range": (
        lambda: padded_gray(60_000, PixelPaddingValue=59_000, PixelPaddingRangeLimit=65_535),
        stretched_beside(65_535),
        1,
    ),
    "palette-of-8-bits": (
        lambda: with_palette(
            GRAY, 0, 8, [RAMP[:, one].astype(np.uint8).tobytes() for one in range(3)]
        ),
        RAMP[GRAY],
        0,
    ),
    "palette-of-8-bits-in-words": (
        lambda: with_palette(
            GRAY, 0, 8, [RAMP[:, one].astype("<u2").tobytes() for one in range(3)]
        ),
        RAMP[GRAY],
        0,
    ),
    "palette-from-40": (
        lambda: with_palette(GRAY, 40, 16, [one[80:] for one in DEEP_ENTRIES]),
        RAMP[GRAY],
        0,
    ),
    "palette-of-65536": (
        lambda: with_palette(GRAY.astype("<u2") * 257, 0, 16, FULL_ENTRIES),
        RAMP[GRAY],
        1,
    ),
    "palette-in-segments": (
        lambda: with_palette(GRAY, 0, 16, SEGMENTS, segmented=True),
        RAMP[GRAY],
        1,
    ),
}


@pytest.mark.invented(kind=13)
@pytest.mark.parametrize("name", COLORS)
def test_colors_are_the_true_ones(name: str) -> None:
    build, wanted, most = COLORS[name]

    assert_shows(build(), [wanted], most)


COLORS_REFUSED: Mapping[str, tuple[Callable[[], FileDataset], str]] = {
    "jpeg-12-bits": (
        lambda: coded(
            JPEGBaseline8Bit, items(JPEG.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c", 1))
        ),
        "unsupported_bit_depth",
    ),
    "jpeg-arithmetic": (
        lambda: coded(JPEGBaseline8Bit, items(JPEG.replace(b"\xff\xc0", b"\xff\xc9", 1))),
        "unsupported_transfer_syntax",
    ),
    "jpeg-lossless": (
        lambda: coded(JPEGBaseline8Bit, items(JPEG.replace(b"\xff\xc0", b"\xff\xc3", 1))),
        "unsupported_transfer_syntax",
    ),
    "jpeg-under-rle": (lambda: coded(RLELossless, items(JPEG)), "decode_failed"),
    "jpeg-on-its-side": (
        lambda: changed(coded(JPEGBaseline8Bit, items(JPEG)), Rows=96, Columns=80),
        "decode_failed",
    ),
    "jpeg-cut-under-jpeg-2000": (
        lambda: coded(JPEG2000, items(JPEG[: len(JPEG) // 2] + b"\xff\xd9")),
        "corrupt_pixel_data",
    ),
    "jpeg-argb": (
        lambda: changed(coded(JPEGBaseline8Bit, items(JPEG)), PhotometricInterpretation="ARGB"),
        "unsupported_photometric",
    ),
    "native-partial-422": (
        lambda: changed(build_image(), PhotometricInterpretation="YBR_PARTIAL_422"),
        "unsupported_photometric",
    ),
    "photometric-absent": (
        lambda: changed(build_image(), PhotometricInterpretation=None),
        "not_an_image",
    ),
    "palette-table-cut": (
        lambda: with_palette(GRAY, 0, 16, [one[:100] for one in DEEP_ENTRIES]),
        "decode_failed",
    ),
}


@pytest.mark.invented(kind=13)
@pytest.mark.parametrize("name", COLORS_REFUSED)
def test_what_is_not_read_is_refused_by_its_reason(name: str) -> None:
    build, code = COLORS_REFUSED[name]

    assert code_of(build()) == code

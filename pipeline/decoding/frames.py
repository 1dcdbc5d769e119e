"""A DICOM dataset becomes frames in RGB, or `Rejected` with a code that says why not.

The header is checked before anything is decoded, and the size that a compressed frame claims for
itself before its decoder is let loose on it. Whatever a decoder then throws is `decode_failed`.

Codes: not_an_image, no_pixel_data, truncated_pixel_data, wrong_length, too_large, too_small,
bad_count, unsupported_photometric, unsupported_bit_depth, unsupported_transfer_syntax,
corrupt_pixel_data, decode_failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from pipeline.decoding.codestream import check_frame, decode_jpeg
from pipeline.decoding.color_space import gray_to_rgb, palette_to_rgb, scale_to_8_bit, ybr_to_rgb
from pipeline.decoding.pixel_spacing import spacing_um
from pipeline.decoding.rle_check import check_rle
from pipeline.domain import RGB, SOPInstanceUID, SourceImage
from pipeline.errors import Rejected

NATIVE_SYNTAXES = frozenset(
    {ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian}
)
ENCAPSULATED_SYNTAXES = frozenset(
    {
        RLELossless,
        JPEGBaseline8Bit,
        JPEG2000Lossless,
        JPEG2000,
        HTJ2KLossless,
        HTJ2KLosslessRPCL,
        HTJ2K,
        JPEGLSLossless,
        JPEGLSNearLossless,
    }
)
SAMPLES: dict[str, int] = {
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
    "RGB": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_ICT": 3,
    "YBR_RCT": 3,
}
"""Every photometric interpretation that we read, with its samples a pixel (PS3.3 C.7.6.3.1.2)."""

_YBR = frozenset({"YBR_FULL", "YBR_FULL_422"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What is worth decoding."""

    max_megapixels: float = 100.0
    """100 megapixels are 300 MB of pixels."""
    min_side_px: int = 32
    """Smaller pictures hold no whole white cell."""
    max_frames: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The Image Pixel module (PS3.3 C.7.6.3), checked."""

    syntax: UID
    photometric: str
    rows: int
    columns: int
    frames: int
    samples: int
    bits_allocated: int
    bits_stored: int
    is_signed: bool
    is_planar: bool

    @property
    def frame_bytes(self) -> int:
        """Length of one native frame; 4:2:2 keeps two samples a pixel (PS3.3 C.7.6.3.1.2)."""
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples
        return self.rows * self.columns * samples * self.bits_allocated // 8

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of one stored sample."""
        return np.dtype(f"<{'i' if self.is_signed else 'u'}{self.bits_allocated // 8}")


def read_frames(dataset: Dataset, *, limits: ImageLimits | None = None) -> Iterator[SourceImage]:
    """Decode frame by frame, so that one frame's pixels are in memory at a time.

    Raises Rejected, and nothing else, whatever the dataset holds.
    """
    with _rejecting("not_an_image", "The image's header cannot be read"):
        layout = read_layout(dataset, limits or ImageLimits())
        uid = SOPInstanceUID(str(dataset.SOPInstanceUID))
        spacing = spacing_um(dataset)
    for number in range(1, layout.frames + 1):
        with _rejecting("decode_failed", "The pixel data cannot be decoded"):
            pixels = _decode(dataset, layout, number - 1)
        yield SourceImage(sop_instance_uid=uid, frame=number, pixels=pixels, spacing_um=spacing)


def read_layout(dataset: Dataset, limits: ImageLimits) -> Layout:
    """Check everything that can be checked without decoding. Raises Rejected."""
    if "PixelData" not in dataset:
        code = "no_pixel_data" if "Rows" in dataset else "not_an_image"
        raise Rejected("The object has no Pixel Data (7FE0,0010)", code=code)
    layout = Layout(
        syntax=_syntax(dataset),
        photometric=str(dataset.PhotometricInterpretation),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        frames=int(dataset.get("NumberOfFrames") or 1),
        samples=int(dataset.SamplesPerPixel),
        bits_allocated=int(dataset.BitsAllocated),
        bits_stored=int(dataset.get("BitsStored") or dataset.BitsAllocated),
        is_signed=bool(dataset.get("PixelRepresentation")),
        is_planar=bool(dataset.get("PlanarConfiguration")),
    )
    _check_format(layout)
    _check_size(layout, limits)
    _check_length(layout, len(dataset.PixelData or b""))
    return layout


def _syntax(dataset: Dataset) -> UID:
    meta = getattr(dataset, "file_meta", None)
    syntax = UID(meta.get("TransferSyntaxUID") or "") if meta is not None else UID("")
    if syntax not in NATIVE_SYNTAXES | ENCAPSULATED_SYNTAXES:
        raise Rejected(
            "This transfer syntax is not read; send one of the conformance statement",
            code="unsupported_transfer_syntax",
        )
    return syntax


def _check_format(layout: Layout) -> None:
    samples = SAMPLES.get(layout.photometric)
    if samples is None or samples != layout.samples:
        raise Rejected(
            "Photometric Interpretation and Samples per Pixel are no pair that is read",
            code="unsupported_photometric",
        )
    is_ybr = layout.photometric.startswith("YBR")
    is_deep = layout.bits_allocated == 16 and not is_ybr
    if not (layout.bits_allocated == 8 or is_deep):
        raise Rejected(
            "Only 8 bits are read, and 16 for gray, palette and RGB", code="unsupported_bit_depth"
        )
    if not 1 <= layout.bits_stored <= layout.bits_allocated:
        raise Rejected("Bits Stored does not fit Bits Allocated", code="unsupported_bit_depth")
    is_native = layout.syntax in NATIVE_SYNTAXES
    if is_native and layout.photometric in ("YBR_ICT", "YBR_RCT"):
        raise Rejected(
            "YBR_ICT and YBR_RCT exist in JPEG 2000 only (PS3.5 8.2.4)",
            code="unsupported_photometric",
        )
    if is_native and layout.photometric == "YBR_FULL_422" and layout.columns % 2:
        raise Rejected("4:2:2 needs an even number of columns", code="wrong_length")


def _check_size(layout: Layout, limits: ImageLimits) -> None:
    if layout.rows * layout.columns > limits.max_megapixels * 1e6:
        raise Rejected(
            f"More than {limits.max_megapixels:g} megapixels; see image.max_megapixels",
            code="too_large",
        )
    if not 1 <= layout.frames <= limits.max_frames:
        raise Rejected(
            f"Not 1 to {limits.max_frames} frames; see image.max_frames", code="bad_count"
        )
    if min(layout.rows, layout.columns) < limits.min_side_px:
        raise Rejected(
            f"A side is shorter than {limits.min_side_px} pixels; see image.min_side_px",
            code="too_small",
        )


def _check_length(layout: Layout, length: int) -> None:
    """PS3.5 8.1.1: frames without gaps, then at most one byte of padding."""
    if length == 0:
        raise Rejected("Pixel Data is empty", code="no_pixel_data")
    if layout.syntax in ENCAPSULATED_SYNTAXES:
        return
    expected = layout.frame_bytes * layout.frames
    if length < expected:
        raise Rejected(f"Pixel Data has {length} of {expected} bytes", code="truncated_pixel_data")
    if length > expected + expected % 2:
        raise Rejected(f"Pixel Data has {length} bytes, not {expected}", code="wrong_length")


def _decode(dataset: Dataset, layout: Layout, index: int) -> RGB:
    """One frame as RGB; `index` counts from 0."""
    if layout.syntax in NATIVE_SYNTAXES:
        samples, photometric = _native_samples(dataset, layout, index), layout.photometric
    else:
        samples, photometric = _coded_samples(dataset, layout, index)
    return np.ascontiguousarray(_to_rgb(samples, photometric, dataset, layout))


def _native_samples(dataset: Dataset, layout: Layout, index: int) -> NDArray[Any]:
    start = index * layout.frame_bytes
    stored = memoryview(dataset.PixelData)[start : start + layout.frame_bytes]
    samples = np.frombuffer(stored, dtype=layout.dtype)
    if layout.photometric == "YBR_FULL_422":
        return _spread_422(samples.reshape(layout.rows, layout.columns // 2, 4))
    if layout.samples == 1:
        return samples.reshape(layout.rows, layout.columns)
    if layout.is_planar:
        return samples.reshape(3, layout.rows, layout.columns).transpose(1, 2, 0)
    return samples.reshape(layout.rows, layout.columns, 3)


def _spread_422(pairs: NDArray[Any]) -> NDArray[Any]:
    """Y Y Cb Cr for each two pixels (PS3.3 C.7.6.3.1.2) become Y Cb Cr for each one."""
    rows, half, _ = pairs.shape
    spread = np.empty((rows, half * 2, 3), dtype=pairs.dtype)
    spread[:, 0::2, 0] = pairs[:, :, 0]
    spread[:, 1::2, 0] = pairs[:, :, 1]
    spread[:, :, 1:] = np.repeat(pairs[:, :, 2:], 2, axis=1)
    return spread


def _coded_samples(dataset: Dataset, layout: Layout, index: int) -> tuple[NDArray[Any], str]:
    """One compressed frame's samples, and the colour space that they came out in."""
    frame = get_frame(
        dataset.PixelData,
        index,
        extended_offsets=_extended_offsets(dataset),
        number_of_frames=layout.frames,
    )
    if layout.syntax == RLELossless:
        planes = layout.samples * layout.bits_allocated // 8
        check_rle(frame, segments=planes, segment_bytes=layout.rows * layout.columns)
    else:
        check_frame(frame, rows=layout.rows, columns=layout.columns)
    if layout.syntax == JPEGBaseline8Bit:
        return decode_jpeg(frame, photometric=layout.photometric)
    samples, details = get_decoder(layout.syntax).as_array(dataset, index=index, raw=True)
    return samples, str(details["photometric_interpretation"])


def _extended_offsets(dataset: Dataset) -> tuple[bytes, bytes] | None:
    """PS3.3 C.7.6.3.1.8"""
    if "ExtendedOffsetTable" not in dataset:
        return None
    return dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths


def _to_rgb(samples: NDArray[Any], photometric: str, dataset: Dataset, layout: Layout) -> RGB:
    if photometric == "PALETTE COLOR":
        return palette_to_rgb(samples, dataset)
    if layout.samples == 1:
        return gray_to_rgb(samples, dataset, is_inverted=photometric == "MONOCHROME1")
    if photometric in _YBR:
        return ybr_to_rgb(samples)
    return scale_to_8_bit(samples, layout.bits_stored)


@contextmanager
def _rejecting(code: str, message: str) -> Iterator[None]:
    """Whatever goes wrong inside is the dataset's fault: pydicom and decoders throw anything."""
    try:
        yield
    except Rejected:
        raise
    except Exception as err:
        raise Rejected(f"{message} ({type(err).__name__})", code=code) from err

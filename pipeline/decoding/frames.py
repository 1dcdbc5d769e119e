"""Decodes a DICOM dataset into RGB frames, or raises `Rejected` with a code that says why.

The header is checked before anything is decoded, and the size that a compressed frame claims
before its decoder sees it. Any other exception of a decoder becomes `decode_failed`.
The number, depth and colors of compressed frames are those of their codestreams, which are what
decoders see: many devices label them wrongly.

Codes: not_an_image, no_pixel_data, truncated_pixel_data, wrong_length, too_large, too_small,
bad_count, unsupported_photometric, unsupported_bit_depth, unsupported_transfer_syntax,
corrupt_pixel_data, decode_failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate
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

from pipeline.decoding.codestream import Process, check_frame
from pipeline.decoding.color_space import (
    gray_to_rgb,
    palette_to_rgb,
    scale_to_8_bit,
    stored_bits,
    ybr_to_rgb,
)
from pipeline.decoding.encapsulated_frames import split_frames
from pipeline.decoding.jpeg_frame import decode_jpeg
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
"""Every supported photometric interpretation, with its samples per pixel (PS3.3 C.7.6.3.1.2)."""

_YBR = frozenset({"YBR_FULL", "YBR_FULL_422"})
_RETIRED_YBR = frozenset({"YBR_PARTIAL_422", "YBR_PARTIAL_420"})
"""Labels of compressed frames; the full range is that of JPEG (JFIF 1.02)."""
_CODESTREAM_SYNTAXES = ENCAPSULATED_SYNTAXES - {RLELossless}
_JPEG_LS = frozenset({JPEGLSLossless, JPEGLSNearLossless})
_JPEG_2000 = ENCAPSULATED_SYNTAXES - _JPEG_LS - {RLELossless, JPEGBaseline8Bit}


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
    frames: int | None
    """None where Number of Frames is absent: the Pixel Data decides."""
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    is_planar: bool

    @property
    def frame_bytes(self) -> int:
        """Length of one native frame; 4:2:2 keeps two samples per pixel (PS3.3 C.7.6.3.1.2)."""
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples
        return self.rows * self.columns * samples * self.bits_allocated // 8

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of one stored sample."""
        return np.dtype(f"<{'i' if self.is_signed else 'u'}{self.bits_allocated // 8}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Samples:
    """One decoded frame before its colors are converted: H × W or H × W × 3."""

    values: NDArray[Any]
    photometric: str
    bits: int


def read_frames(dataset: Dataset, *, limits: ImageLimits | None = None) -> Iterator[SourceImage]:
    """Decode frame by frame, so that one frame's pixels are in memory at a time.

    Raises Rejected, and nothing else, whatever the dataset holds.
    """
    limits = limits or ImageLimits()
    with _rejecting("not_an_image", "The image's header cannot be read"):
        layout = read_layout(dataset, limits)
        uid = SOPInstanceUID(str(dataset.SOPInstanceUID))
        spacing = spacing_um(dataset)
    with _rejecting("decode_failed", "The pixel data cannot be split into frames"):
        frames = _frames(dataset, layout, limits)
    for number, frame in enumerate(frames, start=1):
        with _rejecting("decode_failed", "The pixel data cannot be decoded"):
            pixels = _decode(frame, dataset, layout)
        yield SourceImage(sop_instance_uid=uid, frame=number, pixels=pixels, spacing_um=spacing)


def read_layout(dataset: Dataset, limits: ImageLimits) -> Layout:
    """Check everything that can be checked without decoding. Raises Rejected."""
    if "PixelData" not in dataset:
        code = "no_pixel_data" if "Rows" in dataset else "not_an_image"
        raise Rejected("The object has no Pixel Data (7FE0,0010)", code=code)
    stated = dataset.get("NumberOfFrames")
    bits_allocated = int(dataset.BitsAllocated)
    bits_stored = int(dataset.get("BitsStored") or bits_allocated)
    layout = Layout(
        syntax=_syntax(dataset),
        photometric=str(dataset.PhotometricInterpretation),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        frames=int(stated) if stated else None,
        samples=int(dataset.SamplesPerPixel),
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=int(dataset.get("HighBit") or bits_stored - 1),
        is_signed=bool(dataset.get("PixelRepresentation")),
        is_planar=bool(dataset.get("PlanarConfiguration")),
    )
    _check_format(layout)
    _check_size(layout, limits)
    if not dataset.PixelData:
        raise Rejected("Pixel Data is empty", code="no_pixel_data")
    return _with_whole_chroma(layout, len(dataset.PixelData))


def _with_whole_chroma(layout: Layout, length: int) -> Layout:
    """YBR_FULL where 4:2:2 is stated and every pixel of the stated frames has three samples.

    Software that decompresses JPEG leaves the label as it was.
    """
    whole = replace(layout, photometric="YBR_FULL")
    is_native = layout.syntax in NATIVE_SYNTAXES
    is_mislabeled = (
        layout.photometric == "YBR_FULL_422"
        and is_native
        and 0 <= length - whole.frame_bytes * (layout.frames or 1) <= 1
    )
    if is_mislabeled:
        return whole
    if layout.photometric == "YBR_FULL_422" and is_native and layout.columns % 2:
        raise Rejected("4:2:2 needs an even number of columns", code="wrong_length")
    return layout


def _syntax(dataset: Dataset) -> UID:
    meta = getattr(dataset, "file_meta", None)
    syntax = UID(meta.get("TransferSyntaxUID") or "") if meta is not None else UID("")
    if syntax not in NATIVE_SYNTAXES | ENCAPSULATED_SYNTAXES:
        raise Rejected(
            "This transfer syntax is not supported; send one of the conformance statement",
            code="unsupported_transfer_syntax",
        )
    return syntax


def _check_format(layout: Layout) -> None:
    if layout.syntax in _CODESTREAM_SYNTAXES:
        _check_label(layout)
        return
    if SAMPLES.get(layout.photometric) != layout.samples:
        raise Rejected(
            "This pair of Photometric Interpretation and Samples per Pixel is not supported",
            code="unsupported_photometric",
        )
    if layout.bits_allocated not in (8, 16):
        raise Rejected(
            "Only Bits Allocated of 8 and 16 are supported", code="unsupported_bit_depth"
        )
    if not 1 <= layout.bits_stored <= layout.high_bit + 1 <= layout.bits_allocated:
        raise Rejected(
            "Bits Stored and High Bit do not fit Bits Allocated", code="unsupported_bit_depth"
        )
    is_native = layout.syntax in NATIVE_SYNTAXES
    if is_native and layout.photometric in ("YBR_ICT", "YBR_RCT"):
        raise Rejected(
            "YBR_ICT and YBR_RCT exist in JPEG 2000 only (PS3.5 8.2.4)",
            code="unsupported_photometric",
        )


def _check_label(layout: Layout) -> None:
    """A codestream says itself how many samples of how many bits it has."""
    if layout.photometric not in SAMPLES.keys() | _RETIRED_YBR:
        raise Rejected(
            "This Photometric Interpretation is not supported", code="unsupported_photometric"
        )


def _check_size(layout: Layout, limits: ImageLimits) -> None:
    if layout.rows * layout.columns > limits.max_megapixels * 1e6:
        raise Rejected(
            f"More than {limits.max_megapixels:g} megapixels; see image.max_megapixels",
            code="too_large",
        )
    if layout.frames is not None:
        _check_count(layout.frames, limits)
    if min(layout.rows, layout.columns) < limits.min_side_px:
        raise Rejected(
            f"A side is shorter than {limits.min_side_px} pixels; see image.min_side_px",
            code="too_small",
        )


def _check_count(frames: int, limits: ImageLimits) -> None:
    if not 1 <= frames <= limits.max_frames:
        raise Rejected(
            f"Not 1 to {limits.max_frames} frames; see image.max_frames", code="bad_count"
        )


def _frames(dataset: Dataset, layout: Layout, limits: ImageLimits) -> Sequence[bytes | memoryview]:
    """The coded bytes of every frame; Rejected where their number contradicts the header."""
    if layout.syntax in NATIVE_SYNTAXES:
        return _native_frames(memoryview(dataset.PixelData), layout, limits)
    frames = split_frames(dataset.PixelData, is_rle=layout.syntax == RLELossless)
    stated = layout.frames if layout.frames is not None else len(frames)
    if len(frames) > stated:
        raise _too_many_frames(len(frames), stated)
    if len(frames) < max(stated, 1):
        raise Rejected(
            f"Pixel Data holds {len(frames)} of {stated} frames", code="truncated_pixel_data"
        )
    _check_count(len(frames), limits)
    return frames


def _native_frames(data: memoryview, layout: Layout, limits: ImageLimits) -> Sequence[memoryview]:
    """Frames without gaps (PS3.5 8.1.1); padding of one repeated byte may follow."""
    size = layout.frame_bytes
    frames = layout.frames
    if frames is None:
        frames = len(data) // size if len(data) % size <= 1 else 1
        frames = max(1, _without_blank(data, frames, size))
        _check_count(frames, limits)
    expected = size * frames
    if len(data) < expected:
        raise Rejected(
            f"Pixel Data has {len(data)} of {expected} bytes", code="truncated_pixel_data"
        )
    surplus = bytes(data[expected:])
    if surplus.strip(surplus[:1]) or (len(surplus) >= size and surplus.strip(b"\0")):
        if len(surplus) >= size:
            raise _too_many_frames(len(data) // size, frames)
        raise Rejected(f"Pixel Data has {len(data)} bytes, not {expected}", code="wrong_length")
    return [data[at : at + size] for at in range(0, expected, size)]


def _without_blank(data: memoryview, frames: int, size: int) -> int:
    """How many frames there are before those of nothing but zeros, which are padding."""
    while frames > 1 and not bytes(data[(frames - 1) * size : frames * size]).strip(b"\0"):
        frames -= 1
    return frames


def _too_many_frames(found: int, stated: int) -> Rejected:
    return Rejected(
        f"Pixel Data holds {found} frames, Number of Frames (0028,0008) says {stated}: "
        "correct it at the device",
        code="bad_count",
    )


def _decode(frame: bytes | memoryview, dataset: Dataset, layout: Layout) -> RGB:
    """One frame as RGB."""
    if isinstance(frame, memoryview):
        samples = _native_samples(frame, layout)
    elif layout.syntax == RLELossless:
        samples = _rle_samples(frame, layout)
    else:
        samples = _coded_samples(frame, layout)
    return np.ascontiguousarray(_to_rgb(samples, dataset))


def _native_samples(frame: memoryview, layout: Layout) -> _Samples:
    stored = np.frombuffer(frame, dtype=layout.dtype)
    if layout.photometric == "YBR_FULL_422":
        values = _spread_422(stored.reshape(layout.rows, layout.columns // 2, 4))
    elif layout.samples == 1:
        values = stored.reshape(layout.rows, layout.columns)
    elif layout.is_planar:
        values = stored.reshape(3, layout.rows, layout.columns).transpose(1, 2, 0)
    else:
        values = stored.reshape(layout.rows, layout.columns, 3)
    return _significant(values, layout)


def _significant(values: NDArray[Any], layout: Layout) -> _Samples:
    """Without the bits above High Bit, and below Bits Stored (PS3.5 8.1.1)."""
    return _Samples(
        values=stored_bits(values, bits=layout.bits_stored, high_bit=layout.high_bit),
        photometric=layout.photometric,
        bits=layout.bits_stored,
    )


def _spread_422(pairs: NDArray[Any]) -> NDArray[Any]:
    """Y Y Cb Cr for each two pixels (PS3.3 C.7.6.3.1.2) become Y Cb Cr for each one."""
    rows, half, _ = pairs.shape
    spread = np.empty((rows, half * 2, 3), dtype=pairs.dtype)
    spread[:, 0::2, 0] = pairs[:, :, 0]
    spread[:, 1::2, 0] = pairs[:, :, 1]
    spread[:, :, 1:] = np.repeat(pairs[:, :, 2:], 2, axis=1)
    return spread


def _rle_samples(frame: bytes, layout: Layout) -> _Samples:
    planes = layout.samples * layout.bits_allocated // 8
    check_rle(frame, segments=planes, segment_bytes=layout.rows * layout.columns)
    return _significant(_decompress(frame, layout), layout)


def _coded_samples(frame: bytes, layout: Layout) -> _Samples:
    """A codestream's samples, by its own number of components, depth and color transform."""
    found = check_frame(frame, rows=layout.rows, columns=layout.columns)
    if found.process == Process.JPEG_OTHER:
        raise Rejected(
            "A frame is lossless, hierarchical or arithmetic JPEG, which is not read",
            code="unsupported_transfer_syntax",
        )
    if found.process == Process.JPEG:
        if found.bits != 8:
            raise Rejected("A JPEG frame does not have 8 bits", code="unsupported_bit_depth")
        values, photometric = decode_jpeg(frame, photometric=layout.photometric)
        return _Samples(values=values, photometric=photometric, bits=8)
    if found.components not in (1, 3):
        raise Rejected("A frame has neither one nor three components", code="decode_failed")
    if found.bits > 16:
        raise Rejected("A frame has more than 16 bits", code="unsupported_bit_depth")
    believed = replace(
        layout,
        syntax=_syntax_of(found.process, layout.syntax),
        samples=found.components,
        photometric="RGB" if found.components == 3 else "MONOCHROME2",
        bits_allocated=8 if found.bits <= 8 else 16,
        bits_stored=found.bits,
        is_signed=found.is_signed or (layout.is_signed and layout.syntax in _JPEG_LS),
    )
    return _Samples(
        values=_decompress(frame, believed),
        photometric=_photometric(layout.photometric, found.components, found.has_color_transform),
        bits=min(found.bits, layout.bits_stored),
    )


def _syntax_of(process: Process, stated: UID) -> UID:
    """The stated syntax, or one of the process that the frame was made with."""
    if process == Process.JPEG_LS:
        return stated if stated in _JPEG_LS else JPEGLSLossless
    return stated if stated in _JPEG_2000 else JPEG2000Lossless


def _photometric(stated: str, components: int, has_color_transform: bool) -> str:
    """The color space of decoded components; a transform has been undone by the decoder."""
    if components == 1:
        return stated if SAMPLES.get(stated) == 1 else "MONOCHROME2"
    return "YBR_FULL" if stated.startswith("YBR") and not has_color_transform else "RGB"


def _decompress(frame: bytes, layout: Layout) -> NDArray[Any]:
    """H × W or H × W × 3, as pydicom's decoders give them, without any color conversion."""
    options: dict[str, Any] = {
        "number_of_frames": 1,
        "rows": layout.rows,
        "columns": layout.columns,
        "samples_per_pixel": layout.samples,
        "photometric_interpretation": layout.photometric,
        "planar_configuration": int(layout.is_planar),
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_stored,
        "pixel_representation": int(layout.is_signed),
        "pixel_keyword": "PixelData",
    }
    decoder = get_decoder(layout.syntax)
    samples, _ = decoder.as_array(encapsulate([frame]), index=0, raw=True, **options)
    return samples


def _to_rgb(samples: _Samples, dataset: Dataset) -> RGB:
    values = samples.values
    if samples.photometric == "PALETTE COLOR":
        return palette_to_rgb(values, dataset)
    if values.ndim == 2:
        is_inverted = samples.photometric == "MONOCHROME1"
        return gray_to_rgb(values, dataset, is_inverted=is_inverted)
    if samples.photometric in _YBR:
        return ybr_to_rgb(scale_to_8_bit(values, samples.bits))
    return scale_to_8_bit(values, samples.bits)


@contextmanager
def _rejecting(code: str, message: str) -> Iterator[None]:
    """Turns any exception into Rejected: pydicom and decoders raise anything on bad input."""
    try:
        yield
    except Rejected:
        raise
    except Exception as err:
        raise Rejected(f"{message} ({type(err).__name__})", code=code) from err

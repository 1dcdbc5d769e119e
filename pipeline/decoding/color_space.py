"""Converts samples in any color space of DICOM to RGB, uint8 (PS3.3 C.7.6.3.1.2)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi

from pipeline.domain import RGB


def ybr_to_rgb(samples: NDArray[Any]) -> RGB:
    """Full-range YCbCr, H × W × 3 uint8, by the matrix of PS3.3 C.7.6.3.1.2."""
    ycrcb = np.ascontiguousarray(samples[:, :, [0, 2, 1]])
    return np.asarray(cv2.cvtColor(ycrcb, cv2.COLOR_YCrCb2RGB), dtype=np.uint8)


def stored_bits(samples: NDArray[Any], *, bits: int, high_bit: int) -> NDArray[Any]:
    """The samples themselves, without what else a cell of Bits Allocated holds (PS3.5 8.1.1).

    Old objects keep overlays in the bits above High Bit, and some left-align the samples.
    """
    allocated = samples.dtype.itemsize * 8
    if bits == allocated:
        return samples
    # An arithmetic shift back keeps the sign of signed samples.
    return (samples << (allocated - 1 - high_bit)) >> (allocated - bits)


def scale_to_8_bit(samples: NDArray[Any], bits_stored: int) -> RGB:
    """RGB of up to 16 bits; 8 bits pass as they are."""
    if samples.dtype == np.uint8 and bits_stored == 8:
        return np.asarray(samples)
    highest = (1 << bits_stored) - 1
    wide = samples.astype(np.uint32) & highest
    return (wide * 255 // highest).astype(np.uint8)


def palette_to_rgb(indices: NDArray[Any], dataset: Dataset) -> RGB:
    """Look H × W indices up in the dataset's palette (PS3.3 C.7.6.3.1.5 and .6)."""
    colors = apply_color_lut(indices, dataset)[:, :, :3]
    if colors.dtype == np.uint8:
        return np.asarray(colors)
    # Old writers put 8-bit entries into a table that they declare as 16 bits deep.
    is_shallow = int(colors.max(initial=0)) < 256
    return np.asarray(colors if is_shallow else colors >> 8, dtype=np.uint8)


def gray_to_rgb(samples: NDArray[Any], dataset: Dataset, *, is_inverted: bool) -> RGB:
    """Gray of 8 to 16 bits: rescaled, then shown as its first VOI LUT or window says.

    PS3.3 C.11.1 and C.11.2. Without either, 8 bits pass as they are and more are stretched from
    darkest to lightest, those that are padding left aside.
    """
    values = apply_modality_lut(samples, dataset)
    window = _window(dataset)
    if dataset.get("VOILUTSequence"):
        gray = _looked_up(values, dataset)
    elif window is not None:
        gray = _windowed(values, *window, function=str(dataset.get("VOILUTFunction") or "LINEAR"))
    elif values.dtype == np.uint8:
        gray = np.asarray(values)
    else:
        gray = _stretched(values, is_shown=~_padding(samples, dataset))
    gray = 255 - gray if is_inverted else gray
    return np.repeat(gray[:, :, np.newaxis], 3, axis=2)


def _looked_up(values: NDArray[Any], dataset: Dataset) -> NDArray[np.uint8]:
    """The first VOI LUT (PS3.3 C.11.2.1.1), to 0 to 255."""
    _, _, bits = dataset.VOILUTSequence[0].LUTDescriptor
    shown = apply_voi(values, dataset).astype(np.uint32)
    scaled: NDArray[np.uint8] = np.clip(shown * 255 // ((1 << bits) - 1), 0, 255).astype(np.uint8)
    return scaled


def _window(dataset: Dataset) -> tuple[float, float] | None:
    """Center and width of the first window; None when there is none that can be used."""
    center, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    if center is None or width is None or width < 1:
        return None
    return center, width


def _first(value: Any) -> float | None:
    if isinstance(value, MultiValue):
        value = value[0] if value else None
    return None if value is None or value == "" else float(value)


def _windowed(
    values: NDArray[Any], center: float, width: float, *, function: str
) -> NDArray[np.uint8]:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3, to 0 to 255."""
    if function == "SIGMOID":
        shown = 255 / (1 + np.exp(-4 * (values - center) / width))
    elif function == "LINEAR_EXACT":
        shown = ((values - center) / width + 0.5) * 255
    elif width == 1:
        shown = np.where(values > center - 0.5, 255, 0)
    else:
        shown = ((values - (center - 0.5)) / (width - 1) + 0.5) * 255
    return np.rint(np.clip(shown, 0, 255)).astype(np.uint8)


def _padding(samples: NDArray[Any], dataset: Dataset) -> NDArray[np.bool_]:
    """Where stored samples are Pixel Padding (PS3.3 C.7.5.1.1.2)."""
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return np.zeros(samples.shape, bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((value, limit if isinstance(limit, int) else value))
    return np.asarray((samples >= low) & (samples <= high))


def _stretched(values: NDArray[Any], *, is_shown: NDArray[np.bool_]) -> NDArray[np.uint8]:
    shown = values[is_shown] if is_shown.any() else values
    low, high = float(shown.min()), float(shown.max())
    scale = 255 / (high - low) if high > low else 0.0
    stretched = np.rint((values.astype(np.float64) - low) * scale)
    return np.clip(stretched, 0, 255).astype(np.uint8)

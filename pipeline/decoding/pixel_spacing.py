"""Reads the pixel spacing of the specimen from a dataset, where it is plausible.

The attributes are in millimeters and mean different things in different objects: the spacing of
a scanned film, of a screen or of the slide. Only values that a light microscope can produce
are believed; the objective's power alone says nothing, since the camera is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pydicom import Dataset

MIN_UM, MAX_UM = 0.02, 2.0
"""µm per pixel: an oil immersion lens with a fine camera, and a 4× objective with a coarse one."""
MAX_ANISOTROPY = 0.02
"""How far row and column spacing may differ; the pipeline takes pixels as square."""
_UM_PER_MM = 1000.0


def spacing_um(dataset: Dataset) -> float | None:
    """µm per pixel by the first source that is plausible, or None."""
    for rows_mm, columns_mm in _candidates(dataset):
        um = (rows_mm + columns_mm) / 2 * _UM_PER_MM
        is_square = abs(rows_mm - columns_mm) <= MAX_ANISOTROPY * max(rows_mm, columns_mm)
        if is_square and MIN_UM <= um <= MAX_UM:
            return um
    return None


def _candidates(dataset: Dataset) -> Iterator[tuple[float, float]]:
    """Row and column spacing in mm, the most specific first; unreadable ones are skipped."""
    for read in _SOURCES:
        try:
            rows_mm, columns_mm = (float(value) for value in read(dataset))
        except (AttributeError, IndexError, TypeError, ValueError, ZeroDivisionError):
            continue
        yield rows_mm, columns_mm


def _pixel_measures(dataset: Dataset) -> Any:
    """Pixel Measures macro, PS3.3 C.7.6.16.2.1."""
    return dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing


def _pixel_spacing(dataset: Dataset) -> Any:
    """PS3.3 C.7.6.2 and C.8.6.1, and 10.7.1.3 for its calibration."""
    return dataset.PixelSpacing


def _imaged_volume(dataset: Dataset) -> Any:
    """Whole Slide Microscopy Image module, PS3.3 C.8.12.4: extent over pixels."""
    return (
        dataset.ImagedVolumeHeight / dataset.TotalPixelMatrixRows,
        dataset.ImagedVolumeWidth / dataset.TotalPixelMatrixColumns,
    )


def _nominal_scanned(dataset: Dataset) -> Any:
    """SC Image module, PS3.3 C.8.6.2: on the medium that was digitized, here the slide."""
    return dataset.NominalScannedPixelSpacing


_SOURCES: tuple[Callable[[Dataset], Any], ...] = (
    _pixel_measures,
    _pixel_spacing,
    _imaged_volume,
    _nominal_scanned,
)

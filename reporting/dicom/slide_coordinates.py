"""Maps the pixels of an image to their place on its slide, if the image gives it completely.

Needed are the frame of reference, the center of the image (PS3.3 C.8.12.2), its pixel spacing
and its orientation. The Slide Coordinates Module alone gives no orientation; one is not guessed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from reporting.dicom.attributes import Attributes

UM_PER_MM = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlidePlace:
    """The affine map from image to slide coordinates (mm), and the height of the image."""

    frame_of_reference_uid: str
    center_px: NDArray[np.float64]
    center_mm: NDArray[np.float64]
    axes_mm: NDArray[np.float64]
    """2 × 2; row 0 is one pixel to the right, row 1 is one pixel down, in mm along X and Y."""
    z_mm: float

    def on_slide(self, points: NDArray[np.float32]) -> NDArray[np.float64]:
        """N × 2 image coordinates as N × 2 slide coordinates X, Y in mm."""
        placed: NDArray[np.float64] = (points - self.center_px) @ self.axes_mm + self.center_mm
        return placed


def frame_of_reference(header: Dataset) -> Dataset:
    """Frame of Reference Module (C.7.4.1) of the source, or nothing where it has none."""
    module = Attributes()
    if header.get("FrameOfReferenceUID"):
        module.FrameOfReferenceUID = header.FrameOfReferenceUID
        module.PositionReferenceIndicator = header.get("PositionReferenceIndicator")
    return module


def slide_place(header: Dataset) -> SlidePlace | None:
    """The place of an image on its slide; None when any part of it is not told."""
    centers = header.get("ImageCenterPointCoordinatesSequence")
    spacing, orientation = header.get("PixelSpacing"), header.get("ImageOrientationSlide")
    frame_of_reference = header.get("FrameOfReferenceUID")
    if not (centers and spacing and orientation and frame_of_reference):
        return None
    z_um = centers[0].get("ZOffsetInSlideCoordinateSystem")
    if z_um is None or len(spacing) != 2 or len(orientation) != 6:
        return None
    row_mm, column_mm = (float(value) for value in spacing)
    direction = np.array([float(value) for value in orientation]).reshape(2, 3)[:, :2]
    return SlidePlace(
        frame_of_reference_uid=str(frame_of_reference),
        center_px=np.array([header.Columns / 2, header.Rows / 2]),
        center_mm=np.array(
            [
                float(centers[0].XOffsetInSlideCoordinateSystem),
                float(centers[0].YOffsetInSlideCoordinateSystem),
            ]
        ),
        axes_mm=direction * np.array([[column_mm], [row_mm]]),
        z_mm=float(z_um) / UM_PER_MM,
    )

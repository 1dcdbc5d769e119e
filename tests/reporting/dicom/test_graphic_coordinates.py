"""Cell outlines as DICOM coordinates: the centre of the first pixel is 0.5, 0.5."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reporting.dicom.graphic_coordinates import TOLERANCE_PX, closed, outline_points
from tests.findings import make_contour


def test_a_pixel_is_named_by_its_centre() -> None:
    points = outline_points(np.array([[0, 0], [9, 0], [9, 9], [0, 9]], dtype=np.int32))

    assert points.tolist() == [[0.5, 0.5], [9.5, 0.5], [9.5, 9.5], [0.5, 9.5]]


def test_a_flat_outline_keeps_three_points() -> None:
    """Thinned to a line it would be no polygon any more."""
    points = outline_points(np.array([[0, 0], [5, 0], [10, 0]], dtype=np.int32))

    assert len(points) == 3


@given(st.integers(5, 80), st.integers(8, 200))
def test_thinning_keeps_the_shape(radius: int, corners: int) -> None:
    contour = make_contour(100, 100, radius, corners=corners)

    thinned = (outline_points(contour) - 0.5).reshape(-1, 1, 2)

    away = [abs(cv2.pointPolygonTest(thinned, (float(x), float(y)), True)) for x, y in contour]
    assert max(away) <= TOLERANCE_PX + 1e-3


def test_a_closed_outline_ends_where_it_begins() -> None:
    points = outline_points(make_contour(10, 10, 5))

    assert len(closed(points)) == len(points) + 1
    np.testing.assert_array_equal(closed(points)[0], closed(points)[-1])

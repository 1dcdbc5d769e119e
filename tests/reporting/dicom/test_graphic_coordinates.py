"""Cell outlines as DICOM coordinates: the center of the first pixel is 0.5, 0.5."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reporting.dicom.graphic_coordinates import TOLERANCE_PX, closed, outline_points
from tests.findings import make_contour

POINTS = st.lists(
    st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=3, max_size=60, unique=True
)


def covered_px(contour) -> int:
    mask = np.zeros((600, 600), np.uint8)
    cv2.fillPoly(mask, [contour], 1)
    return int(mask.sum())


def polygon_area(points) -> float:
    return float(cv2.contourArea((points - points[0]).astype(np.float32)))


def test_pixels_are_enclosed_to_their_outer_edges() -> None:
    points = outline_points(np.array([[0, 0], [9, 0], [9, 9], [0, 9]], dtype=np.int32))

    np.testing.assert_allclose(points, [[0, 0], [10, 0], [10, 10], [0, 10]], atol=1e-4)


@pytest.mark.parametrize(
    "contour", [[[0, 0], [5, 0], [10, 0]], [[3, 7], [3, 8]], [[4, 4]], [[0, 0], [4, 4]]]
)
def test_a_line_of_pixels_is_a_polygon_of_its_area(contour) -> None:
    """Thinned to a line it would be no polygon any more."""
    line = np.array(contour, dtype=np.int32)

    points = outline_points(line)

    assert len(points) >= 3
    assert polygon_area(points) == pytest.approx(covered_px(line), rel=1e-4)


@given(st.integers(3, 120), st.integers(8, 200), st.integers(120, 400))
def test_the_polygon_of_a_cell_has_the_area_of_its_mask(
    radius: int, corners: int, place: int
) -> None:
    contour = make_contour(place, 300, radius, corners=corners)

    assert polygon_area(outline_points(contour)) == pytest.approx(covered_px(contour), rel=1e-4)


@given(POINTS)
def test_the_polygon_stays_on_the_pixels_box(corners) -> None:
    """A cell at the border of its picture has no coordinate beyond it."""
    hull = cv2.convexHull(np.array(corners, dtype=np.int32)).reshape(-1, 2).astype(np.int32)

    points = outline_points(hull)

    assert (points >= hull.min(axis=0)).all()
    assert (points <= hull.max(axis=0) + 1).all()
    assert polygon_area(points) == pytest.approx(covered_px(hull), rel=1e-3)


@given(st.integers(5, 80), st.integers(8, 200))
def test_thinning_keeps_the_shape(radius: int, corners: int) -> None:
    """As near as thinning leaves it, and what lies between a pixel's center and its edge."""
    contour = make_contour(100, 100, radius, corners=corners)

    points = (outline_points(contour) - 0.5).reshape(-1, 1, 2)

    away = [abs(cv2.pointPolygonTest(points, (float(x), float(y)), True)) for x, y in contour]
    assert max(away) <= TOLERANCE_PX + 0.75


def test_a_closed_outline_ends_where_it_begins() -> None:
    points = outline_points(make_contour(10, 10, 5))

    assert len(closed(points)) == len(points) + 1
    np.testing.assert_array_equal(closed(points)[0], closed(points)[-1])

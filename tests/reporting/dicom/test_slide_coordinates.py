"""Where pixels lie on the slide, if the image says so completely; otherwise nowhere."""

from __future__ import annotations

import numpy as np
import pytest

from reporting.dicom.slide_coordinates import slide_place
from tests.findings import make_field_findings
from tests.reporting.sources import make_source

FIELD = make_field_findings()


@pytest.mark.parametrize(
    "keyword",
    [
        "ImageCenterPointCoordinatesSequence",
        "PixelSpacing",
        "ImageOrientationSlide",
        "FrameOfReferenceUID",
    ],
)
def test_a_missing_part_is_not_guessed(keyword: str) -> None:
    header = make_source("slide_coordinates", FIELD)
    delattr(header, keyword)

    assert slide_place(header) is None


def test_a_missing_height_is_not_guessed() -> None:
    header = make_source("slide_coordinates", FIELD)
    del header.ImageCenterPointCoordinatesSequence[0].ZOffsetInSlideCoordinateSystem

    assert slide_place(header) is None


def test_a_photograph_has_no_place() -> None:
    assert slide_place(make_source("photographic", FIELD)) is None


def test_the_centre_of_the_image_lies_where_it_says() -> None:
    place = slide_place(make_source("slide_coordinates", FIELD))
    assert place is not None

    center = np.array([[FIELD.width / 2, FIELD.height / 2]], dtype=np.float32)

    np.testing.assert_allclose(place.on_slide(center), [[10.0, 20.0]])


def test_axes_and_spacing_are_followed() -> None:
    """Rows run along -Y, columns along -X, with pixels of 0.15 µm by 0.3 µm."""
    header = make_source("slide_coordinates", FIELD)
    header.PixelSpacing = [0.0003, 0.00015]
    place = slide_place(header)
    assert place is not None
    middle = [FIELD.width / 2, FIELD.height / 2]

    right, down = place.on_slide(
        np.array([[middle[0] + 1, middle[1]], [middle[0], middle[1] + 1]], dtype=np.float32)
    )

    np.testing.assert_allclose(right, [10.0, 20.0 - 0.00015], atol=1e-9)
    np.testing.assert_allclose(down, [10.0 - 0.0003, 20.0], atol=1e-9)

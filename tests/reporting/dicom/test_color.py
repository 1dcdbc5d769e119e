"""Colors as DICOM wants them: CIELab in 16 bits, and an ICC profile that others can read."""

from __future__ import annotations

import struct

import pytest

from reporting.dicom.color import cielab, srgb_profile


@pytest.mark.parametrize(
    ("color", "lightness"), [((0, 0, 0), 0), ((255, 255, 255), 100), ((119, 119, 119), 50)]
)
def test_grays_have_their_lightness_and_no_colour(
    color: tuple[int, int, int], lightness: float
) -> None:
    scaled, a, b = cielab(color)

    assert scaled / 65535 * 100 == pytest.approx(lightness, abs=0.2)
    assert [a / 65535 * 255 - 128, b / 65535 * 255 - 128] == pytest.approx([0, 0], abs=0.1)


def test_red_is_the_red_of_the_literature() -> None:
    """sRGB red in CIELab at D50 is 54.29, 80.80, 69.89."""
    lightness, a, b = cielab((255, 0, 0))

    found = [lightness / 65535 * 100, a / 65535 * 255 - 128, b / 65535 * 255 - 128]
    assert found == pytest.approx([54.29, 80.80, 69.89], abs=0.15)


def test_every_value_fits_16_bits() -> None:
    corners = [(r, g, b) for r in (0, 255) for g in (0, 255) for b in (0, 255)]

    assert all(0 <= value <= 65535 for corner in corners for value in cielab(corner))


def test_the_profile_is_an_input_profile_of_its_stated_size() -> None:
    """PS3.3 C.11.15 and ICC.1:2010 7.2: class scnr, color space RGB, connection space XYZ."""
    profile = srgb_profile()

    assert struct.unpack(">I", profile[:4])[0] == len(profile)
    assert profile[12:24] == b"scnrRGB XYZ "
    assert profile[36:40] == b"acsp"


def test_every_tag_lies_within_the_profile_on_a_word() -> None:
    profile = srgb_profile()
    (count,) = struct.unpack(">I", profile[128:132])

    for number in range(count):
        entry = profile[132 + 12 * number : 144 + 12 * number]
        _, offset, size = struct.unpack(">4sII", entry)
        assert offset % 4 == 0
        assert offset + size <= len(profile)


def test_the_white_point_is_the_sum_of_the_colours() -> None:
    """Of a matrix profile, within the rounding of its fixed-point numbers."""
    profile = srgb_profile()
    xyz = {}
    for number in range(struct.unpack(">I", profile[128:132])[0]):
        name, offset, _ = struct.unpack(">4sII", profile[132 + 12 * number : 144 + 12 * number])
        if profile[offset : offset + 4] == b"XYZ ":
            xyz[name] = struct.unpack(">3i", profile[offset + 8 : offset + 20])

    total = [sum(xyz[name][axis] for name in (b"rXYZ", b"gXYZ", b"bXYZ")) for axis in range(3)]

    assert total == pytest.approx(list(xyz[b"wtpt"]), abs=40)

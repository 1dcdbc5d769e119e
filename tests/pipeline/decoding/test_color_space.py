"""Samples of every color space become RGB, by the formulas of the standard."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import Dataset

from pipeline.decoding.color_space import gray_to_rgb, palette_to_rgb, scale_to_8_bit, ybr_to_rgb
from tests.builders import build_image


@pytest.mark.parametrize(
    ("ybr", "rgb"),
    [
        ((0, 128, 128), (0, 0, 0)),
        ((255, 128, 128), (255, 255, 255)),
        ((76, 85, 255), (255, 0, 0)),
        ((150, 44, 21), (0, 255, 0)),
        ((29, 255, 107), (0, 0, 255)),
    ],
)
def test_ybr_by_the_matrix_of_the_standard(
    ybr: tuple[int, int, int], rgb: tuple[int, int, int]
) -> None:
    samples = np.full((2, 2, 3), ybr, dtype=np.uint8)

    assert np.abs(ybr_to_rgb(samples).astype(int) - rgb).max() <= 2


@pytest.mark.parametrize("bits", [9, 10, 12, 16])
def test_the_highest_sample_of_any_depth_is_white(bits: int) -> None:
    samples = np.array([[[0, (1 << bits) - 1, 1 << (bits - 1)]]], dtype=np.uint16)

    assert scale_to_8_bit(samples, bits).tolist() == [[[0, 255, 127]]]


def test_bits_above_those_stored_are_no_part_of_the_sample() -> None:
    samples = np.array([[[0xF000, 0xFFFF, 0x1800]]], dtype=np.uint16)

    assert scale_to_8_bit(samples, 12).tolist() == [[[0, 255, 127]]]


def test_a_palette_without_tables_raises() -> None:
    """`read_frames` turns it into Rejected."""
    with pytest.raises((ValueError, AttributeError)):
        palette_to_rgb(np.zeros((2, 2), dtype=np.uint8), Dataset())


def test_a_palette_whose_entries_are_8_bits_in_16() -> None:
    image = build_image(photometric="PALETTE COLOR")
    for color in ("Red", "Green", "Blue"):
        ramp = np.arange(256, dtype="<u2")
        setattr(image, f"{color}PaletteColorLookupTableData", ramp.tobytes())
    indices = np.array([[0, 100, 255]], dtype=np.uint8)

    assert palette_to_rgb(indices, image)[:, :, 0].tolist() == [[0, 100, 255]]


class TestGray:
    @pytest.mark.parametrize("width", ["", "0", "-5"])
    def test_a_window_that_cannot_be_used_is_none(self, width: str) -> None:
        dataset = Dataset()
        dataset.WindowCenter, dataset.WindowWidth = "100", width
        samples = np.array([[0, 100, 200]], dtype=np.uint8)

        rgb = gray_to_rgb(samples, dataset, is_inverted=False)

        assert rgb[:, :, 0].tolist() == [[0, 100, 200]]

    def test_the_first_of_several_windows_counts(self) -> None:
        dataset = Dataset()
        dataset.WindowCenter, dataset.WindowWidth = ["100", "10"], ["1", "9"]
        samples = np.array([[99, 100, 101]], dtype=np.uint8)

        rgb = gray_to_rgb(samples, dataset, is_inverted=False)

        assert rgb[:, :, 1].tolist() == [[0, 255, 255]]

    def test_one_shade_of_16_bits_is_black_and_no_division_by_nothing(self) -> None:
        samples = np.full((2, 2), 5000, dtype=np.uint16)

        assert gray_to_rgb(samples, Dataset(), is_inverted=False).max() == 0

    def test_inverted_gray_is_turned_after_the_window(self) -> None:
        samples = np.array([[0, 255]], dtype=np.uint8)

        assert gray_to_rgb(samples, Dataset(), is_inverted=True)[0, :, 0].tolist() == [255, 0]

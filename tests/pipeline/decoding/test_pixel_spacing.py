"""A spacing is believed only where a microscope can have made it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset

from pipeline.decoding.pixel_spacing import spacing_um


def spaced(*mm: float) -> Dataset:
    dataset = Dataset()
    dataset.PixelSpacing = list(mm)
    return dataset


def test_without_attributes_nothing_is_known() -> None:
    assert spacing_um(Dataset()) is None


@pytest.mark.parametrize(
    "mm",
    [
        *((0.5, 0.5), (1e-6, 1e-6), (0.0001, 0.0002), (0.0, 0.0), (-0.0001, -0.0001)),
        *((0.0021, 0.0021), (0.000019, 0.000019), (0.0001, 0.000103), (1e9, 1e9)),
    ],
)
def test_a_scanner_s_or_uneven_spacing_is_not_believed(mm: tuple[float, float]) -> None:
    assert spacing_um(spaced(*mm)) is None


def test_a_microscope_s_spacing_is_believed() -> None:
    assert spacing_um(spaced(0.0001, 0.0001)) == pytest.approx(0.1)


def test_the_imaged_volume_is_divided_by_the_matrix() -> None:
    """PS3.3 C.8.12.4."""
    dataset = Dataset()
    dataset.ImagedVolumeHeight, dataset.ImagedVolumeWidth = 0.1, 0.2
    dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns = 500, 1000

    assert spacing_um(dataset) == pytest.approx(0.2)


@pytest.mark.parametrize("keyword", ["PixelSpacing", "NominalScannedPixelSpacing"])
def test_each_attribute_that_the_guide_names_is_read(keyword: str) -> None:
    dataset = Dataset()
    setattr(dataset, keyword, [0.0001, 0.0001])

    assert spacing_um(dataset) == pytest.approx(0.1)


def test_the_pitch_of_the_sensor_is_not_read_and_no_guide_names_it() -> None:
    """Imager Pixel Spacing is measured at the sensor, in front of which stands the lens."""
    dataset = Dataset()
    dataset.ImagerPixelSpacing = [0.00185, 0.00185]

    assert spacing_um(dataset) is None
    for guide in Path("docs").glob("*.md"):
        assert "Imager" not in guide.read_text(encoding="utf-8")

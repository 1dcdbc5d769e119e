"""A spacing is believed only where a microscope can have made it."""

from __future__ import annotations

import pytest
from pydicom import Dataset

from pipeline.decoding.pixel_spacing import spacing_um


def spaced(*mm: float) -> Dataset:
    dataset = Dataset()
    dataset.PixelSpacing = list(mm)
    return dataset


def test_without_attributes_nothing_is_known() -> None:
    assert spacing_um(Dataset()) is None


@pytest.mark.parametrize("mm", [(0.5, 0.5), (1e-6, 1e-6), (0.0001, 0.0002), (0.0, 0.0)])
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

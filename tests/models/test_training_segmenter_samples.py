"""Crops for the segmenter keep their labels whatever the stain; wider stains do what they say."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.training.segmenter_labels import Labelled
from models.training.segmenter_samples import SIDE, STAINS, Sampler, Stains
from pipeline.maps import DENSITIES, MAP_COUNT

RED, CYTOPLASM, NUCLEUS = (0.05, 0.15, 0.1), (0.08, 0.12, 0.02), (0.3, 0.6, 0.1)
DRAWS = 12


@pytest.fixture(scope="module")
def smear() -> Labelled:
    """One white cell among four red ones, at 0.2 µm a pixel."""
    density = np.zeros((240, 240, 3), np.float32)
    cells, nuclei, red = (np.zeros((240, 240), np.uint8) for _ in range(3))
    for place in ((50, 50), (190, 50), (50, 190), (190, 190)):
        cv2.circle(red, place, 18, 1, cv2.FILLED)
    cv2.circle(cells, (120, 120), 35, 1, cv2.FILLED)
    cv2.circle(nuclei, (120, 120), 22, 1, cv2.FILLED)
    for mask, colour in ((red, RED), (cells, CYTOPLASM), (nuclei, NUCLEUS)):
        density[mask > 0] = colour
    return Labelled(
        file="bccd/images/drawn.jpg",
        source="bccd",
        cell_type="",
        density=density,
        cells=cells,
        nuclei=nuclei,
        ignored=np.zeros_like(cells),
        red=red,
    )


@pytest.mark.parametrize("name", STAINS)
def test_a_crop_is_what_the_network_takes_and_answers(smear: Labelled, name: str) -> None:
    sampler = Sampler([smear], 1, STAINS[name])

    for _ in range(DRAWS):
        density, wanted, weights = sampler.draw()
        assert density.shape == (3, SIDE, SIDE)
        assert wanted.shape == weights.shape == (MAP_COUNT, SIDE, SIDE)
        assert density.min() >= DENSITIES[0]
        assert density.max() <= np.float32(DENSITIES[1])
        assert (wanted[1] <= wanted[0]).all()


def test_labels_do_not_hang_on_the_stain(smear: Labelled) -> None:
    usual, wider = (Sampler([smear], 1, stains).draw() for stains in STAINS.values())

    assert (usual[1] == wider[1]).all()
    assert (usual[0] != wider[0]).any()


def test_parts_are_stained_apart_from_nuclei(smear: Labelled) -> None:
    """Red over nuclear density scatters by what `apart` says, and hardly without it."""
    spread = {}
    for apart in (0.0, 0.6):
        sampler = Sampler([smear], 1, Stains(apart=apart, share=1.0))
        ratios = []
        for _ in range(10 * DRAWS):
            density, wanted, _ = sampler.draw()
            red, nucleus = (density[1][wanted[place] > 0] for place in (2, 1))
            if min(len(red), len(nucleus)) > 100:
                ratios.append(np.log2(max(np.median(red), 0.01) / max(np.median(nucleus), 0.01)))
        spread[apart] = np.std(ratios)

    assert spread[0.6] > spread[0.0] + 0.2

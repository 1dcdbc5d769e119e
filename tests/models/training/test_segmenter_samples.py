"""Crops for the segmenter keep their labels whatever the stain; wider stains do what they say."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from models.training import segmenter_samples
from models.training.segmenter_labels import Labelled
from models.training.segmenter_samples import SIDE, STAINS, Sampler, Stains
from pipeline.segmentation.network_maps import DENSITIES, MAP_COUNT

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
    for mask, color in ((red, RED), (cells, CYTOPLASM), (nuclei, NUCLEUS)):
        density[mask > 0] = color
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
    usual, wider = (Sampler([smear], 1, STAINS[name]).draw() for name in ("usual", "wider"))

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


def red_beside_nucleus(stains: Stains, *smears: Labelled) -> list[np.ndarray]:
    """Usual colors of red cells over those of nuclei, of crops that show both."""
    sampler, ratios = Sampler(smears, 1, stains), []
    for _ in range(10 * DRAWS):
        density, wanted, _ = sampler.draw()
        red, nucleus = (density[:, wanted[place] > 0] for place in (2, 1))
        if min(red.shape[1], nucleus.shape[1]) > 100:
            ratios.append(np.median(red, axis=1) / np.maximum(np.median(nucleus, axis=1), 0.01))
    return ratios


def test_red_cells_become_like_nuclei_and_stay_red_cells(smear: Labelled) -> None:
    still = {"mixing": 0.0, "faint": 0.0}
    usual = red_beside_nucleus(Stains(**still), smear)
    alike = red_beside_nucleus(Stains(**still, alike=1.0), smear)

    assert np.median([ratio[1] for ratio in alike]) > 1.5 * np.median([one[1] for one in usual])
    assert np.mean([ratio[1] < 1 for ratio in alike]) > 0.9


def test_a_crop_takes_the_stain_of_another_source(smear: Labelled) -> None:
    """Its red cells come nearer to those of the other, beside its nuclei."""
    density = smear.density.copy()
    density[smear.red > 0] = (0.3, 0.4, 0.3)
    other = replace(smear, file="raabin/images/drawn.jpg", source="raabin", density=density)
    still = {"mixing": 0.0, "faint": 0.0}

    usual = red_beside_nucleus(Stains(**still), smear, other)
    exchanged = red_beside_nucleus(Stains(**still, exchanged=1.0), smear, other)

    far = lambda ratios: np.mean([0.35 < ratio[1] < 0.55 for ratio in ratios])  # noqa: E731
    assert far(usual) < 0.2 < far(exchanged)


def test_one_source_has_no_other_to_take_a_stain_from(smear: Labelled) -> None:
    plain, exchanged = (Stains(mixing=0.0, exchanged=share) for share in (0.0, 1.0))

    ratios = [np.median(red_beside_nucleus(stains, smear), axis=0) for stains in (plain, exchanged)]

    assert ratios[0] == pytest.approx(ratios[1], rel=0.2)


def test_fringes_move_colors_and_no_label(smear: Labelled) -> None:
    plain, fringed = (
        Sampler([smear], 1, Stains(mixing=0.0, fringed=share)).draw() for share in (0.0, 1.0)
    )

    assert (plain[1] == fringed[1]).all()
    assert np.abs(plain[0] - fringed[0]).max() > 0.05


def darkest(red_share: float, smear: Labelled) -> float:
    """Most density of red cells, in that of the usual red pixel; median over crops."""
    sampler, ratios = Sampler([smear], 1, Stains(mixing=0, red_rows=red_share)), []
    for _ in range(5 * DRAWS):
        density, wanted, _ = sampler.draw()
        red = density[1][(wanted[2] > 0) & (wanted[0] == 0)]
        if len(red) > 200:
            ratios.append(np.percentile(red, 99) / np.percentile(red, 30))
    return float(np.median(ratios))


def test_red_cells_on_red_cells_are_darker_and_never_white(smear: Labelled) -> None:
    nothing = np.zeros_like(smear.cells)
    only_red = replace(smear, cells=nothing, nuclei=nothing)

    without, laid = (darkest(share, only_red) for share in (0.0, 1.0))

    assert laid > 1.4 * without
    assert not any(Sampler([only_red], 1).draw()[1][:2].any() for _ in range(DRAWS))


def test_white_cells_stay_white_under_red_ones(smear: Labelled) -> None:
    sampler = Sampler([smear], 1, Stains(red_rows=1.0))

    for _ in range(DRAWS):
        _, wanted, _ = sampler.draw()
        assert not (wanted[2] * wanted[0]).any()


@pytest.mark.parametrize(("source", "near"), [("bccd", 2.0), ("raabin", 0.0)])
def test_rims_are_learned_from_nuclei_that_a_person_drew(
    smear: Labelled, source: str, near: float
) -> None:
    sampler = Sampler([replace(smear, source=source)], 1)

    for _ in range(DRAWS):
        _, (_, nucleus, *_), (_, weights, *_) = sampler.draw()
        rim = cv2.morphologyEx(nucleus, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        told = weights[rim & (nucleus == 0)]
        assert set(np.unique(told)) <= {0.0, near}
        assert weights[nucleus == 0].max() >= 1


def test_a_clump_of_platelets_is_seen_and_is_no_cell(
    smear: Labelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenter_samples, "SCENE_SHARE", 0.0)
    nothing = np.zeros_like(smear.cells)
    platelets, density = nothing.copy(), np.zeros_like(smear.density)
    cv2.circle(platelets, (120, 120), 8, 1, cv2.FILLED)
    density[platelets > 0] = NUCLEUS
    on_glass = replace(
        smear, density=density, cells=nothing, nuclei=nothing, red=nothing, platelets=platelets
    )

    stained = {}
    for share in (0.0, 1.0):
        monkeypatch.setattr(segmenter_samples, "PLATELET_SHARE", share)
        samples = [Sampler([on_glass], seed, Stains(mixing=0)).draw() for seed in range(DRAWS)]
        stained[share] = np.mean([(density[1] > 0.2).mean() for density, _, _ in samples])
        assert not any(wanted[:4].any() for _, wanted, _ in samples)

    assert stained[1.0] > stained[0.0]


def test_a_scene_that_is_no_smear_holds_neither_cell_nor_nucleus(
    smear: Labelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenter_samples, "SCENE_SHARE", 1.0)

    for seed in range(DRAWS):
        density, wanted, weights = Sampler([smear], seed).draw()
        assert density.shape == (3, SIDE, SIDE)
        assert np.isfinite(density).all()
        assert not wanted.any()
        assert (weights[:4] == 1).all()

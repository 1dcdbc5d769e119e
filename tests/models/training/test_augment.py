"""Augmentation changes how a cell looks, never what is known: black stays black, seeds repeat."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.training.augment import Jitter, augment, measure_stain, plain_view

SEEDS = st.integers(0, 2**32 - 1)
NO_ARTEFACTS = Jitter(jpeg=0.0, outline_px=0)


def disc_cell(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A purple disc with texture on a pale ground, and its mask, 90 px."""
    random = np.random.default_rng(seed)
    crop = np.full((90, 90, 3), 230, np.uint8)
    cv2.circle(crop, (45, 45), 25, (120, 60, 150), cv2.FILLED)
    crop = np.clip(crop + random.normal(0, 8, crop.shape), 0, 255).astype(np.uint8)
    mask = np.zeros((90, 90), np.uint8)
    cv2.circle(mask, (45, 45), 25, 255, cv2.FILLED)
    return crop, mask


@given(SEEDS)
def test_nothing_outside_the_outline_shows(seed: int) -> None:
    crop, mask = disc_cell()
    stain = measure_stain(crop, mask)

    view = augment(crop, mask, 64, stain, stain, NO_ARTEFACTS, np.random.default_rng(seed))

    assert view.shape == (64, 64, 3)
    assert view.dtype == np.uint8
    corners = np.stack([view[0, 0], view[0, -1], view[-1, 0], view[-1, -1]])
    assert corners.max() == 0


@given(SEEDS)
def test_one_seed_gives_one_view_and_leaves_its_arguments_alone(seed: int) -> None:
    crop, mask = disc_cell()
    stain, other = measure_stain(crop, mask), measure_stain(*disc_cell(1))
    kept_crop, kept_mask = crop.copy(), mask.copy()

    views = [
        augment(crop, mask, 64, stain, other, Jitter(), np.random.default_rng(seed))
        for _ in range(2)
    ]

    assert np.array_equal(views[0], views[1])
    assert np.array_equal(crop, kept_crop)
    assert np.array_equal(mask, kept_mask)


def test_an_empty_mask_is_survived() -> None:
    crop, mask = disc_cell()
    empty = np.zeros_like(mask)
    stain = measure_stain(crop, empty)

    view = augment(crop, empty, 64, stain, stain, NO_ARTEFACTS, np.random.default_rng(0))

    assert view.max() == 0


def test_the_plain_view_is_the_masked_center() -> None:
    crop, mask = disc_cell()

    view = plain_view(crop, mask, 64)

    assert np.array_equal(view[32, 32], crop[45, 45])
    assert view[0, 0].max() == 0

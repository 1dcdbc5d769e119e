"""Batches depend on their seed and step alone; patients left out are left out whole."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training environment is not installed")

from models.training.augment import Jitter, measure_stain  # noqa: E402
from models.training.data import (  # noqa: E402
    UNKNOWN,
    CropPack,
    CropRow,
    RandomBatches,
    drawn_ahead,
    thinned,
    without_subjects,
)

PATIENTS = ("cnmc:1", "cnmc:H2", "cnmc:3")
SIDE = 40


def make_pack(count: int = 12) -> CropPack:
    random = np.random.default_rng(1)
    crops = random.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    masks = np.full((count, SIDE, SIDE), 255, np.uint8)
    rows = tuple(
        CropRow(
            file=f"{number}.jpg",
            source="cnmc",
            subject=PATIENTS[number % len(PATIENTS)],
            part="train",
            leukemic=int("H" not in PATIENTS[number % len(PATIENTS)]),
            cell_type=UNKNOWN,
            trust=1.0,
        )
        for number in range(count)
    )
    stains = tuple(measure_stain(c, m) for c, m in zip(crops, masks, strict=True))
    return CropPack(crops=crops, masks=masks, stains=stains, rows=rows)


def make_batches(seed: int) -> RandomBatches:
    return RandomBatches(make_pack(), side=32, size=4, seed=seed, jitter=Jitter())


def test_a_run_that_resumes_sees_the_batches_that_it_would_have_seen() -> None:
    resumed = drawn_ahead(make_batches(7), first=5, workers=2)

    for step in (5, 6, 7):
        torch.testing.assert_close(next(resumed).crops, make_batches(7)[step].crops)
    assert not torch.equal(make_batches(8)[5].crops, make_batches(7)[5].crops)


def test_patients_left_out_are_left_out_whole() -> None:
    pack = make_pack()

    learned, left_out = without_subjects(pack, {"cnmc:H2"})

    assert {row.subject for row in left_out.rows} == {"cnmc:H2"}
    assert {row.subject for row in learned.rows} == {"cnmc:1", "cnmc:3"}
    assert len(learned.rows) + len(left_out.rows) == len(pack.rows)
    wanted = [c for c, row in zip(pack.crops, pack.rows, strict=True) if row.subject == "cnmc:H2"]
    assert np.array_equal(left_out.crops, wanted)


def test_a_thinned_pack_keeps_one_crop_in_so_many() -> None:
    assert [row.file for row in thinned(make_pack(), 5).rows] == ["0.jpg", "5.jpg", "10.jpg"]

"""Heads learn cells: what moves with the laboratory is not leaned on, and answers agree."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="the training environment is not installed")

from models.training import heads
from models.training.data import UNKNOWN, CropRow
from models.training.heads import SMUDGE, affine, composed, fit_basis, fit_heads, sigmoid
from pipeline.domain import CELL_TYPES, CellType

BLAST = CELL_TYPES.index(CellType.BLAST)
LYMPHOCYTE = CELL_TYPES.index(CellType.LYMPHOCYTE)
DRAWN = np.random.default_rng(4)


def row(source: str, leukemic: int, cell_type: int = UNKNOWN) -> CropRow:
    return CropRow(
        file="",
        source=source,
        subject=f"{source}:{DRAWN.integers(5)}",
        part="train",
        leukemic=leukemic,
        cell_type=cell_type,
        trust=1.0,
    )


def two_laboratories() -> tuple[np.ndarray, list[CropRow]]:
    """The first direction tells the label less clearly than the second, which is the laboratory's:
    one laboratory holds most blasts, the other most normal cells."""
    rows = [
        row(source, int(kind == BLAST), kind)
        for source, kind, count in (
            ("a", BLAST, 90),
            ("a", LYMPHOCYTE, 10),
            ("b", BLAST, 10),
            ("b", LYMPHOCYTE, 90),
        )
        for _ in range(count)
    ]
    places = DRAWN.normal(0, 0.5, (200, 3))
    places[:, 0] += [2 * one.leukemic - 1 for one in rows]
    places[:, 1] += [4.0 if one.source == "a" else -4.0 for one in rows]
    return places, rows


def test_what_moves_with_the_laboratory_is_penalised(monkeypatch: pytest.MonkeyPatch) -> None:
    places, rows = two_laboratories()
    learned = np.ones(len(rows), dtype=bool)

    monkeypatch.setattr(heads, "LABORATORY_PENALTY", 0.0)
    leaning = fit_heads(places, rows, learned).blood
    monkeypatch.setattr(heads, "LABORATORY_PENALTY", 10.0)
    upright = fit_heads(places, rows, learned).blood

    assert abs(upright[1] / upright[0]) < 0.2 * abs(leaning[1] / leaning[0]) + 0.01
    assert upright[0] > 0


def test_only_rows_that_are_learned_matter() -> None:
    places, rows = two_laboratories()
    learned = np.arange(len(rows)) % 2 == 0
    other = places.copy()
    other[~learned] += 100

    assert np.allclose(
        fit_heads(places, rows, learned).types, fit_heads(other, rows, learned).types
    )


def test_what_nobody_showed_is_never_said() -> None:
    places, rows = two_laboratories()

    fitted = fit_heads(places, rows, np.ones(len(rows), dtype=bool))

    assert (sigmoid(affine(places, fitted.smudge)) < 0.01).all()
    assert (sigmoid(affine(places, fitted.gate)) < 0.01).all()


def test_types_never_contradict_the_leukemic_probability() -> None:
    leukemic, smudge = DRAWN.random(50), DRAWN.random(50)
    logits = DRAWN.normal(0, 3, (50, len(CELL_TYPES)))

    shares = composed(leukemic, smudge, logits, 2.0)

    assert np.allclose(shares.sum(axis=1), 1)
    assert np.allclose(shares[:, SMUDGE], smudge)
    assert (shares[:, BLAST] <= leukemic * (1 - smudge) + 1e-9).all()


def test_a_basis_keeps_what_the_features_say() -> None:
    third = DRAWN.normal(2, 3, (300, 6)).astype(np.float32)
    last = DRAWN.normal(-1, 0.1, (300, 4)).astype(np.float32)

    places = fit_basis(third, last)(np.concatenate([third, last], axis=1))

    assert places.shape == (300, 10)
    assert np.abs(places.mean(axis=0)).max() < 1e-5
    assert np.var(places[:, :6]) > np.var(places[:, 6:])

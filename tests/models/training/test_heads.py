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
THIRD = 3
"""Places of the third stage: all, where a test has no other."""
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
    monkeypatch.setattr(heads, "_has_both_labels", lambda *_: False)  # one fit of all

    monkeypatch.setattr(heads, "LABORATORY_PENALTY", 0.0)
    leaning = fit_heads(places, rows, learned, THIRD).blood
    monkeypatch.setattr(heads, "LABORATORY_PENALTY", 10.0)
    upright = fit_heads(places, rows, learned, THIRD).blood

    assert abs(upright[1] / upright[0]) < 0.2 * abs(leaning[1] / leaning[0]) + 0.01
    assert upright[0] > 0


def test_both_stages_vote_alike_whatever_their_scale() -> None:
    places, rows = two_laboratories()
    last = DRAWN.normal(0, 0.05, (len(rows), 2))
    last[:, 0] += [0.1 * one.leukemic for one in rows]
    both = np.column_stack([places, last])

    expert = fit_heads(both, rows, np.ones(len(rows), dtype=bool), THIRD).blood

    votes = [both[:, :THIRD] @ expert[:THIRD], both[:, THIRD:] @ expert[THIRD:-1]]
    assert np.std(votes[0]) == pytest.approx(1)
    assert np.std(votes[1]) == pytest.approx(heads.LAST_STAGE_VOTE)


def test_what_one_laboratory_alone_says_counts_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first direction tells the label in each of three laboratories, the second in one."""
    rows = [
        row(source, k % 2, BLAST if k % 2 else LYMPHOCYTE) for source in "abc" for k in range(80)
    ]
    labels = np.array([2 * one.leukemic - 1 for one in rows])
    of_one = np.array([one.source == "a" for one in rows])
    places = DRAWN.normal(0, 0.7, (len(rows), 2))
    places[:, 0] += labels
    places[:, 1] += labels * of_one
    learned = np.ones(len(rows), dtype=bool)

    monkeypatch.setattr(heads, "LABORATORY_PENALTY", 0.0)
    fair = fit_heads(places, rows, learned, 2).blood
    monkeypatch.setattr(heads, "_has_both_labels", lambda *_: False)
    whole = fit_heads(places, rows, learned, 2).blood

    assert 0 < fair[1] / fair[0] < 0.9 * whole[1] / whole[0]


def test_only_rows_that_are_learned_matter() -> None:
    places, rows = two_laboratories()
    learned = np.arange(len(rows)) % 2 == 0
    other = places.copy()
    other[~learned] += 100

    assert np.allclose(
        fit_heads(places, rows, learned, THIRD).types, fit_heads(other, rows, learned, THIRD).types
    )


def test_what_nobody_showed_is_never_said() -> None:
    places, rows = two_laboratories()

    fitted = fit_heads(places, rows, np.ones(len(rows), dtype=bool), THIRD)

    assert (sigmoid(affine(places, fitted.smudge)) < 0.01).all()
    assert (sigmoid(affine(places, fitted.gate)) < 0.01).all()


def test_types_follow_the_call() -> None:
    leukemic, smudge = DRAWN.random(200), np.zeros(200)
    logits = DRAWN.normal(0, 3, (200, len(CELL_TYPES)))

    shares = composed(leukemic, smudge, logits, 2.0)

    is_leukemic = leukemic >= 0.5
    assert np.allclose(shares.sum(axis=1), 1)
    assert (shares[:, BLAST] <= np.where(is_leukemic, 1, leukemic) + 1e-9).all()
    called = shares[:, heads.leukemic_types()].sum(axis=1) >= 0.5
    assert called[is_leukemic].all()


def test_a_granulocyte_a_little_below_one_half_is_no_promyelocyte() -> None:
    """A promyelocyte may be leukemic or normal, so that its shares add up."""
    logits = np.full((1, len(CELL_TYPES)), -9.0)
    logits[0, CELL_TYPES.index(CellType.IMMATURE_GRANULOCYTE)] = 2.0
    logits[0, CELL_TYPES.index(CellType.PROMYELOCYTE)] = 2.0

    (shares,) = composed(np.array([0.44]), np.zeros(1), logits)

    assert CELL_TYPES[int(shares.argmax())] is CellType.IMMATURE_GRANULOCYTE


def test_a_smudge_cell_is_as_likely_as_was_said() -> None:
    leukemic, smudge = DRAWN.random(50), DRAWN.random(50)
    logits = DRAWN.normal(0, 3, (50, len(CELL_TYPES)))

    shares = composed(leukemic, smudge, logits, 2.0)

    assert np.allclose(shares.sum(axis=1), 1)
    assert np.allclose(shares[:, SMUDGE], smudge)


def test_a_basis_keeps_what_the_features_say() -> None:
    third = DRAWN.normal(2, 3, (300, 6)).astype(np.float32)
    last = DRAWN.normal(-1, 0.1, (300, 4)).astype(np.float32)

    places = fit_basis(third, last)(np.concatenate([third, last], axis=1))

    assert places.shape == (300, 10)
    assert fit_basis(third, last).third == 6
    assert np.abs(places.mean(axis=0)).max() < 1e-5
    assert np.var(places[:, :6]) > np.var(places[:, 6:])

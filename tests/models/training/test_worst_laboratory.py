"""A new network is refused here when it ranks a laboratory left out worse than the one before.

Nothing stored is compared: a part of the packs is cut by the service's code, the packaged trunk
looks at it, and heads are fitted without each laboratory in turn, as `leave_out_laboratories` does
with all cells.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the training environment is not installed")
pytest.importorskip("onnx", reason="the training environment is not installed")

from models.classifier import MODEL_FOLDER
from models.evaluation.metrics import area_under_roc
from models.evaluation.pack import PackRow, read_pack
from models.training.augment import apply_mask
from models.training.data import CropRow
from models.training.heads import affine, fit_basis, fit_heads
from models.training.pooled import pooled, trunk_session
from models.training.prepare import _pack_picture

PICTURES = {"deepapl": 120, "lmu": 30, "aria": 16, "pbc": 60, "zheng1": 20, "chula_cells": 20}
"""Of each label of a source, spread evenly over its pictures."""
LEAST = {"deepapl": 0.91, "aria": 0.875, "lmu": 0.985}
"""AUC of the packaged trunk on this part, as the cell finder of ADR 38 cuts it, less 0.015 for
another processor's rounding. Raise them with a better network. With few cells of deepapl to learn
from, aria is ranked worse than with all of them (0.952)."""
LEAST_MEAN = 0.928
"""Their mean, less 0.01: what one laboratory loses another rarely gains."""
SIDE_BY_SIDE = 16


@pytest.fixture(scope="module")
def packs(data_dir: Path) -> list[PackRow]:
    """Rows of both packs, or a skip."""
    second = data_dir.with_name("data2")
    if not (second / "manifest.csv").is_file():
        pytest.skip("no second pack of smear images beside the first")
    return [row for folder in (data_dir, second) for row in read_pack(folder, None)]


def some_of(rows: Sequence[PackRow]) -> list[PackRow]:
    groups: dict[tuple[str, str], list[PackRow]] = defaultdict(list)
    for row in rows:
        if row.source in PICTURES and (row.label or row.source == "zheng1"):
            groups[row.source, row.label].append(row)
    return [
        group[int(place)]
        for (source, *_), group in groups.items()
        for place in np.linspace(0, len(group) - 1, min(PICTURES[source], len(group)))
    ]


def test_the_worst_laboratory_left_out_is_ranked_no_worse_than_before(
    packs: list[PackRow],
) -> None:
    cut = [one for row in some_of(packs) for one in _pack_picture(row, "train")]
    rows: list[CropRow] = [row for *_, row in cut]
    crops = np.stack([apply_mask(crop, mask) for crop, mask, _ in cut])
    session = trunk_session(MODEL_FOLDER / "smearnet-int8.onnx", threads=1)
    seen = [
        pooled(session, crops[first : first + SIDE_BY_SIDE])
        for first in range(0, len(crops), SIDE_BY_SIDE)
    ]
    third, last = (np.concatenate([getattr(one, key) for one in seen]) for key in ("third", "last"))
    basis = fit_basis(third, last)
    places = basis(np.concatenate([third, last], axis=1))
    sources = np.array([row.source for row in rows])
    labels = np.array([row.leukemic for row in rows])

    ranked = {}
    for name in LEAST:
        heads = fit_heads(places, rows, sources != name, basis.third)
        judged = (sources == name) & (labels >= 0)
        ranked[name] = area_under_roc(labels[judged] == 1, affine(places, heads.blood)[judged])

    assert len(rows) > 400
    assert {name: value for name, value in ranked.items() if (value or 0) < LEAST[name]} == {}, (
        ranked
    )
    assert np.mean([value or 0 for value in ranked.values()]) >= LEAST_MEAN, ranked

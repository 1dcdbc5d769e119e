"""Single-cell pictures are judged by the service's own cutting, network and rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from models.evaluation.baseline import Baseline, colour_and_area
from models.evaluation.cells import (
    MASKED_CELL_DIAMETER_UM,
    JudgedCell,
    judge_cells,
    masked_scale,
    score_cells,
)
from models.evaluation.pack import PackRow, PictureKind
from pipeline.domain import CELL_TYPES, CellType, DecisionPolicy, ModelIdentity, Prediction

CERTAIN = DecisionPolicy(refer_above=0.4, leukemic_from=0.6, novelty_limit=10.0)
FIGURES = len(colour_and_area(np.zeros((224, 224, 3), np.uint8)))
FLAT = Baseline(
    mean=np.zeros(FIGURES), spread=np.ones(FIGURES), weights=np.zeros(FIGURES), intercept=0.0
)


class Redness:
    """Calls a cell leukemic as far as it is red; remembers the crops that it was shown."""

    identity = ModelIdentity(name="redness", version="1", sha256="0" * 64, execution_provider="x")
    policy = CERTAIN

    def __init__(self) -> None:
        self.shown: list[NDArray[np.uint8]] = []

    def classify(self, crops: NDArray[np.uint8]) -> list[Prediction]:
        self.shown += list(crops)
        return [self._of(crop) for crop in crops]

    def _of(self, crop: NDArray[np.uint8]) -> Prediction:
        lit = crop[crop.max(axis=2) > 0]
        redness = float(lit[:, 0].mean() / 255) if len(lit) else 0.0
        likely = CellType.BLAST if redness > 0.5 else CellType.LYMPHOCYTE
        return Prediction(
            leukemic_probability=redness,
            type_probabilities=tuple(float(kind is likely) for kind in CELL_TYPES),
            activation_map=np.zeros((7, 7), np.float32),
            novelty=1.0,
        )


def masked_row(folder: Path, name: str, color: Sequence[int], label: str) -> PackRow:
    picture = np.zeros((160, 160, 3), np.uint8)
    cv2.circle(picture, (80, 80), 60, color[::-1], cv2.FILLED)
    cv2.imwrite(str(folder / name), picture)
    return PackRow(
        root=folder,
        file=name,
        source="made",
        kind=PictureKind.CELL,
        label=label,
        cell_type="lymphocyte" if label == "normal" else "",
        subtype="",
        subject=name,
        split="",
        is_masked=True,
    )


def test_a_picture_without_a_cell_is_referred_at_one_half(tmp_path: Path) -> None:
    blank = replace(masked_row(tmp_path, "blank.png", (0, 0, 0), "normal"), is_masked=False)
    cv2.imwrite(str(blank.path), np.full((160, 160, 3), 245, np.uint8))

    (judged,) = judge_cells([blank], classifier=Redness(), baseline=FLAT)

    assert judged == JudgedCell(row=blank)
    assert judged.is_referred
    assert judged.probability == 0.5


def test_a_masked_cell_is_shown_whole_at_one_physical_scale(tmp_path: Path) -> None:
    row = masked_row(tmp_path, "cell.png", (200, 40, 120), "leukemic")
    network = Redness()

    judge_cells([row], classifier=network, baseline=FLAT)

    (crop,) = network.shown
    width = int((crop.max(axis=2) > 0).any(axis=0).sum())
    assert crop.shape == (224, 224, 3)
    assert width == pytest.approx(224 * MASKED_CELL_DIAMETER_UM / 24.0, rel=0.03)


def test_the_scale_of_an_unknown_source_comes_from_an_ordinary_cell() -> None:
    pixels = np.zeros((200, 200, 3), np.uint8)
    cv2.circle(pixels, (100, 100), 50, (90, 60, 120), cv2.FILLED)

    um_per_px = masked_scale(pixels, "somewhere")

    assert um_per_px * 101 == pytest.approx(MASKED_CELL_DIAMETER_UM, rel=0.02)
    assert masked_scale(pixels, "cnmc") == 0.055


def test_figures_are_those_of_the_calls(tmp_path: Path) -> None:
    rows = [
        masked_row(tmp_path, "l1.png", (230, 20, 20), "leukemic"),
        masked_row(tmp_path, "l2.png", (100, 20, 20), "leukemic"),
        masked_row(tmp_path, "n1.png", (20, 20, 230), "normal"),
        masked_row(tmp_path, "n2.png", (120, 20, 230), "normal"),
    ]

    figures = score_cells(judge_cells(rows, classifier=Redness(), baseline=FLAT))["made"]

    assert figures["n"] == 4
    assert _value(figures["auc"]) == 0.75
    assert _value(figures["sensitivity"]) == 0.5
    assert _value(figures["specificity"]) == 1.0
    assert _value(figures["balanced_accuracy"]) == 0.75
    assert _value(figures["cell_type_accuracy"]) == 1.0
    assert _value(figures["baseline_auc"]) == 0.5


def test_a_blast_of_open_lineage_is_right_for_any_blast(tmp_path: Path) -> None:
    blast = CELL_TYPES.index(CellType.BLAST)
    said = {"blast": 1.0, "lymphoblast": 1.0, "myeloblast": 1.0, "monocyte": 0.0}

    for true, accuracy in said.items():
        row = replace(masked_row(tmp_path, f"{true}.png", (230, 20, 20), ""), cell_type=true)
        judged = JudgedCell(row=row, cell_type=blast)
        assert _value(score_cells([judged])["made"]["cell_type_accuracy"]) == accuracy, true


def test_a_type_without_a_counterpart_is_judged_by_its_label_only(tmp_path: Path) -> None:
    row = replace(masked_row(tmp_path, "a.png", (230, 20, 20), "leukemic"), cell_type="promonocyte")

    figures = score_cells([JudgedCell(row=row, probability=0.9, cell_type=0)])["made"]

    assert figures["cell_type_accuracy"] is None
    assert _value(figures["sensitivity"]) == 1.0


def test_normal_cells_that_are_referred_do_not_count_as_called(tmp_path: Path) -> None:
    row = masked_row(tmp_path, "n.png", (20, 20, 230), "normal")
    judged = [
        JudgedCell(row=row, probability=0.9, is_referred=False, is_called_leukemic=True),
        JudgedCell(row=row, probability=0.1, is_referred=False),
        JudgedCell(row=row, probability=0.6, is_referred=True),
    ]

    assert _value(score_cells(judged)["made"]["called_leukemic"]) == 0.5


def test_novelty_is_judged_by_how_well_it_ranks_mistakes(tmp_path: Path) -> None:
    row = masked_row(tmp_path, "n.png", (20, 20, 230), "normal")
    right, wrong = JudgedCell(row=row, probability=0.1), JudgedCell(row=row, probability=0.9)
    judged = [replace(right, novelty=1.0), replace(right, novelty=3.0), replace(wrong, novelty=2.0)]

    assert _value(score_cells(judged)["made"]["novelty_auc"]) == 0.5
    assert score_cells(judged[:2])["made"]["novelty_auc"] is None


def test_the_scale_is_compared_with_the_middle_of_its_source(tmp_path: Path) -> None:
    row = masked_row(tmp_path, "n.png", (20, 20, 230), "normal")
    judged = [JudgedCell(row=row, um_per_px=0.1 * np.exp(off)) for off in (0.0, 0.0, 0.3)]

    assert _value(score_cells(judged)["made"]["scale_error"]) == pytest.approx(0.1)
    assert score_cells([JudgedCell(row=row)])["made"]["scale_error"] is None


def test_a_figure_without_meaning_is_null(tmp_path: Path) -> None:
    row = masked_row(tmp_path, "n1.png", (20, 20, 230), "normal")

    figures = score_cells(judge_cells([row], classifier=Redness(), baseline=FLAT))["made"]

    assert figures["auc"] is None
    assert figures["sensitivity"] is None
    assert _value(figures["specificity"]) == 1.0


def _value(figure: object) -> float:
    assert isinstance(figure, dict)
    assert figure["low"] <= figure["value"] <= figure["high"]
    return float(figure["value"])

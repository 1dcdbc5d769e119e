"""Which pictures of a pack tell about a laboratory, and what is asked of the network."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from listener.demo.phantom import Recipe, draw_field
from models.evaluation.labeled_cells import ask_about_cells, labeled_rows
from models.evaluation.pack import PackRow, PictureKind
from pipeline.domain import CELL_TYPES, CellType, DecisionPolicy, ModelIdentity, Prediction
from pipeline.errors import Rejected


class Even:
    """Answers one half to every crop."""

    identity = ModelIdentity(name="even", version="1", sha256="0" * 64, execution_provider="x")
    policy = DecisionPolicy(refer_above=0.28, leukemic_from=0.72, novelty_limit=1e6)

    def classify(self, crops: NDArray[np.uint8]) -> list[Prediction]:
        return [
            Prediction(
                leukemic_probability=0.5,
                type_probabilities=(1 / len(CELL_TYPES),) * len(CELL_TYPES),
                activation_map=np.zeros((7, 7), np.float32),
                novelty=0.0,
            )
            for _ in crops
        ]


def row(
    root: Path,
    file: str = "s/images/a.png",
    *,
    source: str = "s",
    kind: PictureKind = PictureKind.CELL,
    label: str = "normal",
    cell_type: str = "",
    subject: str = "one",
) -> PackRow:
    return PackRow(
        root=root,
        file=file,
        source=source,
        kind=kind,
        label=label,
        cell_type=cell_type,
        subtype="",
        subject=subject,
        split="",
        is_masked=False,
    )


def chosen(
    *rows: PackRow, source: str = "", normal_cells_only: bool = False
) -> tuple[PackRow, ...]:
    return labeled_rows(rows, source=source, normal_cells_only=normal_cells_only)


def test_two_laboratories_are_refused_until_one_is_named(tmp_path: Path) -> None:
    rows = [row(tmp_path, source="here"), row(tmp_path, source="there")]

    with pytest.raises(Rejected, match="here, there") as refusal:
        chosen(*rows)

    assert refusal.value.code == "calibration_sources"
    assert [one.source for one in chosen(*rows, source="there")] == ["there"]


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="only of s") as refusal:
        chosen(row(tmp_path), source="elsewhere")

    assert refusal.value.code == "calibration_sources"


def test_a_picture_of_no_smear_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="no subject") as refusal:
        chosen(row(tmp_path, subject=""))

    assert refusal.value.code == "calibration_no_smear"


@pytest.mark.parametrize("label", ["", "benign"])
def test_a_pack_without_labels_is_refused(tmp_path: Path, label: str) -> None:
    with pytest.raises(Rejected) as refusal:
        chosen(row(tmp_path, label=label))

    assert refusal.value.code == "calibration_nothing_labeled"


def test_smudges_and_platelets_are_not_used(tmp_path: Path) -> None:
    types = ("smudge_cell", "platelet", "giant_platelet", "monocyte", "promonocyte", "")

    kept = chosen(*(row(tmp_path, cell_type=one) for one in types))

    assert [one.cell_type for one in kept] == ["monocyte", "promonocyte", ""]


def test_leukemic_cells_stay_out_where_normal_ones_alone_are_wanted(tmp_path: Path) -> None:
    rows = [row(tmp_path), row(tmp_path, label="leukemic")]

    assert [one.label for one in chosen(*rows, normal_cells_only=True)] == ["normal"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """One cell, one empty picture, one field of three cells."""
    folder = tmp_path / "s" / "images"
    folder.mkdir(parents=True)
    cells = {"cell": (CellType.LYMPHOCYTE,), "field": (CellType.MONOCYTE,) * 3}
    for name, kinds in cells.items():
        side = 200 if name == "cell" else 700
        drawn = draw_field(5, Recipe(width=side, height=side, um_per_px=0.12, white_cells=kinds))
        cv2.imwrite(str(folder / f"{name}.png"), drawn.pixels[..., ::-1])
    cv2.imwrite(str(folder / "empty.png"), np.full((200, 200, 3), 240, np.uint8))
    return tmp_path


def test_every_cell_of_a_healthy_field_is_normal(pictures: Path) -> None:
    field = row(pictures, "s/images/field.png", kind=PictureKind.FIELD, subject="a")

    cells = ask_about_cells([field], classifier=Even())

    assert len(cells.probabilities) >= 2
    assert set(cells.is_leukemic) == {False}
    assert set(cells.smears) == {"a"}


def test_of_a_leukemic_field_only_marked_cells_are_known(pictures: Path) -> None:
    field = row(pictures, "s/images/field.png", kind=PictureKind.FIELD, label="leukemic")

    cells = ask_about_cells([field], classifier=Even())

    assert cells.probabilities == []
    assert cells.left_out == {"no cell found in the picture": 1}


def test_a_picture_without_a_cell_is_counted_and_left_out(pictures: Path) -> None:
    rows = [row(pictures, "s/images/cell.png"), row(pictures, "s/images/empty.png")]

    probabilities, is_leukemic, smears = ask_about_cells(rows, classifier=Even()).columns

    assert list(probabilities) == [0.5]
    assert list(is_leukemic) == [False]
    assert list(smears) == ["one"]

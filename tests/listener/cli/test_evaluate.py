"""`smearlink evaluate`: every source and kind of a pack, with figures or null."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import pytest

from config.model import Settings
from config.settings import make_settings
from listener.cli.evaluate import evaluate_with_progress
from listener.demo.phantom import Recipe, draw_field
from pipeline.domain import CellType
from pipeline.errors import Rejected

COLUMNS = ("file", "source", "kind", "label", "cell_type", "subject", "split", "masked")
ONE_CELL = (CellType.LYMPHOCYTE,)
CELL_FIGURES = {
    "n",
    "auc",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "sensitivity_at_95",
    "called_leukemic",
    "ece",
    "referred",
    "novelty_auc",
    "scale_error",
    "cell_type_accuracy",
    "cell_type_macro_f1",
    "baseline_auc",
}
FIELD_FIGURES = {
    "n",
    "precision",
    "recall",
    "f1",
    "ap",
    "centroid_recall",
    "nucleus_dice",
    "cell_dice",
    "refused",
    "ms_per_megapixel",
    "leukemic_auc",
    "false_leukemic",
}


def test_a_folder_that_is_no_pack_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(Rejected, match=r"manifest\.csv"):
        evaluate_with_progress([tmp_path], split=None, settings=_settings(tiny_model))


def test_a_split_that_nothing_has_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    pack = _pack(tmp_path / "pack")

    with pytest.raises(Rejected) as refusal:
        evaluate_with_progress([pack], split="nonsense", settings=_settings(tiny_model))

    assert refusal.value.code == "pack_empty"


def test_each_source_and_kind_has_every_figure_or_null(tmp_path: Path, tiny_model: Path) -> None:
    pack = _pack(tmp_path / "pack")

    result = evaluate_with_progress([pack], split="val", settings=_settings(tiny_model))

    assert set(result) == {"cells", "fields"}
    (cells,) = result["cells"].values()
    (fields,) = result["fields"].values()
    assert set(cells) == CELL_FIGURES
    assert set(fields) == FIELD_FIGURES
    assert cells["n"] == 2
    assert cells["cell_type_accuracy"] is None
    for figure in (cells["auc"], fields["refused"]):
        assert isinstance(figure, dict)
        assert set(figure) == {"value", "low", "high"}
    assert json.loads(json.dumps(result)) == result


def test_several_packs_are_judged_as_one(tmp_path: Path, tiny_model: Path) -> None:
    first, second = _pack(tmp_path / "first"), _pack(tmp_path / "second", source="other")

    result = evaluate_with_progress([first, second], split="val", settings=_settings(tiny_model))

    assert {source: figures["n"] for source, figures in result["cells"].items()} == {
        "drawn": 2,
        "other": 2,
    }
    with pytest.raises(Rejected):
        evaluate_with_progress([first, tmp_path], split="val", settings=_settings(tiny_model))


def _pack(root: Path, source: str = "drawn") -> Path:
    """Two cells and a field, drawn; all of the split `val`."""
    images = root / "drawn" / "images"
    images.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for name, kind, label, side in (
        ("a", "cell", "leukemic", 200),
        ("b", "cell", "normal", 200),
        ("f", "field", "normal", 480),
    ):
        drawn = draw_field(5, Recipe(width=side, height=side, um_per_px=0.12, white_cells=ONE_CELL))
        cv2.imwrite(str(images / f"{name}.png"), drawn.pixels[..., ::-1])
        row = dict.fromkeys(COLUMNS, "")
        row |= {"file": f"drawn/images/{name}.png", "source": source, "kind": kind}
        rows.append({**row, "label": label, "subject": name, "split": "val", "masked": "false"})
    with (root / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return root


def _settings(model: Path) -> Settings:
    return make_settings({"model": {"folder": str(model)}})

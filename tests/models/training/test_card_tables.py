"""The card says what `evaluation.json` says."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from models.classifier import MODEL_FOLDER
from models.training.card_tables import LEFT_OUT, table, with_tables

CARD = (MODEL_FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
FIGURES: dict[str, Any] = json.loads((MODEL_FOLDER / "evaluation.json").read_text(encoding="utf-8"))


def test_the_tables_of_the_card_are_those_of_the_figures() -> None:
    assert with_tables(CARD, FIGURES) == CARD, "run python -m models.training.card_tables"


def test_another_figure_changes_the_card() -> None:
    other = copy.deepcopy(FIGURES)
    other["left_out"][0]["auc"]["value"] = 0.1234

    changed = with_tables(CARD, other)

    assert "0.123 (" in changed
    assert with_tables(changed, FIGURES) == CARD


@pytest.mark.parametrize("without", ["<!-- left_out -->", "<!-- end of held_back -->"])
def test_a_card_without_a_place_for_a_table_is_refused(without: str) -> None:
    with pytest.raises(ValueError, match="places for the table"):
        with_tables(CARD.replace(without, ""), FIGURES)


def test_what_was_not_measured_is_a_dash() -> None:
    line = {key: None for _, key in LEFT_OUT}
    line |= {"laboratory": "a new one", "trunk_knew": True, "leukemic": 0, "normal": 3}

    *_, row = table([line], LEFT_OUT).splitlines()

    assert row == "| a new one | 0 / 3 |" + " – |" * len(LEFT_OUT)

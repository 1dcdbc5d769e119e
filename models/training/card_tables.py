"""Write the card's tables from `models/evaluation.json`: `python -m models.training.card_tables`.

A table stands between two comments that name it; what is around them is written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

MODEL_FOLDER = Path(__file__).parent.parent

Line = Mapping[str, Any]

DESCRIBED: Mapping[str, str] = {
    "deepapl": "Johns Hopkins, AML and APL, 82 patients (`deepapl`)",
    "lmu": "Munich (`lmu`)",
    "aria": "Tehran (`aria`), labels of whole fields",
    "cnmc": "C-NMC, marrow, by the blood expert",
    "pbc": "Barcelona (`pbc`)",
    "zheng1": "Jiangxi (`zheng1`)",
    "chula_cells": "a poor camera (`chula_cells`)",
    "healthy fields": "BCCD, Raabin, draaslan, taken for healthy",
    "allidb1": "ALL-IDB1, nothing ever learns from it",
    "malaria fields": "malaria fields, no head ever learns from them",
}
"""What a reader calls each laboratory; any other keeps its name."""

COMMON = (
    ("AUC", "auc"),
    ("sensitivity", "sensitivity"),
    ("specificity", "specificity"),
    ("sensitivity at specificity 0.95", "sensitivity_at_95"),
    ("called leukemic", "called_leukemic"),
    ("referred", "referred"),
    ("calibration error", "ece"),
)
LEFT_OUT = (*COMMON, ("five mature types", "mature_types"))
HELD_BACK = (*COMMON, ("all types", "types"))
LOCALLY_CALIBRATED = (
    ("sensitivity", "sensitivity"),
    ("specificity", "specificity"),
    ("called leukemic", "called_leukemic"),
    ("referred", "referred"),
    ("calibration error", "ece"),
)
LEARNED = (
    ("as it comes", "before"),
    ("normal cells", "normal_cells"),
    ("cells of both labels", "both_labels"),
)
"""What a laboratory calibrated with."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=MODEL_FOLDER)
    folder: Path = parser.parse_args().folder
    card = folder / "MODEL_CARD.md"
    figures = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    card.write_text(with_tables(card.read_text(encoding="utf-8"), figures), encoding="utf-8")


def with_tables(card: str, figures: Mapping[str, Any]) -> str:
    """The card with its tables as the figures are; raises ValueError where a place is missing."""
    for name, columns in (("left_out", LEFT_OUT), ("held_back", HELD_BACK)):
        card = _replaced(card, name, table(figures[name], columns))
    return _replaced(card, "locally_calibrated", local_table(figures["locally_calibrated"]))


def table(lines: Sequence[Line], columns: Sequence[tuple[str, str]]) -> str:
    """One row a laboratory, in Markdown."""
    head = ["laboratory", "leukemic / normal cells", *(title for title, _ in columns)]
    rows = [
        [_described(one), f"{one['leukemic']} / {one['normal']}"]
        + [_FORMATS.get(key, _interval)(one[key]) for _, key in columns]
        for one in lines
    ]
    return _markdown(head, rows)


def local_table(lines: Sequence[Line]) -> str:
    """Of each laboratory one row for each way to calibrate it, in Markdown."""
    head = ["laboratory", "calibrated with", *(title for title, _ in LOCALLY_CALIBRATED)]
    rows = [
        [DESCRIBED[one["laboratory"]], title]
        + [_FORMATS.get(key, _interval)(one[way][key]) for _, key in LOCALLY_CALIBRATED]
        for one in lines
        for title, way in LEARNED
        if one[way] is not None
    ]
    return _markdown(head, rows)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(
        "| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)
    )


def _described(line: Line) -> str:
    name = str(line["laboratory"])
    return DESCRIBED.get(name, name) + (" †" if line["trunk_knew"] and name in DESCRIBED else "")


def _interval(figure: Mapping[str, float] | None) -> str:
    if figure is None:
        return "–"
    return f"{figure['value']:.3f} ({figure['low']:.2f}–{figure['high']:.2f})"


def _percent(figure: Mapping[str, float] | None) -> str:
    return "–" if figure is None else f"{100 * figure['value']:.0f} %"


_FORMATS: Mapping[str, Callable[[Mapping[str, float] | None], str]] = {"referred": _percent}


def _replaced(card: str, name: str, content: str) -> str:
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    changed, found = pattern.subn(lambda _: f"{begin}\n\n{content}\n\n{end}", card)
    if found != 1:
        raise ValueError(f"The card has {found} places for the table {name!r}; it needs one.")
    return changed


if __name__ == "__main__":
    main()

"""Reads the evaluation that ships with the network: `evaluation.json`, beside its manifest.

`models/training/README.md` has its schema. The page shows laboratories left out first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLUMNS = (
    "auc",
    "sensitivity",
    "specificity",
    "sensitivity_at_95",
    "called_leukemic",
    "referred",
    "ece",
    "mature_types",
    "types",
)
"""Figures of a laboratory that the page shows, in this order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureRow:
    """A number with its interval, where it has one."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """Truth by row, answer by column."""

    labels: Sequence[str]
    counts: Sequence[Sequence[int]]

    @property
    def accuracy(self) -> float:
        """Share of cells with the right type; 0 without cells."""
        total = sum(map(sum, self.counts))
        right = sum(row[i] for i, row in enumerate(self.counts))
        return right / total if total else 0.0

    def scores(self) -> Iterator[tuple[str, float | None, float | None, float | None]]:
        """Label, precision, recall and F1 of each type; None where nothing divides."""
        for i, label in enumerate(self.labels):
            right = self.counts[i][i]
            said = sum(row[i] for row in self.counts)
            true = sum(self.counts[i])
            precision = right / said if said else None
            recall = right / true if true else None
            both = said + true
            yield label, precision, recall, 2 * right / both if both else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LaboratoryRow:
    """One laboratory, or one group of patients of a laboratory."""

    name: str
    leukemic: int
    normal: int
    trunk_knew: bool
    """The network's trunk learned from this laboratory before, which flatters its figures."""
    figures: Sequence[FigureRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Everything that the page draws."""

    version: str
    made_by: str
    """The command that gives these figures again."""
    left_out: Sequence[LaboratoryRow]
    held_back: Sequence[LaboratoryRow]
    roc: Mapping[str, Sequence[tuple[float, float]]]
    """By laboratory left out: 1 - specificity and sensitivity."""
    reliability: Sequence[tuple[float, float]]
    """Mean probability and share of leukemic cells in each bin, over laboratories left out."""
    confusion: Confusion | None


def read_evaluation(path: Path) -> Evaluation | None:
    """The evaluation; None without a file, or with one of another schema."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return Evaluation(
            version=str(record["version"]),
            made_by=str(record["made_by"]),
            left_out=tuple(map(_laboratory, record["left_out"])),
            held_back=tuple(map(_laboratory, record["held_back"])),
            roc={str(name): list(map(_point, points)) for name, points in record["roc"].items()},
            reliability=[
                (float(one["said"]), float(one["leukemic"]))
                for one in record["reliability"]
                if one["cells"]
            ],
            confusion=_confusion(record.get("confusion")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _laboratory(one: Mapping[str, Any]) -> LaboratoryRow:
    return LaboratoryRow(
        name=str(one["laboratory"]),
        leukemic=int(one["leukemic"]),
        normal=int(one["normal"]),
        trunk_knew=bool(one["trunk_knew"]),
        figures=tuple(
            FigureRow(
                name=name,
                value=float(one[name]["value"]),
                low=float(one[name]["low"]),
                high=float(one[name]["high"]),
            )
            for name in COLUMNS
            if one.get(name) is not None
        ),
    )


def _confusion(found: Mapping[str, Any] | None) -> Confusion | None:
    if not found:
        return None
    counts = [[int(cell) for cell in row] for row in found["true_by_said"]]
    return Confusion(labels=[str(label) for label in found["labels"]], counts=counts)


def _point(pair: Sequence[float]) -> tuple[float, float]:
    x, y = pair
    return float(x), float(y)

"""Reads the evaluation that ships with the network, as far as a page shows it.

`evaluation.json` lies beside the network's manifest. What is missing in it is not shown; what is
in it under other names is listed as it stands, so that no figure is hidden.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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
    counts: Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaboratoryRow:
    """A laboratory that the network of this row never learned from."""

    name: str
    figures: Sequence[FigureRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Everything that the page draws; empty parts are left out."""

    model_sha256: str = ""
    laboratories: Sequence[LaboratoryRow] = ()
    figures: Sequence[FigureRow] = ()
    confusions: Mapping[str, Confusion] = field(default_factory=dict)
    roc: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    reliability: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    """Mean probability and share of leukemic cells in each bin."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        parts = (self.laboratories, self.figures, self.confusions, self.roc, self.reliability)
        return not any(parts)


def read_evaluation(path: Path) -> Evaluation | None:
    """The evaluation; None without a file or with one that cannot be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict):
        return None
    return Evaluation(
        model_sha256=str(record.get("model_sha256", "")),
        laboratories=tuple(_laboratories(record)),
        figures=tuple(_figures(record.get("figures") or record.get("overall") or {})),
        confusions=dict(_confusions(record)),
        roc=dict(_curves(record.get("roc"), ("fpr", "false_positive_rate"), _TPR)),
        reliability=dict(_curves(record.get("reliability"), _PREDICTED, _OBSERVED)),
    )


_TPR = ("tpr", "true_positive_rate")
_PREDICTED = ("mean_probability", "predicted", "confidence")
_OBSERVED = ("share_leukemic", "observed", "accuracy")


def _laboratories(record: Mapping[str, Any]) -> Iterator[LaboratoryRow]:
    found = record.get("leave_one_laboratory_out") or record.get("laboratories") or {}
    pairs = (
        found.items() if isinstance(found, Mapping) else ((one.get("name"), one) for one in found)
    )
    for name, figures in pairs:
        yield LaboratoryRow(name=str(name), figures=tuple(_figures(figures)))


def _figures(values: object) -> Iterator[FigureRow]:
    if not isinstance(values, Mapping):
        return
    for name, value in values.items():
        if isinstance(value, bool):
            continue
        if isinstance(value, int | float):
            yield FigureRow(name=str(name), value=float(value))
        elif isinstance(value, Mapping) and isinstance(value.get("value"), int | float):
            yield FigureRow(
                name=str(name),
                value=float(value["value"]),
                low=_number(value.get("low")),
                high=_number(value.get("high")),
            )


def _confusions(record: Mapping[str, Any]) -> Iterator[tuple[str, Confusion]]:
    found = record.get("confusion") or record.get("confusion_matrix") or {}
    named = {"all": found} if isinstance(found, Mapping) and "labels" in found else found
    for name, one in named.items() if isinstance(named, Mapping) else ():
        if isinstance(one, Mapping) and one.get("labels") and one.get("counts"):
            counts = [[float(cell) for cell in row] for row in one["counts"]]
            yield str(name), Confusion(labels=[str(x) for x in one["labels"]], counts=counts)


def _curves(
    found: object, xs: Sequence[str], ys: Sequence[str]
) -> Iterator[tuple[str, Sequence[tuple[float, float]]]]:
    """Curves as lists of points, of pairs, or as two lists under known names."""
    if isinstance(found, list):
        found = {"all": found}
    if not isinstance(found, Mapping):
        return
    if any(name in found for name in xs):
        found = {"all": found}
    for name, curve in found.items():
        points = _points(curve, xs, ys)
        if points:
            yield str(name), points


def _points(curve: object, xs: Sequence[str], ys: Sequence[str]) -> list[tuple[float, float]]:
    if isinstance(curve, Mapping):
        columns: list[Sequence[Any]] = [
            next((curve[name] for name in names if name in curve), []) for names in (xs, ys)
        ]
        return [(float(x), float(y)) for x, y in zip(*columns, strict=False)]
    found = (_pair(one, xs, ys) for one in (curve if isinstance(curve, list) else ()))
    return [pair for pair in found if pair is not None]


def _pair(one: object, xs: Sequence[str], ys: Sequence[str]) -> tuple[float, float] | None:
    """A point as {"fpr": 0.1, "tpr": 0.8} or [0.1, 0.8]."""
    pair: list[Any] = list(one[:2]) if isinstance(one, list) else []
    if isinstance(one, Mapping):
        pair = [next((one[name] for name in names if name in one), None) for names in (xs, ys)]
    if len(pair) != 2 or None in pair:
        return None
    return float(pair[0]), float(pair[1])


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None

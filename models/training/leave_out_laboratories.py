"""Judge heads on laboratories left out: `python -m models.training.leave_out_laboratories --help`.

For each laboratory with leukemic cells, and each with normal ones, heads are fitted without it,
calibrated on what was said of the other laboratories left out, and judged on it. Sources that
nothing learns from are judged by the heads that know all others. The heads to package are fitted on
all, and calibrated on everything said of laboratories left out.

The trunk is not fitted again without the laboratory: what it learned of one in an earlier version
stays in it (`trunk_knew`), so that only laboratories new to the trunk are left out altogether.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.evaluation.metrics import (
    Measure,
    accuracy,
    area_under_roc,
    bootstrap_figure,
    calibration_error,
    sensitivity,
    sensitivity_at_95,
    specificity,
)
from models.training.calibrate import fit_platt
from models.training.data import UNKNOWN, CropRow, read_rows
from models.training.heads import (
    MARROW,
    SMUDGE,
    Basis,
    Heads,
    Mask,
    affine,
    composed,
    fit_basis,
    fit_heads,
    sigmoid,
)
from models.training.local_calibration import LabeledCells, locally_calibrated
from models.training.pooled import Pooled, read_pooled
from pipeline.domain import CELL_TYPES, CellType, DecisionPolicy

Array = NDArray[np.float64]

LEFT_OUT: Mapping[str, tuple[str, ...]] = {
    "deepapl": ("deepapl",),
    "lmu": ("lmu",),
    "aria": ("aria",),
    "cnmc": ("cnmc",),
    "pbc": ("pbc",),
    "zheng1": ("zheng1",),
    "chula_cells": ("chula_cells",),
    "healthy fields": ("raabin", "bccd", "draaslan"),
}
NEW_TO_TRUNK = frozenset({"deepapl", "chula_cells", "allidb1", "malaria fields"})
NEVER_LEARNED: Mapping[str, tuple[str, ...]] = {
    "allidb1": ("allidb1",),
    "malaria fields": ("iml", "vivax"),
}
MATURE = (
    CellType.BASOPHIL,
    CellType.EOSINOPHIL,
    CellType.LYMPHOCYTE,
    CellType.MONOCYTE,
    CellType.NEUTROPHIL,
)
BAND_STEPS = np.arange(0.02, 0.46, 0.01)
MOST_REFERRED = 0.12
"""Share of the cells of laboratories left out that the band may refer, laboratories and labels
weighing the same."""
NO_NOVELTY_LIMIT = 1e6
"""Nothing is referred as unlike the training: on laboratories left out novelty does not rank wrong
answers (`novelty_auc` below 0.70)."""
POINTS = 50
"""Of a curve, at most."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Said:
    """What heads say of every row of a pack, before calibration."""

    blood: Array
    marrow: Array
    gate: Array
    smudge: Array
    types: Array
    novelty: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadCalibration:
    """What makes probabilities of the heads' logits."""

    slope: float
    intercept: float
    temperature: float

    def leukemic(self, said: Said) -> Array:
        blood = sigmoid(self.slope * said.blood + self.intercept)
        return np.asarray(blood + said.gate * (sigmoid(said.marrow) - blood))

    def types(self, said: Said) -> Array:
        return composed(self.leukemic(said), said.smudge, said.types, self.temperature)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, required=True, help="folder with pooled.npz")
    parser.add_argument("--out", type=Path, required=True, help="evaluation.json to write")
    parser.add_argument("--version", required=True, help="of the network that gets these heads")
    parser.add_argument("--heads", type=Path, help="heads.npz to write, fitted on all")
    options = parser.parse_args()
    rows, pooled = read_rows(options.pack), read_pooled(options.pack)
    may_learn = np.array([row.part == "train" for row in rows])
    sources = np.array([row.source for row in rows])
    basis = fit_basis(pooled.third[may_learn], pooled.last[may_learn])
    places = basis(pooled.features)
    known = np.array([row.part in ("train", "val") for row in rows])
    said = {
        name: say(
            fit_heads(places, rows, known & ~np.isin(sources, left), basis.third), places, pooled
        )
        for name, left in LEFT_OUT.items()
    }
    heads = fit_heads(places, rows, may_learn, basis.third)
    everything = say(heads, places, pooled)
    abroad = pieced(rows, said)
    calibration = calibrated(rows, everything, without=())
    band = choose_band(rows, abroad, calibration)
    policy = DecisionPolicy(
        refer_above=band[0], leukemic_from=band[1], novelty_limit=NO_NOVELTY_LIMIT
    )
    abroad_each = [
        (name, np.isin(sources, left), calibrated(rows, everything, without=left), one)
        for name, left, one in (
            *((name, LEFT_OUT[name], one) for name, one in said.items()),
            *((name, left, everything) for name, left in NEVER_LEARNED.items()),
        )
    ]
    table = [judged(name, rows, of_it, own, one, band) for name, of_it, own, one in abroad_each]
    result = {
        "made_by": "python -m models.training.leave_out_laboratories",
        "version": options.version,
        "policy": {"refer_above": band[0], "leukemic_from": band[1]},
        "calibration": asdict(calibration),
        "left_out": table,
        "locally_calibrated": [
            {"laboratory": name, **figures}
            for name, of_it, own, one in abroad_each
            if (figures := locally_calibrated(labeled(rows, of_it, own, one), policy)) is not None
        ],
        "summary": summary(table),
        "held_back": [
            judged(f"{name}, other patients", rows, other, calibration, everything, band)
            for name in ("deepapl", "cnmc", "pbc", "zheng1", "lmu")
            if (other := (sources == name) & (np.array([r.part for r in rows]) == "val")).any()
        ],
        **curves(rows, abroad, calibration),
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=1))
    if options.heads:
        save_heads(options.heads, basis, heads, calibration, band)


def say(heads: Heads, places: Array, pooled: Pooled) -> Said:
    """Of every row."""
    return Said(
        blood=affine(places, heads.blood),
        marrow=pooled.marrow.astype(np.float64),
        gate=sigmoid(affine(places, heads.gate)),
        smudge=sigmoid(affine(places, heads.smudge)),
        types=affine(places, heads.types),
        novelty=pooled.novelty.astype(np.float64),
    )


def pieced(rows: Sequence[CropRow], said: Mapping[str, Said]) -> Said:
    """Of each laboratory, what the heads said that never saw it; 0 elsewhere."""
    sources = np.array([row.source for row in rows])
    whole = {
        name: np.zeros_like(value) for name, value in asdict(next(iter(said.values()))).items()
    }
    for name, one in said.items():
        of_it = np.isin(sources, LEFT_OUT[name])
        for key, values in asdict(one).items():
            whole[key][of_it] = values[of_it]
    return Said(**whole)


def calibrated(rows: Sequence[CropRow], home: Said, without: Sequence[str]) -> HeadCalibration:
    """On cells held back of the laboratories learned from, but for `without`.

    Heads that miss a laboratory lean to one side as heads that know it do not, so that what they
    say is no measure for the offset of those that are packaged.
    """
    sources = np.array([row.source for row in rows])
    labels = np.array([row.leukemic for row in rows])
    types = np.array([row.cell_type for row in rows])
    parts = np.array([row.part for row in rows])
    left = np.isin(sources, [s for names in LEFT_OUT.values() for s in names])
    blood = left & ~np.isin(sources, (*MARROW, *without))
    held = blood & (parts == "val") & (labels != UNKNOWN)
    slope, intercept = fit_platt(
        home.blood[held], labels[held] == 1, even_weights(sources[held], labels[held])
    )
    mature = blood & (parts == "val") & np.isin(types, [CELL_TYPES.index(kind) for kind in MATURE])
    return HeadCalibration(
        slope=slope,
        intercept=intercept,
        temperature=fit_normal_temperature(home.types[mature], types[mature]),
    )


def even_weights(sources: NDArray[np.str_], labels: NDArray[np.int64]) -> Array:
    """Labels weigh the same, laboratories the same within a label."""
    weights = np.zeros(len(labels))
    for label in (0, 1):
        names = np.unique(sources[labels == label])
        for name in names:
            chosen = (sources == name) & (labels == label)
            weights[chosen] = 0.5 / len(names) / chosen.sum()
    return weights


def fit_normal_temperature(logits: Array, truths: NDArray[np.int64]) -> float:
    """Of least cross-entropy among the types that a normal cell may have."""
    candidates = np.geomspace(0.5, 40, 60)
    zeros = np.zeros(len(logits))

    def loss(temperature: float) -> float:
        shares = composed(zeros, zeros, logits, temperature)
        return float(-np.log(shares[np.arange(len(truths)), truths] + 1e-9).mean())

    return float(min(candidates, key=loss))


def choose_band(
    rows: Sequence[CropRow], abroad: Said, calibration: HeadCalibration
) -> tuple[float, float]:
    """As wide around one half as MOST_REFERRED allows: a share moves smoothly with its band."""
    sources = np.array([row.source for row in rows])
    labels = np.array([row.leukemic for row in rows])
    left = np.isin(sources, [s for names in LEFT_OUT.values() for s in names])
    blood = left & ~np.isin(sources, MARROW) & (labels != UNKNOWN)
    said = calibration.leukemic(abroad)[blood]
    weights = even_weights(sources[blood], labels[blood])
    kept = 0.0
    for half in BAND_STEPS:
        if weights[np.abs(said - 0.5) < half].sum() > MOST_REFERRED:
            break
        kept = float(half)
    return round(0.5 - kept, 2), round(0.5 + kept, 2)


def judged(
    name: str,
    rows: Sequence[CropRow],
    chosen: Mask,
    calibration: HeadCalibration,
    said: Said,
    band: tuple[float, float],
) -> dict[str, object]:
    """One line of the table: figures with intervals over subjects, or null."""
    index = np.flatnonzero(chosen)
    subjects = [rows[i].subject for i in index]
    labels = np.array([rows[i].leukemic for i in index])
    types = np.array([rows[i].cell_type for i in index])
    here = Said(**{key: value[index] for key, value in asdict(said).items()})
    leukemic = calibration.leukemic(here)
    likeliest = calibration.types(here).argmax(axis=1)
    known = np.flatnonzero(labels != UNKNOWN)
    mature = np.flatnonzero(np.isin(types, [CELL_TYPES.index(kind) for kind in MATURE]))
    typed = np.flatnonzero(types != UNKNOWN)
    truths = labels == 1
    is_wrong = (leukemic >= 0.5) != truths
    is_referred = ((leukemic >= band[0]) & (leukemic < band[1])) | (likeliest == SMUDGE)
    called_normal = np.flatnonzero((labels == 0) & ~is_referred)

    def figure(measure: Measure, part: NDArray[np.int64]) -> dict[str, float] | None:
        found = bootstrap_figure(
            lambda drawn: measure(part[drawn]),
            [subjects[i] for i in part],
            strata=[(int(labels[i]), int(types[i])) for i in part],
            draws=200,
        )
        return found.as_json() if found else None

    return {
        "laboratory": name,
        "trunk_knew": name not in NEW_TO_TRUNK,
        "cells": len(index),
        "leukemic": int((labels == 1).sum()),
        "normal": int((labels == 0).sum()),
        "auc": figure(lambda k: area_under_roc(truths[k], leukemic[k]), known),
        "sensitivity": figure(lambda k: sensitivity(truths[k], leukemic[k] >= 0.5), known),
        "specificity": figure(lambda k: specificity(truths[k], leukemic[k] >= 0.5), known),
        "sensitivity_at_95": figure(lambda k: sensitivity_at_95(truths[k], leukemic[k]), known),
        "ece": figure(lambda k: calibration_error(truths[k], leukemic[k]), known),
        "called_leukemic": figure(lambda k: float((leukemic[k] >= band[1]).mean()), called_normal),
        "referred": figure(lambda k: float(is_referred[k].mean()), np.arange(len(index))),
        "novelty_auc": figure(lambda k: area_under_roc(is_wrong[k], here.novelty[k]), known),
        "mature_types": figure(lambda k: accuracy(types[k], likeliest[k]), mature),
        "types": figure(lambda k: accuracy(types[k], likeliest[k]), typed),
        "smudges_seen": figure(
            lambda k: float((likeliest[k] == SMUDGE).mean()), np.flatnonzero(types == SMUDGE)
        ),
    }


def labeled(
    rows: Sequence[CropRow], chosen: Mask, calibration: HeadCalibration, said: Said
) -> LabeledCells:
    """The chosen rows whose label is known."""
    labels = np.array([row.leukemic for row in rows])
    known = chosen & (labels != UNKNOWN)
    return LabeledCells(
        leukemic=calibration.leukemic(said)[known],
        truths=labels[known] == 1,
        subjects=np.array([row.subject for row in rows])[known],
    )


def summary(table: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Mean and worst over laboratories of blood that have both labels and were left out."""
    ranked = {
        str(line["laboratory"]): float(line["auc"]["value"])
        for line in table
        if isinstance(line["auc"], dict)
        and line["laboratory"] in LEFT_OUT
        and line["laboratory"] not in MARROW
    }
    worst = min(ranked, key=lambda name: ranked[name])
    return {
        "auc_mean": round(float(np.mean(list(ranked.values()))), 4),
        "auc_worst": ranked[worst],
        "worst": worst,
    }


def curves(
    rows: Sequence[CropRow], abroad: Said, calibration: HeadCalibration
) -> dict[str, object]:
    """What a page draws: ROC points, reliability bins and the confusion of types."""
    sources = np.array([row.source for row in rows])
    labels = np.array([row.leukemic for row in rows])
    types = np.array([row.cell_type for row in rows])
    left = np.isin(sources, [s for names in LEFT_OUT.values() for s in names])
    blood = left & ~np.isin(sources, MARROW)
    leukemic = calibration.leukemic(abroad)
    likeliest = calibration.types(abroad).argmax(axis=1)
    typed = blood & (types != UNKNOWN)
    counts = np.zeros((len(CELL_TYPES), len(CELL_TYPES)), np.int64)
    np.add.at(counts, (types[typed], likeliest[typed]), 1)
    both = [n for n in LEFT_OUT if {0, 1} <= set(labels[sources == n]) and n not in MARROW]
    return {
        "roc": {
            name: roc_points(labels[k] == 1, leukemic[k])
            for name in both
            for k in [(sources == name) & (labels != UNKNOWN)]
        },
        "reliability": reliability(
            labels[blood & (labels != UNKNOWN)] == 1, leukemic[blood & (labels != UNKNOWN)]
        ),
        "confusion": {
            "labels": [str(kind) for kind in CELL_TYPES],
            "true_by_said": counts.tolist(),
        },
    }


def roc_points(truths: Mask, said: Array) -> list[list[float]]:
    """(share of normal cells above, share of leukemic cells above), at most POINTS of them."""
    limits = np.quantile(said, np.linspace(1, 0, POINTS))
    return [
        [round(float((said[~truths] >= v).mean()), 4), round(float((said[truths] >= v).mean()), 4)]
        for v in limits
    ]


def reliability(truths: Mask, said: Array) -> list[dict[str, float]]:
    """For each tenth of the probability: how many cells, what was said, and what was true."""
    bins = np.minimum((said * 10).astype(int), 9)
    return [
        {
            "from": k / 10,
            "cells": int((bins == k).sum()),
            "said": round(float(said[bins == k].mean()), 4),
            "leukemic": round(float(truths[bins == k].mean()), 4),
        }
        for k in range(10)
        if (bins == k).any()
    ]


def save_heads(
    path: Path,
    basis: Basis,
    heads: Heads,
    calibration: HeadCalibration,
    band: tuple[float, float],
) -> None:
    """Everything as columns over the raw features, calibration folded in; see attach_heads.py."""
    scaled = replace(
        heads,
        blood=_calibrated(heads.blood, calibration.slope, calibration.intercept),
        types=heads.types / calibration.temperature,
    )
    columns = np.column_stack([scaled.blood, scaled.gate, scaled.smudge, scaled.types])
    weights = basis.directions @ columns[:-1]
    np.savez(
        path,
        weights=weights,
        offsets=columns[-1] - basis.mean @ weights,
        means=basis.mean,
        refer_above=band[0],
        leukemic_from=band[1],
        novelty_limit=NO_NOVELTY_LIMIT,
        temperature=calibration.temperature,
        slope=calibration.slope,
        intercept=calibration.intercept,
    )


def _calibrated(column: Array, slope: float, intercept: float) -> Array:
    scaled = slope * column
    scaled[-1] += intercept
    return np.asarray(scaled)


if __name__ == "__main__":
    main()

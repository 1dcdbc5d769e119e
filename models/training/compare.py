"""Hold the packaged models against the 32-bit one on cells that no step was fitted to.

`python -m models.training.compare --data … --model …/smearnet-fp32.onnx --out …`

Prints how far they agree on all held-out single cells, and writes what the 32-bit model says of
those whose crops need no segmentation (C-NMC validation patients): the reference that
`tests/models/test_packaged_model.py` compares with, because 94 MB are too much to commit.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from models.classifier import BATCH, INPUT, MODEL_FOLDER, OUTPUTS
from models.evaluation.cells import cut_row
from models.evaluation.metrics import area_under_roc
from models.evaluation.pack import PackRow, PictureKind, read_pack
from models.manifest import read_manifest
from models.training.evaluate import held_out

COLUMNS = ("file", "leukemic_probability", "cell_type")
Answers = tuple[NDArray[np.float64], NDArray[np.int64]]
"""Leukemic probability N, and index of the likeliest type N."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="smearnet-fp32.onnx")
    parser.add_argument("--packaged", type=Path, default=MODEL_FOLDER)
    parser.add_argument("--out", type=Path, required=True, help="reference.csv to write")
    options = parser.parse_args()
    cells = [row for row in held_out(read_pack(options.data, None)) if row.kind is PictureKind.CELL]
    cut = [(row, one.crop) for row in cells for one in cut_row(row)]
    rows, crops = [row for row, _ in cut], np.stack([crop for _, crop in cut])
    exact = answers(options.model, crops)
    for precision, file in read_manifest(options.packaged / "manifest.toml").files.items():
        near = answers(options.packaged / file.name, crops)
        print(json.dumps({"precision": precision, **agreement(rows, exact, near)}))
    write_reference(options.out, rows, exact)


def answers(model: Path, crops: NDArray[np.uint8]) -> Answers:
    """What one file says of crops N×224×224×3, on the CPU."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    said = [
        session.run(OUTPUTS[:2], {INPUT: crops[first : first + BATCH]})
        for first in range(0, len(crops), BATCH)
    ]
    probabilities = np.concatenate([part[0] for part in said]).astype(np.float64)
    return probabilities, np.concatenate([part[1] for part in said]).argmax(axis=1)


def agreement(rows: Sequence[PackRow], exact: Answers, near: Answers) -> dict[str, float]:
    """Shares of equal calls and types, largest difference, and what it does to the ranking."""
    cnmc = np.array([row.source == "cnmc" for row in rows])
    truths = np.array([row.label == "leukemic" for row in rows])[cnmc]
    ranking = [area_under_roc(truths, said[0][cnmc]) or 0.0 for said in (exact, near)]
    difference = np.abs(exact[0] - near[0])
    return {
        "cells": len(rows),
        "same_call": round(float(((exact[0] >= 0.5) == (near[0] >= 0.5)).mean()), 4),
        "same_type": round(float((exact[1] == near[1]).mean()), 4),
        "largest_difference": round(float(difference.max()), 4),
        "mean_difference": round(float(difference.mean()), 4),
        "cnmc_auc_fp32": round(ranking[0], 4),
        "cnmc_auc": round(ranking[1], 4),
    }


def write_reference(path: Path, rows: Sequence[PackRow], exact: Answers) -> None:
    """One line a masked cell."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row, probability, cell_type in zip(rows, *exact, strict=True):
            if row.is_masked:
                writer.writerow([row.file, f"{probability:.5f}", int(cell_type)])


if __name__ == "__main__":
    main()

"""Judge the packaged model on what it was never fitted to, and draw the results.

`python -m models.training.evaluate --data ../shared/data --run models/training/runs/final`

Unlike `smearlink evaluate`, which judges every row of a pack, this keeps to the parts that
prepare.py held out: C-NMC validation patients, whole groups of lmu, aria, pbc and zheng1, and
the sources never trained on. Writes results.json, cells.csv and plots to the run's folder, and
with `--failures` the worst cells with their activation maps (pictures of the data: local only).
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from models.classifier import MODEL_FOLDER, OnnxClassifier
from models.evaluation.baseline import read_baseline
from models.evaluation.cells import JudgedCell, cut_row, judge_cells, score_cells
from models.evaluation.fields import JudgedField, judge_fields, score_fields
from models.evaluation.metrics import balanced_accuracy, calibration_error
from models.evaluation.pack import PackRow, PictureKind, read_pack
from models.segmenter import OnnxSegmenter
from models.training.prepare import NEVER, parts_of
from pipeline.findings.decision import most_likely_type

FAILURES_SHOWN = 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=MODEL_FOLDER)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-fields", action="store_true", help="single cells alone")
    parser.add_argument("--failures", action="store_true", help="draw the worst cells")
    options = parser.parse_args()
    options.run.mkdir(parents=True, exist_ok=True)
    classifier = OnnxClassifier.load(
        options.model, precision=options.precision, threads=options.threads
    )
    rows = held_out(read_pack(options.data, None))
    cells = [row for row in rows if row.kind is PictureKind.CELL]
    segmenter = OnnxSegmenter.load()
    judged = judge_cells(
        cells, classifier=classifier, baseline=read_baseline(), segmenter=segmenter
    )
    results = {
        "model_sha256": classifier.identity.sha256,
        "cells": score_cells(judged),
        "referral": referral(judged),
    }
    if not options.no_fields:
        fields = judge_fields(rows, classifier=classifier, segmenter=segmenter)
        results |= {"fields": score_fields(fields), "marked_blasts": marked_blasts(fields)}
    (options.run / "results.json").write_text(json.dumps(results, indent=1))
    print(json.dumps(results, indent=1))
    _write_cells(options.run / "cells.csv", judged)
    draw_ranking(judged, options.run / "roc.png")
    draw_reliability(judged, options.run / "reliability.png")
    if (options.run / "curve.csv").is_file():
        draw_curve(options.run / "curve.csv", options.run / "curve.png")
    if options.failures:
        draw_failures(judged, classifier, options.run / "failures.png")


def held_out(rows: Sequence[PackRow]) -> list[PackRow]:
    """Rows that no training step saw, the sources never trained on included."""
    parts = parts_of(rows)
    return [row for row in rows if row.source in NEVER or parts[row.file] != "train"]


def marked_blasts(judged: Sequence[JudgedField]) -> dict[str, dict[str, int]]:
    """Calls, and likeliest types, of the cells on which somebody put the mark of a blast."""
    marked = [finding for field in judged for finding in field.marked]
    return {
        "calls": Counter(finding.call.value for finding in marked),
        "types": Counter(most_likely_type(finding.prediction).value for finding in marked),
    }


def referral(judged: Sequence[JudgedCell]) -> dict[str, dict[str, float | None]]:
    """For each source with both labels: share referred, and accuracy with and without them."""
    shares = {}
    for source in _two_sided_sources(judged):
        cells = [cell for cell in judged if cell.row.source == source]
        kept = [cell for cell in cells if not cell.is_referred]
        shares[source] = {
            "referred": 1 - len(kept) / len(cells),
            "balanced_accuracy_all": _balanced(cells),
            "balanced_accuracy_of_called": _balanced(kept),
        }
    return shares


def _two_sided_sources(judged: Sequence[JudgedCell]) -> list[str]:
    labels = {(cell.row.source, cell.row.label) for cell in judged}
    sources = {source for source, _ in labels}
    return sorted(s for s in sources if {(s, "leukemic"), (s, "normal")} <= labels)


def _arrays(judged: Sequence[JudgedCell]) -> tuple[np.ndarray, np.ndarray]:
    truths = np.array([cell.row.label == "leukemic" for cell in judged])
    return truths, np.array([cell.probability for cell in judged])


def _balanced(judged: Sequence[JudgedCell]) -> float | None:
    truths, probabilities = _arrays(judged)
    return balanced_accuracy(truths, probabilities >= 0.5) if len(judged) else None


def _write_cells(path: Path, judged: Sequence[JudgedCell]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "source", "subject", "label", "probability", "referred"])
        for cell in judged:
            row = cell.row
            known = [row.file, row.source, row.subject, row.label]
            writer.writerow([*known, f"{cell.probability:.4f}", cell.is_referred])


def draw_ranking(judged: Sequence[JudgedCell], path: Path) -> None:
    """Sensitivity against false alarms of each source with both labels."""
    figure, axes = plt.subplots(figsize=(5, 5))
    for source in _two_sided_sources(judged):
        truths, scores = _arrays([cell for cell in judged if cell.row.source == source])
        order = np.argsort(-scores)
        found = np.cumsum(truths[order]) / truths.sum()
        alarms = np.cumsum(~truths[order]) / (~truths).sum()
        axes.plot(np.r_[0, alarms], np.r_[0, found], label=f"{source} (n = {len(truths)})")
    axes.plot([0, 1], [0, 1], "k:", linewidth=1)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", title="Held-out cells")
    axes.legend()
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)


def draw_reliability(judged: Sequence[JudgedCell], path: Path) -> None:
    """Share of leukemic cells in each tenth of the probability, for each source."""
    figure, axes = plt.subplots(figsize=(5, 5))
    for source in _two_sided_sources(judged):
        truths, said = _arrays([cell for cell in judged if cell.row.source == source])
        bins = np.minimum((said * 10).astype(int), 9)
        filled = [k for k in range(10) if (bins == k).sum() >= 3]
        error = calibration_error(truths, said)
        axes.plot(
            [said[bins == k].mean() for k in filled],
            [truths[bins == k].mean() for k in filled],
            "o-",
            label=f"{source} (ECE {error:.3f})",
        )
    axes.plot([0, 1], [0, 1], "k:", linewidth=1)
    axes.set(xlabel="probability said", ylabel="share leukemic", title="Held-out cells")
    axes.legend()
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)


def draw_curve(table: Path, path: Path) -> None:
    """Every figure that the training followed, against its steps."""
    with table.open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    steps = [int(line["step"]) for line in lines]
    figure, axes = plt.subplots(figsize=(8, 5))
    for name in lines[0].keys() - {"step", "seconds"}:
        axes.plot(steps, [float(line[name]) for line in lines], label=name)
    axes.set(xlabel="steps", title="Training loss, and figures on held-out crops")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)


def draw_failures(judged: Sequence[JudgedCell], classifier: OnnxClassifier, path: Path) -> None:
    """The most confident mistakes, each beside its activation map."""
    truths, said = _arrays(judged)
    wrongness = np.where(truths, 1 - said, said)
    labelled = [k for k in np.argsort(-wrongness) if judged[k].row.label]
    tiles = [_tile(judged[k], classifier) for k in labelled[:FAILURES_SHOWN]]
    lines = [np.hstack(tiles[k : k + 8]) for k in range(0, len(tiles) - 7, 8)]
    cv2.imwrite(str(path), cv2.cvtColor(np.vstack(lines), cv2.COLOR_RGB2BGR))


def _tile(judged: JudgedCell, classifier: OnnxClassifier) -> np.ndarray:
    """Crop above, crop with its map below, and what was said in words: 168×362."""
    crops = [one.crop for one in cut_row(judged.row, OnnxSegmenter.load())] or [
        np.zeros((224, 224, 3), np.uint8)
    ]
    (said,) = classifier.classify(crops[0][None])
    heat = cv2.resize(said.activation_map, (224, 224), interpolation=cv2.INTER_CUBIC)
    shade = np.clip(heat / max(float(heat.max()), 1e-6) * 255, 0, 255).astype(np.uint8)
    coloured = cv2.cvtColor(cv2.applyColorMap(shade, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    both = np.vstack([crops[0], cv2.addWeighted(crops[0], 0.6, coloured, 0.4, 0)])
    small = cv2.resize(both, (168, 336), interpolation=cv2.INTER_AREA)
    words = np.zeros((26, 168, 3), np.uint8)
    text = f"{judged.row.source} {judged.row.label} p={judged.probability:.2f}"
    cv2.putText(words, text, (2, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (255, 255, 255), 1)
    return np.vstack([small, words])


if __name__ == "__main__":
    main()

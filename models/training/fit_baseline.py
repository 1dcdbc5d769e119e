"""Fit the colour-and-area baseline on the training cells of a pack, and write its coefficients.

`python -m models.training.fit_baseline --pack models/training/runs/pack`
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from models.evaluation.baseline import BASELINE_FILE, colour_and_area
from models.training.augment import apply_mask
from models.training.calibrate import subject_weights
from models.training.data import read_rows

RIDGE = 1e-3
NEWTON_STEPS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=BASELINE_FILE)
    options = parser.parse_args()
    crops = np.load(options.pack / "crops.npy", mmap_mode="r")
    masks = np.load(options.pack / "masks.npy", mmap_mode="r")
    rows = read_rows(options.pack)
    kept = [i for i, row in enumerate(rows) if row.part == "train" and row.trust == 1]
    figures = np.stack([colour_and_area(apply_mask(crops[i], masks[i])) for i in kept])
    truths = np.array([rows[i].leukemic for i in kept], dtype=np.float64)
    mean, spread = figures.mean(axis=0), figures.std(axis=0)
    design = np.column_stack([(figures - mean) / spread, np.ones(len(kept))])
    place = _logistic(design, truths, subject_weights([rows[i] for i in kept]))
    lines = [
        "# Colour-and-area baseline: figures as in baseline.py, fitted by training/fit_baseline.py",
        f"# on {len(kept)} training cells of {len({rows[i].source for i in kept})} sources.",
        *(
            f"{name} = [{', '.join(f'{value:.6g}' for value in values)}]"
            for name, values in (("mean", mean), ("spread", spread), ("weights", place[:-1]))
        ),
        f"intercept = {place[-1]:.6g}",
    ]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(options.out)


def _logistic(design: np.ndarray, truths: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted logistic regression by Newton steps, lightly held to 0."""
    place = np.zeros(design.shape[1])
    ridge = RIDGE * np.eye(design.shape[1])
    for _ in range(NEWTON_STEPS):
        odds = 1 / (1 + np.exp(-np.clip(design @ place, -30, 30)))
        gradient = design.T @ (weights * (odds - truths)) + ridge @ place
        curvature = (design * (weights * odds * (1 - odds))[:, None]).T @ design + ridge
        place = place - np.linalg.solve(curvature, gradient)
    return place


if __name__ == "__main__":
    main()

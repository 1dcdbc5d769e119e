"""Turn logits into probabilities that mean what they say, and learn what is unlike the training.

`python -m models.training.calibrate --pack … --weights …/averaged.pt --out …/calibration.npz`
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.evaluation.metrics import calibration_error
from models.training.data import (
    UNKNOWN,
    CropPack,
    CropRow,
    load_pack,
    pack_side,
    plain_batches,
    thinned,
)
from models.training.network import SmearNet
from pipeline.domain import CELL_TYPES

SUBSPACE = 64
SHRINKAGE = 0.1
"""Share of a plain variance mixed into the pooled covariance, so that it can be inverted."""
NOVELTY_QUANTILE = 0.99
"""Of held-out cells of sources that were trained on: one in a hundred of these is referred."""
WIDEST_BAND = 0.35
"""The uncertain band reaches no further than this from one half."""
WANTED_ACCURACY = 0.97
"""Balanced accuracy wanted of what is not referred, on validation patients."""
NEWTON_STEPS = 50

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """What the graph adds to the network's logits and features."""

    slope: float
    intercept: float
    """Of the leukemic logit before the sigmoid (Platt)."""
    temperature: float
    """Of the cell-type logits."""
    projection: NDArray[np.float32]
    """2048×64: features to a space where the within-class covariance is 1."""
    centroids: NDArray[np.float32]
    """K×64: class centres there."""
    refer_above: float
    leukemic_from: float
    novelty_limit: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What the bare network says of N crops."""

    features: NDArray[np.float32]
    leukemic: Array
    types: Array


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--view", type=int, default=160)
    parser.add_argument("--side", type=int, default=160)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--thin", type=int, default=1, help="keep one fitted crop in so many")
    parser.add_argument("--out", type=Path, required=True, help="calibration.npz to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network = SmearNet()
    network.load_state_dict(torch.load(options.weights, weights_only=True))
    shrunk = pack_side(options.side, options.view)
    fitted = load_pack(options.pack, parts=["train"], side=shrunk)
    packs = [thinned(fitted, options.thin), load_pack(options.pack, parts=["val"], side=shrunk)]
    answers = [answer(network, pack, options.side) for pack in packs]
    calibration = calibrate(packs[0].rows, answers[0], packs[1].rows, answers[1])
    np.savez(options.out, **asdict(calibration))
    report = {k: v for k, v in asdict(calibration).items() if isinstance(v, float)}
    options.out.with_suffix(".json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report))


def read_calibration(path: Path) -> Calibration:
    """Back from the file that `main` wrote."""
    with np.load(path) as stored:
        values = {name: stored[name] for name in stored.files}
    return Calibration(
        **{name: float(value) if value.ndim == 0 else value for name, value in values.items()}
    )


@torch.no_grad()
def answer(network: SmearNet, pack: CropPack, side: int) -> Answers:
    """Pooled features and both heads' logits of the plain views."""
    network.eval().to(memory_format=torch.channels_last)
    features = []
    for batch in plain_batches(pack, side=side):
        maps = network.feature_maps(network.normalise(batch.on("cpu").crops))
        features.append(maps.float().mean(dim=(2, 3)))
    pooled = torch.cat(features)
    return Answers(
        features=pooled.numpy(),
        leukemic=network.leukemic(pooled).squeeze(1).double().numpy(),
        types=network.cell_type(pooled).double().numpy(),
    )


def calibrate(
    seen_rows: Sequence[CropRow], seen: Answers, held_rows: Sequence[CropRow], held: Answers
) -> Calibration:
    """Novelty from the fitted cells; probabilities, band and limit from the held-out ones."""
    truths = np.array([row.leukemic for row in held_rows])
    known = (truths != UNKNOWN) & np.array([row.trust >= 1 for row in held_rows])
    weights = subject_weights([row for row, keep in zip(held_rows, known, strict=True) if keep])
    slope, intercept = fit_platt(held.leukemic[known], truths[known] == 1, weights)
    probabilities = 1 / (1 + np.exp(-(slope * held.leukemic[known] + intercept)))
    error = calibration_error(truths[known] == 1, probabilities)
    print(f"calibration error on the held-out cells themselves: {error:.4f}")
    low, high = choose_band(probabilities, truths[known] == 1, weights)
    projection, centroids = fit_novelty(seen_rows, seen.features)
    distances = novelty(held.features, projection, centroids)
    return Calibration(
        slope=slope,
        intercept=intercept,
        temperature=fit_temperature(held.types, np.array([row.cell_type for row in held_rows])),
        projection=projection.astype(np.float32),
        centroids=centroids.astype(np.float32),
        refer_above=low,
        leukemic_from=high,
        novelty_limit=float(np.quantile(distances, NOVELTY_QUANTILE)),
    )


def subject_weights(rows: Sequence[CropRow]) -> Array:
    """Labels weigh the same, sources the same within a label, subjects within a source."""
    keys = [(row.leukemic, row.source, row.subject) for row in rows]
    cells = Counter(keys)
    subjects = Counter((label, source) for label, source, _ in cells)
    sources = Counter(label for label, _ in subjects)
    weights = np.array(
        [1 / (sources[key[0]] * subjects[key[:2]] * cells[key]) for key in keys], dtype=np.float64
    )
    return weights / weights.sum()


def fit_platt(logits: Array, truths: NDArray[np.bool_], weights: Array) -> tuple[float, float]:
    """Slope and intercept of a weighted logistic fit by Newton steps, lightly held to slope 1."""
    design = np.column_stack([logits, np.ones_like(logits)])
    place, held = np.array([1.0, 0.0]), np.array([1e-2, 1e-3])
    start = place.copy()
    for _ in range(NEWTON_STEPS):
        odds = 1 / (1 + np.exp(-np.clip(design @ place, -30, 30)))
        gradient = design.T @ (weights * (odds - truths)) + held * (place - start)
        curvature = (design * (weights * odds * (1 - odds))[:, None]).T @ design + np.diag(held)
        place = place - np.linalg.solve(curvature, gradient)
    return float(max(place[0], 0.05)), float(place[1])


def fit_temperature(logits: Array, truths: NDArray[np.int64]) -> float:
    """The temperature of least cross-entropy over the cells with a known type."""
    known = truths != UNKNOWN
    candidates = np.geomspace(0.2, 3, 60)
    losses = [_cross_entropy(logits[known] / t, truths[known]) for t in candidates]
    return float(candidates[int(np.argmin(losses))])


def _cross_entropy(logits: Array, truths: NDArray[np.int64]) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-logs[np.arange(len(truths)), truths].mean())


def choose_band(
    probabilities: Array, truths: NDArray[np.bool_], weights: Array
) -> tuple[float, float]:
    """The narrowest band around one half whose outside reaches WANTED_ACCURACY, else the widest."""
    for half_width in np.arange(0.05, WIDEST_BAND + 1e-9, 0.01):
        low, high = 0.5 - half_width, 0.5 + half_width
        sure = (probabilities < low) | (probabilities >= high)
        if _balanced(probabilities[sure] >= high, truths[sure], weights[sure]) >= WANTED_ACCURACY:
            break
    return round(float(low), 2), round(float(high), 2)


def _balanced(calls: NDArray[np.bool_], truths: NDArray[np.bool_], weights: Array) -> float:
    right = (calls == truths) * weights
    shares = [right[truths == label].sum() / weights[truths == label].sum() for label in (0, 1)]
    return float(np.mean(shares))


def fit_novelty(rows: Sequence[CropRow], features: NDArray[np.float32]) -> tuple[Array, Array]:
    """Projection and class centres such that distance counts in within-class deviations.

    A class is a cell type, or a source's leukemic or normal cells where no type is known.
    """
    names = [_novelty_class(row) for row in rows]
    classes = sorted(set(names))
    index = np.array([classes.index(name) for name in names])
    centres = np.stack([features[index == k].mean(axis=0) for k in range(len(classes))])
    within = features - centres[index]
    mean = features.mean(axis=0)
    _, _, directions = np.linalg.svd(_thinned(features) - mean, full_matrices=False)
    basis = directions[:SUBSPACE].T.astype(np.float64)
    covariance = np.cov((within @ basis).T)
    plain = np.trace(covariance) / SUBSPACE * np.eye(SUBSPACE)
    whitening = np.linalg.inv(
        np.linalg.cholesky((1 - SHRINKAGE) * covariance + SHRINKAGE * plain)
    ).T
    projection = basis @ whitening
    return projection, centres @ projection


def _novelty_class(row: CropRow) -> str:
    if row.cell_type != UNKNOWN:
        return CELL_TYPES[row.cell_type].value
    return f"{row.source} {'leukemic' if row.leukemic == 1 else 'normal'}"


def _thinned(features: NDArray[np.float32], most: int = 3000) -> NDArray[np.float32]:
    return features[:: max(1, len(features) // most)]


def novelty(features: NDArray[np.float32], projection: Array, centroids: Array) -> Array:
    """As the graph computes it."""
    places = features @ projection
    return np.sqrt(((places[:, None] - centroids[None]) ** 2).sum(axis=2).min(axis=1))


if __name__ == "__main__":
    main()

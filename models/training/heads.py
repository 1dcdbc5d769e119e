"""Linear heads over pooled features of a trunk that stays as it is, fitted to hold abroad.

Features are the means over nucleus and cytoplasm of the trunk's third stage and the mean of its
last one.
Two experts answer "blast or not": one learned here from blood of several laboratories, the other
is the head that the trunk was trained with, which knows the marrow of C-NMC, whose healthy
precursors would count as blasts in blood. How much a crop looks like the pictures of marrow decides
between them.

A head is drawn away from what one laboratory alone says: the directions in which the cells of one
type differ from laboratory to laboratory are penalised (`between_laboratories`), and the blood
expert is the mean of fits that each miss one laboratory. It is fitted to each stage by itself:
fitted together, the last stage, which knows its laboratories best, speaks for both.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.calibrated_classifier import followed
from models.training.data import UNKNOWN, CropRow
from pipeline.domain import CELL_TYPES, CellType

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

DIRECTIONS = 192
"""Kept of each block of features: the rest is noise."""
LAST_STAGE_SHARE = 0.5
"""Weight of the last stage beside the third in heads that read both at once."""
LAST_STAGE_VOTE = 0.75
"""Of what the last stage says beside the third, both in deviations of what they say."""
RIDGE = 1e-3
LABORATORY_PENALTY = 0.05
ONE_LABEL_SHARE = 1.0
"""Weight of a laboratory with one label beside one with both."""
SMOOTHING = 0.05
TYPE_RIDGE = 0.1
LEAST_CELLS = 8
"""Of a type in a laboratory, for its mean to count."""
MOST_CELLS = 200
"""Of a type in a laboratory: more of them weigh no more."""
NEWTON_STEPS = 15

MARROW = ("cnmc",)
"""Cells of marrow, cut out by the publisher."""
GATE_SLOPE, GATE_FROM = 8.0, 0.6
"""Of the gate's logit: nearly all of marrow is above, nearly nothing else is."""
SMUDGE_SLOPE, SMUDGE_FROM = 3.0, 1.1
"""Of the smudge head's logit: one blast in a hundred is above, half of the smudge cells are."""
SHARES_IN_BLOOD = {
    CellType.NEUTROPHIL: 0.58,
    CellType.LYMPHOCYTE: 0.28,
    CellType.MONOCYTE: 0.07,
    CellType.EOSINOPHIL: 0.03,
    CellType.BASOPHIL: 0.01,
}
"""Of the white cells of healthy blood (Dacie and Lewis, 12th ed., ch. 2)."""
SHARES_BESIDE = {
    CellType.PLATELET: 0.03,
    CellType.IMMATURE_GRANULOCYTE: 0.01,
    CellType.ERYTHROBLAST: 0.01,
}
"""How often something else that the cell finder shows is one of these, roughly."""
WEIGHT_OF_SHARES = 0.2
"""Smears come to be looked at because something may be wrong with them."""
LOG_CHANCES = {
    CellType.PROMYELOCYTE: -1.5,
    CellType.REACTIVE_LYMPHOCYTE: -1.0,
    CellType.PLASMA_CELL: -1.0,
} | {
    kind: WEIGHT_OF_SHARES * math.log(share / 0.1)
    for kind, share in (SHARES_IN_BLOOD | SHARES_BESIDE).items()
}
"""How often a cell is of each type before it is looked at, as a logarithm."""
BLASTS = (CellType.BLAST, CellType.PROMYELOCYTE)
"""What a leukemic cell may be called; a promyelocyte may be normal as well."""
SMUDGE = CELL_TYPES.index(CellType.SMUDGE_CELL)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Basis:
    """From features to few directions: (features - mean) @ directions."""

    mean: Array
    directions: Array
    """F×D."""
    third: int
    """How many directions, the first ones, are those of the third stage."""

    def __call__(self, features: NDArray[np.float32]) -> Array:
        return np.asarray((features - self.mean) @ self.directions)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Heads:
    """Columns over the directions of a basis, each with its offset."""

    blood: Array
    gate: Array
    smudge: Array
    types: Array
    """(D + 1)×types; SMUDGE's column is not used."""


def sigmoid(logits: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -30, 30))))


def affine(places: Array, column: Array) -> Array:
    return np.asarray(places @ column[:-1] + column[-1])


def fit_basis(third: NDArray[np.float32], last: NDArray[np.float32]) -> Basis:
    """Of both blocks of features, each standardised, the last one at its share."""
    blocks = [(third, 1.0), (last, LAST_STAGE_SHARE)]
    parts = [_block_basis(features, share) for features, share in blocks]
    width = [third.shape[1], last.shape[1]]
    directions = np.zeros((sum(width), sum(part.shape[1] for _, part in parts)))
    row = column = 0
    for (_, part), size in zip(parts, width, strict=True):
        directions[row : row + size, column : column + part.shape[1]] = part
        row, column = row + size, column + part.shape[1]
    return Basis(
        mean=np.concatenate([mean for mean, _ in parts]),
        directions=directions,
        third=parts[0][1].shape[1],
    )


def _block_basis(features: NDArray[np.float32], share: float) -> tuple[Array, Array]:
    mean = features.mean(axis=0, dtype=np.float64)
    spread = features.std(axis=0, dtype=np.float64)
    spread += 1e-3 * features.std(dtype=np.float64)
    scaled = ((features - mean) / spread / np.sqrt(features.shape[1])).astype(np.float32)
    _, vectors = np.linalg.eigh((scaled.T @ scaled).astype(np.float64))
    kept = vectors[:, ::-1][:, :DIRECTIONS]
    return mean, share * kept / (spread * np.sqrt(features.shape[1]))[:, None]


def fit_heads(places: Array, rows: Sequence[CropRow], learned: Mask, third: int) -> Heads:
    """All heads, from the rows `learned`; the first `third` places are those of the third stage."""
    sources = np.array([row.source for row in rows])
    types = np.array([row.cell_type for row in rows])
    is_marrow = np.isin(sources, MARROW)
    apart = between_laboratories(places, sources, types, learned & ~is_marrow)
    blood = learned & ~is_marrow
    known = types != UNKNOWN
    return Heads(
        blood=_blood_expert(places, rows, blood, third),
        gate=_sharpened(
            _logistic(places, is_marrow, _even(is_marrow, learned), None), GATE_SLOPE, GATE_FROM
        ),
        smudge=_sharpened(
            _logistic(places, types == SMUDGE, _even(types == SMUDGE, blood & known), apart),
            SMUDGE_SLOPE,
            SMUDGE_FROM,
        ),
        types=_discriminants(places, sources, types, learned & known),
    )


def _blood_expert(places: Array, rows: Sequence[CropRow], learned: Mask, third: int) -> Array:
    """Both stages' votes, each in deviations of what it says of the rows that are learned."""
    size = places.shape[1]
    expert = np.zeros(size + 1)
    for first, end, vote, share in (
        (0, third, 1.0, 1.0),
        (third, size, LAST_STAGE_VOTE, LAST_STAGE_SHARE),
    ):
        if first == end:
            continue
        own = places[:, first:end] / share
        column = _without_each_laboratory(own, rows, learned)
        said = affine(own[learned], column)
        scale = vote / max(float(said.std()), 1e-9)
        expert[first:end] = column[:-1] * scale / share
        expert[-1] += (column[-1] - said.mean()) * scale
    return expert


def _without_each_laboratory(places: Array, rows: Sequence[CropRow], learned: Mask) -> Array:
    """The mean of fits that each miss one laboratory, as long as one with both labels is left."""
    sources = np.array([row.source for row in rows])
    leukemic = np.array([row.leukemic for row in rows])
    types = np.array([row.cell_type for row in rows])

    def fitted(used: Mask, start: Array | None) -> Array:
        apart = between_laboratories(places, sources, types, used)
        return _logistic(places, leukemic == 1, _weights(rows, used), apart, start)

    whole = fitted(learned, None)
    fits = [
        fitted(rest, whole)
        for source in np.unique(sources[learned])
        for rest in [learned & (sources != source)]
        if _has_both_labels(sources[rest], leukemic[rest])
    ]
    return np.asarray(np.mean(fits or [whole], axis=0))


def _has_both_labels(sources: NDArray[np.str_], leukemic: NDArray[np.int64]) -> bool:
    """Whether any one laboratory has."""
    return any({0, 1} <= set(leukemic[sources == source]) for source in np.unique(sources))


def _sharpened(column: Array, slope: float, start: float) -> Array:
    """Slope × (logit - start)."""
    sharp = slope * column
    sharp[-1] -= slope * start
    return np.asarray(sharp)


def between_laboratories(
    places: Array, sources: NDArray[np.str_], types: NDArray[np.int64], learned: Mask
) -> Array:
    """How the mean of each type moves from laboratory to laboratory, a row each."""
    moves = [np.zeros((0, places.shape[1]))]
    for cell_type in np.unique(types[learned & (types != UNKNOWN)]):
        means = _means(places, sources, learned & (types == cell_type))
        if len(means) > 1:
            moves.append(means - means.mean(axis=0))
    return np.concatenate(moves)


def _means(places: Array, sources: NDArray[np.str_], chosen: Mask) -> Array:
    """Of each laboratory that has enough of the chosen cells."""
    each = [chosen & (sources == source) for source in np.unique(sources[chosen])]
    return np.array([places[k].mean(axis=0) for k in each if k.sum() >= LEAST_CELLS])


def _weights(rows: Sequence[CropRow], learned: Mask) -> Array:
    """Labels weigh the same; within one, laboratories with both labels do; subjects by the root
    of their cells.
    """
    labels = np.array([row.leukemic for row in rows])
    sources = np.array([row.source for row in rows])
    trust = np.array([row.trust for row in rows])
    subjects = np.array([row.subject for row in rows])
    weights = np.zeros(len(rows))
    for label in (0, 1):
        for source in np.unique(sources[learned]):
            chosen = learned & (sources == source) & (labels == label)
            if not chosen.any():
                continue
            other = learned & (sources == source) & (labels == 1 - label)
            _, inverse, counts = np.unique(
                subjects[chosen], return_inverse=True, return_counts=True
            )
            each = trust[chosen] / np.sqrt(counts[inverse])
            weights[chosen] = each / each.sum() * (1 if other.any() else ONE_LABEL_SHARE)
        of_label = labels == label
        weights[of_label] /= max(weights[of_label].sum(), 1e-12) * 2
    return weights


def _even(truths: Mask, learned: Mask) -> Array:
    """Both sides weigh the same."""
    weights = np.zeros(len(truths))
    for side in (truths & learned, ~truths & learned):
        weights[side] = 0.5 / max(int(side.sum()), 1)
    return weights


def _logistic(
    places: Array,
    truths: Mask,
    weights: Array,
    apart: Array | None,
    start: Array | None = None,
) -> Array:
    """Ridge logistic fit by Newton steps, the offset free; `apart` adds its squares to the loss.

    A `start` near the end saves steps.
    """
    used = np.flatnonzero(weights > 0)
    size = places.shape[1]
    if len(np.unique(truths[used])) < 2:
        return np.array([0.0] * size + [-10.0])  # nothing of it was learned: it is never said
    design = np.column_stack([places[used], np.ones(len(used))])
    target, weight = truths[used] * (1 - SMOOTHING) + SMOOTHING / 2, weights[used]
    held = np.diag([2 * RIDGE] * size + [1e-9])
    if apart is not None:
        held[:size, :size] += 2 * LABORATORY_PENALTY * apart.T @ apart
    place = np.zeros(size + 1) if start is None else start
    for _ in range(NEWTON_STEPS):
        said = sigmoid(design @ place)
        gradient = design.T @ (weight * (said - target)) + held @ place
        curvature = (design * (weight * said * (1 - said))[:, None]).T @ design + held
        step = np.linalg.solve(curvature, gradient)
        place = place - step
        if np.abs(step).max() < 1e-4 * max(1.0, float(np.abs(place).max())):
            break
    return place


def _discriminants(
    places: Array, sources: NDArray[np.str_], types: NDArray[np.int64], learned: Mask
) -> Array:
    """Linear discriminants whose spread holds that between laboratories, too."""
    size = places.shape[1]
    within, between, seen = np.zeros((size, size)), np.zeros((size, size)), 0
    centers: dict[int, Array] = {}
    for cell_type in np.unique(types[learned]):
        of_type = learned & (types == cell_type)
        means = _means(places, sources, of_type)
        if len(means) == 0:
            continue
        centers[int(cell_type)] = means.mean(axis=0)
        between += (
            (means - centers[int(cell_type)]).T @ (means - centers[int(cell_type)]) / len(means)
        )
        for source in np.unique(sources[of_type]):
            chosen = of_type & (sources == source)
            around = places[chosen] - places[chosen].mean(axis=0)
            counted = min(len(around), MOST_CELLS)
            within += counted / len(around) * around.T @ around
            seen += counted
    spread = within / seen + between + TYPE_RIDGE * np.trace(within) / seen / size * np.eye(size)
    inverse = np.linalg.inv(spread)
    columns = np.zeros((size + 1, len(CELL_TYPES)))
    columns[-1] = -1e3
    for cell_type, center in centers.items():
        columns[:-1, cell_type] = inverse @ center
        columns[-1, cell_type] = -0.5 * center @ inverse @ center
    return columns


def composed(leukemic: Array, smudge: Array, types: Array, temperature: float = 1.0) -> Array:
    """Types as the graph gives them: N×types, each row a sum of 1.

    A leukemic cell is a blast or a promyelocyte, a normal one any other type, so that the likeliest
    type does not contradict the call. The share of leukemic types is the leukemic probability,
    drawn to the nearer end: an immature granulocyte a little below one half would be a promyelocyte
    else, which is either.
    """
    logits = types / temperature + log_chances()
    leukemic = followed(leukemic)
    return np.asarray(
        (1 - smudge[:, None])
        * (
            leukemic[:, None] * _among(logits, leukemic_types())
            + (1 - leukemic[:, None]) * _among(logits, normal_types())
        )
        + smudge[:, None] * (np.arange(types.shape[1]) == SMUDGE)
    )


def log_chances() -> Array:
    return np.array([LOG_CHANCES.get(kind, 0.0) for kind in CELL_TYPES])


def leukemic_types() -> Mask:
    return np.array([kind in BLASTS for kind in CELL_TYPES])


def normal_types() -> Mask:
    apart: Collection[CellType] = (CellType.BLAST, CellType.SMUDGE_CELL)
    return np.array([kind not in apart for kind in CELL_TYPES])


def _among(logits: Array, allowed: Mask) -> Array:
    held = np.where(allowed, logits, -np.inf)
    odds = np.exp(held - held.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))

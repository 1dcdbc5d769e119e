"""Turns probabilities into findings: one call per cell, or the coded reasons for a referral."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.domain import (
    CELL_TYPES,
    LEAST_NUCLEUS_UM2,
    Call,
    Cell,
    CellFinding,
    CellKind,
    CellType,
    DecisionPolicy,
    FieldQuality,
    Prediction,
    QualityFlag,
    ReferralReason,
)

BLASTS = frozenset({CellType.BLAST, CellType.LYMPHOBLAST, CellType.MYELOBLAST})
LEUKEMIC_TYPES = BLASTS | {CellType.PROMYELOCYTE}
"""What a cell called leukemic may be: the promyelocytes of APL count as blasts, others do not."""

REFERRING_FLAGS = frozenset(
    {
        QualityFlag.OUT_OF_FOCUS,
        QualityFlag.UNDEREXPOSED,
        QualityFlag.OVEREXPOSED,
        QualityFlag.STAIN_OUT_OF_RANGE,
        QualityFlag.SCALE_UNKNOWN,
    }
)
"""Flags that make every cell of an otherwise usable field a matter for an expert: each changes
what the network sees of a single cell. Thickness and thinness change only how many are seen."""

LEAST_OUTLINE_CONFIDENCE = 0.2
"""Below this the outline itself is in doubt, and with it the crop that the network saw."""


def assess(
    cells: Sequence[Cell],
    predictions: Sequence[Prediction],
    policy: DecisionPolicy,
    quality: FieldQuality,
) -> tuple[CellFinding, ...]:
    """Turn one prediction a cell into one finding a cell, in the same order.

    Raises ValueError when the two sequences differ in length.
    """
    return tuple(
        _assess_cell(cell, prediction, policy, quality)
        for cell, prediction in zip(cells, predictions, strict=True)
    )


def _assess_cell(
    cell: Cell, prediction: Prediction, policy: DecisionPolicy, quality: FieldQuality
) -> CellFinding:
    reasons = tuple(_referral_reasons(cell, prediction, policy, quality))
    call = Call.REFERRED if reasons else _confident_call(prediction, policy)
    return CellFinding(
        cell=cell,
        prediction=prediction,
        cell_type=_told_type(cell, prediction, call, policy),
        call=call,
        reasons=reasons,
    )


def _referral_reasons(
    cell: Cell, prediction: Prediction, policy: DecisionPolicy, quality: FieldQuality
) -> Iterator[ReferralReason]:
    if cell.kind is CellKind.SMUDGE_CELL or most_likely_type(prediction) is CellType.SMUDGE_CELL:
        yield ReferralReason.SMUDGE_CELL
    if cell.is_cut_by_edge:
        yield ReferralReason.CUT_BY_EDGE
    if cell.confidence < LEAST_OUTLINE_CONFIDENCE:
        yield ReferralReason.POOR_OUTLINE
    if quality.flags & REFERRING_FLAGS:
        yield ReferralReason.FIELD_QUALITY
    if not prediction.novelty <= policy.novelty_limit:  # also where it is no number
        yield ReferralReason.UNLIKE_TRAINING
    if _is_uncertain(prediction, policy):
        yield ReferralReason.UNCERTAIN


def _is_uncertain(prediction: Prediction, policy: DecisionPolicy) -> bool:
    """In the uncertain band, or the two heads of the network contradict each other.

    A network whose arithmetic overflowed says nothing: NaN compares as neither more nor less.
    """
    probability = prediction.leukemic_probability
    if not math.isfinite(probability + sum(prediction.type_probabilities)):
        return True
    if probability < policy.leukemic_from:
        return probability >= policy.refer_above
    return most_likely_type(prediction) not in LEUKEMIC_TYPES


def _confident_call(prediction: Prediction, policy: DecisionPolicy) -> Call:
    is_leukemic = prediction.leukemic_probability >= policy.leukemic_from
    return Call.LEUKEMIC if is_leukemic else Call.NORMAL


def most_likely_type(
    prediction: Prediction, among: frozenset[CellType] = frozenset(CELL_TYPES)
) -> CellType:
    """The type with the highest probability, among those given."""
    ranked = np.argsort(prediction.type_probabilities)[::-1]
    return next(CELL_TYPES[int(i)] for i in ranked if CELL_TYPES[int(i)] in among)


def _told_type(cell: Cell, prediction: Prediction, call: Call, policy: DecisionPolicy) -> CellType:
    """The likeliest type, or UNDETERMINED where it contradicts the call, the nucleus or its limit.

    A cell called leukemic has a blast type already (see `_is_uncertain`); which blast is a
    question of its own, so the limit holds for blasts together.
    """
    likeliest = most_likely_type(prediction)
    if likeliest in BLASTS:
        told = call is not Call.NORMAL
        probability = _probability_of(prediction, BLASTS)
    else:
        told = not (likeliest is CellType.PLATELET and _has_white_cell_nucleus(cell))
        probability = _probability_of(prediction, frozenset({likeliest}))
    is_likely = probability >= policy.type_from or call is Call.LEUKEMIC
    return likeliest if told and is_likely else CellType.UNDETERMINED


def _probability_of(prediction: Prediction, types: frozenset[CellType]) -> float:
    return sum(
        probability
        for cell_type, probability in zip(CELL_TYPES, prediction.type_probabilities, strict=True)
        if cell_type in types
    )


def _has_white_cell_nucleus(cell: Cell) -> bool:
    """What has a nucleus of a white cell's size is no platelet, whatever the network says."""
    return cell.shape.nucleus_area_um2 >= LEAST_NUCLEUS_UM2

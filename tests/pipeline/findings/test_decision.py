"""A cell is called only when nothing speaks against it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import (
    CELL_TYPES,
    LEAST_NUCLEUS_UM2,
    Box,
    Call,
    Cell,
    CellFinding,
    CellKind,
    CellShape,
    CellType,
    DecisionPolicy,
    FieldQuality,
    Prediction,
    QualityFlag,
    ReferralReason,
)
from pipeline.findings.decision import BLASTS, LEAST_OUTLINE_CONFIDENCE, assess

POLICY = DecisionPolicy(refer_above=0.3, leukemic_from=0.7, novelty_limit=10.0)
GOOD = FieldQuality(flags=frozenset(), is_usable=True)
SQUARE = np.array([[0, 0], [9, 0], [9, 9], [0, 9]], dtype=np.int32)
CELL = Cell(
    index=1,
    kind=CellKind.WHITE_CELL,
    box=Box(x=0, y=0, width=10, height=10),
    contour=SQUARE,
    nucleus_contours=(SQUARE,),
    shape=CellShape(
        area_um2=100.0,
        nucleus_area_um2=60.0,
        perimeter_um=40.0,
        equivalent_diameter_um=11.0,
        circularity=0.9,
        solidity=0.95,
        eccentricity=0.2,
        nucleus_to_cell_ratio=0.6,
        nucleus_lobes=1,
    ),
    is_cut_by_edge=False,
    is_touching=False,
    confidence=0.9,
)


def prediction(
    probability: float, cell_type: CellType = CellType.BLAST, novelty: float = 1.0
) -> Prediction:
    likely = CELL_TYPES.index(cell_type)
    types = [0.02] * len(CELL_TYPES)
    types[likely] = 1 - 0.02 * (len(CELL_TYPES) - 1)
    return Prediction(
        leukemic_probability=probability,
        type_probabilities=tuple(types),
        activation_map=np.zeros((7, 7), dtype=np.float32),
        novelty=novelty,
    )


def assess_one(said: Prediction, cell: Cell = CELL, quality: FieldQuality = GOOD) -> CellFinding:
    return assess([cell], [said], POLICY, quality)[0]


def test_cells_and_predictions_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        assess([CELL], [], POLICY, GOOD)


@pytest.mark.parametrize(
    ("said", "cell", "quality", "reason"),
    [
        (prediction(0.5), CELL, GOOD, ReferralReason.UNCERTAIN),
        (prediction(0.99, CellType.NEUTROPHIL), CELL, GOOD, ReferralReason.UNCERTAIN),
        (prediction(0.99, novelty=11.0), CELL, GOOD, ReferralReason.UNLIKE_TRAINING),
        (prediction(0.99), replace(CELL, is_cut_by_edge=True), GOOD, ReferralReason.CUT_BY_EDGE),
        (
            prediction(0.99),
            replace(CELL, kind=CellKind.SMUDGE_CELL),
            GOOD,
            ReferralReason.SMUDGE_CELL,
        ),
        (
            prediction(0.99),
            replace(CELL, confidence=LEAST_OUTLINE_CONFIDENCE / 2),
            GOOD,
            ReferralReason.POOR_OUTLINE,
        ),
        (
            prediction(0.01),
            CELL,
            FieldQuality(flags=frozenset({QualityFlag.OUT_OF_FOCUS}), is_usable=True),
            ReferralReason.FIELD_QUALITY,
        ),
    ],
)
def test_each_doubt_refers_the_cell_with_its_reason(
    said: Prediction, cell: Cell, quality: FieldQuality, reason: ReferralReason
) -> None:
    finding = assess_one(said, cell, quality)

    assert finding.call is Call.REFERRED
    assert finding.reasons == (reason,)


@pytest.mark.parametrize(
    ("probability", "call"),
    [(0.0, Call.NORMAL), (0.299, Call.NORMAL), (0.3, Call.REFERRED), (0.7, Call.LEUKEMIC)],
)
def test_the_band_is_closed_below_and_open_above(probability: float, call: Call) -> None:
    assert assess_one(prediction(probability)).call is call


def test_a_cell_called_normal_that_looks_like_a_blast_has_no_type() -> None:
    finding = assess_one(prediction(0.1, CellType.BLAST))

    assert finding.call is Call.NORMAL
    assert finding.cell_type is CellType.UNDETERMINED
    assert finding.type_probability == max(finding.prediction.type_probabilities)


def mixed(probability: float, **types: float) -> Prediction:
    """Type probabilities by name; the rest is shared out evenly."""
    rest = (1 - sum(types.values())) / (len(CELL_TYPES) - len(types))
    return replace(
        prediction(probability),
        type_probabilities=tuple(types.get(kind.value, rest) for kind in CELL_TYPES),
    )


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (mixed(0.1, eosinophil=0.02, blast=0.9), CellType.UNDETERMINED),
        (mixed(0.1, neutrophil=0.49, monocyte=0.3), CellType.UNDETERMINED),
        (mixed(0.1, neutrophil=0.51, blast=0.4), CellType.NEUTROPHIL),
        (mixed(0.1, monocyte=0.4, neutrophil=0.3), CellType.UNDETERMINED),
        (mixed(0.5, monocyte=0.4, neutrophil=0.3), CellType.UNDETERMINED),
        (mixed(0.5, monocyte=0.9), CellType.MONOCYTE),
        (mixed(0.9, blast=0.4, promyelocyte=0.3), CellType.BLAST),
        (mixed(0.9, blast=0.3, promyelocyte=0.4), CellType.PROMYELOCYTE),
        (mixed(0.1, blast=0.1, promyelocyte=0.6), CellType.PROMYELOCYTE),
    ],
)
def test_a_type_is_told_only_from_its_limit_on_and_with_the_call(
    said: Prediction, told: CellType
) -> None:
    assert assess_one(said).cell_type is told


@given(
    st.floats(0, 1),
    st.lists(st.floats(0.001, 1), min_size=len(CELL_TYPES), max_size=len(CELL_TYPES)),
    st.sampled_from([6.0, 30.0, 90.0]),
)
def test_no_type_is_told_that_the_network_rules_out(
    probability: float, weights: list[float], nucleus_um2: float
) -> None:
    types = np.array(weights) / sum(weights)
    said = replace(prediction(probability), type_probabilities=tuple(types.tolist()))
    cell = replace(CELL, shape=replace(CELL.shape, nucleus_area_um2=nucleus_um2))

    finding = assess_one(said, cell)

    if finding.cell_type is not CellType.UNDETERMINED:
        assert finding.type_probability == max(said.type_probabilities)
        is_blast = finding.cell_type in BLASTS
        assert not (finding.call is Call.NORMAL and is_blast)
        assert (
            is_blast
            or finding.call is Call.LEUKEMIC
            or finding.type_probability >= POLICY.type_from
        )


def test_a_promyelocyte_may_be_called_leukemic() -> None:
    assert assess_one(prediction(0.9, CellType.PROMYELOCYTE)).call is Call.LEUKEMIC
    assert assess_one(prediction(0.1, CellType.PROMYELOCYTE)).call is Call.NORMAL
    assert assess_one(prediction(0.9, CellType.LYMPHOCYTE)).call is Call.REFERRED


@pytest.mark.parametrize("probability", [0.05, 0.95])
def test_nothing_is_judged_of_what_the_network_takes_for_a_smudge_cell(probability: float) -> None:
    finding = assess_one(prediction(probability, CellType.SMUDGE_CELL))

    assert finding.call is Call.REFERRED
    assert ReferralReason.SMUDGE_CELL in finding.reasons
    assert finding.cell_type is CellType.SMUDGE_CELL


def test_what_has_a_nucleus_of_a_white_cell_is_no_platelet() -> None:
    said = prediction(0.01, CellType.PLATELET)
    small = replace(CELL, shape=replace(CELL.shape, nucleus_area_um2=LEAST_NUCLEUS_UM2 - 1))

    assert assess_one(said).cell_type is CellType.UNDETERMINED
    assert assess_one(said, small).cell_type is CellType.PLATELET


def test_a_thin_field_does_not_refer_its_cells() -> None:
    thin = FieldQuality(flags=frozenset({QualityFlag.TOO_THIN}), is_usable=True)

    assert assess_one(prediction(0.9), quality=thin).call is Call.LEUKEMIC

"""What networks and counts can come to, at their odd ends: nothing is told that is not known.

Every cell has one call, one type or none, one bucket; every percentage has a count behind it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from pipeline.domain import (
    CELL_TYPES,
    Call,
    Cell,
    CellKind,
    CellType,
    FieldQuality,
    Grade,
    Prediction,
    QualityFlag,
    ReferralReason,
    SmearFindings,
)
from pipeline.findings.decision import assess
from pipeline.findings.percentages import (
    has_percentages,
    interval_text,
    percent,
    percent_text,
    wilson,
)
from pipeline.findings.smear_summary import Bucket, bucket_of
from tests.findings import make_cell, make_cell_finding, make_field_findings, make_smear_findings
from tests.pipeline.findings.test_decision import CELL, GOOD, POLICY

# --- kind 1: heads that contradict each other


def says(leukemic: float, novelty: float = 1.0, **types: float) -> Prediction:
    """The types named, and the rest spread over the others."""
    named = {CellType[name.upper()]: share for name, share in types.items()}
    rest = max(0.0, 1 - sum(named.values())) / max(1, len(CELL_TYPES) - len(named))
    return Prediction(
        leukemic_probability=leukemic,
        type_probabilities=tuple(named.get(one, rest) for one in CELL_TYPES),
        activation_map=np.zeros((7, 7), np.float32),
        novelty=novelty,
    )


REFERRED = (Call.REFERRED, None)
UNTOLD = (Call.NORMAL, CellType.UNDETERMINED)
HEADS: Mapping[str, tuple[Prediction, tuple[Call, CellType | None]]] = {
    "normal-and-blast": (says(0.1, blast=0.98), UNTOLD),
    "normal-and-blast-then-eosinophil": (says(0.1, blast=0.97, eosinophil=0.0202), UNTOLD),
    "normal-and-hardly-anything": (says(0.1, eosinophil=0.12), UNTOLD),
    "normal-and-everything-nearly-alike": (says(0.1, lymphocyte=0.1), UNTOLD),
    "normal-and-just-under-the-limit": (says(0.1, neutrophil=0.499), UNTOLD),
    "normal-and-at-the-limit": (says(0.1, neutrophil=0.5), (Call.NORMAL, CellType.NEUTROPHIL)),
    "normal-and-two-alike": (says(0.1, neutrophil=0.45, eosinophil=0.45), UNTOLD),
    "normal-and-promyelocyte": (says(0.1, promyelocyte=0.9), (Call.NORMAL, CellType.PROMYELOCYTE)),
    "leukemic-and-lymphocyte": (says(0.99, lymphocyte=0.98), REFERRED),
    "leukemic-and-neutrophil": (says(0.99, neutrophil=0.51), REFERRED),
    "leukemic-and-everything-nearly-alike": (says(0.99, lymphocyte=0.1), REFERRED),
    "leukemic-and-blast-ahead-by-little": (says(0.99, blast=0.3), (Call.LEUKEMIC, CellType.BLAST)),
    "leukemic-and-promyelocyte": (
        says(0.99, promyelocyte=0.9),
        (Call.LEUKEMIC, CellType.PROMYELOCYTE),
    ),
    "leukemic-and-smudge": (says(0.99, smudge_cell=0.9), REFERRED),
    "normal-and-smudge": (says(0.01, smudge_cell=0.9), REFERRED),
    "between-and-lymphocyte": (says(0.5, lymphocyte=0.98), REFERRED),
    "not-a-number": (says(math.nan, lymphocyte=0.98), REFERRED),
    "not-a-number-and-blast": (says(math.nan, blast=0.98), REFERRED),
    "types-that-are-no-numbers": (says(0.1, lymphocyte=math.nan), REFERRED),
    "novelty-that-is-no-number": (says(0.1, math.nan, lymphocyte=0.98), REFERRED),
    "novelty-without-end": (says(0.1, math.inf, lymphocyte=0.98), REFERRED),
}


@pytest.mark.invented(kind=1)
@pytest.mark.parametrize("name", HEADS)
def test_no_type_is_told_that_the_heads_do_not_agree_on(name: str) -> None:
    said, (call, cell_type) = HEADS[name]

    (found,) = assess([CELL], [said], POLICY, GOOD)

    assert found.call is call
    assert cell_type is None or found.cell_type is cell_type
    assert bool(found.reasons) == (call is Call.REFERRED)


# --- kind 2: what has a nucleus, and what counts


def with_nucleus(area_um2: float, **values: object) -> Cell:
    shape = replace(CELL.shape, nucleus_area_um2=area_um2)
    return replace(CELL, shape=shape, **values)  # type: ignore[arg-type]


PLATELET = says(0.05, platelet=0.95)
NUCLEI: Mapping[str, tuple[Cell, Prediction, Bucket]] = {
    "large-nucleus-called-platelet": (with_nucleus(40.0), PLATELET, Bucket.UNDETERMINED),
    "huge-nucleus-called-platelet": (with_nucleus(300.0), PLATELET, Bucket.UNDETERMINED),
    "no-nucleus-called-platelet": (with_nucleus(0.0), PLATELET, Bucket.NOT_LEUKOCYTE),
    "speck-called-platelet": (with_nucleus(2.0), PLATELET, Bucket.NOT_LEUKOCYTE),
    "large-nucleus-called-erythroblast": (
        with_nucleus(40.0),
        says(0.05, erythroblast=0.95),
        Bucket.NOT_LEUKOCYTE,
    ),
    "no-nucleus-called-lymphocyte": (
        with_nucleus(0.0),
        says(0.05, lymphocyte=0.95),
        Bucket.COUNTED,
    ),
    "leukemic-platelet": (with_nucleus(2.0), says(0.95, platelet=0.95), Bucket.REFERRED),
    "cut-platelet": (with_nucleus(2.0, is_cut_by_edge=True), PLATELET, Bucket.REFERRED),
    "smudge-called-platelet": (
        with_nucleus(2.0, kind=CellKind.SMUDGE_CELL),
        PLATELET,
        Bucket.REFERRED,
    ),
    "doubtful-outline-called-platelet": (
        with_nucleus(2.0, confidence=0.1),
        PLATELET,
        Bucket.REFERRED,
    ),
    "unlike-training-called-platelet": (
        with_nucleus(2.0),
        says(0.05, 99.0, platelet=0.95),
        Bucket.REFERRED,
    ),
    "blast": (with_nucleus(60.0), says(0.95, blast=0.95), Bucket.COUNTED),
    "untold": (with_nucleus(60.0), says(0.05, lymphocyte=0.1), Bucket.UNDETERMINED),
}


@pytest.mark.invented(kind=2)
@pytest.mark.parametrize("name", NUCLEI)
def test_every_cell_found_is_in_one_visible_bucket(name: str) -> None:
    cell, said, bucket = NUCLEI[name]

    (found,) = assess([cell], [said], POLICY, GOOD)

    assert bucket_of(found) is bucket


@pytest.mark.invented(kind=2)
@pytest.mark.parametrize("flag", QualityFlag)
def test_a_flag_of_the_field_hides_no_cell(flag: QualityFlag) -> None:
    quality = FieldQuality(flags=frozenset({flag}), is_usable=True)

    (found,) = assess([CELL], [says(0.05, lymphocyte=0.95)], POLICY, quality)

    assert bucket_of(found) in (Bucket.COUNTED, Bucket.REFERRED)
    assert (ReferralReason.FIELD_QUALITY in found.reasons) == (found.call is Call.REFERRED)


# --- kind 3: shares and what stands behind them


def smear_of(leukemic: int, normal: int, referred: int = 0, untold: int = 0) -> SmearFindings:
    calls = [
        *[(Call.LEUKEMIC, CellType.BLAST)] * leukemic,
        *[(Call.NORMAL, CellType.NEUTROPHIL)] * normal,
        *[(Call.REFERRED, CellType.MONOCYTE)] * referred,
        *[(Call.NORMAL, CellType.UNDETERMINED)] * untold,
    ]
    cells = [
        make_cell_finding(make_cell(number, 50, 50), call, cell_type=kind)
        for number, (call, kind) in enumerate(calls, start=1)
    ]
    return make_smear_findings([make_field_findings(cells=cells)])


GRADES: Mapping[str, tuple[tuple[int, int, int, int], Grade]] = {
    "nothing-counted": ((0, 0, 0, 0), Grade.REFER),
    "only-referred": ((0, 0, 25, 0), Grade.REFER),
    "only-untold": ((0, 0, 0, 40), Grade.REFER),
    "10-of-13-beside-25-referred": ((10, 3, 25, 0), Grade.REFER),
    "one-normal-cell-alone": ((0, 1, 0, 0), Grade.REFER),
    "one-leukemic-cell-alone": ((1, 0, 0, 0), Grade.REFER),
    "nine-leukemic-cells-alone": ((9, 0, 0, 0), Grade.REFER),
    "15-normal-cells": ((0, 15, 0, 0), Grade.REFER),
    "16-normal-cells": ((0, 16, 0, 0), Grade.NONE_SEEN),
    "200-normal-cells": ((0, 200, 0, 0), Grade.NONE_SEEN),
    "one-of-200": ((1, 199, 0, 0), Grade.FEW),
    "one-of-five-of-100": ((20, 80, 0, 0), Grade.MANY),
    "a-little-less-of-100": ((19, 81, 0, 0), Grade.FEW),
    "all-of-50": ((50, 0, 0, 0), Grade.MANY),
    "as-many-referred-as-counted": ((0, 50, 50, 0), Grade.NONE_SEEN),
    "one-more-referred-than-counted": ((0, 50, 51, 0), Grade.REFER),
    "referred-and-untold-together": ((0, 50, 30, 21), Grade.REFER),
}


@pytest.mark.invented(kind=3)
@pytest.mark.parametrize("name", GRADES)
def test_the_grade_says_when_the_count_cannot_be_trusted(name: str) -> None:
    counts, grade = GRADES[name]

    smear = smear_of(*counts)

    assert smear.grade is grade
    assert smear.grade_reason


@pytest.mark.invented(kind=3)
@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 1, "0 %"),
        (1, 1, "100 %"),
        (1, 3, "33 %"),
        (10, 13, "77 %"),
        (1, 199, "1 %"),
        (1, 200, "0.5 %"),
        (199, 200, "99.5 %"),
        (1, 1999, "0.1 %"),
        (1, 2000, "0.05 %"),
        (1999, 2000, "99.95 %"),
        (0, 2000, "0.00 %"),
    ],
)
def test_a_percentage_has_the_digits_of_its_count(part: int, whole: int, text: str) -> None:
    assert percent_text(part / whole, whole) == text
    assert f"{percent(part / whole, whole):g}" in (text[:-2], text[:-2].rstrip("0").rstrip("."))
    assert interval_text(wilson(part, whole), whole).startswith(text)


@pytest.mark.invented(kind=3)
@pytest.mark.parametrize(
    ("counted", "least", "given"),
    [
        (0, 0, False),
        (0, 50, False),
        (1, 0, True),
        (1, 1, True),
        (13, 50, False),
        (49, 50, False),
        (50, 50, True),
        (100, 50, True),
        (50, 100, False),
        (0, -5, False),
    ],
)
def test_a_handful_of_cells_has_no_percentage(counted: int, least: int, given: bool) -> None:
    assert has_percentages(counted, least=least) is given

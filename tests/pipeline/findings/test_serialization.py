"""Findings survive the disk: what is read back is what was written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.domain import (
    Box,
    CalibrationIdentity,
    Call,
    Cell,
    CellFinding,
    CellKind,
    CellShape,
    CellType,
    FieldFindings,
    FieldQuality,
    ModelIdentity,
    Prediction,
    QualityFlag,
    ReferralReason,
    Scale,
    ScaleSource,
    SeriesUID,
    SOPInstanceUID,
    StudyUID,
)
from pipeline.errors import Defect
from pipeline.findings.serialization import field_from_record, field_to_record

numbers = st.floats(0, 1e4, allow_nan=False)
shares = st.floats(0, 1)
counts = st.integers(1, 9000)
contours = arrays.arrays(
    np.int32, st.tuples(st.integers(1, 6), st.just(2)), elements=st.integers(0, 9000)
)
maps = arrays.arrays(np.float32, (7, 7), elements=st.floats(0, 50, width=32))
cells = st.builds(
    CellFinding,
    cell=st.builds(
        Cell,
        index=counts,
        kind=st.sampled_from(CellKind),
        box=st.builds(Box, x=counts, y=counts, width=counts, height=counts),
        contour=contours,
        nucleus_contours=st.lists(contours, max_size=3).map(tuple),
        shape=st.builds(
            CellShape,
            **{f.name: numbers for f in fields(CellShape) if f.name != "nucleus_lobes"},
            nucleus_lobes=counts,
        ),
        is_cut_by_edge=st.booleans(),
        is_touching=st.booleans(),
        confidence=shares,
    ),
    prediction=st.builds(
        Prediction,
        leukemic_probability=shares,
        type_probabilities=st.lists(shares, min_size=10, max_size=10).map(tuple),
        activation_map=maps,
        novelty=numbers,
    ),
    cell_type=st.sampled_from(CellType),
    call=st.sampled_from(Call),
    reasons=st.lists(st.sampled_from(ReferralReason), max_size=3).map(tuple),
)
uids = st.from_regex(r"1\.2\.[1-9][0-9]{0,9}", fullmatch=True)
findings = st.builds(
    FieldFindings,
    study_uid=uids,
    series_uid=uids,
    sop_instance_uid=uids,
    frame=counts,
    width=counts,
    height=counts,
    scale=st.builds(
        Scale,
        um_per_px=numbers,
        source=st.sampled_from(ScaleSource),
        red_cell_diameter_px=st.none() | numbers,
        red_cells_measured=counts,
    ),
    quality=st.builds(
        FieldQuality,
        flags=st.frozensets(st.sampled_from(QualityFlag)),
        is_usable=st.booleans(),
        figures=st.dictionaries(st.text(max_size=8), numbers, max_size=3),
    ),
    cells=st.lists(cells, max_size=2).map(tuple),
    model=st.builds(
        ModelIdentity,
        name=st.text(max_size=8),
        version=st.text(max_size=8),
        sha256=st.text(max_size=8),
        execution_provider=st.text(max_size=8),
        calibration=st.none()
        | st.builds(
            CalibrationIdentity,
            site=st.text(max_size=8),
            made_on=st.text(max_size=8),
            smears=counts,
            sha256=st.text(max_size=8),
        ),
    ),
)


def alike(one: Any, other: Any) -> bool:
    """Equal through and through, types included; arrays by value, shape and dtype."""
    if isinstance(one, np.ndarray):
        close = {"atol": 6e-4} if one.dtype == np.float32 else {"rtol": 0}
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and np.allclose(one, other, **close)
        )
    if is_dataclass(one):
        return type(one) is type(other) and all(
            alike(getattr(one, f.name), getattr(other, f.name)) for f in fields(one)
        )
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    return type(one) is type(other) and one == other


def through_disk(record: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(record, allow_nan=False))


def a_record(**changes: Any) -> dict[str, Any]:
    found = FieldFindings(
        study_uid=StudyUID("1.2.3"),
        series_uid=SeriesUID("1.2.3.4"),
        sop_instance_uid=SOPInstanceUID("1.2.3.4.5"),
        frame=1,
        width=640,
        height=480,
        scale=Scale(um_per_px=0.1, source=ScaleSource.ASSUMED),
        quality=FieldQuality(flags=frozenset(), is_usable=True),
        cells=(),
        model=ModelIdentity(name="n", version="1", sha256="ab", execution_provider="CPU"),
    )
    return {**field_to_record(found), **changes}


def test_a_record_without_a_calibration_has_no_word_of_it() -> None:
    assert a_record()["model"] == {
        "name": "n",
        "version": "1",
        "sha256": "ab",
        "execution_provider": "CPU",
        "finder_sha256": "",
    }


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"format": 2}, "record_format"),
        ({"research_use_only": False}, "record_format"),
        ({"research_use_only": "true"}, "record_format"),
        ({"quality": None}, "record_damaged"),
        ({"model": {}}, "record_damaged"),
        ({"scale": {"source": "guess"}}, "record_damaged"),
        ({"cells": [{}]}, "record_damaged"),
        ({"cells": 7}, "record_damaged"),
    ],
)
def test_a_damaged_record_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(Defect) as refused:
        field_from_record(a_record(**changes))

    assert refused.value.code == code


def test_an_empty_record_is_refused() -> None:
    with pytest.raises(Defect):
        field_from_record({})


@given(findings)
def test_findings_come_back_as_they_went(found: FieldFindings) -> None:
    assert alike(found, field_from_record(through_disk(field_to_record(found))))


@given(findings)
def test_a_record_comes_back_to_the_last_digit(found: FieldFindings) -> None:
    record = through_disk(field_to_record(found))

    assert field_to_record(field_from_record(record)) == record


def test_a_record_says_research_use_only() -> None:
    assert a_record()["research_use_only"] is True

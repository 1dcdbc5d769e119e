"""Smears of odd composition: every object of a result set refers to what is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from pipeline.domain import Call, FieldFindings, QualityFlag
from reporting.results import DICOM_KINDS, ResultKind
from tests.findings import make_field_findings, make_smear_findings
from tests.reporting.made import read, results_of
from tests.reporting.sources import make_source

L, R, N = Call.LEUKEMIC, Call.REFERRED, Call.NORMAL


def field(
    number: int,
    calls: Sequence[Call] = (L, N, R),
    *,
    series: int = 1,
    study: int = 1,
    frame: int = 1,
    is_usable: bool = True,
) -> FieldFindings:
    return make_field_findings(
        sop_instance_uid=f"1.2.826.0.1.3680043.10.999.1.{number}",
        frame=frame,
        width=160,
        height=128,
        calls=calls if is_usable else (),
        series_uid=f"1.2.826.0.1.3680043.10.999.2.{series}",
        study_uid=f"1.2.826.0.1.3680043.10.999.3.{study}",
        is_usable=is_usable,
        flags=frozenset() if is_usable else frozenset({QualityFlag.NOT_A_SMEAR}),
    )


SMEARS: Mapping[str, tuple[str, Sequence[FieldFindings]]] = {
    "no-cell": ("microscopic", [field(1, ())]),
    "one-refused-field": ("microscopic", [field(1, is_usable=False)]),
    "a-refused-field-beside-a-good-one": ("microscopic", [field(1), field(2, is_usable=False)]),
    "a-field-without-a-cell-beside-one-with": ("microscopic", [field(1, ()), field(2)]),
    "only-referred": ("microscopic", [field(1, (R, R))]),
    "only-normal": ("photographic", [field(1, (N, N))]),
    "one-leukemic-cell": ("secondary_capture", [field(1, (L,))]),
    "several-fields-of-one-series": ("microscopic", [field(1), field(2), field(3)]),
    "two-series": ("microscopic", [field(1), field(2, series=2)]),
    "two-studies": ("microscopic", [field(1), field(2, series=2, study=2)]),
    "two-frames": ("multi_frame", [field(1), field(1, frame=2)]),
    "second-frame-alone": ("multi_frame", [field(1, frame=2)]),
    "on-a-slide": ("slide_coordinates", [field(1), field(2, ())]),
}


@pytest.mark.invented(kind=27)
@pytest.mark.parametrize("name", SMEARS)
def test_nothing_refers_to_what_is_not_there(name: str) -> None:
    kind, fields = SMEARS[name]
    sources = {one.sop_instance_uid: make_source(kind, one) for one in fields}

    results = results_of(make_smear_findings(fields), sources, *DICOM_KINDS)

    objects = [read(result) for result in results]
    known = {str(one.SOPInstanceUID) for one in objects} | {*map(str, sources)}
    for made in objects:
        referred = {
            str(element.value)
            for element in made.iterall()
            if element.keyword == "ReferencedSOPInstanceUID"
        }
        assert referred <= known, made.SOPClassUID.name
        assert str(made.StudyInstanceUID) in {one.study_uid for one in fields}
    has_cells = any(one.cells for one in fields)
    kinds = {result.kind for result in results}
    assert (ResultKind.SEGMENTATION in kinds) == has_cells
    assert {ResultKind.STRUCTURED_REPORT, ResultKind.GALLERY} <= kinds


@pytest.mark.invented(kind=27)
@pytest.mark.parametrize("name", SMEARS)
def test_each_series_of_results_holds_objects_of_one_kind_and_study(name: str) -> None:
    kind, fields = SMEARS[name]
    sources = {one.sop_instance_uid: make_source(kind, one) for one in fields}

    objects = [read(one) for one in results_of(make_smear_findings(fields), sources, *DICOM_KINDS)]

    series: dict[str, set[tuple[str, str]]] = {}
    for made in objects:
        kept = series.setdefault(str(made.SeriesInstanceUID), set())
        kept.add((str(made.StudyInstanceUID), str(made.Modality)))
    assert all(len(kinds) == 1 for kinds in series.values())
    assert not series.keys() & {one.series_uid for one in fields}
    assert len({str(made.SOPInstanceUID) for made in objects}) == len(objects)

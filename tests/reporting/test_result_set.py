"""The whole set of one smear: complete, cross-referenced, the same on every replay, labelled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import DataElement, Dataset
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR

import reporting.result_set
from pipeline.domain import Call, FieldFindings, SOPInstanceUID
from pipeline.errors import Defect, NeedsReview
from reporting.dicom.key_object_selection import build_key_objects
from reporting.result_set import build_result_set
from reporting.results import DICOM_KINDS, Result, ResultKind
from tests.findings import make_field_findings, make_smear_findings
from tests.reporting.made import context_for, read, results_of
from tests.reporting.sources import SOP_CLASSES, make_source

EXCEPT_SLIDE = DICOM_KINDS - {ResultKind.BULK_ANNOTATIONS}


def fields(count: int = 2, **changed: Any) -> list[FieldFindings]:
    return [
        make_field_findings(sop_instance_uid=f"1.2.826.0.1.3680043.10.999.{number}", **changed)
        for number in range(1, count + 1)
    ]


def set_of(of: list[FieldFindings], *kinds: ResultKind, kind: str = "slide_coordinates"):
    sources = {field.sop_instance_uid: make_source(kind, field) for field in of}
    return results_of(make_smear_findings(of), sources, *kinds)


class TestWhatGoesWrong:
    def test_a_result_without_the_label_stops_the_set(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever a builder forgets: nothing unlabelled is handed on."""
        build: Callable[..., Dataset] = build_key_objects

        def forgetful(*arguments: Any, **named: Any) -> Dataset:
            dataset = build(*arguments, **named)
            del dataset.ContentQualification
            return dataset

        monkeypatch.setattr(reporting.result_set, "build_key_objects", forgetful)
        handed_on = []

        with pytest.raises(Defect) as told:
            for result in _one_after_another(fields(1)):
                handed_on.append(result.kind)

        assert told.value.code == "research_label_missing"
        assert ResultKind.KEY_OBJECTS not in handed_on

    def test_two_patients_need_a_person(self) -> None:
        of = fields()
        sources = {field.sop_instance_uid: make_source("microscopic", field) for field in of}
        sources[of[1].sop_instance_uid].PatientID = "P-0043"

        with pytest.raises(NeedsReview) as told:
            results_of(make_smear_findings(of), sources)

        assert told.value.code == "smear_with_two_patients"
        assert "P-0043" not in told.value.message

    def test_a_frame_that_the_source_does_not_have_is_a_defect(self) -> None:
        [field] = fields(1, frame=3)

        with pytest.raises(Defect) as told:
            set_of([field], ResultKind.ANNOTATED_FIELD, kind="multi_frame")

        assert told.value.code == "source_frame_missing"


@pytest.mark.parametrize("kind", SOP_CLASSES)
def test_every_source_gives_the_kinds_that_fit_it(kind: str) -> None:
    results = set_of(fields(1), kind=kind)

    wanted = DICOM_KINDS if kind == "slide_coordinates" else EXCEPT_SLIDE
    assert {one.kind for one in results} == wanted


def test_only_what_was_asked_for_is_made() -> None:
    assert [one.kind for one in set_of(fields(), ResultKind.GALLERY)] == [ResultKind.GALLERY]


def test_fields_without_cells_have_a_picture_and_no_empty_objects() -> None:
    kinds = [one.kind for one in set_of(fields(1, calls=()))]

    assert ResultKind.ANNOTATED_FIELD in kinds
    assert not {*kinds} & {ResultKind.PRESENTATION_STATE, ResultKind.SEGMENTATION}


def test_a_replay_gives_the_same_bytes() -> None:
    assert set_of(fields(), *ResultKind) == set_of(fields(), *ResultKind)


def test_sources_are_read_when_their_turn_comes() -> None:
    """Memory does not grow with the smear."""
    of = fields(5)
    sources = {field.sop_instance_uid: make_source("slide_coordinates", field) for field in of}
    reads: list[str] = []

    def read_source(uid: SOPInstanceUID) -> Dataset:
        reads.append(uid)
        return sources[uid]

    results = build_result_set(
        make_smear_findings(of),
        read_source=read_source,
        context=context_for(ResultKind.ANNOTATED_FIELD),
    )
    read_by_then = [len(reads) for _ in results]

    headers = len(of)
    assert read_by_then == [headers + number + 1 for number in range(5)]
    assert len(reads) == headers + 5


@given(st.lists(st.sampled_from(Call), max_size=6), st.booleans())
def test_every_uid_is_used_once(calls: list[Call], is_usable: bool) -> None:
    of = fields(2, calls=calls, is_usable=is_usable)

    results = set_of(of, *(EXCEPT_SLIDE - {ResultKind.GALLERY, ResultKind.ANNOTATED_FIELD}))

    assert len({one.uid for one in results}) == len(results)
    assert all(read(one).SOPInstanceUID == one.uid for one in results)


def test_an_amended_set_has_objects_and_series_of_its_own() -> None:
    of = fields()
    sources = {field.sop_instance_uid: make_source("microscopic", field) for field in of}
    first, second = (
        [read(one) for one in results_of(make_smear_findings(of), sources, version=version)]
        for version in (1, 2)
    )

    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert not {one[keyword].value for one in first} & {one[keyword].value for one in second}
    assert all("version 2" in one.SeriesDescription for one in second)
    assert max(one.SeriesNumber for one in first) < min(one.SeriesNumber for one in second)
    assert all(one.SeriesDate and one.SeriesTime for one in (*first, *second))


def test_what_is_odd_in_one_document_keeps_no_other_back(monkeypatch: pytest.MonkeyPatch) -> None:
    of = fields()
    sources = {field.sop_instance_uid: make_source("microscopic", field) for field in of}
    monkeypatch.setattr(reporting.result_set, "build_bundle", _overflows)
    refused: list[tuple[ResultKind, str]] = []

    made = list(
        build_result_set(
            make_smear_findings(of),
            read_source=sources.__getitem__,
            context=context_for(*ResultKind),
            refuse=lambda kind, err: refused.append((kind, err.code)),
        )
    )

    assert refused == [(ResultKind.FHIR_BUNDLE, "result_not_built")]
    documents = {ResultKind.TABLE, ResultKind.PDF_REPORT, ResultKind.HL7_MESSAGE}
    assert {one.kind for one in made} >= DICOM_KINDS - {ResultKind.BULK_ANNOTATIONS} | documents


def _overflows(*_args: object, **_kwargs: object) -> Result:
    raise OverflowError("date value out of range")


@pytest.mark.parametrize("date", ["00010101", "99991231", "00000000", "2026", "10000101"])
def test_an_odd_date_keeps_no_result_back(date: str) -> None:
    of = fields()
    sources = {field.sop_instance_uid: make_source("microscopic", field) for field in of}
    for source in sources.values():
        for keyword in ("StudyDate", "ContentDate", "AcquisitionDateTime", "PatientBirthDate"):
            source[keyword] = DataElement(
                keyword, dictionary_VR(keyword), date, validation_mode=IGNORE
            )

    made = results_of(make_smear_findings(of), sources, *ResultKind)

    assert {one.kind for one in made} == set(ResultKind) - {ResultKind.BULK_ANNOTATIONS}


def test_a_kind_is_a_series_numbered_from_one_and_each_segmentation_has_its_own() -> None:
    objects = [read(one) for one in set_of(fields(3))]

    by_series: dict[str, list[int]] = {}
    for one in objects:
        by_series.setdefault(one.SeriesInstanceUID, []).append(one.InstanceNumber)
    assert sorted(map(len, by_series.values())) == [1, 1, 1, 1, 1, 1, 3, 3, 3]
    assert all(numbers == [*range(1, len(numbers) + 1)] for numbers in by_series.values())


def test_names_hold_no_patient() -> None:
    for result in set_of(fields(), *ResultKind):
        assert "P-0042" not in result.name
        assert "A-77" not in result.name


def test_each_frame_of_a_source_is_decoded_once() -> None:
    of = [make_field_findings(frame=frame) for frame in (1, 2)]
    source = make_source("multi_frame", of[0])
    reads = []

    def read_source(uid: str) -> Dataset:
        reads.append(uid)
        return source

    results = reporting.result_set.build_result_set(
        make_smear_findings(of),
        read_source=read_source,
        context=context_for(ResultKind.ANNOTATED_FIELD, ResultKind.GALLERY),
    )

    assert len(list(results)) == 3
    # Once for the header, once for the pixels of both frames, of which the gallery has its cells.
    assert len(reads) == 2


def _one_after_another(of: list[FieldFindings]) -> Iterator[Result]:
    sources = {field.sop_instance_uid: make_source("microscopic", field) for field in of}
    return reporting.result_set.build_result_set(
        make_smear_findings(of), read_source=sources.__getitem__, context=context_for()
    )

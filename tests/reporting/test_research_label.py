"""Nothing without the research-use label may leave (law 3): each kind is asked in its own way."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from pydicom import Dataset

from pipeline.errors import Defect
from reporting.research_label import check_label
from reporting.results import Result, ResultKind
from tests.findings import make_field_findings, make_smear_findings
from tests.reporting.made import read, results_of
from tests.reporting.sources import make_source

FIELD = make_field_findings()
EVERYTHING = {
    result.kind: result
    for result in results_of(
        make_smear_findings([FIELD]),
        {FIELD.sop_instance_uid: make_source("slide_coordinates", FIELD)},
        *ResultKind,
    )
}
DICOM = [kind for kind, one in EVERYTHING.items() if one.media_type == "application/dicom"]


def refused(result: Result) -> bool:
    try:
        check_label(result)
    except Defect as err:
        assert err.code == "research_label_missing"
        return True
    return False


def changed(kind: ResultKind, change: Callable[[Dataset], None]) -> Result:
    """The object of a kind, changed in its data set and written again."""
    dataset = read(EVERYTHING[kind])
    change(dataset)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return replace(EVERYTHING[kind], content=buffer.getvalue())


@pytest.mark.parametrize("content", [b"", b"\0" * 200, b"nonsense", b"{}", b"%PDF-", b"MSH|"])
@pytest.mark.parametrize("kind", ResultKind)
def test_what_cannot_be_read_has_no_label(kind: ResultKind, content: bytes) -> None:
    assert refused(replace(EVERYTHING[kind], content=content))


@pytest.mark.parametrize("kind", ResultKind)
def test_every_kind_that_we_make_is_labelled(kind: ResultKind) -> None:
    assert not refused(EVERYTHING[kind])


@pytest.mark.parametrize("kind", DICOM)
@pytest.mark.parametrize("keyword", ["ContentQualification", "SeriesDescription"])
def test_an_object_must_say_so_in_each_place(kind: ResultKind, keyword: str) -> None:
    assert refused(changed(kind, lambda dataset: delattr(dataset, keyword)))
    assert refused(changed(kind, lambda dataset: setattr(dataset, keyword, "PRODUCT")))


@pytest.mark.parametrize("kind", [ResultKind.ANNOTATED_FIELD, ResultKind.GALLERY])
@pytest.mark.parametrize("keyword", ["BurnedInAnnotation", "ImageComments"])
def test_a_picture_must_have_it_burned_in(kind: ResultKind, keyword: str) -> None:
    assert refused(changed(kind, lambda dataset: delattr(dataset, keyword)))


def test_one_resource_without_the_label_spoils_a_bundle() -> None:
    bundle = json.loads(EVERYTHING[ResultKind.FHIR_BUNDLE].content)
    bundle["entry"][-1]["resource"].pop("meta")

    assert refused(replace(EVERYTHING[ResultKind.FHIR_BUNDLE], content=json.dumps(bundle).encode()))


def test_one_line_without_the_label_spoils_a_table() -> None:
    table = EVERYTHING[ResultKind.TABLE]
    spoilt = table.content.replace(b"RESEARCH USE ONLY", b"", 1)

    assert spoilt != table.content
    assert refused(replace(table, content=spoilt))


@pytest.mark.parametrize("kind", [ResultKind.HL7_MESSAGE, ResultKind.PDF_REPORT])
def test_a_document_must_say_so(kind: ResultKind) -> None:
    words = "RESEARCH USE ONLY"
    content = EVERYTHING[kind].content
    for coding in ("latin-1", "utf-16-be"):
        content = content.replace(words.encode(coding), "PRODUCTION USE   ".encode(coding))

    assert content != EVERYTHING[kind].content
    assert refused(replace(EVERYTHING[kind], content=content))

"""The quick reader of top-level attributes: what pydicom reads, or nothing at all."""

from __future__ import annotations

import io
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_partial
from pydicom.filewriter import write_file_meta_info
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from reporting.research_label import LABEL_TAGS, SENDER_TAGS
from reporting.results import DICOM_KINDS, ResultKind
from reporting.top_level_elements import read_top_level
from tests.findings import make_field_findings, make_smear_findings
from tests.reporting.made import results_of
from tests.reporting.sources import make_source

WANTED = (*LABEL_TAGS, *SENDER_TAGS)
FIELD = make_field_findings()
OBJECTS = {
    result.kind: result.content
    for result in results_of(
        make_smear_findings([FIELD]),
        {FIELD.sop_instance_uid: make_source("slide_coordinates", FIELD)},
    )
}


def by_pydicom(content: bytes) -> Dataset:
    last = max(WANTED)
    return read_partial(
        io.BytesIO(content),
        stop_when=lambda tag, _vr, _length: tag > last,
        specific_tags=list(WANTED),
    )


def values(dataset: Dataset) -> dict[int, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {int(tag): dataset[tag].value for tag in WANTED if tag in dataset}


@pytest.mark.parametrize("kind", sorted(DICOM_KINDS))
def test_every_object_of_ours_is_read_as_pydicom_reads_it(kind: ResultKind) -> None:
    found = read_top_level(OBJECTS[kind], WANTED)

    expected = by_pydicom(OBJECTS[kind])
    assert found is not None
    assert values(found) == values(expected)
    assert found.file_meta.TransferSyntaxUID == expected.file_meta.TransferSyntaxUID


@pytest.mark.parametrize("content", [b"", b"\0" * 128 + b"DICM", b"\0" * 200, b"DICM" * 100])
def test_what_is_no_object_is_left_to_pydicom(content: bytes) -> None:
    assert read_top_level(content, WANTED) is None


def test_a_file_that_ends_early_holds_no_more_than_pydicom_finds() -> None:
    content = OBJECTS[ResultKind.KEY_OBJECTS]
    read_early = {cut: read_top_level(content[:cut], WANTED) for cut in range(128, 900)}

    assert None in read_early.values()
    for cut, found in read_early.items():
        if found is not None:
            assert values(found) == values(by_pydicom(content[:cut]))


@pytest.mark.parametrize(
    "syntax", [DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian]
)
def test_another_coding_is_left_to_pydicom(syntax: str) -> None:
    content = OBJECTS[ResultKind.KEY_OBJECTS]
    meta = dcmread(io.BytesIO(content)).file_meta
    buffer = DicomBytesIO(content[:132])
    buffer.seek(132)
    rest = content[buffer.tell() + 12 + meta.FileMetaInformationGroupLength :]
    meta.TransferSyntaxUID = UID(syntax)
    write_file_meta_info(buffer, meta)

    assert read_top_level(buffer.getvalue() + rest, WANTED) is None


def test_a_description_in_another_script_is_left_to_pydicom() -> None:
    dataset = dcmread(io.BytesIO(OBJECTS[ResultKind.KEY_OBJECTS]))
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SeriesDescription = "Мазок RESEARCH USE ONLY"
    buffer = io.BytesIO()
    dataset.save_as(buffer)

    assert read_top_level(buffer.getvalue(), WANTED) is None


@given(st.integers(128, 1500), st.integers(0, 255))
def test_a_damaged_byte_never_makes_it_say_what_pydicom_does_not(place: int, byte: int) -> None:
    content = bytearray(OBJECTS[ResultKind.KEY_OBJECTS])
    content[place % len(content)] = byte

    found = read_top_level(bytes(content), WANTED)

    if found is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = by_pydicom(bytes(content))
            labels = set(map(int, map(Tag, LABEL_TAGS)))
            assert {t: v for t, v in values(found).items() if t in labels} == {
                t: v for t, v in values(expected).items() if t in labels
            }

"""What results take over from their source: everything of the patient, nothing invented."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydicom import Dataset

from pipeline.errors import NeedsReview
from reporting.dicom.source_attributes import (
    COPIED_WHEN_PRESENT,
    PATIENT_TYPE_2,
    STUDY_TYPE_2,
    SourceFrame,
    check_one_patient,
    copy_or_empty,
    header_of,
    image_reference,
    laterality,
    patient_and_study,
    specimen,
    time_zone,
)
from reporting.results import DICOM_KINDS, ResultKind
from tests.findings import make_field_findings
from tests.reporting.made import made
from tests.reporting.sources import make_source

FIELD = make_field_findings()


@pytest.mark.parametrize(
    "offset", ["", "0900", "+9", "+0975", "+1401", "-1201", "+9900", "Z", "+09:00"]
)
def test_an_offset_that_is_none_gives_no_zone(offset: str) -> None:
    header = Dataset()
    header.TimezoneOffsetFromUTC = offset

    assert time_zone(header) is None


@pytest.mark.parametrize(
    ("offset", "minutes"), [("+0000", 0), ("-1200", -720), ("+1400", 840), ("+0545", 345)]
)
def test_a_legal_offset_is_read(offset: str, minutes: int) -> None:
    header = Dataset()
    header.TimezoneOffsetFromUTC = offset
    zone = time_zone(header)

    assert zone is not None
    assert zone.utcoffset(None) == timedelta(minutes=minutes)


def test_an_illegal_offset_is_not_passed_on() -> None:
    header = make_source("microscopic", FIELD)
    header.TimezoneOffsetFromUTC = "+9900"

    assert "TimezoneOffsetFromUTC" not in patient_and_study(header)


def test_two_patients_are_not_mixed() -> None:
    one, other = Dataset(), Dataset()
    one.PatientID = other.PatientID = "P-1"
    check_one_patient([one, other])

    other.IssuerOfPatientID = "ELSEWHERE"

    with pytest.raises(NeedsReview):
        check_one_patient([one, other])


@pytest.mark.parametrize("keyword", [*PATIENT_TYPE_2, *STUDY_TYPE_2])
def test_what_the_source_lacks_is_present_and_empty(keyword: str) -> None:
    copied = patient_and_study(Dataset())

    assert keyword in copied
    assert not copied[keyword].value


def test_nothing_else_is_invented() -> None:
    assert {one.keyword for one in patient_and_study(Dataset())} == {
        *PATIENT_TYPE_2,
        *STUDY_TYPE_2,
    }


def test_what_is_copied_is_a_copy() -> None:
    header = make_source("microscopic", FIELD)
    copied = specimen(header)

    copied.SpecimenDescriptionSequence[0].SpecimenIdentifier = "OTHER"

    assert header.SpecimenDescriptionSequence[0].SpecimenIdentifier == "SPEC-1"


@pytest.mark.parametrize("kind", sorted(DICOM_KINDS))
def test_patient_order_and_study_reach_every_object(kind: ResultKind) -> None:
    source = make_source("slide_coordinates", FIELD)
    given = {*PATIENT_TYPE_2, *STUDY_TYPE_2, *COPIED_WHEN_PRESENT} & {one.keyword for one in source}

    object_ = made(kind, FIELD, source=source)

    assert {keyword: object_[keyword].value for keyword in given} == {
        keyword: source[keyword].value for keyword in given
    }
    assert str(object_.PatientName) == "Μüller^Žofie=山田^花子"
    assert object_.TimezoneOffsetFromUTC == "+0900"


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller^Änne"),
        ("ISO_IR 144", "Иванов^Пётр"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
    ],
)
def test_a_name_survives_in_its_character_set(charset: object, name: str) -> None:
    source = make_source("microscopic", FIELD)
    source.SpecificCharacterSet = charset
    source.PatientName = name
    for keyword in ("ReferringPhysicianName", "StudyDescription"):
        setattr(source, keyword, "Plain")

    object_ = made(ResultKind.STRUCTURED_REPORT, FIELD, source=source)

    assert str(object_.PatientName) == name


def test_pixels_and_private_elements_stay_behind() -> None:
    source = make_source("microscopic", FIELD)
    source.private_block(0x0011, "MAKER", create=True).add_new(0x01, "LO", "secret")

    header = header_of(source)

    assert "PixelData" not in header
    assert not any(one.tag.is_private for one in header)
    assert "PixelData" in source


@pytest.mark.parametrize(("kind", "frames"), [("microscopic", None), ("multi_frame", 1)])
def test_a_frame_is_named_where_there_are_several(kind: str, frames: int | None) -> None:
    source = SourceFrame(header=make_source(kind, FIELD), frame=1)

    assert image_reference(source).get("ReferencedFrameNumber") == frames


def test_a_specimen_is_taken_whole_or_not_at_all() -> None:
    header = make_source("microscopic", FIELD)
    assert specimen(header).ContainerIdentifier == "SLIDE-9"
    assert "Laterality" not in laterality(header)

    del header.SpecimenDescriptionSequence

    assert len(specimen(header)) == 0
    assert laterality(header).Laterality is None


def test_an_empty_value_counts_as_none() -> None:
    source, target = Dataset(), Dataset()
    source.PatientID = ""

    copy_or_empty(source, target, "PatientID")

    assert not target.PatientID

"""What results take over from their source: everything of the patient, nothing invented."""

from __future__ import annotations

from datetime import timedelta
from io import BytesIO

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from reporting.dicom.common_modules import part10_bytes
from reporting.dicom.source_attributes import (
    COPIED_WHEN_PRESENT,
    PATIENT_TYPE_2,
    STUDY_TYPE_2,
    SourceFrame,
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


def _file(*, syntax: UID) -> bytes:
    """An image whose text is Latin-1 although it claims UTF-8."""
    image = Dataset()
    image.SpecificCharacterSet = "ISO_IR 192"
    image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    image.StudyInstanceUID = "1.2"
    image.PatientName, image.PatientID, image.StudyDescription = "MUELLER^A", "P-17", "BLUT"
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = syntax
    buffer = BytesIO()
    dcmwrite(buffer, image, enforce_file_format=True)
    return buffer.getvalue().replace(b"MUELLER", b"M\xdcLLER ").replace(b"BLUT", b"BL\xdcT")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_name_in_the_wrong_character_set_is_passed_on_as_it_came(syntax: UID) -> None:
    """A PACS then shows the same name for source and result, whatever it makes of the bytes."""
    copied = patient_and_study(header_of(dcmread(BytesIO(_file(syntax=syntax)))))
    copied.SOPClassUID, copied.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.4"

    written = part10_bytes(copied)

    assert b"M\xdcLLER ^A" in written
    assert b"BL\xdcT" in written
    assert dcmread(BytesIO(written)).PatientID == "P-17"


def test_no_private_attribute_comes_along_at_any_depth() -> None:
    inner, item, header = Dataset(), Dataset(), Dataset()
    item.PatientID, item.TypeOfPatientID = "OLD", "TEXT"
    for one in (inner, item):
        one.private_block(0x0011, "ACME", create=True).add_new(0x01, "LO", "a note")
    item.IssuerOfPatientIDQualifiersSequence = [inner]
    header.OtherPatientIDsSequence = [item]

    copied = patient_and_study(header)

    assert copied.OtherPatientIDsSequence[0].PatientID == "OLD"
    assert not [element for element in copied.iterall() if element.tag.is_private]
    assert [element for element in header.iterall() if element.tag.is_private]


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

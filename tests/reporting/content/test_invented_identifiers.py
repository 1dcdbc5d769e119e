"""Headers as devices, worklists and gateways fill them, devised from public bug reports.

A report names one patient by what stands there, says no time that nobody gave, and copies text as
it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from pipeline.errors import NeedsReview
from reporting.content.identifiers import SmearOrigin, read_origin, text_of
from reporting.results import DICOM_KINDS, ResultKind
from tests.findings import make_field_findings, make_smear_findings
from tests.reporting.content.test_identifiers import header, issuer, origin_of
from tests.reporting.made import made, read, results_of
from tests.reporting.sources import make_source


def put(dataset: Dataset, keyword: str, value: bytes) -> Dataset:
    """An attribute as it stands in a file, not decoded yet."""
    tag = Tag(keyword)
    padded = value + b" " * (len(value) % 2)
    dataset[tag] = RawDataElement(
        tag, dictionary_VR(tag), len(padded), padded, 0, is_implicit_VR=False, is_little_endian=True
    )
    return dataset


def origin_with(charset: bytes | None = None, **values: bytes) -> SmearOrigin:
    source = header()
    if charset is not None:
        source.SpecificCharacterSet = charset.decode("ascii").split("\\")
    for keyword, value in values.items():
        put(source, keyword, value)
    return origin_of(source)


# --- kind 11: values with backslashes, and other separators


SEPARATORS: Mapping[str, tuple[bytes, str]] = {
    "two-values": (b"HOSP\\0815", "HOSP\\0815"),
    "empty-first-value": (b"\\0815", "\\0815"),
    "empty-last-value": (b"0815\\", "0815\\"),
    "three-values": (b"A\\B\\C", "A\\B\\C"),
    "only-a-backslash": (b"\\", "\\"),
    "values-with-blanks": (b"A \\ B", "A\\ B"),
    "caret": (b"123^^^HOSP", "123^^^HOSP"),
    "hl7-separators": (b"1|2~3&4^5", "1|2~3&4^5"),
    "json-quotes": (b"a\"b'c", "a\"b'c"),
    "brackets": (b"['A', 'B']", "['A', 'B']"),
    "blanks-around": (b"  4711  ", "4711"),
    "zero-bytes-behind": (b"4711\0\0", "4711"),
    "zero-byte-and-blank-behind": (b"4711\0 ", "4711"),
    "tabs-around": (b"\t4711\t", "4711"),
    "line-end-inside": (b"47\r\n11", "47\ufffd\ufffd11"),
    "hundred-characters": (b"9" * 100, "9" * 100),
}


@pytest.mark.invented(kind=11)
@pytest.mark.parametrize("keyword", ["PatientID", "AccessionNumber", "ContainerIdentifier"])
@pytest.mark.parametrize("name", SEPARATORS)
def test_an_identifier_is_one_text(name: str, keyword: str) -> None:
    value, wanted = SEPARATORS[name]

    origin = origin_with(**{keyword: value})

    found = {
        "PatientID": (origin.patient,),
        "AccessionNumber": origin.accessions,
        "ContainerIdentifier": origin.containers,
    }[keyword]
    assert [one.value for one in found if one is not None] == [wanted]


@pytest.mark.invented(kind=11)
@pytest.mark.parametrize("empty", [b"", b"  ", b"\0\0", b" \0", b"\t "])
def test_an_identifier_of_padding_is_none(empty: bytes) -> None:
    assert origin_with(PatientID=empty, AccessionNumber=empty).patient is None


@pytest.mark.invented(kind=11)
@pytest.mark.parametrize(
    ("keyword", "value", "wanted"),
    [
        ("RequestingPhysician", b"Who^A\\What^B", {("Who", "A"), ("What", "B")}),
        ("RequestingPhysician", b"\\Who^A", {("Who", "A")}),
        ("ReferringPhysicianName", b"Who^A\\What^B", {("Who", "A"), ("What", "B")}),
        ("ReferringPhysicianName", b"Who^A=\xc3\xa4", {("Who", "A")}),
        ("ReferringPhysicianName", b"Who", {("Who", "")}),
        ("ReferringPhysicianName", b"^^^Dr.", set()),
    ],
)
def test_each_physician_is_one(keyword: str, value: bytes, wanted: set[tuple[str, str]]) -> None:
    physicians = origin_with(b"ISO_IR 192", **{keyword: value}).physicians

    assert {(one.family, one.given) for one in physicians} == wanted


@pytest.mark.invented(kind=11)
@pytest.mark.parametrize("kind", ["microscopic", "slide_coordinates"])
def test_the_report_names_specimen_and_slide_as_one_text(kind: str) -> None:
    field = make_field_findings()
    source = make_source(kind, field)
    put(source, "ContainerIdentifier", b"SLIDE\\9")
    put(source.SpecimenDescriptionSequence[0], "SpecimenIdentifier", b"S\\1")

    report = made(ResultKind.STRUCTURED_REPORT, field, source=source)

    said = {str(item.get("TextValue")) for item in report.ContentSequence}
    assert {"SLIDE\\9", "S\\1"} <= said
    assert not any("['" in text for text in said)


# --- kind 12: dates and times


PLAIN = {"StudyDate": b"20260102", "StudyTime": b"101112"}
ZONE = b"+0900"
MOMENTS: Mapping[str, tuple[dict[str, bytes], str]] = {
    "date-of-zeros": ({"StudyDate": b"00000000"}, ""),
    "thirteenth-month": ({"StudyDate": b"20251301"}, ""),
    "thirtieth-of-february": ({"StudyDate": b"20260230"}, ""),
    "date-with-dots": ({"StudyDate": b"2025.03.04"}, "2025-03-04"),
    "date-with-a-dot-too-few": ({"StudyDate": b"2025.0304"}, ""),
    "date-with-dashes": ({"StudyDate": b"2025-03-04"}, ""),
    "date-of-two-digit-year": ({"StudyDate": b"250304"}, ""),
    "date-of-9999": ({"StudyDate": b"99991231"}, ""),
    "month-of-9999": ({"AcquisitionDateTime": b"999912"}, ""),
    "date-with-a-zero-byte": ({"StudyDate": b"20260102\0"}, "2026-01-02"),
    "date-twice": ({"StudyDate": b"20260102\\20260103"}, ""),
    "time-with-fraction": ({**PLAIN, "StudyTime": b"101112.123456"}, "2026-01-02T10:11:12+09:00"),
    "time-with-colons": ({**PLAIN, "StudyTime": b"10:11:12"}, "2026-01-02T10:11:12+09:00"),
    "time-of-hours-and-minutes": ({**PLAIN, "StudyTime": b"1011"}, "2026-01-02"),
    "leap-second": ({**PLAIN, "StudyTime": b"235960"}, "2026-01-02"),
    "24-o-clock": ({**PLAIN, "StudyTime": b"240000"}, "2026-01-02"),
    "time-with-words": ({**PLAIN, "StudyTime": b"101112 Uhr"}, "2026-01-02"),
    "time-before-zero": ({**PLAIN, "StudyTime": b"-10112"}, "2026-01-02"),
    "zone-too-far-east": ({**PLAIN, "TimezoneOffsetFromUTC": b"+1500"}, "2026-01-02"),
    "zone-too-far-west": ({**PLAIN, "TimezoneOffsetFromUTC": b"-1300"}, "2026-01-02"),
    "zone-of-60-minutes": ({**PLAIN, "TimezoneOffsetFromUTC": b"+0160"}, "2026-01-02"),
    "zone-with-colon": ({**PLAIN, "TimezoneOffsetFromUTC": b"+01:00"}, "2026-01-02"),
    "zone-in-letters": ({**PLAIN, "TimezoneOffsetFromUTC": b"CET"}, "2026-01-02"),
    "zone-without-sign": ({**PLAIN, "TimezoneOffsetFromUTC": b"0100"}, "2026-01-02"),
    "zone-twice": ({**PLAIN, "TimezoneOffsetFromUTC": b"+0100\\+0200"}, "2026-01-02"),
    "zone-of-half-an-hour": (
        {**PLAIN, "TimezoneOffsetFromUTC": b"+0530"},
        "2026-01-02T10:11:12+05:30",
    ),
    "moment-with-a-colon-in-its-zone": (
        {"AcquisitionDateTime": b"20260105101112+01:00"},
        "2026-01-05",
    ),
    "moment-in-zulu-time": ({"AcquisitionDateTime": b"20260105101112Z"}, "2026-01-05"),
    "moment-with-an-illegal-zone": ({"AcquisitionDateTime": b"20260105101112+9900"}, "2026-01-05"),
    "moment-with-ampersand": (
        {"AcquisitionDateTime": b"20260105101112.123456&0100"},
        "2026-01-05",
    ),
    "moment-as-iso-8601": ({"AcquisitionDateTime": b"20260105T101112"}, "2026-01-05"),
    "moment-as-exif": (
        {**PLAIN, "AcquisitionDateTime": b"2026:01:05 10:11:12"},
        "2026-01-02T10:11:12+09:00",
    ),
    "moment-of-a-thirteenth-month": (
        {**PLAIN, "AcquisitionDateTime": b"20261305101112"},
        "2026-01-02T10:11:12+09:00",
    ),
    "moment-of-an-hour": ({"AcquisitionDateTime": b"2026010510+0100"}, "2026-01-05"),
    "moment-with-a-leap-second": ({"AcquisitionDateTime": b"20260105235960+0100"}, "2026-01-05"),
    "moment-twice": ({"AcquisitionDateTime": b"20260105101112\\20260106"}, "2026-01-05"),
}


@pytest.mark.invented(kind=12)
@pytest.mark.parametrize("name", MOMENTS)
def test_no_moment_is_made_up(name: str) -> None:
    values, wanted = MOMENTS[name]

    assert origin_with(**{"TimezoneOffsetFromUTC": ZONE, **values}).acquired_at == wanted


@pytest.mark.invented(kind=12)
@pytest.mark.parametrize(
    ("moments", "wanted"),
    [
        (("20260105230000-0500", "20260106010000+0900"), "2026-01-06T01:00:00+09:00"),
        (("20260105120000+0100", "20260105115959+0100"), "2026-01-05T11:59:59+01:00"),
        (("20260105", "20260104230000+0100"), "2026-01-04T23:00:00+01:00"),
        (("", "20260105"), "2026-01-05"),
    ],
)
def test_the_first_moment_is_the_first_in_time(moments: tuple[str, ...], wanted: str) -> None:
    sources = (
        header(f"1.2.3.{number}", AcquisitionDateTime=moment)
        for number, moment in enumerate(moments, start=1)
    )

    assert origin_of(*sources).acquired_at == wanted


# --- kind 14: who the patient is


def qualified(kind: str, identifier: str) -> dict[str, Any]:
    item = issuer(UniversalEntityID=identifier, UniversalEntityIDType=kind)
    return {"PatientID": "A", "IssuerOfPatientIDQualifiersSequence": [item]}


UUID = "0DB7F9B2-0000-4000-8000-000000000001"
ONE_PERSON: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "zero-byte-behind-the-number": ({"PatientID": "A"}, {"PatientID": "A\0"}),
    "tab-before-the-number": ({"PatientID": "A"}, {"PatientID": "\tA"}),
    "name-in-capitals": ({"PatientName": "Meyer^Anna"}, {"PatientName": "MEYER^ANNA"}),
    "name-with-a-title": ({"PatientName": "Meyer^Anna"}, {"PatientName": "Meyer^Anna^^Dr."}),
    "name-with-a-suffix": ({"PatientName": "Meyer^Anna^^^"}, {"PatientName": "Meyer^Anna^^^MD"}),
    "name-with-a-comma": ({"PatientName": "Meyer^Anna"}, {"PatientName": "Meyer, Anna"}),
    "name-with-two-blanks": ({"PatientName": "van  Dyk^A"}, {"PatientName": "van Dyk^A "}),
    "name-composed-otherwise": (
        {"PatientName": "M\u00fcller^X", "SpecificCharacterSet": "ISO_IR 192"},
        {"PatientName": "Mu\u0308ller^X", "SpecificCharacterSet": "ISO_IR 192"},
    ),
    "name-in-full-width-letters": (
        {"PatientName": "YAMADA^T", "SpecificCharacterSet": "ISO_IR 192"},
        {"PatientName": "ＹＡＭＡＤＡ^T", "SpecificCharacterSet": "ISO_IR 192"},
    ),
    "name-with-and-without-ideographs": (
        {"PatientName": "Yamada^T=山田^太郎", "SpecificCharacterSet": "ISO_IR 192"},
        {"PatientName": "Yamada^T"},
    ),
    "birth-with-dots": ({"PatientBirthDate": "19610203"}, {"PatientBirthDate": "1961.02.03"}),
    "birth-of-zeros": ({"PatientBirthDate": "19610203"}, {"PatientBirthDate": "00000000"}),
    "birth-in-words": ({"PatientBirthDate": "19610203"}, {"PatientBirthDate": "unknown"}),
    "birth-9999": ({"PatientBirthDate": "19610203"}, {"PatientBirthDate": "99991231"}),
    "sex-in-small-letters": ({"PatientSex": "F"}, {"PatientSex": "f"}),
    "sex-not-told": ({"PatientSex": "F"}, {"PatientSex": "O"}),
    "uuid-in-small-letters": (qualified("UUID", UUID), qualified("UUID", UUID.lower())),
    "host-in-capitals": (qualified("DNS", "Lab.Example"), qualified("dns", "lab.example")),
}
TWO_PERSONS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "number-in-other-letters": ({"PatientID": "a"}, {"PatientID": "A"}),
    "leading-zero": ({"PatientID": "0815"}, {"PatientID": "815"}),
    "number-and-none": ({"PatientID": "A"}, {"PatientID": "  "}),
    "blank-inside": ({"PatientID": "A 1"}, {"PatientID": "A1"}),
    "backslash-or-slash": ({"PatientID": "A\\1"}, {"PatientID": "A/1"}),
    "two-local-issuers": (
        {"PatientID": "A", "IssuerOfPatientID": "North"},
        {"PatientID": "A", "IssuerOfPatientID": "South"},
    ),
    "two-hosts": (qualified("DNS", "a.example"), qualified("DNS", "b.example")),
    "two-oids": (qualified("ISO", "1.2.3"), qualified("ISO", "1.2.4")),
    "one-id-of-two-types": (qualified("L", "1.2.3"), qualified("ISO", "1.2.3")),
    "another-name": ({"PatientName": "Meyer^Anna"}, {"PatientName": "Meyer^Eva"}),
    "another-middle-name": ({"PatientName": "Li^X^A"}, {"PatientName": "Li^X^B"}),
    "another-birth": ({"PatientBirthDate": "19610203"}, {"PatientBirthDate": "19610302"}),
    "another-sex": ({"PatientSex": "F"}, {"PatientSex": "M"}),
}


@pytest.mark.invented(kind=14)
@pytest.mark.parametrize("name", ONE_PERSON)
def test_one_person_is_one(name: str) -> None:
    one, other = ({"PatientID": "A", **values} for values in ONE_PERSON[name])

    origin = origin_of(header("1.2.3.1", **one), header("1.2.3.2", **other))

    assert origin.patient is not None
    assert origin.patient.value == "A"


@pytest.mark.invented(kind=14)
@pytest.mark.parametrize("name", TWO_PERSONS)
def test_two_persons_need_a_person(name: str) -> None:
    one, other = ({"PatientID": "A", **values} for values in TWO_PERSONS[name])

    with pytest.raises(NeedsReview) as caught:
        origin_of(header("1.2.3.1", **one), header("1.2.3.2", **other))

    assert caught.value.code == "smear_with_two_patients"


@pytest.mark.invented(kind=14)
@pytest.mark.parametrize(
    ("charset", "value", "wanted"),
    [
        (b"ISO_IR 100", b"M\xfcller", "Müller"),
        (b"ISO_IR_100", b"M\xfcller", "Müller"),
        (b"ISO_IR 101", b"\xa3ukasz", "Łukasz"),
        (b"ISO_IR 144", b"\xb8\xd2\xd0\xdd\xde\xd2", "Иванов"),
        (b"ISO_IR 192", "Žofie".encode(), "Žofie"),
        (b"ISO-IR 192", "Žofie".encode(), "Žofie"),
        (b"UTF-8", "Žofie".encode(), "Žofie"),
        (b"GB18030", "病人7".encode("gb18030"), "病人7"),
        (b"GBK", "病人7".encode("gbk"), "病人7"),
        (b"\\ISO 2022 IR 87", b"7\x1b$B;3ED\x1b(B", "7山田"),
        (b"\\ISO 2022 IR 149", b"7\x1b$)C\xfb\xf3", "7洪"),
        (b"ISO 2022 IR 13\\ISO 2022 IR 87", b"\xd4\xcf\xc0\xde", "ﾔﾏﾀﾞ"),
        (b"ISO_IR 192", b"M\xfcller", "M\ufffdller"),
    ],
    ids=[
        *("latin-1", "latin-1-misspelled", "latin-2", "cyrillic", "utf-8", "utf-8-misspelled"),
        *("utf-8-by-its-own-name", "gb18030", "gbk", "japanese", "korean", "half-width"),
        "latin-1-labeled-utf-8",
    ],
)
def test_identifiers_in_each_character_set(charset: bytes, value: bytes, wanted: str) -> None:
    patient = origin_with(charset, PatientID=value).patient

    assert patient is not None
    assert patient.value == wanted


WRONG = b"\xfc\xe4"
"""Two letters of Latin-1 that are no UTF-8."""
MISLABELED = ("PatientName", "OtherPatientNames", "StudyDescription", "AccessionNumber")


def mislabeled() -> Dataset:
    """Text of Latin-1 under UTF-8, private attributes at any depth, as a file gives them."""
    source = make_source("slide_coordinates", make_field_findings())
    for keyword in MISLABELED:
        put(source, keyword, keyword[:8].encode() + WRONG)
    other = put(Dataset(), "PatientID", b"OLD" + WRONG)
    other.TypeOfPatientID = "TEXT"
    specimen = source.SpecimenDescriptionSequence[0]
    put(specimen, "SpecimenIdentifier", b"SPEC" + WRONG)
    step = Dataset()
    content = put(Dataset(), "TextValue", b"STEP" + WRONG)
    content.ValueType = "TEXT"
    step.SpecimenPreparationStepContentItemSequence = [content]
    specimen.SpecimenPreparationSequence = [step]
    source.OtherPatientIDsSequence = [other]
    for item in (other, specimen, step, content):
        item.add_new(0x00110010, "LO", "ACME")
        item.add_new(0x00111001, "SQ", [put(Dataset(), "TextValue", b"secret")])
    return source


@pytest.mark.invented(kind=14)
def test_text_in_a_wrong_character_set_is_copied_as_it_came_into_every_object() -> None:
    field = make_field_findings()

    results = results_of(
        make_smear_findings([field]), {field.sop_instance_uid: mislabeled()}, *DICOM_KINDS
    )

    for result in results:
        for copied in (*(keyword[:8].encode() for keyword in MISLABELED), b"OLD"):
            assert copied + WRONG in result.content, (result.kind, copied)
    with_specimen = [one for one in results if b"SPEC" + WRONG in one.content]
    assert {one.kind for one in with_specimen} == {ResultKind.ANNOTATED_FIELD, ResultKind.GALLERY}
    assert all(b"STEP" + WRONG in one.content for one in with_specimen)


@pytest.mark.invented(kind=14)
def test_no_private_attribute_comes_along_at_any_depth() -> None:
    field = make_field_findings()

    results = results_of(
        make_smear_findings([field]), {field.sop_instance_uid: mislabeled()}, *DICOM_KINDS
    )

    for result in results:
        assert b"secret" not in result.content
        assert not any(element.tag.is_private for element in read(result).iterall())


@pytest.mark.invented(kind=14)
@pytest.mark.parametrize("keyword", ["PatientName", "StudyDescription", "ContainerIdentifier"])
def test_reading_text_leaves_it_as_it_came(keyword: str) -> None:
    source = put(header(SpecificCharacterSet="ISO_IR 192"), keyword, b"M" + WRONG)
    as_it_came = source.get_item(keyword)

    assert text_of(source, keyword) == "M\ufffd\ufffd"
    assert source.get_item(keyword) == as_it_came


@pytest.mark.invented(kind=14)
@pytest.mark.parametrize(
    ("series", "studies"), [(("1.2.9", "1.2.9 "), ("1.2.1", "1.2.2")), (("9", "9"), ("1", "2"))]
)
def test_a_series_in_two_studies_needs_a_person(
    series: tuple[str, str], studies: tuple[str, str]
) -> None:
    headers = [
        header(
            f"1.2.3.{number}", SeriesInstanceUID=series[number], StudyInstanceUID=studies[number]
        )
        for number in (0, 1)
    ]

    with pytest.raises(NeedsReview) as caught:
        read_origin({one.SOPInstanceUID: one for one in headers})

    assert caught.value.code == "series_in_two_studies"

"""What a report says of patient, order and specimen stands in the headers, or is not said."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from pipeline.domain import SOPInstanceUID
from pipeline.errors import NeedsReview
from reporting.content import identifiers
from reporting.content.identifiers import (
    BusinessIdentifier,
    SmearOrigin,
    SourceHeaders,
    read_origin,
    text_of,
)


def header(uid: str = "1.2.3.1", **attributes: Any) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = uid
    dataset.StudyInstanceUID = "1.2.3"
    dataset.SeriesInstanceUID = "1.2.3.4"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def issuer(**attributes: str) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def origin_of(*headers: Dataset) -> SmearOrigin:
    return read_origin({h.SOPInstanceUID: h for h in headers})


def test_two_patients_in_one_smear_wait_for_a_person() -> None:
    with pytest.raises(NeedsReview) as refused:
        origin_of(header("1.2.3.1", PatientID="A"), header("1.2.3.2", PatientID="B"))

    assert refused.value.code == "smear_with_two_patients"
    assert "A" not in refused.value.message.split()


def test_the_same_id_of_two_issuers_is_two_patients() -> None:
    with pytest.raises(NeedsReview):
        origin_of(
            header("1.2.3.1", PatientID="A", IssuerOfPatientID="North"),
            header("1.2.3.2", PatientID="A", IssuerOfPatientID="South"),
        )


def test_one_series_in_two_studies_waits_for_a_person() -> None:
    same = {"SeriesInstanceUID": "1.2.9"}
    with pytest.raises(NeedsReview) as refused:
        origin_of(
            header("1.2.3.1", StudyInstanceUID="1.2.1", **same),
            header("1.2.3.2", StudyInstanceUID="1.2.2", **same),
        )

    assert refused.value.code == "series_in_two_studies"


def test_a_specimen_in_two_series_of_two_studies_is_one_smear() -> None:
    origin = origin_of(
        header("1.2.3.1", StudyInstanceUID="1.2.1", SeriesInstanceUID="1.2.8"),
        header("1.2.3.2", StudyInstanceUID="1.2.2", SeriesInstanceUID="1.2.9"),
    )

    assert set(origin.study_started_at) == {"1.2.1", "1.2.2"}


@pytest.mark.parametrize("empty", [{}, {"PatientID": ""}, {"PatientID": None}])
def test_a_missing_patient_id_stays_missing(empty: dict[str, Any]) -> None:
    assert origin_of(header(**empty)).patient is None


def test_an_empty_header_gives_an_empty_origin() -> None:
    origin = origin_of(header())

    assert (origin.accessions, origin.specimens, origin.containers) == ((), (), ())
    assert origin.acquired_at == ""


@pytest.mark.parametrize(
    ("kind", "identifier", "system"),
    [
        ("ISO", "1.2.840.1", "urn:oid:1.2.840.1"),
        (
            "UUID",
            "0DB7F9B2-0000-4000-8000-000000000001",
            "urn:uuid:0db7f9b2-0000-4000-8000-000000000001",
        ),
        ("URI", "https://lab.example/ids", "https://lab.example/ids"),
        ("DNS", "lab.example", ""),
    ],
)
def test_an_issuer_with_a_universal_id_becomes_a_uri(
    kind: str, identifier: str, system: str
) -> None:
    item = issuer(UniversalEntityID=identifier, UniversalEntityIDType=kind)

    origin = origin_of(header(PatientID="A", IssuerOfPatientIDQualifiersSequence=[item]))

    assert origin.patient is not None
    assert (origin.patient.value, origin.patient.system) == ("A", system)
    assert (origin.patient.universal_id, origin.patient.universal_type) == (identifier, kind)


@pytest.mark.parametrize(
    ("kind", "identifier"),
    [
        ("URI", "http://a b/c"),
        ("URI", "javascript:alert(1)"),
        ("URI", "no-scheme"),
        ("ISO", "HOSPITAL"),
        ("ISO", "1.02.3"),
        ("UUID", "not-a-uuid"),
    ],
)
def test_what_is_no_legal_uri_is_no_system(kind: str, identifier: str) -> None:
    item = issuer(UniversalEntityID=identifier, UniversalEntityIDType=kind)

    origin = origin_of(header(PatientID="A", IssuerOfPatientIDQualifiersSequence=[item]))

    assert origin.patient is not None
    assert origin.patient.system == ""


def test_the_same_id_of_two_dns_issuers_is_two_patients() -> None:
    north, south = (
        issuer(UniversalEntityID=name, UniversalEntityIDType="DNS") for name in ("a.ex", "b.ex")
    )

    with pytest.raises(NeedsReview):
        origin_of(
            header("1.2.3.1", PatientID="A", IssuerOfPatientIDQualifiersSequence=[north]),
            header("1.2.3.2", PatientID="A", IssuerOfPatientIDQualifiersSequence=[south]),
        )


def test_padding_makes_no_other_patient() -> None:
    origin = origin_of(header("1.2.3.1", PatientID="P-19"), header("1.2.3.2", PatientID=" P-19"))

    assert origin.patient == BusinessIdentifier(value="P-19")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"PatientName": "Meyer^Anna"}, {"PatientName": "Schulz^Eva"}),
        ({"PatientBirthDate": "19700101"}, {"PatientBirthDate": "19700102"}),
    ],
)
def test_two_persons_under_one_id_are_noticed(one: dict[str, str], other: dict[str, str]) -> None:
    with pytest.raises(NeedsReview) as refused:
        origin_of(
            header("1.2.3.1", PatientID="A", **one), header("1.2.3.2", PatientID="A", **other)
        )

    assert not any(value in refused.value.message for value in (*one.values(), *other.values()))


def test_a_missing_name_and_another_spelling_contradict_nothing() -> None:
    names = ("MEYER^ANNA", "Meyer^Anna^^", "")

    origin = origin_of(
        *(header(f"1.2.3.{n}", PatientID="A", PatientName=name) for n, name in enumerate(names))
    )

    assert origin.patient == BusinessIdentifier(value="A")


def test_a_backslash_stays_what_it_is() -> None:
    """DICOM reads it as two values; FHIR and HL7 must not see a Python list."""
    origin = origin_of(header(PatientID="HOSP\\0815", AccessionNumber="A\\7"))

    assert origin.patient == BusinessIdentifier(value="HOSP\\0815")
    assert origin.accessions == (BusinessIdentifier(value="A\\7"),)


@given(st.text())
def test_no_identifier_holds_a_control_character(value: str) -> None:
    found = text_of(header(ContainerIdentifier=value), "ContainerIdentifier")

    assert not any(letter < " " or "\x7f" <= letter <= "\x9f" for letter in found)


def test_order_and_specimen_come_with_their_issuers() -> None:
    lab = issuer(LocalNamespaceEntityID="LAB")
    specimen = issuer(SpecimenIdentifier="S-1")
    specimen.IssuerOfTheSpecimenIdentifierSequence = [lab]

    origin = origin_of(
        header(
            AccessionNumber="ACC1",
            IssuerOfAccessionNumberSequence=[lab],
            ContainerIdentifier="SLIDE-7",
            SpecimenDescriptionSequence=[specimen],
        )
    )

    assert origin.accessions == (BusinessIdentifier(value="ACC1", assigner="LAB"),)
    assert origin.specimens == (BusinessIdentifier(value="S-1", assigner="LAB"),)
    assert origin.containers == (BusinessIdentifier(value="SLIDE-7"),)


@pytest.mark.parametrize(
    ("attributes", "acquired_at"),
    [
        ({"AcquisitionDateTime": "20261122203015.25+0100"}, "2026-11-22T20:30:15+01:00"),
        ({"AcquisitionDateTime": "20261122203015"}, "2026-11-22"),
        ({"AcquisitionDateTime": "2026"}, "2026"),
        ({"AcquisitionDateTime": "2026", "StudyDate": "20260105"}, "2026-01-05"),
        ({"AcquisitionDateTime": "202611", "StudyDate": "20260105"}, "2026-11"),
        ({"AcquisitionDateTime": "202613"}, ""),
        ({"StudyDate": "202611"}, ""),
        ({"StudyDate": "2026.11.22"}, "2026-11-22"),
        ({"StudyDate": "00010101"}, ""),
        ({"AcquisitionDateTime": "0001"}, ""),
        (
            {"StudyDate": "20261122", "StudyTime": "0830", "TimezoneOffsetFromUTC": "-0500"},
            "2026-11-22",
        ),
        (
            {"StudyDate": "20261122", "StudyTime": "083001", "TimezoneOffsetFromUTC": "-0500"},
            "2026-11-22T08:30:01-05:00",
        ),
        ({"StudyDate": "20261122", "ContentDate": "20261123"}, "2026-11-23"),
        ({"StudyDate": "19000230"}, ""),
    ],
)
def test_a_moment_is_as_exact_as_the_header(attributes: dict[str, str], acquired_at: str) -> None:
    assert origin_of(header(**attributes)).acquired_at == acquired_at


def test_a_smear_is_pseudonymised_when_every_image_is() -> None:
    with_pseudonym = header("1.2.3.1", PatientIdentityRemoved="YES")

    assert origin_of(with_pseudonym).is_pseudonymised
    assert not origin_of(with_pseudonym, header("1.2.3.2")).is_pseudonymised


def test_the_earliest_image_dates_the_smear() -> None:
    origin = origin_of(
        header("1.2.3.1", ContentDate="20261124"), header("1.2.3.2", ContentDate="20261123")
    )

    assert origin.acquired_at == "2026-11-23"


def test_what_the_headers_of_a_smear_agree_on_is_read_once() -> None:
    headers = SourceHeaders((one.SOPInstanceUID, one) for one in (header(), header("1.2.3.2")))

    read = identifiers.origin_of(headers)

    assert read == read_origin(dict(headers))
    assert identifiers.origin_of(headers) is read


def test_headers_that_contradict_each_other_do_so_for_each_document() -> None:
    of = (header("1.2.3.1", PatientID="P-1"), header("1.2.3.2", PatientID="P-2"))
    headers = SourceHeaders((one.SOPInstanceUID, one) for one in of)

    for _ in range(2):
        with pytest.raises(NeedsReview):
            identifiers.origin_of(headers)


def test_no_reading_fills_the_item_that_stands_for_a_missing_sequence() -> None:
    read_origin({SOPInstanceUID("1"): header()})

    assert not len(identifiers._NOTHING)

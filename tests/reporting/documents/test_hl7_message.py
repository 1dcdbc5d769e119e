"""An ORU^R01 that any laboratory system can take apart, saying what the FHIR Bundle says."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import replace

import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydicom import DataElement, Dataset
from pydicom.config import IGNORE

from pipeline.domain import (
    RESEARCH_USE_ONLY,
    Call,
    QualityFlag,
    SignOff,
    SmearFindings,
    SmearId,
)
from pipeline.errors import NeedsReview
from pipeline.findings.smear_summary import gather_smear
from reporting.documents.hl7_fields import CONTROL
from reporting.documents.hl7_message import build_message
from reporting.fhir.bundle import build_bundle
from tests.findings import make_field_findings, make_smear_findings
from tests.reporting.headers import make_context, make_headers, make_references
from tests.reporting.reviews import commented, reviewed

SEGMENTS = ("MSH", "SFT", "PID", "ORC", "OBR", "NTE", "OBX", "SPM")
UNESCAPE = {"\\F\\": "|", "\\S\\": "^", "\\T\\": "&", "\\R\\": "~", "\\E\\": "\\"}


def message_of(smear: SmearFindings, *, version: int = 1, **header: str) -> list[list[str]]:
    """Segments as lists of fields, counted as the standard counts them."""
    result = build_message(
        smear,
        headers=make_headers(smear, **header),
        image_uids=make_references(smear),
        context=make_context(version),
    )
    text = result.content.decode()
    assert text.endswith("\r")
    segments = [segment.split("|") for segment in text[:-1].split("\r")]
    segments[0].insert(1, "|")
    return segments


def strict(message: list[list[str]]) -> None:
    """Raises where hl7apy, validating strictly, finds a fault."""
    text = "\r".join("|".join(segment) for segment in message).replace("MSH|||", "MSH|")
    parse_message(text, validation_level=VALIDATION_LEVEL.STRICT).validate()


def named(message: list[list[str]], name: str) -> list[list[str]]:
    return [segment for segment in message if segment[0] == name]


def unescaped(text: str) -> str:
    """Take escape sequences apart from left to right, as a receiver does."""
    parts, rest = [], text
    while "\\" in rest:
        before, _, after = rest.partition("\\")
        code, _, rest = after.partition("\\")
        parts += [before, UNESCAPE[f"\\{code}\\"]]
    return "".join([*parts, rest])


def test_a_smear_of_two_patients_is_not_reported() -> None:
    smear = make_smear_findings()
    headers = make_headers(smear)
    headers[smear.fields[0].sop_instance_uid].PatientID = "SOMEONE-ELSE"

    with pytest.raises(NeedsReview):
        build_message(smear, headers=headers, image_uids=[], context=make_context())


def test_nothing_counted_is_sent_as_not_obtained() -> None:
    refused = make_field_findings(flags=frozenset({QualityFlag.EMPTY}), is_usable=False)

    message = message_of(gather_smear(SmearId("smear-1"), [refused]))

    [blasts] = [o for o in named(message, "OBX") if o[3] == "26446-5^Blasts/Leukocytes in Blood^LN"]
    assert (blasts[2], blasts[5], blasts[6], blasts[11]) == ("", "", "", "X")
    strict(message)


def test_a_silent_header_gives_empty_fields() -> None:
    message = message_of(
        make_smear_findings(), PatientID="", AccessionNumber="", ContainerIdentifier=""
    )

    [obr] = named(message, "OBR")
    [spm] = named(message, "SPM")
    assert named(message, "PID") == []  # PID-3 is required, so there is no PATIENT group
    assert obr[2] == ""
    assert obr[3].endswith("^SMEARLINK")
    assert len(spm) <= 2 or spm[2] == ""


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1))
def test_separators_in_an_identifier_survive(identifier: str) -> None:
    assume(identifier.strip())
    smear = make_smear_findings()
    headers = make_headers(smear)
    for header in headers.values():
        header.PatientID = identifier.replace("\\", "/")
        header.SpecificCharacterSet = "ISO_IR 192"

    content = build_message(smear, headers=headers, image_uids=[], context=make_context()).content

    [pid] = [s for s in content.decode().split("\r") if s.startswith("PID")]
    assert unescaped(pid.split("|")[3].split("^")[0]) == identifier.replace("\\", "/").strip()


def test_segments_come_in_the_order_of_the_message() -> None:
    names = [segment[0] for segment in message_of(make_smear_findings())]

    assert list(dict.fromkeys(names)) == list(SEGMENTS)
    assert names == sorted(names, key=SEGMENTS.index)


def test_comments_are_notes_whatever_stands_in_them() -> None:
    comment = "=1+1|^~\\& <b>\u0645\u0644\u0627\u062d\u0638\u0629</b> 注释"

    message = message_of(commented(make_smear_findings(), (comment, ())))

    assert unescaped(named(message, "NTE")[-1][3]).endswith(f"on the smear: {comment}")
    strict(message)


def test_header_and_label_are_complete() -> None:
    message = message_of(make_smear_findings())

    msh = message[0]
    assert (msh[2], msh[9], msh[12], msh[18]) == (
        "^~\\&",
        "ORU^R01^ORU_R01",
        "2.5.1",
        "UNICODE UTF-8",
    )
    assert 0 < len(msh[10]) <= 20
    assert named(message, "NTE")[0][3] == RESEARCH_USE_ONLY
    assert named(message, "NTE")[-1][3].endswith("An expert must look at the smear itself.")


def test_patient_and_order_come_by_identifier_alone() -> None:
    message = message_of(make_smear_findings(), PatientName="Müller^Änne")

    [pid] = named(message, "PID")
    assert pid[3] == "PID-77^^^HOSPITAL"
    assert pid[5] == "^^^^^^U"
    assert named(message, "OBR")[0][2] == "ACC-5"
    assert named(message, "OBR")[0][18] == "ACC-5"
    assert named(message, "ORC")[0][2] == "ACC-5"
    assert "Müller" not in json.dumps(message, ensure_ascii=False)


def test_every_unsigned_version_is_preliminary() -> None:
    first = message_of(make_smear_findings())
    second = message_of(make_smear_findings(), version=2)

    for message in (first, second):
        assert {o[11] for o in named(message, "OBX")} == {"P"}
        assert named(message, "OBR")[0][25] == "P"
    assert first[0][10] != second[0][10]


@pytest.mark.parametrize(
    ("sign_off", "of_result", "of_observations"),
    [
        (SignOff.UNSIGNED, "P", "P"),
        (SignOff.FINAL, "F", "F"),
        (SignOff.CORRECTED, "C", "C"),
        (SignOff.AMENDED, "C", "C"),
        (SignOff.APPENDED, "C", "C"),
        (SignOff.WITHDRAWN, "X", "W"),
    ],
)
def test_the_status_follows_the_signature(
    sign_off: SignOff, of_result: str, of_observations: str
) -> None:
    message = message_of(reviewed(make_smear_findings(), sign_off))

    assert named(message, "OBR")[0][25] == of_result
    assert {o[11] for o in named(message, "OBX")} == {of_observations}
    strict(message)


def test_two_smears_of_one_order_are_two_results_and_versions_are_one() -> None:
    one, other = make_smear_findings(), replace(make_smear_findings(), smear_id=SmearId("smear-2"))

    fillers = [
        named(message_of(smear, version=version), "OBR")[0][3]
        for smear, version in ((one, 1), (one, 2), (other, 1))
    ]

    assert fillers[0] == fillers[1] != fillers[2]


def test_the_placer_order_number_of_the_images_goes_before_the_accession() -> None:
    message = message_of(
        make_smear_findings(), PlacerOrderNumberImagingServiceRequest="ORD-9", AccessionNumber="A-1"
    )

    [orc], [obr] = named(message, "ORC"), named(message, "OBR")
    assert (orc[1], orc[2], obr[2], obr[18]) == ("RE", "ORD-9", "ORD-9", "A-1")
    assert orc[3] == obr[3]
    assert obr[7] == "20261121101500+0100"


def test_who_asked_stands_in_the_order() -> None:
    message = message_of(make_smear_findings(), ReferringPhysicianName="House^Greg")

    assert named(message, "OBR")[0][16] == "^House^Greg"
    assert named(message, "ORC")[0][12] == "^House^Greg"


def test_images_without_a_date_are_dated_by_their_reading() -> None:
    message = message_of(make_smear_findings(), StudyDate="00010101", StudyTime="")

    assert named(message, "OBR")[0][7] == "20261122203015+0000"


def test_the_pdf_comes_along_where_the_site_wants_it() -> None:
    smear = make_smear_findings()
    context = replace(make_context(), hl7_pdf=True)

    result = build_message(
        smear, headers=make_headers(smear), image_uids=[], context=context, pdf=b"%PDF-1.4"
    )

    [ed] = [s for s in result.content.decode().split("\r") if "|ED|" in s]
    assert ed.split("|")[5] == f"SMEARLINK^application^pdf^Base64^{b64encode(b'%PDF-1.4').decode()}"
    strict([segment.split("|") for segment in result.content.decode().split("\r")[:-1]])


@pytest.mark.parametrize("patient", ["PID-77", ""])
@pytest.mark.parametrize("accession", ["ACC-5", ""])
@pytest.mark.parametrize("calls", [[], [Call.NORMAL], [Call.LEUKEMIC] * 70 + [Call.REFERRED] * 9])
def test_a_strict_receiver_takes_every_message(
    patient: str, accession: str, calls: list[Call]
) -> None:
    smear = make_smear_findings([make_field_findings(calls=calls)])

    strict(message_of(smear, PatientID=patient, AccessionNumber=accession))


NASTY = st.text(
    st.sampled_from("|^~\\&\r\n\v\x1c\x00\x85\u2028 ab\u00e9'\"<>")
    | st.characters(exclude_categories=["Cs"]),
    max_size=40,
)
WORDS = (
    "PatientID",
    "IssuerOfPatientID",
    "AccessionNumber",
    "PlacerOrderNumberImagingServiceRequest",
    "ContainerIdentifier",
    "ReferringPhysicianName",
    "RequestingPhysician",
    "StudyDate",
    "AcquisitionDateTime",
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(WORDS), NASTY), NASTY, NASTY, NASTY)
def test_no_header_adds_a_segment_or_a_field(
    words: dict[str, str], universal: str, local: str, specimen: str
) -> None:
    smear = make_smear_findings([make_field_findings()])
    plain, hostile = (make_headers(smear) for _ in range(2))
    for header in hostile.values():
        for keyword, value in words.items():
            header[keyword] = DataElement(keyword, "LO", value, validation_mode=IGNORE)
        issuer = Dataset()
        issuer.UniversalEntityIDType = "ISO"
        issuer["UniversalEntityID"] = DataElement(0x00400032, "UT", universal)
        issuer["LocalNamespaceEntityID"] = DataElement(0x00400031, "UT", local)
        header.IssuerOfAccessionNumberSequence = [issuer]
        header.IssuerOfPatientIDQualifiersSequence = [issuer]
        header.IssuerOfTheContainerIdentifierSequence = [issuer]
        described = Dataset()
        described["SpecimenIdentifier"] = DataElement(0x00400551, "UT", specimen)
        header.SpecimenDescriptionSequence = [described]

    said, meant = (
        build_message(
            smear, headers=headers, image_uids=[], context=make_context()
        ).content.decode()
        for headers in (hostile, plain)
    )

    names = [[s[:3] for s in text.split("\r") if s[:3] != "PID"] for text in (said, meant)]
    assert names[0] == names[1]
    assert not CONTROL.search(said.replace("\r", ""))
    for segment in said.split("\r")[1:-1]:
        assert re.fullmatch(r"[A-Z]{3}(\|[^|\r]*)*", segment)
        assert not re.sub(r"\\[FSTRE]\\", "", segment).count("\\")


def test_the_figures_are_those_of_the_bundle() -> None:
    smear = gather_smear(
        SmearId("smear-1"),
        [make_field_findings(calls=[Call.LEUKEMIC] * 3 + [Call.NORMAL] * 17)],
    )
    bundle = json.loads(
        build_bundle(
            smear,
            headers=make_headers(smear),
            image_uids=[],
            gallery_png=None,
            pdf=None,
            context=make_context(),
        ).content
    )

    in_fhir = {
        coding["code"]: entry["resource"]["valueQuantity"]["value"]
        for entry in bundle["entry"]
        if "valueQuantity" in entry["resource"]
        for coding in entry["resource"]["code"].get("coding", [])
    }
    in_hl7 = {
        obx[3].split("^")[0]: float(obx[5])
        for obx in named(message_of(smear), "OBX")
        if obx[3].endswith("^LN") and obx[2] == "NM"
    }
    assert in_hl7 == in_fhir
    assert in_hl7["26446-5"] == 15


def test_a_replay_gives_the_same_bytes() -> None:
    assert message_of(make_smear_findings()) == message_of(make_smear_findings())

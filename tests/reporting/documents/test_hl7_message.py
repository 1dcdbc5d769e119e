"""An ORU^R01 that any laboratory system can take apart, saying what the FHIR Bundle says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import RESEARCH_USE_ONLY, Call, QualityFlag, SmearFindings, SmearId
from pipeline.errors import NeedsReview
from pipeline.findings.smear_summary import gather_smear
from reporting.documents.hl7_message import build_message
from reporting.fhir.bundle import build_bundle
from tests.findings import make_field_findings, make_smear_findings
from tests.reporting.headers import make_context, make_headers, make_references

SEGMENTS = ("MSH", "SFT", "PID", "OBR", "NTE", "OBX", "SPM")
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

    blasts = named(message, "OBX")[0]
    assert (blasts[3], blasts[5], blasts[11]) == (
        "26446-5^Blasts/Leukocytes in Blood^LN",
        "",
        "X",
    )


def test_a_silent_header_gives_empty_fields() -> None:
    message = message_of(
        make_smear_findings(), PatientID="", AccessionNumber="", ContainerIdentifier=""
    )

    [pid] = named(message, "PID")
    [obr] = named(message, "OBR")
    [spm] = named(message, "SPM")
    assert pid[3] == ""
    assert obr[3].endswith("^SMEARLINK")
    assert spm[2] == ""


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1))
def test_separators_in_an_identifier_survive(identifier: str) -> None:
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
    assert named(message, "OBR")[0][3] == "ACC-5"
    assert "Müller" not in json.dumps(message, ensure_ascii=False)


def test_a_report_is_preliminary_then_corrected_and_never_final() -> None:
    first = message_of(make_smear_findings())
    second = message_of(make_smear_findings(), version=2)

    assert {o[11] for o in named(first, "OBX")} == {"P"}
    assert {o[11] for o in named(second, "OBX")} == {"C"}
    assert (named(first, "OBR")[0][25], named(second, "OBR")[0][25]) == ("P", "C")
    assert first[0][10] != second[0][10]


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

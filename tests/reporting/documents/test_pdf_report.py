"""The printed report: everything fits on it, nothing on it names half a person."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.domain import RESEARCH_USE_ONLY, Call, QualityFlag, ReferralReason, SmearFindings
from pipeline.errors import NeedsReview
from pipeline.rendering.gallery import PHANTOM_WORDS, Card, most_suspicious
from reporting.content.measurements import measurements_of
from reporting.content.narrative import LIMITS, findings_in_words
from reporting.documents.pdf_canvas import HEIGHT_PT
from reporting.documents.pdf_report import (
    BANNER_PT,
    FOOT_PT,
    MORE_THAN_FITS,
    NOT_GIVEN,
    NOT_PRINTABLE_SENTENCE,
    build_pdf_report,
)
from reporting.research_label import check_label
from tests.findings import (
    make_cell,
    make_cell_finding,
    make_field_findings,
    make_smear_findings,
)
from tests.reporting.headers import make_context, make_headers
from tests.reporting.pdf_reader import page_count, picture_count, printed, printed_text
from tests.reporting.reviews import commented, reviewed

TILE = np.full((180, 180, 3), (230, 210, 220), np.uint8)
SITE_FONT = Path("/usr/share/fonts/truetype/wqy/wqy-microhei.ttc")


def many_reasons() -> SmearFindings:
    """Every refusal and every reason for a referral, so that the sentences are at their longest."""
    referred = make_cell_finding(make_cell(1, 90, 90), Call.REFERRED, reasons=[*ReferralReason])
    refused = [
        make_field_findings(
            sop_instance_uid=f"1.2.{n}", flags=frozenset({flag}), is_usable=False, cells=()
        )
        for n, flag in enumerate(QualityFlag)
    ]
    used = [
        make_field_findings(sop_instance_uid=f"1.3.{n}", cells=[referred]) for n in range(12, 40)
    ]
    return make_smear_findings([*refused, *used])


def nothing_counted() -> SmearFindings:
    return make_smear_findings(
        [make_field_findings(flags=frozenset({QualityFlag.EMPTY}), is_usable=False, cells=())]
    )


SMEARS = {
    "usual": make_smear_findings(),
    "many reasons": many_reasons(),
    "nothing counted": nothing_counted(),
}


def cards_of(smear: SmearFindings) -> list[Card]:
    return [
        Card(finding=finding, field_number=number + 1, tile=TILE, heat_tile=TILE)
        for number, finding in most_suspicious(smear, 12)
    ]


def report_of(smear: SmearFindings, *, version: int = 1, **header: str) -> bytes:
    return build_pdf_report(
        smear,
        headers=make_headers(smear, **header),
        cards=cards_of(smear),
        context=make_context(version),
    ).content


def test_two_patients_get_no_report() -> None:
    smear = make_smear_findings()
    headers = make_headers(smear)
    headers[smear.fields[1].sop_instance_uid].PatientID = "SOMEBODY-ELSE"

    with pytest.raises(NeedsReview) as refused:
        build_pdf_report(smear, headers=headers, cards=[], context=make_context())

    assert "SOMEBODY" not in refused.value.message


def test_the_same_smear_gives_the_same_bytes() -> None:
    assert report_of(SMEARS["usual"]) == report_of(SMEARS["usual"])


IDENTIFIERS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=90)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(patient=IDENTIFIERS, issuer=IDENTIFIERS, container=IDENTIFIERS, accession=IDENTIFIERS)
def test_no_header_pushes_anything_off_the_page(
    patient: str, issuer: str, container: str, accession: str
) -> None:
    pdf = report_of(
        SMEARS["many reasons"],
        PatientID=patient,
        IssuerOfPatientID=issuer,
        ContainerIdentifier=container,
        AccessionNumber=accession,
    )

    body = [w for w in printed(pdf) if RESEARCH_USE_ONLY not in w.words]
    foot = [w for w in body if w.y < FOOT_PT]
    assert all(w.words.startswith(("smearlink", "Smear ", "Page ")) for w in foot), foot
    assert all(0 < w.y < HEIGHT_PT - BANNER_PT for w in body)


def test_the_longest_identifiers_are_printed_whole() -> None:
    pdf = report_of(SMEARS["usual"], PatientID="P" * 64, IssuerOfPatientID="I" * 40)

    assert "P" * 64 in printed_text(pdf).replace(" ", "")


def test_an_endless_identifier_is_named_rather_than_cut() -> None:
    words = printed_text(report_of(SMEARS["usual"], PatientID="P" * 900))

    assert "PP" not in words
    assert "too long for this page" in words


@pytest.mark.parametrize("patient", ["Пациент-7", "Łukasz-7", "Ασθενής-7", "Änne-ß-7"])
def test_latin_greek_and_cyrillic_are_printed(patient: str) -> None:
    assert patient in printed_text(report_of(SMEARS["usual"], PatientID=patient))


@pytest.mark.parametrize("patient", ["患者-7", "한글-7", "المريض-7"])
def test_letters_without_a_glyph_are_named_rather_than_replaced(patient: str) -> None:
    words = printed_text(report_of(SMEARS["usual"], PatientID=patient))

    assert "given in letters that" in words
    assert "-7" not in words


def test_comments_are_printed_as_far_as_the_page_has_room() -> None:
    few = commented(SMEARS["usual"], ("=SUM(A1) <b>Auer rods</b>", ()), ("大细胞", ()))
    many = commented(SMEARS["usual"], *[(f"remark {n} " + "long " * 300, ()) for n in range(20)])

    told, cut = report_of(few), report_of(many)

    assert "on the smear: =SUM(A1) <b>Auer rods</b>" in printed_text(told)
    assert NOT_PRINTABLE_SENTENCE in printed_text(told)
    assert MORE_THAN_FITS in printed_text(cut)
    foot = [one for one in printed(cut) if one.y < FOOT_PT and RESEARCH_USE_ONLY not in one.words]
    assert all(one.words.startswith(("smearlink", "Smear ", "Page ")) for one in foot)


@pytest.mark.skipif(not SITE_FONT.is_file(), reason="fonts-wqy-microhei is not installed")
def test_a_font_of_the_site_prints_other_scripts() -> None:
    smear = SMEARS["usual"]

    pdf = build_pdf_report(
        smear,
        headers=make_headers(smear, PatientID="患者-7"),
        cards=[],
        context=make_context(pdf_font=SITE_FONT),
    ).content

    assert "患者-7" in printed_text(pdf).replace(" ", "")


def test_an_unreadable_font_is_named(tmp_path: Path) -> None:
    font = tmp_path / "no-font.ttf"
    font.write_bytes(b"this is no font")

    with pytest.raises(NeedsReview, match=r"results\.pdf_font"):
        build_pdf_report(
            SMEARS["usual"],
            headers=make_headers(SMEARS["usual"]),
            cards=[],
            context=make_context(pdf_font=font),
        )


def test_it_says_when_the_images_name_no_patient() -> None:
    assert NOT_GIVEN in printed_text(report_of(SMEARS["usual"], PatientID=""))


def test_it_names_the_patient_by_identifier_and_never_by_name() -> None:
    words = printed_text(report_of(SMEARS["usual"]))

    assert words.count("PID-77 (HOSPITAL)") == 2  # on each page
    assert "Müller" not in words
    assert "1961" not in words


@pytest.mark.parametrize("name", SMEARS)
def test_every_measurement_and_sentence_stands_on_it(name: str) -> None:
    smear = SMEARS[name]

    words = printed_text(report_of(smear))

    for sentence in (*findings_in_words(smear, least_cells=1), LIMITS):
        assert sentence in words
    said_in_sentences = ("grade", "field-quality")
    for measurement in measurements_of(smear):
        assert measurement.name in said_in_sentences or measurement.title in words


def test_grade_and_counts_stand_above_every_percentage() -> None:
    smear = make_smear_findings([make_field_findings(calls=[Call.LEUKEMIC] + [Call.NORMAL] * 9)])

    words = printed_text(report_of(smear))

    # Wilson for 1 of 10, as published tables give it: 1.79 to 40.42; ten cells give whole percents.
    assert "Blasts/Leukocytes in Blood 1 10 % 2 % to 40 %" in words
    assert words.index("1 of 10 counted white cells") < words.index("10 %")
    assert words.index("Refer to an expert") < words.index("10 %")


def test_few_cells_give_no_percentage() -> None:
    smear = make_smear_findings([make_field_findings(calls=[Call.LEUKEMIC] * 10)])

    pdf = build_pdf_report(
        smear,
        headers=make_headers(smear),
        cards=cards_of(smear),
        context=make_context(min_cells_for_percent=50),
    ).content

    assert "10 of 10 counted white cells were called leukemic" in printed_text(pdf)
    assert " %" not in printed_text(pdf)


def test_research_use_stands_at_both_ends_of_each_page_and_in_the_file_itself() -> None:
    result = build_pdf_report(
        SMEARS["usual"],
        headers=make_headers(SMEARS["usual"]),
        cards=cards_of(SMEARS["usual"]),
        context=make_context(),
    )

    check_label(result)
    assert printed_text(result.content).count(RESEARCH_USE_ONLY) == 4


@pytest.mark.parametrize("version", [1, 2])
def test_an_unsigned_version_is_preliminary(version: int) -> None:
    words = printed_text(report_of(SMEARS["usual"], version=version))

    assert f"version {version}, preliminary, not signed" in words
    assert "No person has reviewed and signed it." in words


def test_a_signature_stands_with_name_time_and_meaning() -> None:
    words = printed_text(report_of(reviewed(SMEARS["usual"])))

    assert "final, signed" in words
    assert (
        "Reviewed and signed by Jana Meyer (hematologist, Lab North) on 2026-11-23 08:15:00 UTC."
    ) in words


def test_a_phantom_says_so() -> None:
    assert PHANTOM_WORDS in printed_text(report_of(SMEARS["usual"], QualityControlSubject="YES"))
    assert PHANTOM_WORDS not in printed_text(report_of(SMEARS["usual"]))


def test_the_cells_come_on_a_page_of_their_own() -> None:
    pdf = report_of(SMEARS["usual"])

    found = sum(len(field.cells) for field in SMEARS["usual"].fields)
    assert page_count(pdf) == 2
    assert picture_count(pdf) >= 1
    assert f"{found} of {found} cells, most suspicious first" in printed_text(pdf)
    assert page_count(report_of(SMEARS["nothing counted"])) == 1


def test_cells_beyond_the_page_of_cells_are_counted_in_its_title() -> None:
    cells = [make_cell_finding(make_cell(n + 1, 60, 60), Call.NORMAL) for n in range(1_234)]
    smear = make_smear_findings([make_field_findings(cells=cells)])

    assert "12 of 1,234 cells, most suspicious first" in printed_text(report_of(smear))


def test_the_reader_sees_no_word_of_the_runtime() -> None:
    words = printed_text(report_of(SMEARS["usual"]))

    assert "ExecutionProvider" not in words
    assert "run on CPU" in words


@pytest.mark.peers
@pytest.mark.skipif(shutil.which("qpdf") is None, reason="qpdf is not installed")
@pytest.mark.parametrize("name", SMEARS)
def test_qpdf_finds_no_fault(name: str, tmp_path: Path) -> None:
    path = tmp_path / "report.pdf"
    path.write_bytes(report_of(SMEARS[name]))

    judged = subprocess.run(["qpdf", "--check", path], capture_output=True, text=True, check=False)

    assert judged.returncode == 0, judged.stderr
    assert "No syntax or stream encoding errors" in judged.stdout


@pytest.mark.peers
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="poppler-utils is not installed")
def test_another_reader_reads_the_same_words(tmp_path: Path) -> None:
    path = tmp_path / "report.pdf"
    path.write_bytes(report_of(SMEARS["usual"], PatientID="Änne-ß-7"))

    read = subprocess.run(["pdftotext", path, "-"], capture_output=True, text=True, check=True)

    assert "Änne-ß-7" in read.stdout
    assert read.stdout.count("RESEARCH USE ONLY") == 4

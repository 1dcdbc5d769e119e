"""The printed page: everything fits on it, nothing on it names half a person."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import RESEARCH_USE_ONLY, Call, QualityFlag, ReferralReason, SmearFindings
from pipeline.errors import NeedsReview
from reporting.content.measurements import figures_of
from reporting.content.narrative import LIMITS, findings_in_words
from reporting.documents.pdf_canvas import WIDTH_PT, text_width
from reporting.documents.pdf_report import (
    FOOT_PT,
    MARGIN_PT,
    NOT_GIVEN,
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
from tests.reporting.pdf_reader import (
    dangling_offsets,
    picture_box,
    printed_lines,
    printed_words,
)

GALLERY = np.full((120, 160, 3), (30, 20, 90), np.uint8)


def many_reasons() -> SmearFindings:
    """Every refusal and every reason for a referral, so that the sentences are at their longest."""
    referred = make_cell_finding(make_cell(1, 90, 90), Call.REFERRED, reasons=[*ReferralReason])
    refused = [
        make_field_findings(sop_instance_uid=f"1.2.{n}", flags=frozenset({flag}), is_usable=False)
        for n, flag in enumerate(QualityFlag)
    ]
    used = [
        make_field_findings(sop_instance_uid=f"1.3.{n}", cells=[referred]) for n in range(12, 40)
    ]
    return make_smear_findings([*refused, *used])


def nothing_counted() -> SmearFindings:
    return make_smear_findings(
        [make_field_findings(flags=frozenset({QualityFlag.EMPTY}), is_usable=False)]
    )


SMEARS = {
    "usual": make_smear_findings(),
    "many reasons": many_reasons(),
    "nothing counted": nothing_counted(),
}


def page_of(smear: SmearFindings, *, version: int = 1, gallery=GALLERY, **header: str) -> bytes:
    return build_pdf_report(
        smear,
        headers=make_headers(smear, **header),
        gallery=gallery,
        context=make_context(version),
    ).content


def test_two_patients_get_no_page() -> None:
    smear = make_smear_findings()
    headers = make_headers(smear)
    headers[smear.fields[1].sop_instance_uid].PatientID = "SOMEBODY-ELSE"

    with pytest.raises(NeedsReview) as refused:
        build_pdf_report(smear, headers=headers, gallery=None, context=make_context())

    assert "SOMEBODY" not in refused.value.message


@pytest.mark.parametrize("name", SMEARS)
def test_no_line_leaves_the_page(name: str) -> None:
    for line in printed_lines(page_of(SMEARS[name])):
        end = line.x + text_width(line.words, size=line.size, bold=line.is_bold)

        assert line.x >= MARGIN_PT
        assert end <= WIDTH_PT - MARGIN_PT + 0.01, line.words


IDENTIFIERS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=90)


@given(patient=IDENTIFIERS, issuer=IDENTIFIERS, container=IDENTIFIERS, accession=IDENTIFIERS)
def test_no_header_pushes_anything_off_the_page(
    patient: str, issuer: str, container: str, accession: str
) -> None:
    pdf = page_of(
        SMEARS["many reasons"],
        PatientID=patient,
        IssuerOfPatientID=issuer,
        ContainerIdentifier=container,
        AccessionNumber=accession,
    )

    box = picture_box(pdf)
    assert box is not None
    assert box[1] >= FOOT_PT - 0.01
    for line in printed_lines(pdf):
        end = line.x + text_width(line.words, size=line.size, bold=line.is_bold)
        assert end <= WIDTH_PT - MARGIN_PT + 0.01
        assert line.y > 0


def test_the_longest_identifiers_are_printed_whole() -> None:
    pdf = page_of(SMEARS["usual"], PatientID="P" * 64, IssuerOfPatientID="I" * 40)

    words = "".join(printed_words(pdf).split("\n"))
    assert "P" * 64 in words
    assert "\N{HORIZONTAL ELLIPSIS}" not in words


def test_an_endless_identifier_is_named_rather_than_cut() -> None:
    words = printed_words(page_of(SMEARS["usual"], PatientID="P" * 900))

    assert "PP" not in words
    assert "too long for this page" in words


@pytest.mark.parametrize("patient", ["患者-7", "Пациент-7", "Łukasz-7", "한글", "المريض"])
def test_letters_without_a_glyph_are_named_rather_than_replaced(patient: str) -> None:
    words = printed_words(page_of(SMEARS["usual"], PatientID=patient))

    assert "given in letters that" in words
    assert "?" not in words
    assert "-7" not in words


def test_the_page_says_when_the_images_name_no_patient() -> None:
    assert NOT_GIVEN in printed_words(page_of(SMEARS["usual"], PatientID=""))


def test_it_names_the_patient_by_identifier_and_never_by_name() -> None:
    words = printed_words(page_of(SMEARS["usual"]))

    assert "PID-77 (HOSPITAL)" in words
    assert "Müller" not in words
    assert "1961" not in words


@pytest.mark.parametrize("name", SMEARS)
def test_every_figure_and_sentence_of_the_report_stands_on_it(name: str) -> None:
    smear = SMEARS[name]

    words = " ".join(printed_words(page_of(smear)).split())

    for sentence in (*findings_in_words(smear), LIMITS):
        assert sentence in words
    said_in_sentences = ("grade", "field-quality")
    for figure in figures_of(smear):
        assert figure.name in said_in_sentences or figure.title in words


def test_the_interval_stands_beside_the_share() -> None:
    smear = make_smear_findings([make_field_findings(calls=[Call.LEUKEMIC] + [Call.NORMAL] * 9)])

    words = printed_words(page_of(smear))

    # Wilson for 1 of 10, as published tables give it: 1.79 to 40.42.
    assert "Blasts/Leukocytes in Blood: 10 %" in words
    assert (
        "lower limit of the 95% interval 1.79 %; upper limit of the 95% interval 40.42 %" in words
    )


def test_research_use_stands_at_both_ends_and_in_the_file_itself() -> None:
    result = build_pdf_report(
        SMEARS["usual"],
        headers=make_headers(SMEARS["usual"]),
        gallery=None,
        context=make_context(),
    )

    check_label(result)
    banners = [line for line in printed_lines(result.content) if line.words == RESEARCH_USE_ONLY]
    assert [line.y > 800 for line in banners] == [True, False]


def test_an_amended_report_says_so() -> None:
    words = printed_words(page_of(SMEARS["usual"], version=2))

    assert "version 2, amended" in words


def test_the_gallery_keeps_its_proportions() -> None:
    box = picture_box(page_of(SMEARS["usual"]))

    assert box is not None
    assert box[2] / box[3] == pytest.approx(160 / 120, rel=1e-3)


@pytest.mark.parametrize("name", SMEARS)
def test_the_file_is_one_whole_page(name: str) -> None:
    pdf = page_of(SMEARS[name])

    assert dangling_offsets(pdf) == []
    assert b"/Count 1" in pdf


@pytest.mark.peers
@pytest.mark.peers
@pytest.mark.skipif(shutil.which("qpdf") is None, reason="qpdf is not installed")
@pytest.mark.parametrize("name", SMEARS)
def test_qpdf_finds_no_fault(name: str, tmp_path: Path) -> None:
    path = tmp_path / "page.pdf"
    path.write_bytes(page_of(SMEARS[name]))

    judged = subprocess.run(["qpdf", "--check", path], capture_output=True, text=True, check=False)

    assert judged.returncode == 0, judged.stderr
    assert "No syntax or stream encoding errors" in judged.stdout


@pytest.mark.peers
@pytest.mark.peers
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="poppler-utils is not installed")
def test_another_reader_reads_the_same_words(tmp_path: Path) -> None:
    path = tmp_path / "page.pdf"
    path.write_bytes(page_of(SMEARS["usual"], PatientID="Änne-ß-7"))

    read = subprocess.run(["pdftotext", path, "-"], capture_output=True, text=True, check=True)

    assert "Änne-ß-7" in read.stdout
    assert read.stdout.count("RESEARCH USE ONLY") == 2

"""docs/conformance.md says what the code does, and is written anew when that changes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from listener.dicom.conformance_statement import COMMAND, MODALITIES, main, statement
from listener.dicom.dimse import Status
from listener.dicom.negotiation import IMAGE_SOP_CLASSES, TRANSFER_SYNTAXES
from reporting.result_plan import SOP_CLASSES
from reporting.result_set import build_result_set
from reporting.results import DICOM_KINDS
from tests.findings import make_field_findings, make_smear_findings
from tests.reporting.headers import make_context
from tests.reporting.sources import make_source

DOCUMENT = Path(__file__).parents[3] / "docs" / "conformance.md"


def test_the_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text("utf-8") == statement(), f"run {COMMAND}"


def test_everything_that_is_negotiated_is_listed() -> None:
    said = statement()

    for uid in (*IMAGE_SOP_CLASSES, *TRANSFER_SYNTAXES, *SOP_CLASSES.values()):
        assert f"| {uid} |" in said


@pytest.mark.parametrize("status", Status)
def test_every_status_has_a_meaning(status: Status) -> None:
    [line] = [one for one in statement().splitlines() if one.startswith(f"| 0x{status:04X} |")][:1]

    assert len(line) > len("| 0x0000 |  |")


def test_modalities_are_those_of_the_objects() -> None:
    field = make_field_findings()
    results = build_result_set(
        make_smear_findings([field]),
        read_source=lambda uid: make_source("slide_coordinates", field),
        context=replace(make_context(), kinds=DICOM_KINDS),
    )

    made = {one.kind: dcmread(io.BytesIO(one.content)).Modality for one in results}

    assert made == MODALITIES


def test_the_command_writes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "statement.md")]) == 0
    assert main([]) == 0

    assert (tmp_path / "statement.md").read_text("utf-8") == capsys.readouterr().out

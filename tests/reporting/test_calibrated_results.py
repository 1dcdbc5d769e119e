"""Results of a network that was calibrated for its laboratory say so, each in its own way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from pydicom import Dataset

from pipeline.domain import CalibrationIdentity, FieldFindings
from reporting.results import DICOM_KINDS, Result, ResultKind
from tests.findings import MODEL, make_field_findings, make_smear_findings
from tests.reporting.made import read, results_of
from tests.reporting.pdf_reader import printed_text
from tests.reporting.sources import make_source

CALIBRATION = CalibrationIdentity(
    site="St. Anna, 2nd floor", made_on="2026-11-28", smears=12, sha256="c0ffee" + "0" * 58
)
WORDS = "calibrated for St. Anna, 2nd floor on 2026-11-28 (12 smears), sha256 c0ffee000000"


def results(field: FieldFindings) -> Mapping[ResultKind, Result]:
    sources = {field.sop_instance_uid: make_source("slide_coordinates", field)}
    made = results_of(make_smear_findings([field]), sources, *ResultKind)
    return {one.kind: one for one in made}


@pytest.fixture(scope="module")
def plain() -> Mapping[ResultKind, Result]:
    return results(make_field_findings())


@pytest.fixture(scope="module")
def calibrated() -> Mapping[ResultKind, Result]:
    return results(make_field_findings(model=replace(MODEL, calibration=CALIBRATION)))


@pytest.mark.parametrize("kind", sorted(DICOM_KINDS))
def test_every_dicom_object_names_it_beside_the_network(
    calibrated: Mapping[ResultKind, Result], kind: ResultKind
) -> None:
    item = read(calibrated[kind]).ContributingEquipmentSequence[-1]

    assert WORDS in item.ContributionDescription


def test_the_structured_report_states_it_and_has_it_as_a_parameter(
    calibrated: Mapping[ResultKind, Result],
) -> None:
    texts = list(_texts(read(calibrated[ResultKind.STRUCTURED_REPORT])))

    assert any(f"; {WORDS}." in text for text in texts)
    assert f"site calibration: {WORDS}" in texts


def test_the_segmentation_has_it_as_a_parameter(
    calibrated: Mapping[ResultKind, Result],
) -> None:
    segment = read(calibrated[ResultKind.SEGMENTATION]).SegmentSequence[0]

    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmParameters == f"sha256={MODEL.sha256}; {WORDS}"


def test_fhir_has_it_as_a_version_of_the_device_and_a_source_of_the_result(
    calibrated: Mapping[ResultKind, Result],
) -> None:
    bundle = json.loads(calibrated[ResultKind.FHIR_BUNDLE].content)
    made = [entry["resource"] for entry in bundle["entry"]]

    [device] = [one for one in made if one["resourceType"] == "Device"]
    [provenance] = [one for one in made if one["resourceType"] == "Provenance"]

    versions = {one["type"]["text"]: one["value"] for one in device["version"]}
    assert versions["site calibration"] == WORDS
    assert {
        "role": "derivation",
        "what": {
            "type": "DocumentReference",
            "identifier": {
                "system": "urn:smearlink:calibration-sha256",
                "value": CALIBRATION.sha256,
            },
            "display": f"site-calibration.toml: {CALIBRATION.in_words}",
        },
    } in provenance["entity"]


def test_the_printed_report_names_it(calibrated: Mapping[ResultKind, Result]) -> None:
    assert WORDS in printed_text(calibrated[ResultKind.PDF_REPORT].content)


def test_the_printed_report_shows_the_whole_hash_beside_long_names() -> None:
    named = replace(
        CALIBRATION, site="University Hospital of St. Anna and St. Barbara, Building 12 Eas"
    )
    field = make_field_findings(model=replace(MODEL, calibration=named))
    assert len(named.site) == 64

    text = printed_text(results(field)[ResultKind.PDF_REPORT].content)

    assert "sha256 c0ffee000000" in text


def test_the_message_names_it(calibrated: Mapping[ResultKind, Result]) -> None:
    assert WORDS in calibrated[ResultKind.HL7_MESSAGE].content.decode()


def test_the_table_has_its_hash_in_a_column_of_its_own(
    plain: Mapping[ResultKind, Result], calibrated: Mapping[ResultKind, Result]
) -> None:
    before, *_ = plain[ResultKind.TABLE].content.decode().splitlines()
    header, *rows = calibrated[ResultKind.TABLE].content.decode().splitlines()

    assert header == f"{before},calibration_sha256"
    assert rows
    assert all(row.endswith(f",{CALIBRATION.sha256}") for row in rows)


@pytest.mark.parametrize("kind", ResultKind)
def test_without_a_calibration_no_result_has_a_word_of_it(
    plain: Mapping[ResultKind, Result], calibrated: Mapping[ResultKind, Result], kind: ResultKind
) -> None:
    assert b"calibrat" not in plain[kind].content
    assert plain[kind].uid != calibrated[kind].uid


def _texts(dataset: Dataset) -> list[str]:
    found = []
    for item in dataset.get("ContentSequence", ()):
        if "TextValue" in item:
            found.append(item.TextValue)
        found += _texts(item)
    return found

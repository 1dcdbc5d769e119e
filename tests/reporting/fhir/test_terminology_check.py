"""What fhir.resources lets through, our own check does not."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle

from reporting.fhir.bundle import build_bundle
from reporting.fhir.terminology_check import BINDINGS, VALUE_SETS, check_codes
from tests.findings import make_smear_findings
from tests.reporting.headers import make_context, make_headers, make_references

MODULES = [
    "attachment",
    "auditevent",
    "bundle",
    "device",
    "diagnosticreport",
    "documentreference",
    "extension",
    "identifier",
    "imagingstudy",
    "media",
    "meta",
    "narrative",
    "observation",
    "provenance",
    "quantity",
    "specimen",
]


@pytest.fixture
def bundle() -> dict[str, Any]:
    smear = make_smear_findings()
    result = build_bundle(
        smear,
        headers=make_headers(smear),
        image_uids=make_references(smear),
        gallery_png=b"png",
        pdf=b"pdf",
        context=make_context(),
    )
    return json.loads(result.content)


def with_value(bundle: dict[str, Any]) -> dict[str, Any]:
    resources = [entry["resource"] for entry in bundle["entry"]]
    return next(resource for resource in resources if "valueQuantity" in resource)


def first(bundle: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == kind)


def problems(bundle: dict[str, Any]) -> tuple[str, ...]:
    return check_codes(Bundle.model_validate(bundle))


def test_a_status_that_is_none_is_found(bundle: dict[str, Any]) -> None:
    first(bundle, "DiagnosticReport")["status"] = "banana"

    assert problems(bundle) == (
        "DiagnosticReport.status is 'banana', which is not in its value set",
    )


def test_a_code_that_is_not_ours_is_found(bundle: dict[str, Any]) -> None:
    first(bundle, "DiagnosticReport")["conclusionCode"] = [
        {"coding": [{"system": "http://snomed.info/sct", "code": "91857003"}]}
    ]

    assert "not in our table" in problems(bundle)[0]


def test_a_known_code_in_the_wrong_place_is_found(bundle: dict[str, Any]) -> None:
    report = first(bundle, "DiagnosticReport")
    report["code"]["coding"][0] = first(bundle, "Specimen")["type"]["coding"][0]

    assert problems(bundle) == (
        "DiagnosticReport.code is 303248007, which is not in its value set",
    )


def test_a_changed_display_is_found(bundle: dict[str, Any]) -> None:
    first(bundle, "DiagnosticReport")["code"]["coding"][0]["display"] = "Leukemia panel"

    assert "not 'Differential panel" in problems(bundle)[0]


def test_an_element_that_nobody_thought_of_is_found(bundle: dict[str, Any]) -> None:
    first(bundle, "Observation")["language"] = "en"

    assert problems(bundle) == ("Observation.language has no value set here",)


def test_a_unit_of_another_kind_is_found(bundle: dict[str, Any]) -> None:
    with_value(bundle)["valueQuantity"]["code"] = "mg"

    assert problems(bundle) == ("Quantity.code is 'mg', which is not in its value set",)


def test_a_lost_security_label_code_is_found(bundle: dict[str, Any]) -> None:
    first(bundle, "Media")["meta"]["security"][0]["code"] = "AIRPT"

    assert "AIRPT" in problems(bundle)[0]


def test_an_instance_without_a_sop_class_is_found(bundle: dict[str, Any]) -> None:
    series = first(bundle, "ImagingStudy")["series"][0]
    series["instance"][0]["sopClass"]["code"] = "urn:oid:9.9"

    assert len(problems(bundle)) == 1


def test_what_we_build_has_no_problem(bundle: dict[str, Any]) -> None:
    assert problems(bundle) == ()


def test_the_tables_name_elements_that_exist() -> None:
    """A misspelt element would leave its values unchecked."""
    kinds = [
        kind
        for module in MODULES
        for kind in vars(import_module(f"fhir.resources.R4B.{module}")).values()
        if hasattr(kind, "model_fields")
    ]

    elements = {f"{kind.__name__}.{name}" for kind in kinds for name in kind.model_fields}

    assert set(VALUE_SETS) | set(BINDINGS) <= elements

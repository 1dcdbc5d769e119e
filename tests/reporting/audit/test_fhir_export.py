"""Every event of the trail is a legal AuditEvent with codes of its value sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.auditevent import AuditEvent

from reporting.audit.fhir_export import fhir_event
from reporting.audit.trail import Actor, Event, Outcome
from reporting.fhir.terminology_check import check_codes
from tests.reporting.audit.test_dicom_export import EVERYTHING, recorded


def exported(folder: Path, event: Event, **given: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(fhir_event(recorded(folder, event, **given), source="ward7"))
    return made


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("given", [{}, EVERYTHING], ids=["bare", "full"])
def test_every_event_passes_structure_and_codes(
    tmp_path: Path, event: Event, given: dict[str, Any]
) -> None:
    made = exported(tmp_path, event, outcome=Outcome.MAJOR_FAILURE, **given)

    assert check_codes(AuditEvent.model_validate(made)) == ()


def test_a_wrong_code_would_be_found(tmp_path: Path) -> None:
    made = exported(tmp_path, Event.IMAGE_RECEIVED)
    made["outcome"] = "3"
    made["type"]["code"] = "110999"

    assert len(check_codes(AuditEvent.model_validate(made))) == 2


def test_exporting_twice_gives_the_same_resource(tmp_path: Path) -> None:
    entry = recorded(tmp_path, Event.IMAGE_RECEIVED)

    assert fhir_event(entry, source="ward7") == fhir_event(entry, source="ward7")


def test_who_did_what_to_which_study(tmp_path: Path) -> None:
    actor = Actor(ae_title="SLIDECAM1", host="10.20.0.15")
    made = exported(tmp_path, Event.IMAGE_RECEIVED, actor=actor, **EVERYTHING)

    assert made["type"]["code"] == "110104"
    assert made["agent"][0]["who"] == {"display": "SLIDECAM1"}
    assert made["agent"][0]["network"] == {"address": "10.20.0.15", "type": "2"}
    assert made["source"]["observer"]["display"] == "ward7"
    study, line = made["entity"]
    assert study["what"]["identifier"]["value"] == "urn:oid:1.2.3"
    details = {detail["type"]: detail["valueString"] for detail in line["detail"]}
    assert details["sop_instance_uid"] == "1.2.3.4.5"
    assert details["research_use_only"] == "true"


def test_it_says_that_it_is_for_research(tmp_path: Path) -> None:
    made = exported(tmp_path, Event.SMEAR_REPORTED)

    assert made["meta"]["security"][0]["code"] == "HRESCH"
    assert "RESEARCH USE ONLY" in made["outcomeDesc"]

"""Every event carries what an auditor asks for, and nothing that names a patient."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline.domain import QualityFlag
from pipeline.errors import Defect
from reporting.audit.signing_key import AuditKey
from reporting.audit.trail import Actor, Event, Outcome, verify_trail
from tests.reporting.trails import KEY, Clock, open_trail


def last_event(folder: Path) -> dict[str, Any]:
    path = sorted(folder.glob("audit-*"))[-1]
    entry: dict[str, Any] = json.loads(path.read_text().splitlines()[-1])
    return entry


def test_an_event_with_an_unknown_field_is_not_written(tmp_path: Path) -> None:
    trail = open_trail(tmp_path)

    with pytest.raises(Defect):
        trail.record(Event.IMAGE_RECEIVED, patient_name="MUSTERMANN^ERIKA")
    trail.close()

    assert "MUSTERMANN" not in next(tmp_path.glob("audit-*")).read_text()


def test_every_event_says_time_event_actor_outcome_software_model_and_research_use(
    tmp_path: Path,
) -> None:
    trail = open_trail(tmp_path, clock=Clock())

    trail.record(
        Event.IMAGE_REFUSED,
        actor=Actor(ae_title="CAM1", host="10.0.0.7"),
        outcome=Outcome.MINOR_FAILURE,
        sop_instance_uid="1.2.3",
        status="0xA900",
    )

    entry = last_event(tmp_path)
    del entry["prev"], entry["hash"]
    assert entry == {
        "time": "2026-11-22T12:00:00.000000Z",
        "event": "image_refused",
        "outcome": "minor_failure",
        "actor": {"ae_title": "CAM1", "host": "10.0.0.7"},
        "software_version": "0.1.0",
        "model_sha256": "a" * 64,
        "sop_instance_uid": "1.2.3",
        "status": "0xA900",
        "research_use_only": True,
        "seq": 3,
    }


def test_the_service_is_the_actor_where_none_is_named(tmp_path: Path) -> None:
    open_trail(tmp_path).record(Event.SERVICE_STARTED)

    assert last_event(tmp_path)["actor"] == {"host": "testhost"}


def test_the_label_cannot_be_taken_away(tmp_path: Path) -> None:
    trail = open_trail(tmp_path)

    with pytest.raises(Defect):
        trail.record(Event.IMAGE_RECEIVED, research_use_only=False)


def test_bound_ids_stand_in_every_event_of_the_job(tmp_path: Path) -> None:
    trail = open_trail(tmp_path)
    job = trail.bind(study_uid="1.2", smear_id="1.2.3").bind(accession="A-4711")

    job.record(Event.SMEAR_REPORTED, version=1, reasons=frozenset({QualityFlag.EMPTY}))

    entry = last_event(tmp_path)
    assert (entry["study_uid"], entry["smear_id"]) == ("1.2", "1.2.3")
    assert entry["reasons"] == ["empty"]
    assert entry["accession_hash"] == KEY.accession_hash("A-4711")
    assert "A-4711" not in json.dumps(entry)


def test_an_accession_hash_differs_from_site_to_site() -> None:
    other = AuditKey.of(Ed25519PrivateKey.generate())

    assert other.accession_hash("A-4711") != KEY.accession_hash("A-4711")


def test_leaving_the_trail_signs_its_last_event(tmp_path: Path) -> None:
    with open_trail(tmp_path) as trail:
        trail.record(Event.SERVICE_STOPPED)

    assert verify_trail(tmp_path, KEY.public).unsigned_events == 0
    assert last_event(tmp_path)["event"] == "checkpoint_signed"

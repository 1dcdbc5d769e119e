"""Operations, audit and network pages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from listener.web.console.audit_index import AuditIndex, AuditQuestion
from listener.web.console.database import AUDIT_EVENT, ConsoleDatabase
from listener.web.console.evaluation_figures import read_evaluation
from listener.web.console.permissions import Role
from models.classifier import MODEL_FOLDER
from pipeline.domain import CalibrationIdentity
from reporting.audit.trail import (
    Actor,
    AuditTrail,
    Event,
    Outcome,
    load_or_make_key,
    read_events,
)
from tests.listener.web.console.query_plans import scans_of
from tests.listener.web.console.site import (
    ConsoleSite,
    broken,
    csrf_of,
    parked_delivery,
    sign_in,
)


@pytest.fixture
def site(tmp_path: Path) -> ConsoleSite:
    site = ConsoleSite(tmp_path)
    site.add_account("root", Role.ADMINISTRATOR)
    site.destinations = {"pacs": lambda: "answers C-ECHO", "ehr": broken}
    return site


@pytest.fixture
def client(site: ConsoleSite) -> Iterator[TestClient]:
    with site.client() as client:
        sign_in(client, "root")
        yield client


def trail(site: ConsoleSite) -> AuditTrail:
    key = load_or_make_key(site.root / "audit.key")
    return AuditTrail.open(site.root / "audit", chain="ward7", key=key, software_version="0.1.0")


# --- operations


def test_parked_work_is_shown_with_its_reason(client: TestClient, site: ConsoleSite) -> None:
    site.parked = [parked_delivery()]

    page = client.get("/operations").text

    assert "The PACS &lt;b&gt;refused&lt;/b&gt; it" in page
    assert "Take up again" in page
    assert "5.0 GB" in page


def test_parked_work_is_taken_up_again_and_who_did_it_is_recorded(
    client: TestClient, site: ConsoleSite
) -> None:
    site.parked = [parked_delivery("deliver:7")]
    csrf = csrf_of(client.get("/operations"))

    answer = client.post("/operations/retry", data={"csrf": csrf, "key": "deliver:7"})
    page = client.get(answer.headers["location"]).text

    assert site.retried == ["deliver:7"]
    assert "1 taken up again" in page
    (told,) = site.audit.of(Event.WORK_RETRIED)
    assert told.actor is not None
    assert told.actor.user == "root"
    assert told.fields["destination"] == "pacs"


def test_what_is_not_parked_is_not_taken_up(client: TestClient, site: ConsoleSite) -> None:
    csrf = csrf_of(client.get("/operations"))

    client.post("/operations/retry", data={"csrf": csrf, "key": "nothing"})

    assert site.retried == []


@pytest.mark.parametrize(
    ("name", "words", "outcome"),
    [("pacs", "answers C-ECHO", Outcome.SUCCESS), ("ehr", "No answer", Outcome.MINOR_FAILURE)],
)
def test_a_destination_is_tested(
    client: TestClient, site: ConsoleSite, name: str, words: str, outcome: Outcome
) -> None:
    csrf = csrf_of(client.get("/operations"))

    page = client.post("/operations/test", data={"csrf": csrf, "destination": name}).text

    assert words in page
    (told,) = site.audit.of(Event.DESTINATION_TESTED)
    assert told.outcome is outcome


def test_an_auditor_watches_and_operates_nothing(site: ConsoleSite) -> None:
    site.add_account("anna", Role.AUDITOR)
    site.parked = [parked_delivery()]

    with site.client() as client:
        sign_in(client, "anna")
        page = client.get("/operations").text

    assert "Take up again" not in page


# --- audit


def test_the_trail_is_shown_filtered_and_told_as_a_story(site: ConsoleSite) -> None:
    image: dict[str, Any] = {
        "sop_instance_uid": "1.2.4.1",
        "study_uid": "1.2",
        "series_uid": "1.2.3",
    }
    with trail(site) as written:
        written.record(Event.IMAGE_RECEIVED, actor=Actor(ae_title="SCOPE"), **image)
        written.record(Event.IMAGE_ANALYSED, sop_instance_uid="1.2.4.1")
        written.record(Event.SMEAR_REPORTED, smear_id="1.2.3", version=1)
        written.record(Event.REPORT_DELIVERED, smear_id="1.2.3", destination="pacs")
        written.record(Event.IMAGE_REFUSED, outcome=Outcome.MINOR_FAILURE, code="too_small")
    console = site.console()
    console.trail.read_on()

    with site.client(console) as client:
        sign_in(client, "root")
        everything = client.get("/audit").text
        refused = client.get("/audit?outcome=minor_failure").text
        story = client.get("/audit?image=1.2.4.1").text
        device = client.get("/audit?device=SCOPE").text
        operations = client.get("/operations").text

    rows = [page.count("<tr>") - 1 for page in (everything, refused, story, device)]
    assert rows[1:] == [1, 4, 1]
    assert story.index("image received") < story.index("report delivered")
    assert "too_small" in refused
    assert site.audit.events.count(Event.TRAIL_VIEWED) == 4
    assert "none recorded" in operations  # ehr
    (delivered,) = (
        one for one in read_events(site.root / "audit") if one["event"] == Event.REPORT_DELIVERED
    )
    assert str(delivered["time"])[:7] in operations.split("Destinations")[1]


def test_the_index_goes_on_where_it_stopped_and_reads_nothing_twice(site: ConsoleSite) -> None:
    index = AuditIndex(site.database, site.root / "audit")
    index.read_on()
    before = index.page(AuditQuestion()).total
    with trail(site) as written:
        written.record(Event.SETTINGS_RELOADED)

    index.read_on()
    index.read_on()

    added = index.page(AuditQuestion(event="settings_reloaded"))
    assert added.total == 1
    assert index.page(AuditQuestion()).total > before


def test_a_line_that_was_changed_is_not_shown(site: ConsoleSite) -> None:
    with trail(site) as written:
        written.record(Event.SETTINGS_RELOADED)
    index = AuditIndex(site.database, site.root / "audit")
    index.read_on()
    (path,) = (site.root / "audit").glob("audit-*.jsonl")
    path.write_bytes(path.read_bytes().replace(b"settings_reloaded", b"settings_reloadex"))

    assert index.page(AuditQuestion(event="settings_reloaded")).events == []


def test_the_chain_is_verified_and_a_change_is_found(client: TestClient, site: ConsoleSite) -> None:
    csrf = csrf_of(client.get("/audit"))
    whole = client.post("/audit/verify", data={"csrf": csrf}).text
    (path,) = (site.root / "audit").glob("audit-*.jsonl")
    path.write_bytes(path.read_bytes().replace(b"chain_started", b"chain_startex"))

    torn = client.post("/audit/verify", data={"csrf": csrf}).text

    assert "The trail is whole" in whole
    assert "NOT whole" in torn
    outcomes = [one.outcome for one in site.audit.of(Event.TRAIL_VERIFIED)]
    assert outcomes == [Outcome.SUCCESS, Outcome.MAJOR_FAILURE]


@pytest.mark.parametrize("form", ["jsonl", "dicom", "fhir"])
def test_the_trail_is_exported(client: TestClient, site: ConsoleSite, form: str) -> None:
    csrf = csrf_of(client.get("/audit"))

    answer = client.post("/audit/export", data={"csrf": csrf, "form": form})

    lines = answer.text.splitlines()
    assert answer.status_code == 200
    assert lines
    if form != "dicom":
        assert all(json.loads(line) for line in lines)
    assert site.audit.of(Event.TRAIL_EXPORTED)[0].fields["count"] == len(lines)


BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
AUDIT_QUESTIONS = [
    (AuditQuestion(), 1),
    (AuditQuestion(), 100),
    (AuditQuestion(event="image_received"), 1),
    (AuditQuestion(outcome="minor_failure"), 50),
    (AuditQuestion(person="person3"), 1),
    (AuditQuestion(device="SCOPE2", since=BEGAN + timedelta(days=100)), 1),
    (AuditQuestion(study="1.2.77"), 1),
    (AuditQuestion(image="1.2.4.4000", smear="1.2.3.160"), 1),
    (AuditQuestion(until=BEGAN + timedelta(days=2)), 1),
    (AuditQuestion(event="smear_viewed", person="person9", outcome="success"), 1),
]
"""What `bench_console` asks of a million events."""


def audit_row(number: int) -> dict[str, Any]:
    """The row of an event: one every 20 seconds, of 40 people and 7 devices."""
    events, outcomes = list(Event), list(Outcome)
    return {
        "time": (BEGAN + timedelta(seconds=20 * number)).isoformat(),
        "file": "audit-20260101-ward7.jsonl",
        "place": number,
        "bytes": 400,
        "event": events[number % len(events)],
        "outcome": outcomes[0 if number % 50 else 1],
        "person": f"person{number % 40}" if number % 3 == 0 else "",
        "device": f"SCOPE{number % 7}",
        "study": f"1.2.{number // 300}",
        "image": f"1.2.4.{number // 12}",
        "smear": f"1.2.3.{number // 300}",
        "destination": "pacs" if number % 9 == 0 else "",
    }


@pytest.mark.parametrize(("asked", "number"), AUDIT_QUESTIONS)
def test_every_question_to_the_trail_looks_up_an_index(
    tmp_path: Path, asked: AuditQuestion, number: int
) -> None:
    database = ConsoleDatabase(f"sqlite:///{tmp_path / 'state.sqlite'}")
    with database.writing() as connection:
        connection.execute(sa.insert(AUDIT_EVENT), [audit_row(one) for one in range(200)])
    index = AuditIndex(database, tmp_path)

    assert scans_of(database, lambda: index.page(asked, number)) == []


# --- network


def test_without_an_evaluation_the_page_says_so_and_shows_the_card(client: TestClient) -> None:
    page = client.get("/network").text

    assert "Model card" in page
    assert "<table>" in page


def test_a_network_without_a_calibration_says_so(client: TestClient) -> None:
    words = "not calibrated for this laboratory"

    assert words in client.get("/network").text
    assert words in client.get("/operations").text


def test_a_calibration_is_named_where_the_network_is(site: ConsoleSite) -> None:
    calibration = CalibrationIdentity(
        site="St. Anna", made_on="2026-11-28", smears=9, sha256="c0ffee" + "0" * 58
    )
    site.parts = replace(site.parts, model=replace(site.parts.model, calibration=calibration))

    with site.client() as client:
        sign_in(client, "root")
        pages = [client.get(page).text for page in ("/network", "/operations")]

    for page in pages:
        assert "calibrated for St. Anna on 2026-11-28 (9 smears)" in page
        assert "not calibrated" not in page


@pytest.mark.parametrize("is_calibrated", [False, True])
def test_figures_of_the_network_are_not_taken_for_those_of_a_calibrated_one(
    site: ConsoleSite, tmp_path: Path, is_calibrated: bool
) -> None:
    record = {
        "version": "0.0.1",
        "made_by": "m",
        "left_out": [],
        "held_back": [],
        "confusion": {"labels": ["blast"], "true_by_said": [[1]]},
        "roc": {},
        "reliability": [],
    }
    (tmp_path / "evaluation.json").write_text(json.dumps(record))
    calibration = CalibrationIdentity(
        site="St. Anna", made_on="2026-11-28", smears=9, sha256="c0ffee" + "0" * 58
    )
    model = replace(site.parts.model, calibration=calibration if is_calibrated else None)
    site.parts = replace(site.parts, model=model, model_folder=tmp_path)

    with site.client() as client:
        sign_in(client, "root")
        page = client.get("/network").text

    assert "Laboratories left out" in page
    assert ("of the network without the calibration" in page) is is_calibrated


def test_an_evaluation_is_drawn(site: ConsoleSite, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "MODEL_CARD.md").write_text("# Card\n\n<script>alert(1)</script> [x](http://e.x)\n")
    record = {
        "version": "0.0.1",
        "made_by": "python -m models.training.leave_out_laboratories",
        "left_out": [
            {
                "laboratory": "Munich",
                "trunk_knew": True,
                "leukemic": 3,
                "normal": 4,
                "auc": {"value": 0.91, "low": 0.88, "high": 0.94},
                "types": None,
            }
        ],
        "held_back": [],
        "confusion": {"labels": ["blast", "monocyte"], "true_by_said": [[9, 1], [2, 18]]},
        "roc": {"Munich": [[0, 0], [0.1, 0.8], [1, 1]]},
        "reliability": [{"from": 0.1, "cells": 5, "said": 0.1, "leukemic": 0.12}],
    }
    (folder / "evaluation.json").write_text(json.dumps(record))
    site.parts = replace(site.parts, model_folder=folder)

    with site.client() as client:
        sign_in(client, "root")
        page = client.get("/network").text

    for word in (
        "Munich †",
        "0.910",
        "[0.880–0.940]",
        "precision",
        "90.0 %",
        "<polyline",
        "of version 0.0.1",
    ):
        assert word in page
    assert "<script>alert" not in page
    assert 'href="http://e.x"' not in page


@pytest.mark.parametrize("text", ["", "{torn", "[]", '{"roc": 7, "confusion": [], "figures": 1}'])
def test_an_evaluation_that_cannot_be_read_shows_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "evaluation.json").write_text(text)

    found = read_evaluation(tmp_path / "evaluation.json")

    assert found is None


def test_the_evaluation_that_ships_with_the_network_is_shown_whole() -> None:
    found = read_evaluation(MODEL_FOLDER / "evaluation.json")

    assert found is not None
    assert [row.name for row in found.left_out if row.figures][:1]
    assert {"deepapl", "chula_cells"} <= {row.name for row in found.left_out}
    assert found.confusion is not None
    assert sum(map(sum, found.confusion.counts)) > 1000
    assert found.roc
    assert found.reliability

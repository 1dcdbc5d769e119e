"""What leaves says what it is for, whose it is only to those who may know, and is recorded."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from listener.web.console.exports import EXPORT_WORDS
from listener.web.console.permissions import Role
from pipeline.domain import RESEARCH_USE_ONLY
from reporting.audit.trail import Event
from tests.findings import make_field_findings
from tests.listener.web.console.site import PATIENT, ConsoleSite, csrf_of, sign_in

SECRETS = (b"PID-4711", b"Doe^Jane", b"Doe, Jane", b"ACC-1")
"""None of them can stand in Base64 by chance."""


@pytest.fixture
def site(tmp_path: Path) -> ConsoleSite:
    site = ConsoleSite(tmp_path)
    for name, role in (("vera", Role.VIEWER), ("olga", Role.OPERATOR)):
        site.add_account(name, role)
    return site


def take(client: TestClient, kind: str, *smears: str) -> httpx.Response:
    csrf = csrf_of(client.get("/smears"))
    return client.post("/export", data={"csrf": csrf, "kind": kind, "smear": list(smears)})


def contents(answer: httpx.Response) -> dict[str, bytes]:
    """The files of an answer by name."""
    if answer.headers["content-type"] != "application/zip":
        name = answer.headers["content-disposition"].split('"')[1]
        return {name: answer.content}
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("kind", [kind for kind, _ in EXPORT_WORDS])
def test_results_are_taken_away_as_files(site: ConsoleSite, kind: str) -> None:
    smear = site.put_smear([make_field_findings()])

    with site.client() as client:
        sign_in(client, "vera")
        answer = take(client, kind, smear)

    assert answer.status_code == 200
    assert "research-use-only" in answer.headers["content-disposition"]
    assert contents(answer)
    (told,) = site.audit.of(Event.RESULTS_EXPORTED)
    assert told.actor is not None
    assert (told.actor.user, told.fields["kinds"]) == ("vera", [kind])


@pytest.mark.parametrize("kind", [kind for kind, _ in EXPORT_WORDS])
def test_under_pseudonyms_no_file_holds_the_patient(site: ConsoleSite, kind: str) -> None:
    smear = site.put_smear([make_field_findings()])

    with site.client() as client:
        sign_in(client, "olga")
        answer = take(client, kind, smear)

    assert answer.status_code == 200
    for name, content in contents(answer).items():
        assert not any(secret in content for secret in SECRETS), name
        assert not any(secret.decode() in name for secret in SECRETS)


@pytest.mark.parametrize("kind", ["pictures", "cells"])
def test_every_picture_carries_the_label(site: ConsoleSite, kind: str) -> None:
    smear = site.put_smear([make_field_findings()])

    with site.client() as client:
        sign_in(client, "vera")
        files = contents(take(client, kind, smear))

    pictures = [content for name, content in files.items() if name.endswith(".jpg")]
    assert pictures
    for content in pictures:
        assert RESEARCH_USE_ONLY.encode() in content[:100]
        assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) is not None


def test_all_cells_leave_as_a_zip_with_both_probabilities(site: ConsoleSite) -> None:
    patient = {**PATIENT, "ImageComments": "=HYPERLINK(1) thick"}
    smear = site.put_smear([make_field_findings()], patient=patient)

    with site.client() as client:
        sign_in(client, "vera")
        files = contents(take(client, "cells", smear))

    rows = list(csv.DictReader(io.StringIO(files["cells.csv"].decode("utf-8-sig"))))
    assert len(rows) == 4
    for row in rows:
        both = float(row["probability_leukemic"]) + float(row["probability_normal"])
        assert both == pytest.approx(1.0)
        assert row["file"] in files
        assert row["label"] == RESEARCH_USE_ONLY
        assert row["patient_id"] == "PID-4711"
        assert row["notes"].startswith("'=")
    assert "thick" in files["notes.txt"].decode()


def test_several_smears_leave_as_one_zip(site: ConsoleSite) -> None:
    smears = [
        site.put_smear(
            [make_field_findings(series_uid=f"1.2.3.{n}", sop_instance_uid=f"1.2.4.{n}")]
        )
        for n in (1, 2)
    ]

    with site.client() as client:
        sign_in(client, "vera")
        files = contents(take(client, "csv", *smears))

    assert {name.split("/")[0] for name in files} == {
        "smear-001",
        "smear-002",
        "RESEARCH-USE-ONLY.txt",
    }


def test_what_cannot_be_made_any_more_is_told(site: ConsoleSite) -> None:
    found = make_field_findings()
    smear = site.put_smear([found])
    site.store.inbox.remove(found.sop_instance_uid)

    with site.client() as client:
        sign_in(client, "vera")
        kept, gone = take(client, "csv", smear), take(client, "cells", smear)

    assert kept.status_code == 200
    assert gone.status_code == 410
    assert "retention" in gone.text


@pytest.mark.parametrize(
    ("kind", "smear"), [("pdf", "1.2.3.999"), ("pdf", "../x"), ("everything", ""), ("", "")]
)
def test_nothing_chosen_is_told(site: ConsoleSite, kind: str, smear: str) -> None:
    with site.client() as client:
        sign_in(client, "vera")
        answer = take(client, kind, smear)

    assert answer.status_code in (400, 404)
    assert Event.RESULTS_EXPORTED not in site.audit.events

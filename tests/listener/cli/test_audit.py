"""`smearlink audit`: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from config.model import Settings
from config.settings import make_settings
from listener.cli.audit import export_audit, show_audit, verify_audit
from pipeline.errors import Rejected
from reporting.audit.trail import Actor, Event, Outcome, load_or_make_key
from tests.reporting.audit_schema import schema_problems
from tests.reporting.trails import Clock, open_trail

NOTHING = dict.fromkeys(
    ("study", "image", "accession", "ae", "outcome", "since", "until"),
    "",
)


@pytest.fixture
def site(tmp_path: Path) -> Settings:
    """A trail of three images, a minute apart, the last one refused."""
    settings = make_settings({"service": {"data_dir": str(tmp_path / "data")}})
    key = load_or_make_key(settings.audit_key_file)
    clock = Clock()
    with open_trail(settings.audit_dir, clock=clock, key=key) as trail:
        for number in range(3):
            trail.record(
                Event.IMAGE_RECEIVED if number < 2 else Event.IMAGE_REFUSED,
                actor=Actor(ae_title=f"CAM{number}", host="10.0.0.7"),
                outcome=Outcome.SUCCESS if number < 2 else Outcome.SERIOUS_FAILURE,
                study_uid=f"1.2.{number}",
                sop_instance_uid=f"1.2.{number}.9",
                accession=f"ACC-{number}",
            )
            clock.move(60)
    return settings


def shown(
    site: Settings, capsys: pytest.CaptureFixture[str], *, as_json: bool = False, **asked: str
) -> list[str]:
    show_audit(site, None, {**NOTHING, **asked}, as_json)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    "asked",
    [{"outcome": "good"}, {"since": "yesterday"}, {"until": "24.11.2026"}],
)
def test_what_cannot_be_asked_is_refused(site: Settings, asked: dict[str, str]) -> None:
    with pytest.raises(Rejected) as refused:
        show_audit(site, None, {**NOTHING, **asked}, False)

    assert refused.value.code == "usage"


def test_an_accession_without_the_sites_key_is_refused_and_makes_none(tmp_path: Path) -> None:
    site = make_settings({"service": {"data_dir": str(tmp_path)}})

    with pytest.raises(Rejected) as refused:
        show_audit(site, None, {**NOTHING, "accession": "ACC-SECRET"}, False)

    assert refused.value.code == "audit_key_missing"
    assert "SECRET" not in refused.value.message
    assert not site.audit_key_file.exists()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"study": "1.2.1"}, ["CAM1"]),
        ({"image": "1.2.0.9"}, ["CAM0"]),
        ({"accession": "ACC-2"}, ["CAM2"]),
        ({"ae": "CAM1"}, ["CAM1"]),
        ({"outcome": "serious_failure"}, ["CAM2"]),
        ({"ae": "CAM1", "since": "2026-11-22T12:01"}, ["CAM1"]),
        ({"ae": "CAM1", "until": "2026-11-22T12:01Z"}, []),
        ({"ae": "CAM1", "since": "2026-11-22T14:01+02:00"}, ["CAM1"]),
        ({"ae": "CAM1", "since": "2026-11-22T14:02+02:00"}, []),
    ],
)
def test_show_gives_what_was_asked_for(
    site: Settings,
    capsys: pytest.CaptureFixture[str],
    asked: dict[str, str],
    expected: list[str],
) -> None:
    lines = shown(site, capsys, as_json=True, **asked)

    assert [json.loads(line)["actor"]["ae_title"] for line in lines] == expected


def test_lines_for_people_are_short_and_say_what_they_are_for(
    site: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    heading, line = shown(site, capsys, ae="CAM2")

    assert heading == (
        "ward7: smearlink 0.1.0, network aaaaaaaaaaaa. RESEARCH USE ONLY - NOT FOR DIAGNOSTIC USE"
    )
    assert line.startswith("2026-11-22 12:02:00.000 image_refused        serious_failure CAM2 ")
    assert "study_uid=1.2.2 sop_instance_uid=1.2.2.9 accession_hash=" in line
    assert len(line) < 160


def test_a_whole_trail_is_called_whole(site: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_audit(site, None, None, False)

    assert "The audit trail is whole." in capsys.readouterr().out


def test_a_changed_trail_is_not_and_the_place_is_told(
    site: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    [path] = site.audit_dir.glob("audit-*.jsonl")
    path.write_bytes(path.read_bytes().replace(b"CAM1", b"CAM9"))

    assert not verify_audit(site, None, None, False)

    said = capsys.readouterr().out
    assert f"{path.name}:4: changed" in said
    assert "NOT whole" in said


def test_programs_get_the_same_verdict(site: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    [path] = site.audit_dir.glob("audit-*.jsonl")
    path.write_bytes(path.read_bytes()[:-400])

    verify_audit(site, None, None, True)

    verdict = json.loads(capsys.readouterr().out)
    assert verdict["is_whole"] is False
    assert verdict["problems"]


def test_another_folder_is_checked_with_a_key_that_is_named(
    site: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = make_settings({"service": {"data_dir": str(tmp_path / "elsewhere")}})
    public = site.audit_key_file.with_name("audit.key.pub")

    assert verify_audit(elsewhere, site.audit_dir, public, False)


def test_an_unknown_form_is_refused(site: Settings, tmp_path: Path) -> None:
    with pytest.raises(Rejected):
        export_audit(site, None, tmp_path / "out", "csv")

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["dicom", "fhir"])
def test_a_missing_folder_is_refused(tmp_path: Path, form: str) -> None:
    site = make_settings({"service": {"data_dir": str(tmp_path)}})

    with pytest.raises(Rejected):
        export_audit(site, None, tmp_path / "out", form)

    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_refused(site: Settings, tmp_path: Path) -> None:
    with pytest.raises(Rejected):
        export_audit(site, None, tmp_path / "no" / "such" / "folder" / "out", "dicom")


def events_of(site: Settings) -> int:
    return sum(len(p.read_bytes().splitlines()) for p in site.audit_dir.glob("audit-*.jsonl"))


def test_dicom_messages_are_legal_one_a_line(site: Settings, tmp_path: Path) -> None:
    before = events_of(site)

    count = export_audit(site, None, tmp_path / "out.xml", "dicom")

    lines = (tmp_path / "out.xml").read_text().splitlines()
    assert count == len(lines) == before
    for line in lines:
        message = ET.fromstring(line)  # noqa: S314 - our own
        assert list(schema_problems(message)) == []
        assert message.find("AuditSourceIdentification").attrib["AuditSourceID"] == "ward7"


def test_fhir_events_are_resources_one_a_line(site: Settings, tmp_path: Path) -> None:
    before = events_of(site)

    count = export_audit(site, None, tmp_path / "out.ndjson", "fhir")

    resources: list[dict[str, Any]] = [
        json.loads(line) for line in (tmp_path / "out.ndjson").read_text().splitlines()
    ]
    assert count == len(resources) == before
    assert {r["resourceType"] for r in resources} == {"AuditEvent"}
    assert len({r["id"] for r in resources}) == count


@pytest.mark.parametrize("form", ["dicom", "fhir"])
def test_an_export_holds_no_accession_number(site: Settings, tmp_path: Path, form: str) -> None:
    export_audit(site, None, tmp_path / "out", form)

    assert "ACC-" not in (tmp_path / "out").read_text()

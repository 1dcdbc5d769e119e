"""What a person does at the command line is in the audit trail, or is not done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from config.model import Settings
from config.settings import make_settings
from listener.cli.operator_acts import record_retries, recorded_acts
from listener.observability.audit_trail import person_at_terminal
from listener.queue.dbos_adapter import make_queue
from listener.queue.jobs import image_job
from listener.queue.status import ParkedWork, WorkKind
from listener.storage.inbox import Inbox
from pipeline.domain import SmearId, SOPInstanceUID
from reporting.audit.trail import public_path, read_events, read_public_key, verify_trail
from tests.listener.cli.test_app import Run, run
from tests.listener.house import open_queue, receive

__all__ = ["run"]


@pytest.fixture
def site(tmp_path: Path) -> Settings:
    """The site of `run`, with an empty queue."""
    (tmp_path / "data").mkdir()
    settings = make_settings({"service": {"data_dir": str(tmp_path / "data")}})
    make_queue(settings.database_url)
    return settings


def acts(site: Settings) -> Iterator[dict[str, Any]]:
    """Events of persons, each without what every event has."""
    for event in read_events(site.audit_dir):
        if "user" in event["actor"]:
            names = ("event", "outcome", "sop_instance_uid", "smear_id", "destination", "count")
            yield {name: event[name] for name in names if name in event}


def test_a_retry_is_recorded_image_by_image(run: Run, site: Settings) -> None:
    inbox = Inbox(site.data_dir / "inbox")
    uids = [str(receive(inbox, "1.2.3", number).sop_instance_uid) for number in (1, 2)]
    for uid in uids:
        inbox.park(uid, "too_small")

    code, out, _ = run("retry", "--all")

    assert (code, out) == (0, "2 queued again\n")
    recorded = list(acts(site))
    assert {one["event"] for one in recorded} == {"image_retried"}
    assert {one["sop_instance_uid"] for one in recorded} == set(uids)


def test_a_close_is_recorded(run: Run, site: Settings) -> None:
    with closing(open_queue(site.data_dir, site.database_url)) as queue:
        queue.enqueue(image_job(SOPInstanceUID("1.2.3.1"), SmearId("1.2.3")))

    run("close", "1.2.3")

    assert list(acts(site)) == [
        {"event": "smear_closed", "outcome": "success", "smear_id": "1.2.3"}
    ]


@pytest.mark.parametrize("arguments", [["retry", "nope"], ["retry", "--all"], ["close", "9.9"]])
def test_what_was_not_done_is_not_recorded(run: Run, site: Settings, arguments: list[str]) -> None:
    run(*arguments)

    assert list(acts(site)) == []


@pytest.mark.parametrize("arguments", [["retry", "--all"], ["close", "1.2.3"]])
def test_what_cannot_be_recorded_is_not_done(
    run: Run, site: Settings, arguments: list[str]
) -> None:
    inbox = Inbox(site.data_dir / "inbox")
    inbox.park(str(receive(inbox, "1.2.3", 1).sop_instance_uid), "too_small")
    with closing(open_queue(site.data_dir, site.database_url)) as queue:
        queue.enqueue(image_job(SOPInstanceUID("1.2.3.1"), SmearId("1.2.3")))
        before = [row.id for row in queue.left()]
        site.audit_dir.write_text("a file where the trail belongs")

        code, _, _ = run(*arguments)

        assert [row.id for row in queue.left()] == before
    assert code != 0
    assert len(list(inbox.parked())) == 1


def test_moving_the_queue_is_recorded(
    run: Run, site: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMEARLINK_DATABASE__URL", f"sqlite:///{tmp_path / 'new.sqlite'}")

    code, _, _ = run("move-queue")

    assert code == 0
    assert list(acts(site)) == [{"event": "queue_moved", "outcome": "success", "count": 0}]


def test_verifying_and_exporting_the_site_s_trail_are_recorded(
    run: Run, site: Settings, tmp_path: Path
) -> None:
    with recorded_acts(site):
        pass

    assert run("audit", "verify")[0] == 0
    assert run("audit", "export", "--out", tmp_path / "events.ndjson")[0] == 0

    assert [one["event"] for one in acts(site)] == ["trail_verified", "trail_exported"]
    key = read_public_key(public_path(site.audit_key_file))
    assert verify_trail(site.audit_dir, key).is_whole


def test_a_trail_that_was_changed_is_recorded_as_a_failure(run: Run, site: Settings) -> None:
    with recorded_acts(site) as record:
        record_retries(record, [_parked(WorkKind.DELIVERY, destination="pacs")])
    (file,) = site.audit_dir.glob("audit-*.jsonl")
    file.write_text(file.read_text().replace("pacs", "prcs"))

    code, _, _ = run("audit", "verify")

    assert code == 1
    *_, last = acts(site)
    assert (last["event"], last["outcome"]) == ("trail_verified", "serious_failure")


def test_a_copy_of_a_trail_is_verified_without_a_trace(
    run: Run, site: Settings, tmp_path: Path
) -> None:
    with recorded_acts(site):
        pass
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in site.audit_dir.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    before = {file.name: file.read_bytes() for file in copy.iterdir()}

    run("audit", "verify", copy)

    assert {file.name: file.read_bytes() for file in copy.iterdir()} == before
    assert list(acts(site)) == []


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        (WorkKind.IMAGE, "image_retried"),
        (WorkKind.REPORT, "smear_retried"),
        (WorkKind.DELIVERY, "delivery_retried"),
        (WorkKind.COMMITMENT, "delivery_retried"),
    ],
)
def test_each_kind_of_parked_work_has_its_event(site: Settings, kind: WorkKind, event: str) -> None:
    with recorded_acts(site) as record:
        record_retries(record, [_parked(kind, destination="pacs", smear_id="1.2.3")])

    assert list(acts(site)) == [
        {"event": event, "outcome": "success", "smear_id": "1.2.3", "destination": "pacs"}
    ]


@pytest.mark.parametrize(
    ("sudo", "is_named"), [("alice", True), ("", False), ("a b; rm -rf", False), ("x" * 65, False)]
)
def test_the_person_behind_sudo_is_the_actor(
    monkeypatch: pytest.MonkeyPatch, sudo: str, is_named: bool
) -> None:
    monkeypatch.setenv("SUDO_USER", sudo)

    user = person_at_terminal().user

    assert user
    assert (user == sudo) == is_named


def _parked(kind: WorkKind, **about: str) -> ParkedWork:
    return ParkedWork(
        key="1", kind=kind, code="peer_unreachable", message="not there", since=None, **about
    )

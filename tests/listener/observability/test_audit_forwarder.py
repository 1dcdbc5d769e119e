"""The whole trail reaches the repository: none left out, whoever is down or restarted."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from config.settings import make_settings
from listener import service
from listener.observability.audit_forwarder import AuditForwarder, place_file_of
from reporting.audit.trail import AuditTrail, Event, read_events
from reporting.delivery import DeliveryPostponed
from reporting.delivery.transport.syslog import SyslogReceiver
from reporting.delivery.transport.tls import TlsFiles
from tests.certificates import Authority, make_authority
from tests.reporting.audit_schema import schema_problems
from tests.reporting.delivery.syslog_server import Repository, repository
from tests.reporting.trails import open_trail

OBJECT = "ParticipantObjectIdentification"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path / "certificates")


def forwarder(folder: Path, authority: Authority, port: int) -> AuditForwarder:
    return AuditForwarder(
        folder=folder / "audit",
        chain="ward7",
        place_file=place_file_of(folder, "ward7"),
        receiver=SyslogReceiver(
            host="127.0.0.1",
            port=port,
            tls=TlsFiles(ca_certificates=authority.ca_certificates),
            timeout_s=60,
        ),
        jitter=lambda: 0.0,
    )


def record(trail: AuditTrail, count: int) -> None:
    for number in range(count):
        trail.record(Event.IMAGE_RECEIVED, study_uid="1.2", count=number)


def hashes(store: Repository) -> list[str]:
    """Of the lines in the messages that arrived; every message is legal."""
    found = []
    for frame in store.frames:
        message = ET.fromstring(frame.partition(b"\xef\xbb\xbf")[2])  # noqa: S314 - our own
        assert list(schema_problems(message)) == []
        ids = [o.attrib["ParticipantObjectID"] for o in message.findall(OBJECT)]
        details = message.iter("ParticipantObjectDetail")
        ids += [_text(one) for one in details if one.attrib["type"] == "hash"]
        found += [one for one in ids if re.fullmatch("[0-9a-f]{64}", one)]
    return found


def _text(detail: ET.Element) -> str:
    return base64.b64decode(detail.attrib["value"]).decode()


def in_trail(folder: Path) -> list[str]:
    return [event["hash"] for event in read_events(folder / "audit")]


def test_what_a_repository_missed_while_it_was_down_comes_later(
    tmp_path: Path, authority: Authority
) -> None:
    files = authority.issue("repository")
    trail = open_trail(tmp_path / "audit")
    record(trail, 3)
    with repository(files) as gone:
        port = gone.port
    with pytest.raises(DeliveryPostponed):
        forwarder(tmp_path, authority, port).send_new()

    with repository(files) as store:
        forwarder(tmp_path, authority, store.port).send_new()

    assert hashes(store) == in_trail(tmp_path)


def test_a_restart_sends_only_what_is_new(tmp_path: Path, authority: Authority) -> None:
    trail = open_trail(tmp_path / "audit")
    with repository(authority.issue("repository")) as store:
        forwarder(tmp_path, authority, store.port).send_new()
        record(trail, 2)
        sent = forwarder(tmp_path, authority, store.port).send_new()

    assert sent == 2
    assert hashes(store) == in_trail(tmp_path)


def test_a_lost_place_begins_anew_and_loses_nothing(tmp_path: Path, authority: Authority) -> None:
    trail = open_trail(tmp_path / "audit")
    record(trail, 2)
    place_file_of(tmp_path, "ward7").write_text("{torn")
    with repository(authority.issue("repository")) as store:
        forwarder(tmp_path, authority, store.port).send_new()

    assert hashes(store) == in_trail(tmp_path)


def test_what_a_killed_process_left_half_written_is_gone_with_the_next_place(
    tmp_path: Path, authority: Authority
) -> None:
    record(open_trail(tmp_path / "audit"), 1)
    place_file = place_file_of(tmp_path, "ward7")
    drafts = place_file.with_suffix(".tmp")
    drafts.mkdir()
    (drafts / "0f").write_text("half")

    with repository(authority.issue("repository")) as store:
        forwarder(tmp_path, authority, store.port).send_new()

    assert place_file.is_file()
    assert list(drafts.iterdir()) == []


def test_of_two_processes_one_sends(tmp_path: Path, authority: Authority) -> None:
    record(open_trail(tmp_path / "audit"), 1)
    with repository(authority.issue("repository")) as store:
        first, second = (forwarder(tmp_path, authority, store.port) for _ in range(2))
        with first._alone():
            assert second.send_new() == 0
        assert second.send_new() > 0

    assert hashes(store) == in_trail(tmp_path)


def test_the_end_of_the_service_sends_the_last_events_too(
    tmp_path: Path, authority: Authority
) -> None:
    """The forwarder ends after the trail, as the composition root does it."""
    with (
        repository(authority.issue("repository")) as store,
        forwarder(tmp_path, authority, store.port),
        open_trail(tmp_path / "audit") as trail,
    ):
        record(trail, 5)

    assert hashes(store) == in_trail(tmp_path)


def test_a_repository_that_is_down_does_not_hold_up_the_end(
    tmp_path: Path, authority: Authority
) -> None:
    with repository(authority.issue("repository")) as gone:
        port = gone.port

    with forwarder(tmp_path, authority, port), open_trail(tmp_path / "audit") as trail:
        record(trail, 1)

    assert not place_file_of(tmp_path, "ward7").exists()


def test_a_message_names_no_patient(tmp_path: Path, authority: Authority) -> None:
    trail = open_trail(tmp_path / "audit")
    trail.record(Event.IMAGE_RECEIVED, accession="ACC-SECRET-5")
    with repository(authority.issue("repository")) as store:
        forwarder(tmp_path, authority, store.port).send_new()

    assert b"ACC-SECRET-5" not in b"".join(store.frames)


def test_the_settings_name_the_repository(tmp_path: Path, authority: Authority) -> None:
    """From [audit.syslog] to the repository, as the service and `smearlink check` do it."""
    with repository(authority.issue("repository")) as store:
        site = make_settings(
            {
                "service": {"data_dir": str(tmp_path / "data"), "worker_id": "ward7"},
                "audit": {
                    "syslog": {
                        "enabled": True,
                        "host": "127.0.0.1",
                        "port": store.port,
                        "ca_certificates": str(authority.ca_certificates),
                    }
                },
            }
        )
        with service.audit_forwarder(site), service.open_trail(site) as trail:
            record(trail, 2)
        said = service.syslog_receiver(site).check()

    assert "takes TLSv1" in said
    assert hashes(store) == in_trail(site.data_dir)

"""Messages reach an audit repository whole, over TLS, and nobody else."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from reporting.delivery import DeliveryPostponed, DeliveryRefused
from reporting.delivery.transport.syslog import SyslogMessage, SyslogReceiver, framed
from reporting.delivery.transport.tls import TlsFiles
from tests.certificates import Authority, make_authority
from tests.reporting.delivery.syslog_server import repository

MESSAGE = SyslogMessage(
    time="2026-11-22T12:00:00.000001Z", is_failure=False, content="<AuditMessage>é</>".encode()
)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path)


def receiver(authority: Authority, port: int, *, own: TlsFiles | None = None) -> SyslogReceiver:
    files = own or TlsFiles(ca_certificates=authority.ca_certificates)
    return SyslogReceiver(host="127.0.0.1", port=port, tls=files, hostname="ward7", timeout_s=60)


def test_nobody_there_means_later(authority: Authority) -> None:
    with repository(authority.issue("repository")) as store:
        port = store.port

    with pytest.raises(DeliveryPostponed) as postponed:
        receiver(authority, port).send([MESSAGE])

    assert postponed.value.code == "peer_unreachable"


def test_a_stranger_gets_nothing(authority: Authority, tmp_path: Path) -> None:
    stranger = make_authority(tmp_path / "stranger")
    with repository(stranger.issue("repository")) as store:
        with pytest.raises(DeliveryPostponed) as postponed:
            receiver(authority, store.port).send([MESSAGE])

        assert postponed.value.code == "tls_failed"
        assert store.frames == []


def test_a_refused_client_certificate_is_noticed(authority: Authority) -> None:
    """In TLS 1.3 the refusal comes after the handshake, so it is listened for."""
    with repository(authority.issue("repository"), require_client_certificate=True) as store:
        for _ in range(5):
            with pytest.raises(DeliveryPostponed):
                receiver(authority, store.port).send([MESSAGE])

        assert store.frames == []


def test_a_file_that_is_no_certificate_needs_a_person(authority: Authority, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no PEM")

    with pytest.raises(DeliveryRefused):
        receiver(authority, 1, own=TlsFiles(ca_certificates=broken)).send([MESSAGE])


def test_messages_arrive_whole_and_in_order(authority: Authority) -> None:
    messages = [replace(MESSAGE, content=b"<A%d/>" % n * (1 + 3000 * n)) for n in range(8)]
    with repository(authority.issue("repository")) as store:
        sent = receiver(authority, store.port).send(messages)

    assert sent == 8
    assert [frame.partition(b"\xef\xbb\xbf")[2] for frame in store.frames] == [
        message.content for message in messages
    ]
    assert store.broken == []
    assert store.closed_properly == [True]


def test_our_own_certificate_is_shown_where_one_is_asked_for(authority: Authority) -> None:
    with repository(authority.issue("repository"), require_client_certificate=True) as store:
        receiver(authority, store.port, own=authority.issue("smearlink")).send([MESSAGE])

    assert len(store.frames) == 1


def test_a_repository_that_does_not_answer_the_close_has_read_all_the_same(
    authority: Authority,
) -> None:
    with repository(authority.issue("repository"), answers_close=False) as store:
        assert receiver(authority, store.port).send([MESSAGE]) == 1

    assert len(store.frames) == 1


@pytest.mark.parametrize(("is_failure", "priority"), [(False, 85), (True, 84)])
def test_a_frame_is_that_of_the_standards(is_failure: bool, priority: int) -> None:
    """RFC 5424 6: <PRI>1 time host app process message-id data BOM text; RFC 5425: its length."""
    frame = framed(replace(MESSAGE, is_failure=is_failure), hostname="ward7")

    length, _, rest = frame.partition(b" ")
    assert int(length) == len(rest)
    header = f"<{priority}>1 2026-11-22T12:00:00.000001Z ward7 smearlink - DICOM+RFC3881 - "
    assert rest == header.encode() + b"\xef\xbb\xbf" + MESSAGE.content
    assert re.fullmatch(r"[1-9][0-9]*", length.decode())


def test_a_check_says_which_tls_and_sends_nothing(authority: Authority) -> None:
    with repository(authority.issue("repository")) as store:
        said = receiver(authority, store.port).check()

    assert "TLSv1.3" in said
    assert store.frames == []

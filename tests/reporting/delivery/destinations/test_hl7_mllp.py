"""ORU^R01 over MLLP to scripted receivers: every acknowledgment, and none."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import Defect, NeedsReview, RetryLater
from reporting.delivery import DeliveryPostponed, DeliveryRefused, Receipt
from reporting.delivery.destinations.hl7_mllp import Hl7Destination
from reporting.delivery.transport.mllp import END, START, control_id_of, framed, read_acknowledgment
from reporting.delivery.transport.tls import TlsFiles, server_context
from tests.acceptance.standins import Serve, TcpPeer, closed_port, hangs_up, says_nothing
from tests.certificates import make_authority
from tests.reporting.delivery.labelled import make_bundle, make_message

PATIENCE_S = 0.3
"""Long enough for loopback, short enough for a test of what never answers."""
NAME = "Featherstonehaugh"


class Receiver:
    """Takes one message a connection and answers with `reply`, given the control id."""

    def __init__(self, reply: Callable[[str], bytes], tls: ssl.SSLContext | None = None) -> None:
        self.messages: list[bytes] = []
        self._reply = reply
        self._tls = tls

    def __call__(self, plain: socket.socket) -> None:
        connection = self._tls.wrap_socket(plain, server_side=True) if self._tls else plain
        received = b""
        while not received.endswith(END):
            chunk = connection.recv(65536)
            if not chunk:
                return
            received += chunk
        message = received.removeprefix(START).removesuffix(END)
        self.messages.append(message)
        connection.sendall(self._reply(control_id_of(message)))


def acknowledges(code: str, error: str = "") -> Callable[[str], bytes]:
    """An ACK with a text that must never be repeated."""

    def reply(control_id: str) -> bytes:
        segments = [
            "MSH|^~\\&|LIS||SMEARLINK||20260102||ACK^R01^ACK|9|P|2.5.1",
            f"MSA|{code}|{control_id}|about {NAME}",
        ]
        if error:
            segments.append(f"ERR||PID^1^5|{error}^words^HL70357|E|||{NAME}")
        return framed("\r".join([*segments, ""]).encode())

    return reply


def destination_at(port: int, **changed: Any) -> Hl7Destination:
    return Hl7Destination(**{"name": "lis", "host": "localhost", "port": port, **changed})


class TestThingsThatGoWrong:
    def test_nobody_listening_is_tried_later(self) -> None:
        with pytest.raises(RetryLater) as told:
            destination_at(closed_port()).deliver([make_message()])

        assert told.value.code == "peer_unreachable"

    @pytest.mark.parametrize("serve", [says_nothing, hangs_up])
    def test_no_answer_is_tried_later(self, serve: Serve) -> None:
        with TcpPeer(serve) as peer, pytest.raises(RetryLater) as told:
            destination_at(peer.port, timeout_s=PATIENCE_S).deliver([make_message()])

        assert told.value.code == "no_answer"

    @pytest.mark.parametrize(
        "answer",
        [
            framed(b"HTTP/1.1 200 OK"),
            b"no start block" + END,
            framed(b"MSH|^~\\&|LIS\rMSA|AA|another\r"),
            framed(b"MSH|^~\\&|LIS\r"),
            b"x" * (1024 * 1024 + 1),
        ],
    )
    def test_nonsense_is_tried_later(self, answer: bytes) -> None:
        with TcpPeer(Receiver(lambda _: answer)) as peer, pytest.raises(RetryLater) as told:
            destination_at(peer.port).deliver([make_message()])

        assert told.value.code == "answer_not_understood"

    @pytest.mark.parametrize(
        ("code", "error"), [("AE", "207"), ("AE", "206"), ("AR", ""), ("CR", ""), ("AR", "207")]
    )
    def test_a_system_in_trouble_is_tried_later(self, code: str, error: str) -> None:
        with (
            TcpPeer(Receiver(acknowledges(code, error))) as peer,
            pytest.raises(DeliveryPostponed) as told,
        ):
            destination_at(peer.port).deliver([make_message()])

        assert told.value.code == "hl7_busy"

    @pytest.mark.parametrize(
        ("code", "error", "meaning"),
        [
            ("AE", "101", "required field missing"),
            ("AE", "", "error"),
            ("CE", "100", "segment sequence error"),
            ("AR", "200", "unsupported message type"),
            ("CR", "203", "unsupported version id"),
        ],
    )
    def test_a_message_that_is_not_taken_needs_a_person(
        self, code: str, error: str, meaning: str
    ) -> None:
        with (
            TcpPeer(Receiver(acknowledges(code, error))) as peer,
            pytest.raises(DeliveryRefused) as told,
        ):
            destination_at(peer.port).deliver([make_message()])

        assert told.value.refused[0].reason == meaning
        assert told.value.refused[0].status == f"{code} {error}".strip()
        assert NAME not in f"{told.value.message} {told.value.refused}"

    def test_a_message_that_is_none_is_our_defect(self) -> None:
        broken = replace(
            make_message(), content=b"MSH|NTE|RESEARCH USE ONLY\rNTE|RESEARCH USE ONLY"
        )

        with pytest.raises(Defect):
            destination_at(closed_port()).deliver([broken])

    def test_block_characters_in_a_message_are_found(self) -> None:
        with pytest.raises(ValueError, match="block"):
            framed(b"a\x0bb")

    @pytest.mark.parametrize("character", [b"\x0b", b"\x1c"])
    def test_a_block_character_in_an_identifier_is_not_blamed_on_the_receiver(
        self, character: bytes
    ) -> None:
        message = make_message()
        broken = replace(message, content=message.content + b"PID|1||P" + character + b"1\r")

        with pytest.raises(DeliveryRefused) as told:
            destination_at(closed_port()).deliver([broken])

        assert told.value.code == "hl7_unsendable"
        assert "identifier" in told.value.message

    def test_what_was_taken_before_the_trouble_is_in_the_receipt(self) -> None:
        replies = [acknowledges("AA"), acknowledges("AE", "101")]
        with (
            TcpPeer(Receiver(lambda control_id: replies.pop(0)(control_id))) as peer,
            pytest.raises(DeliveryRefused) as told,
        ):
            destination_at(peer.port).deliver([make_message("one"), make_message("two")])

        assert told.value.receipt == Receipt(accepted=(make_message("one").uid,))


class TestAccepted:
    @pytest.mark.parametrize("code", ["AA", "CA"])
    def test_an_acknowledgment_ends_it(self, code: str) -> None:
        receiver = Receiver(acknowledges(code))
        with TcpPeer(receiver) as peer:
            receipt = destination_at(peer.port).deliver([make_bundle(), make_message()])

        assert receipt == Receipt(accepted=(make_message().uid,))

    def test_the_destination_stands_in_the_head(self) -> None:
        receiver = Receiver(acknowledges("AA"))
        with TcpPeer(receiver) as peer:
            destination_at(
                peer.port,
                sending_facility="NORTH",
                receiving_application="LIS",
                receiving_facility="LAB",
            ).deliver([make_message()])

        head, _, rest = receiver.messages[0].partition(b"\r")
        assert head.split(b"|")[:7] == [
            b"MSH",
            b"^~\\&",
            b"SMEARLINK",
            b"NORTH",
            b"LIS",
            b"LAB",
            b"20260102030405+0000",
        ]
        assert rest == make_message().content.partition(b"\r")[2]

    def test_over_tls(self, tmp_path: Path) -> None:
        authority = make_authority(tmp_path)
        context = server_context(authority.issue("lis"), require_client_certificate=True)
        with TcpPeer(Receiver(acknowledges("AA"), tls=context)) as peer:
            destination = destination_at(peer.port, tls=authority.issue("smearlink"))

            assert destination.deliver([make_message()]).accepted == (make_message().uid,)

    def test_an_unknown_certificate_is_tried_later(self, tmp_path: Path) -> None:
        authority, other = make_authority(tmp_path / "a"), make_authority(tmp_path / "b")
        context = server_context(other.issue("lis"), require_client_certificate=False)
        trusting = TlsFiles(ca_certificates=authority.ca_certificates)

        def serve(connection: socket.socket) -> None:
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(connection, server_side=True)

        with TcpPeer(serve) as peer, pytest.raises(RetryLater) as told:
            destination_at(peer.port, tls=trusting).deliver([make_message()])

        assert told.value.code == "tls_failed"

    def test_a_receiver_that_refuses_our_certificate_is_a_tls_failure(self, tmp_path: Path) -> None:
        """In TLS 1.3 it says so only after the handshake, when the message may be out."""
        ours, other = make_authority(tmp_path / "a"), make_authority(tmp_path / "b")
        context = server_context(
            TlsFiles(
                certificate=ours.issue("lis").certificate,
                private_key=ours.issue("lis").private_key,
                ca_certificates=other.ca_certificates,
            ),
            require_client_certificate=True,
        )

        def serve(connection: socket.socket) -> None:
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(connection, server_side=True)

        with TcpPeer(serve) as peer, pytest.raises(RetryLater) as told:
            destination_at(peer.port, tls=ours.issue("smearlink")).deliver([make_message()])

        assert told.value.code == "tls_failed"

    def test_unusable_tls_files_need_a_person(self, tmp_path: Path) -> None:
        with TcpPeer(says_nothing) as peer, pytest.raises(NeedsReview) as told:
            destination_at(
                peer.port, tls=TlsFiles(ca_certificates=tmp_path / "absent.pem")
            ).deliver([make_message()])

        assert told.value.code == "tls_files"


def test_check_connects() -> None:
    with TcpPeer(says_nothing) as peer:
        assert "takes a connection" in destination_at(peer.port).check()


def test_other_separators_are_read() -> None:
    said = read_acknowledgment(b"MSH#*~\\&#LIS\nMSA#AE#7\nERR###101*x\n")

    assert (said.code, said.control_id, said.error_code) == ("AE", "7", "101")

"""STOW-RS to a scripted server: what is sent, and what each answer means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from email.message import Message
from email.parser import BytesParser
from typing import Any, cast

import pytest

from listener.demo.mock_servers import LOOPBACK, Reply
from pipeline.errors import NeedsReview, RetryLater
from reporting.delivery import DeliveryPostponed, DeliveryRefused, Receipt
from reporting.delivery.destinations.stow_rs import StowDestination
from tests.acceptance.standins import ScriptedFhir, TcpPeer, closed_port, http_answer
from tests.reporting.delivery.labelled import make_bundle, make_picture

PATIENCE_S = 0.3
"""Long enough for loopback, short enough for a test of what never answers."""


def destination_at(url: str, **changed: Any) -> StowDestination:
    return StowDestination(**{"name": "archive", "url": url, **changed})


def said(status: int, *, failed: dict[str, Any] | None = None, stored: Iterable[str] = ()) -> Reply:
    """A Store Instances Response in the DICOM JSON model."""
    body: dict[str, Any] = {}
    if failed:
        body["00081198"] = {"vr": "SQ", "Value": [_item(*one) for one in failed.items()]}
    if stored:
        body["00081199"] = {"vr": "SQ", "Value": [_item(one) for one in stored]}
    return Reply(status=status, body=body, headers={"Content-Type": "application/dicom+json"})


def _item(uid: str, reason: object = None) -> dict[str, Any]:
    item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
    if reason is not None:
        item["00081197"] = {"vr": "US", "Value": [reason]}
    return item


def native_model(*, stored: Sequence[str] = (), failed: dict[str, int] | None = None) -> bytes:
    """The same in the Native DICOM Model (PS3.19 Annex A)."""

    def attribute(tag: str, *values: str) -> str:
        numbered = "".join(
            value.replace("#", str(number)) for number, value in enumerate(values, start=1)
        )
        return f'<DicomAttribute tag="{tag}" vr="UN">{numbered}</DicomAttribute>'

    def item(uid: str, reason: int | None = None) -> str:
        found = attribute("00081155", f'<Value number="#">{uid}</Value>')
        if reason is not None:
            found += attribute("00081197", f'<Value number="#">{reason}</Value>')
        return f'<Item number="#">{found}</Item>'

    return (
        '<?xml version="1.0"?>'
        '<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">'
        + attribute("00081199", *map(item, stored))
        + attribute("00081198", *(item(*one) for one in (failed or {}).items()))
        + "</NativeDicomModel>"
    ).encode()


class TestThingsThatGoWrong:
    def test_nobody_listening_is_tried_later(self) -> None:
        with pytest.raises(RetryLater):
            destination_at(f"http://{LOOPBACK}:{closed_port()}").deliver([make_picture()])

    def test_no_answer_is_tried_later(self) -> None:
        with ScriptedFhir(hangs=True) as server, pytest.raises(RetryLater) as told:
            destination_at(server.url, timeout_s=PATIENCE_S).deliver([make_picture()])

        assert told.value.code == "no_answer"

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_a_server_in_trouble_is_tried_later(self, status: int) -> None:
        reply = Reply(status=status, headers={"Retry-After": "7"})
        with ScriptedFhir(reply) as server, pytest.raises(RetryLater) as told:
            destination_at(server.url).deliver([make_picture()])

        assert told.value.after_s == 7.0

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415])
    def test_a_refused_request_needs_a_person(self, status: int) -> None:
        with ScriptedFhir(Reply(status=status)) as server, pytest.raises(NeedsReview):
            destination_at(server.url).deliver([make_picture()])

    def test_an_object_that_finds_no_room_is_tried_later(self) -> None:
        kept, lost = make_picture("kept"), make_picture("lost")
        reply = said(202, failed={lost.uid: 0xA700}, stored=[kept.uid])
        with ScriptedFhir(reply) as server, pytest.raises(DeliveryPostponed) as told:
            destination_at(server.url).deliver([kept, lost])

        assert told.value.receipt == Receipt(accepted=(kept.uid,))
        assert [(one.uid, one.status) for one in told.value.refused] == [(lost.uid, "0xA700")]

    @pytest.mark.parametrize("status", [200, 202, 409])
    def test_an_object_that_is_not_understood_needs_a_person(self, status: int) -> None:
        picture = make_picture()
        reply = said(status, failed={picture.uid: 0xC122})
        with ScriptedFhir(reply) as server, pytest.raises(DeliveryRefused) as told:
            destination_at(server.url).deliver([picture])

        assert "0xC122" in told.value.message

    def test_an_object_that_is_not_mentioned_is_sent_again(self) -> None:
        kept, forgotten = make_picture("kept"), make_picture("forgotten")
        reply = said(202, stored=[kept.uid])
        with ScriptedFhir(reply) as server, pytest.raises(DeliveryPostponed) as told:
            destination_at(server.url).deliver([kept, forgotten])

        assert told.value.receipt.accepted == (kept.uid,)

    @pytest.mark.parametrize("status", [405, 501])
    def test_a_server_without_stow_is_told_as_such(self, status: int) -> None:
        with ScriptedFhir(Reply(status=status)) as server, pytest.raises(NeedsReview) as told:
            destination_at(server.url).deliver([make_picture()])

        assert told.value.code == "wrong_address"
        assert "STOW-RS" in told.value.message

    @pytest.mark.parametrize("status", [200, 202, 409])
    @pytest.mark.parametrize(
        "content",
        [
            b"<html>log in</html>",
            b"OK",
            b"null",
            b"[]",
            b"[{}, {}]",
            b"\xff\xfe",
            b"[" * 100_000,
            b"<a>" * 10_000 + b"</a>" * 10_000,
            b"<!DOCTYPE a><NativeDicomModel/>",
            b"<NativeDicomModel>",
        ],
    )
    def test_an_answer_that_is_not_dicom_is_no_success(self, status: int, content: bytes) -> None:
        with (
            TcpPeer(http_answer(status, content)) as peer,
            pytest.raises(DeliveryPostponed) as told,
        ):
            destination_at(f"http://{LOOPBACK}:{peer.port}").deliver([make_picture()])

        assert told.value.code == "answer_not_understood"

    def test_complete_success_that_names_some_is_not_complete(self) -> None:
        kept, forgotten = make_picture("kept"), make_picture("forgotten")
        with (
            ScriptedFhir(said(200, stored=[kept.uid])) as server,
            pytest.raises(DeliveryPostponed) as told,
        ):
            destination_at(server.url).deliver([kept, forgotten])

        assert told.value.receipt.accepted == (kept.uid,)
        assert [one.uid for one in told.value.refused] == [forgotten.uid]

    @pytest.mark.parametrize(
        ("reason", "status"),
        [
            ("A700", "0xA700"),
            ("0xA700", "0xA700"),
            ("0110H", "0x0110"),
            ("272", "0x0110"),
            (272.0, "0x0110"),
            ("42752", "0xA700"),
            (None, "0x0110"),
            (True, "0x0110"),
            ("full", "0x0110"),
            (-1, "0x0110"),
            ([], "0x0110"),
        ],
    )
    def test_a_failure_reason_may_be_text(self, reason: object, status: str) -> None:
        picture = make_picture()
        reply = said(202, failed={picture.uid: reason})
        with ScriptedFhir(reply) as server, pytest.raises(DeliveryPostponed) as told:
            destination_at(server.url).deliver([picture])

        assert told.value.refused[0].status == status

    def test_failures_in_xml_are_read(self) -> None:
        kept, lost = make_picture("kept"), make_picture("lost")
        content = native_model(stored=[kept.uid], failed={lost.uid: 0xA700})
        with (
            TcpPeer(http_answer(202, content, media_type="application/dicom+xml")) as peer,
            pytest.raises(DeliveryPostponed) as told,
        ):
            destination_at(f"http://{LOOPBACK}:{peer.port}").deliver([kept, lost])

        assert told.value.receipt.accepted == (kept.uid,)
        assert [(one.uid, one.status) for one in told.value.refused] == [(lost.uid, "0xA700")]

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"00081198": "nonsense"},
            {"00081198": {"Value": ["x"]}},
            {"00081198": {"Value": [{"00081155": {"Value": []}}]}},
        ],
    )
    def test_a_partial_success_that_says_nothing_is_tried_later(self, body: dict[str, Any]) -> None:
        with ScriptedFhir(Reply(status=202, body=body)) as server, pytest.raises(RetryLater):
            destination_at(server.url).deliver([make_picture()])


class TestWhatIsSent:
    def test_every_object_as_a_part_of_its_own(self) -> None:
        results = [make_picture("a"), make_picture("b")]
        with ScriptedFhir(Reply(status=200)) as server:
            receipt = destination_at(f"{server.url}/").deliver([*results, make_bundle()])

        request = server.requests[0]
        parts = _parts(request.headers["content-type"], request.body)
        assert (request.method, request.path) == ("POST", "/fhir/studies")
        assert request.headers["accept"] == "application/dicom+json"
        assert [one.get_content_type() for one in parts] == ["application/dicom"] * 2
        assert [one.get_payload(decode=True) for one in parts] == [one.content for one in results]
        assert receipt == Receipt(accepted=tuple(one.uid for one in results))

    def test_the_length_is_told_beforehand(self) -> None:
        with ScriptedFhir(Reply(status=200)) as server:
            destination_at(server.url).deliver([make_picture(side=256)])

        request = server.requests[0]
        assert int(request.headers["content-length"]) == len(request.body)
        assert "transfer-encoding" not in request.headers

    def test_a_warning_is_success_with_a_note(self) -> None:
        picture = make_picture()
        item = {**_item(picture.uid), "00081196": {"vr": "US", "Value": [0xB000]}}
        body = {"00081199": {"vr": "SQ", "Value": [item]}}
        with ScriptedFhir(Reply(status=202, body=body)) as server:
            receipt = destination_at(server.url).deliver([picture])

        assert receipt.accepted == (picture.uid,)
        assert "0xB000" in receipt.warnings[0]

    def test_success_in_xml_is_read(self) -> None:
        pictures = [make_picture("a"), make_picture("b")]
        content = native_model(stored=[one.uid for one in pictures])
        with TcpPeer(http_answer(200, content, media_type="application/dicom+xml")) as peer:
            receipt = destination_at(f"http://{LOOPBACK}:{peer.port}").deliver(pictures)

        assert receipt.accepted == tuple(one.uid for one in pictures)

    def test_nothing_wanted_asks_nothing(self) -> None:
        assert destination_at("http://localhost:1").deliver([make_bundle()]) == Receipt()


class TestCheck:
    def test_it_searches_for_nothing(self) -> None:
        with ScriptedFhir(Reply(status=204)) as server:
            assert "answers" in destination_at(server.url).check()

        assert server.requests[0].path.startswith("/fhir/studies?StudyInstanceUID=2.25.")

    def test_a_refusal_is_told(self) -> None:
        with ScriptedFhir(Reply(status=400)) as server, pytest.raises(NeedsReview):
            destination_at(server.url).check()


def _parts(content_type: str, body: bytes) -> list[Message]:
    head = f"Content-Type: {content_type}\r\nMIME-Version: 1.0\r\n\r\n".encode("ascii")
    # The parser of the standard library knows binary parts only when they say so.
    marked = body.replace(
        b"Content-Type: application/dicom\r\n",
        b"Content-Type: application/dicom\r\nContent-Transfer-Encoding: binary\r\n",
    )
    return cast(list[Message], BytesParser().parsebytes(head + marked).get_payload())

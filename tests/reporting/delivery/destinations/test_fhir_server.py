"""Transactions to a FHIR endpoint that behaves, refuses, hangs or talks nonsense."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from listener.demo.mock_servers import LOOPBACK, Reply, StandInFhir
from pipeline.errors import Defect, NeedsReview, RetryLater
from reporting.delivery import DeliveryPostponed, DeliveryRefused, Receipt
from reporting.delivery.destinations.fhir_attachments import Placement
from reporting.delivery.destinations.fhir_server import FhirDestination
from reporting.delivery.transport.tls import TlsFiles, server_context
from reporting.results import Result, ResultKind
from tests.acceptance.standins import (
    ScriptedFhir,
    Serve,
    TcpPeer,
    closed_port,
    hangs_up,
    http_answer,
    says_nothing,
)
from tests.certificates import make_authority
from tests.reporting.delivery.labelled import (
    make_bundle,
    make_illustrated_bundle,
    make_picture,
)

PATIENCE_S = 0.3
"""Long enough for loopback, short enough for a test of what never answers."""
NAME = "Featherstonehaugh"


def destination_at(url: str, **changed: Any) -> FhirDestination:
    return FhirDestination(**{"name": "ehr", "url": url, **changed})


def outcome(status: int, *issues: dict[str, Any], **headers: str) -> Reply:
    body = {"resourceType": "OperationOutcome", "issue": list(issues)}
    return Reply(
        status=status,
        body=body,
        headers={key.replace("_", "-"): value for key, value in headers.items()},
    )


def bundle_of(*statuses: str | None) -> Reply:
    """A transaction-response with these statuses; None is an entry without a response."""
    entries = [{"response": {"status": one}} if one is not None else {} for one in statuses]
    body = {"resourceType": "Bundle", "type": "transaction-response", "entry": entries}
    return Reply(status=200, body=body)


def xml_bundle(*statuses: str) -> bytes:
    """The same in XML, each entry with an outcome that holds a remark."""
    remark = (
        '<outcome><OperationOutcome><issue><severity value="information"/>'
        '<code value="informational"/></issue></OperationOutcome></outcome>'
    )
    entries = "".join(
        f'<entry><response><status value="{status}"/>{remark}</response></entry>'
        for status in statuses
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><Bundle xmlns="http://hl7.org/fhir">'
        f'<type value="transaction-response"/>{entries}</Bundle>'
    ).encode()


@pytest.fixture
def server() -> Iterator[StandInFhir]:
    with StandInFhir() as endpoint:
        yield endpoint


class TestThingsThatGoWrong:
    def test_a_bundle_without_the_label_is_never_sent(self) -> None:
        good = make_bundle()
        bad = Result(
            kind=ResultKind.FHIR_BUNDLE,
            name=good.name,
            media_type=good.media_type,
            uid=good.uid,
            content=b'{"resourceType": "Bundle", "entry": []}',
        )

        with ScriptedFhir() as server, pytest.raises(Defect):
            destination_at(server.url).deliver([good, bad])

        assert server.requests == []

    def test_nobody_listening_is_tried_later(self) -> None:
        with pytest.raises(RetryLater) as told:
            destination_at(f"http://{LOOPBACK}:{closed_port()}").deliver([make_bundle()])

        assert told.value.code == "peer_unreachable"

    def test_no_answer_is_tried_later(self) -> None:
        with ScriptedFhir(hangs=True) as server, pytest.raises(RetryLater) as told:
            destination_at(server.url, timeout_s=PATIENCE_S).deliver([make_bundle()])

        assert told.value.code == "no_answer"

    @pytest.mark.parametrize("serve", [says_nothing, hangs_up])
    def test_a_peer_that_is_not_http_is_tried_later(self, serve: Serve) -> None:
        with TcpPeer(serve) as peer, pytest.raises(RetryLater):
            destination_at(f"http://{LOOPBACK}:{peer.port}", timeout_s=PATIENCE_S).deliver(
                [make_bundle()]
            )

    def test_a_connection_that_closes_without_an_answer_is_tried_later(self) -> None:
        with ScriptedFhir(None) as server, pytest.raises(RetryLater):
            destination_at(server.url).deliver([make_bundle()])

    def test_an_answer_that_is_not_fhir_is_tried_later(self) -> None:
        with (
            ScriptedFhir(Reply(status=200, body={"login": "please"})) as server,
            pytest.raises(RetryLater) as told,
        ):
            destination_at(server.url).deliver([make_bundle()])

        assert told.value.code == "answer_not_understood"

    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
    def test_a_server_in_trouble_is_tried_later(self, status: int) -> None:
        with ScriptedFhir(outcome(status)) as server, pytest.raises(RetryLater) as told:
            destination_at(server.url).deliver([make_bundle()])

        assert told.value.code == f"http_{status}"

    @pytest.mark.parametrize("status", [429, 503])
    @pytest.mark.parametrize(
        ("said", "after_s"),
        [("120", 120.0), ("999999999", 86_400.0), ("soon", None), ("-5", None), ("", None)],
    )
    def test_retry_after_is_obeyed(self, status: int, said: str, after_s: float | None) -> None:
        with (
            ScriptedFhir(outcome(status, Retry_After=said)) as server,
            pytest.raises(RetryLater) as told,
        ):
            destination_at(server.url).deliver([make_bundle()])

        assert told.value.after_s == after_s

    def test_retry_after_may_be_a_date_of_the_servers_own_clock(self) -> None:
        reply = outcome(
            503,
            Retry_After="Wed, 21 Oct 2015 07:30:00 GMT",
            Date="Wed, 21 Oct 2015 07:28:00 GMT",
        )
        with ScriptedFhir(reply) as server, pytest.raises(RetryLater) as told:
            destination_at(server.url).deliver([make_bundle()])

        assert told.value.after_s == 120.0

    def test_a_conflict_is_tried_later(self) -> None:
        with ScriptedFhir(outcome(409)) as server, pytest.raises(RetryLater) as told:
            destination_at(server.url).deliver([make_bundle()])

        assert told.value.code == "fhir_conflict"

    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (400, "http_400"),
            (401, "credentials_refused"),
            (403, "credentials_refused"),
            (404, "wrong_address"),
            (301, "wrong_address"),
            (412, "fhir_precondition"),
            (413, "http_413"),
            (422, "fhir_unprocessable"),
        ],
    )
    def test_a_refusal_needs_a_person(self, status: int, code: str) -> None:
        with ScriptedFhir(outcome(status)) as server, pytest.raises(NeedsReview) as told:
            destination_at(server.url).deliver([make_bundle()])

        assert told.value.code == code

    def test_a_refusal_tells_codes_and_places_and_no_patient(self) -> None:
        issue = {
            "severity": "error",
            "code": "invariant",
            "diagnostics": f"The name {NAME} is not allowed",
            "details": {"text": NAME},
            "expression": [f"Bundle.entry[0].resource.note where name='{NAME}'"],
        }
        with ScriptedFhir(outcome(422, issue)) as server, pytest.raises(DeliveryRefused) as told:
            destination_at(server.url).deliver([make_bundle()])

        assert told.value.refused[0].reason == "error invariant at Bundle.entry[0].resource.note"
        assert "invariant" in told.value.message
        assert NAME not in f"{told.value.message} {told.value.refused}"

    def test_a_code_that_is_none_is_not_repeated(self) -> None:
        issue = {"severity": NAME, "code": f"{NAME} Jane", "location": [NAME]}
        with ScriptedFhir(outcome(422, issue)) as server, pytest.raises(DeliveryRefused) as told:
            destination_at(server.url).deliver([make_bundle()])

        assert "Jane" not in told.value.message
        assert told.value.refused[0].uid == make_bundle().uid

    @pytest.mark.parametrize(
        "issue",
        [
            {"severity": "error", "code": "kunigunde"},
            {"severity": "kunigunde", "code": "invalid"},
            {"code": "invalid", "expression": ["Kunigunde"]},
            {"code": "invalid", "expression": ["Kunigunde.kunigunde[0].name"]},
            {"code": "invalid", "expression": ["Bundle.entry[0].kunigunde"]},
            {"code": "invalid", "location": ["Observation.code.kunigunde"]},
        ],
    )
    def test_a_name_that_looks_like_a_code_or_an_element_is_not_repeated(
        self, issue: dict[str, Any]
    ) -> None:
        with ScriptedFhir(outcome(422, issue)) as server, pytest.raises(DeliveryRefused) as told:
            destination_at(server.url).deliver([make_bundle()])

        assert "kunigunde" not in f"{told.value.message} {told.value.refused}".lower()

    def test_a_server_that_takes_only_part_needs_a_person(self) -> None:
        entries = [{"response": {"status": "201 Created"}}, {"response": {"status": "400"}}]
        partly = {"resourceType": "Bundle", "type": "batch-response", "entry": entries}
        with (
            ScriptedFhir(Reply(status=200, body=partly)) as server,
            pytest.raises(DeliveryRefused) as told,
        ):
            destination_at(server.url).deliver([make_bundle()])

        assert told.value.code == "fhir_partly_taken"

    @pytest.mark.parametrize("severity", ["error", "fatal"])
    @pytest.mark.parametrize("status", [200, 201])
    def test_success_with_an_error_is_a_refusal(self, status: int, severity: str) -> None:
        reply = outcome(status, {"severity": severity, "code": "invalid"})
        with ScriptedFhir(reply) as server, pytest.raises(DeliveryRefused) as told:
            destination_at(server.url).deliver([make_bundle()])

        assert told.value.code == "fhir_error_outcome"
        assert f"{severity} invalid" in told.value.message
        assert told.value.receipt == Receipt()

    @pytest.mark.parametrize(
        "code",
        ["transient", "lock-error", "no-store", "exception", "timeout", "incomplete", "throttled"],
    )
    def test_success_with_an_error_that_may_pass_is_tried_later(self, code: str) -> None:
        reply = outcome(200, {"severity": "error", "code": code})
        with ScriptedFhir(reply) as server, pytest.raises(DeliveryPostponed) as told:
            destination_at(server.url).deliver([make_bundle()])

        assert told.value.code == "fhir_error_outcome"

    def test_one_lasting_error_among_passing_ones_is_a_refusal(self) -> None:
        reply = outcome(
            200, {"severity": "error", "code": "timeout"}, {"severity": "error", "code": "value"}
        )
        with ScriptedFhir(reply) as server, pytest.raises(DeliveryRefused):
            destination_at(server.url).deliver([make_bundle()])

    def test_an_error_in_an_entrys_outcome_is_a_refusal(self) -> None:
        reply = bundle_of("201 Created", "201 Created")
        issue = {"severity": "error", "code": "invariant", "expression": ["Observation.note"]}
        reply.body["entry"][1]["response"]["outcome"] = {
            "resourceType": "OperationOutcome",
            "issue": [issue],
        }
        with ScriptedFhir(reply) as server, pytest.raises(DeliveryRefused) as told:
            destination_at(server.url).deliver([make_bundle()])

        assert told.value.code == "fhir_error_outcome"
        assert "error invariant at Observation.note" in told.value.message

    @pytest.mark.parametrize(
        "statuses",
        [(), ("201",), ("201", ""), ("201", "Created"), ("201", None), ("201", "404 Not Found")],
    )
    def test_every_entry_needs_an_answer_of_its_own(self, statuses: tuple[str | None, ...]) -> None:
        with (
            ScriptedFhir(bundle_of(*statuses)) as server,
            pytest.raises(DeliveryRefused) as told,
        ):
            destination_at(server.url).deliver([make_bundle()])

        assert told.value.code == "fhir_partly_taken"

    def test_the_reasons_of_refused_entries_are_told(self) -> None:
        reply = bundle_of("201", "422 Unprocessable")
        issue = {"severity": "error", "code": "too-long", "diagnostics": NAME}
        reply.body["entry"][1]["response"]["outcome"] = {
            "resourceType": "OperationOutcome",
            "issue": [issue],
        }
        with ScriptedFhir(reply) as server, pytest.raises(DeliveryRefused) as told:
            destination_at(server.url).deliver([make_bundle()])

        assert "422" in told.value.message
        assert "error too-long" in told.value.message
        assert NAME not in told.value.message

    @pytest.mark.parametrize(
        "body",
        [
            {"resourceType": "Bundle", "type": "transaction-response", "entry": None},
            {"resourceType": "Bundle", "type": "transaction-response", "entry": "two"},
            {"resourceType": "Bundle", "entry": [None, 7]},
            {"resourceType": "Bundle", "entry": [{"resource": {}}, {"resource": {}}]},
            {"resourceType": "Bundle", "entry": [{"response": "201"}, {"response": []}]},
        ],
    )
    def test_a_bundle_of_another_shape_is_no_success(self, body: dict[str, Any]) -> None:
        with (
            ScriptedFhir(Reply(status=200, body=body)) as server,
            pytest.raises(DeliveryRefused) as told,
        ):
            destination_at(server.url).deliver([make_bundle()])

        assert told.value.code == "fhir_partly_taken"

    def test_our_own_bundle_sent_back_is_no_success(self) -> None:
        echo = Reply(status=200, body=json.loads(make_bundle().content))
        with ScriptedFhir(echo) as server, pytest.raises(DeliveryRefused):
            destination_at(server.url).deliver([make_bundle()])

    @pytest.mark.parametrize("body", [{}, {"resourceType": "OperationOutcome", "issue": []}])
    def test_queued_is_not_delivered(self, body: dict[str, Any]) -> None:
        with (
            ScriptedFhir(Reply(status=202, body=body)) as server,
            pytest.raises(DeliveryPostponed) as told,
        ):
            destination_at(server.url).deliver([make_bundle()])

        assert told.value.code == "http_202"

    @pytest.mark.parametrize(
        "content",
        [
            b"<html><body>log in</body></html>",
            b"null",
            b"[]",
            b'"fine"',
            b"\xff\xfe\x00",
            b"[" * 100_000,
            b"<" * 10_000,
            b"<a>" * 50_000,
            b'<!DOCTYPE a [<!ENTITY b "c">]><Bundle xmlns="http://hl7.org/fhir"/>',
            '<?xml version="1.0" encoding="utf-16"?><Bundle/>'.encode("utf-16-le"),
        ],
    )
    def test_success_with_content_that_is_not_fhir_is_tried_later(self, content: bytes) -> None:
        with (
            TcpPeer(http_answer(200, content)) as peer,
            pytest.raises(DeliveryPostponed) as told,
        ):
            destination_at(f"http://{LOOPBACK}:{peer.port}").deliver([make_bundle()])

        assert told.value.code == "answer_not_understood"

    def test_a_conflict_that_never_passes_has_a_code_of_its_own(self) -> None:
        with ScriptedFhir(outcome(409)) as server, pytest.raises(DeliveryPostponed) as told:
            destination_at(server.url).deliver([make_bundle()])

        assert told.value.parked_as == "fhir_conflict_persists"
        assert "expunged" in told.value.message

    def test_what_was_taken_before_the_trouble_is_in_the_receipt(self) -> None:
        taken, left = make_bundle("one"), make_bundle("two")
        fine = bundle_of("201 Created", "201 Created")
        with ScriptedFhir(fine, outcome(500)) as server, pytest.raises(DeliveryPostponed) as told:
            destination_at(server.url).deliver([taken, left])

        assert told.value.receipt == Receipt(accepted=(taken.uid,))


class TestWhatIsSent:
    def test_every_resource_is_kept(self, server: StandInFhir) -> None:
        bundle = make_bundle(ids=("a", "b", "c"))

        receipt = destination_at(server.url).deliver([bundle, make_picture()])

        assert receipt == Receipt(accepted=(bundle.uid,))
        assert set(server.versions) == {"Observation/a", "Observation/b", "Observation/c"}

    def test_sending_twice_changes_nothing(self, server: StandInFhir) -> None:
        destination = destination_at(f"{server.url}/")

        destination.deliver([make_bundle()])
        destination.deliver([make_bundle()])

        assert {len(versions) for versions in server.versions.values()} == {1}

    def test_the_request_says_what_it_is(self) -> None:
        with ScriptedFhir() as server:
            destination_at(server.url, headers={"X-Site": "north"}).deliver([make_bundle()])

        sent = server.requests[0]
        assert (sent.method, sent.path) == ("POST", "/fhir")
        assert sent.headers["content-type"] == "application/fhir+json"
        assert sent.headers["x-site"] == "north"
        assert sent.body == make_bundle().content

    def test_a_success_without_a_body_is_a_success(self) -> None:
        fine = Reply(status=200, body={"resourceType": "OperationOutcome", "issue": []})
        with ScriptedFhir(fine) as server:
            receipt = destination_at(server.url).deliver([make_bundle()])

        assert receipt.accepted == (make_bundle().uid,)

    @pytest.mark.parametrize("status", [200, 201, 204])
    def test_a_success_without_content_is_a_success(self, status: int) -> None:
        """`Prefer: return=minimal` asks for as much."""
        with TcpPeer(http_answer(status)) as peer:
            receipt = destination_at(f"http://{LOOPBACK}:{peer.port}").deliver([make_bundle()])

        assert receipt.accepted == (make_bundle().uid,)

    @pytest.mark.parametrize("status", ["200 OK", "201 Created", "200", "304 Not Modified", "204"])
    def test_every_status_of_success_counts(self, status: str) -> None:
        with ScriptedFhir(bundle_of(status, status)) as server:
            receipt = destination_at(server.url).deliver([make_bundle()])

        assert receipt.accepted == (make_bundle().uid,)

    @pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
    def test_an_answer_in_xml_is_read(self, mark: bytes) -> None:
        content = mark + xml_bundle("201 Created", "200 OK")
        with TcpPeer(http_answer(200, content, media_type="application/fhir+xml")) as peer:
            receipt = destination_at(f"http://{LOOPBACK}:{peer.port}").deliver([make_bundle()])

        assert receipt.accepted == (make_bundle().uid,)

    @pytest.mark.parametrize("statuses", [(), ("201",), ("201", "422")])
    def test_a_refusal_in_xml_is_read(self, statuses: tuple[str, ...]) -> None:
        with (
            TcpPeer(http_answer(200, xml_bundle(*statuses))) as peer,
            pytest.raises(DeliveryRefused) as told,
        ):
            destination_at(f"http://{LOOPBACK}:{peer.port}").deliver([make_bundle()])

        assert told.value.code == "fhir_partly_taken"

    def test_an_error_in_xml_is_read(self) -> None:
        content = (
            b'<OperationOutcome xmlns="http://hl7.org/fhir"><issue><severity value="error"/>'
            b'<code value="invalid"/><expression value="Bundle.entry[0]"/></issue>'
            b"</OperationOutcome>"
        )
        with (
            TcpPeer(http_answer(422, content)) as peer,
            pytest.raises(DeliveryRefused) as told,
        ):
            destination_at(f"http://{LOOPBACK}:{peer.port}").deliver([make_bundle()])

        assert told.value.refused[0].reason == "error invalid at Bundle.entry[0]"

    def test_an_answer_in_json_may_begin_with_a_byte_order_mark(self) -> None:
        content = json.dumps(bundle_of("201", "201").body).encode("utf-8-sig")
        with TcpPeer(http_answer(200, content)) as peer:
            receipt = destination_at(f"http://{LOOPBACK}:{peer.port}").deliver([make_bundle()])

        assert receipt.accepted == (make_bundle().uid,)

    def test_remarks_of_the_server_are_kept_for_the_audit(self) -> None:
        fine = outcome(200, {"severity": "information", "code": "informational"})
        with ScriptedFhir(fine) as server:
            receipt = destination_at(server.url).deliver([make_bundle()])

        assert receipt.warnings == ("information informational",)


class TestPictures:
    """Posted as large as a real smear makes them: a gallery of more than 4 MB."""

    def test_a_binary_goes_before_the_bundle_that_names_it(self) -> None:
        report = make_illustrated_bundle(side=1600)
        created = Reply(status=201)
        with ScriptedFhir(created, created) as server:
            receipt = destination_at(server.url, attachments=Placement.BINARY).deliver([report])

        first, second, bundle = server.requests
        posted = json.loads(bundle.body)
        urls = [
            posted["entry"][0]["resource"]["content"]["url"],
            posted["entry"][1]["resource"]["presentedForm"][0]["url"],
        ]
        assert receipt.accepted == (report.uid,)
        assert [(one.method, one.path) for one in (first, second)] == [
            ("PUT", f"/fhir/{url}") for url in urls
        ]
        assert [one.headers["content-type"] for one in (first, second)] == [
            "image/png",
            "application/pdf",
        ]
        assert len(first.body) > 4_000_000
        assert first.body.startswith(b"\x89PNG")

    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (202, "fhir_binary_refused"),
            (400, "fhir_binary_refused"),
            (403, "credentials_refused"),
            (404, "wrong_address"),
            (405, "wrong_address"),
            (409, "fhir_conflict"),
            (413, "fhir_binary_refused"),
            (415, "fhir_binary_refused"),
            (422, "fhir_binary_refused"),
            (503, "http_503"),
        ],
    )
    def test_a_binary_that_is_not_taken_keeps_the_bundle_back(self, status: int, code: str) -> None:
        with (
            ScriptedFhir(outcome(status)) as server,
            pytest.raises((DeliveryPostponed, DeliveryRefused)) as told,
        ):
            destination_at(server.url, attachments=Placement.BINARY).deliver(
                [make_illustrated_bundle(side=64)]
            )

        assert told.value.code == code
        assert [one.method for one in server.requests] == ["PUT"]

    @pytest.mark.parametrize("placement", [Placement.INLINE, Placement.LINKS])
    def test_no_string_is_longer_than_a_server_takes(self, placement: Placement) -> None:
        report = make_illustrated_bundle(side=1600)
        with ScriptedFhir() as server:
            receipt = destination_at(server.url, attachments=placement).deliver([report])

        (request,) = server.requests
        media = json.loads(request.body)["entry"][0]["resource"]
        assert receipt.accepted == (report.uid,)
        assert len(request.body) < 1_200_000
        assert ("data" in media["content"]) == (placement is Placement.INLINE)
        assert any("picture" in remark for remark in receipt.warnings)


class TestCheck:
    def test_it_tells_version_and_transactions(self, server: StandInFhir) -> None:
        assert destination_at(server.url).check() == "FHIR 4.0.1, takes transactions"

    def test_a_server_that_is_not_fhir_needs_a_person(self) -> None:
        with ScriptedFhir(Reply(status=200, body={})) as server, pytest.raises(NeedsReview):
            destination_at(server.url).check()


class TlsFhir(ScriptedFhir):
    """The same endpoint behind HTTPS; a client without a certificate of our CA is turned away."""

    def __init__(self, files: TlsFiles) -> None:
        super().__init__()
        self._context = server_context(files, require_client_certificate=True)

    def __enter__(self) -> Self:
        entered = super().__enter__()
        plain = self._server.socket
        self._server.socket = self._context.wrap_socket(
            plain, server_side=True, do_handshake_on_connect=False
        )
        return entered

    @property
    def url(self) -> str:
        return super().url.replace("http://", "https://")


class TestMutualTls:
    def test_without_our_certificate_nothing_is_taken(self, tmp_path: Path) -> None:
        authority = make_authority(tmp_path)
        with TlsFhir(authority.issue("ehr")) as server:
            tls = TlsFiles(ca_certificates=authority.ca_certificates)

            with pytest.raises(RetryLater):
                destination_at(server.url, tls=tls).deliver([make_bundle()])

        assert server.requests == []

    def test_a_server_of_another_authority_gets_nothing(self, tmp_path: Path) -> None:
        authority = make_authority(tmp_path)
        stranger = make_authority(tmp_path / "stranger")
        with TlsFhir(stranger.issue("ehr")) as server, pytest.raises(RetryLater) as told:
            destination_at(server.url, tls=authority.issue("smearlink")).deliver([make_bundle()])

        assert told.value.code == "tls_failed"
        assert server.requests == []

    def test_with_our_certificate_it_is_delivered(self, tmp_path: Path) -> None:
        authority = make_authority(tmp_path)
        with TlsFhir(authority.issue("ehr")) as server:
            receipt = destination_at(server.url, tls=authority.issue("smearlink")).deliver(
                [make_bundle()]
            )

        assert receipt.accepted == (make_bundle().uid,)
        assert len(server.versions) > 0

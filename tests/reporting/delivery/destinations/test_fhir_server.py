"""Transactions to a FHIR endpoint that behaves, refuses, hangs or talks nonsense."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from listener.demo.mock_servers import LOOPBACK, Reply, StandInFhir
from pipeline.errors import Defect, NeedsReview, RetryLater
from reporting.delivery import DeliveryPostponed, DeliveryRefused, Receipt
from reporting.delivery.destinations.fhir_server import FhirDestination
from reporting.delivery.transport.tls import TlsFiles, server_context
from reporting.results import Result, ResultKind
from tests.acceptance.standins import ScriptedFhir, TcpPeer, closed_port, hangs_up, says_nothing
from tests.certificates import make_authority
from tests.reporting.delivery.labelled import make_bundle, make_picture

PATIENCE_S = 0.3
"""Long enough for loopback, short enough for a test of what never answers."""
NAME = "Featherstonehaugh"


def destination_at(url: str, **changed: object) -> FhirDestination:
    return FhirDestination(**{"name": "ehr", "url": url, **changed})


def outcome(status: int, *issues: dict[str, object], **headers: str) -> Reply:
    body = {"resourceType": "OperationOutcome", "issue": list(issues)}
    return Reply(
        status=status,
        body=body,
        headers={key.replace("_", "-"): value for key, value in headers.items()},
    )


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
    def test_a_peer_that_is_not_http_is_tried_later(self, serve: object) -> None:
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
        self, issue: dict[str, object]
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

    def test_what_was_taken_before_the_trouble_is_in_the_receipt(self) -> None:
        taken, left = make_bundle("one"), make_bundle("two")
        fine = Reply(status=200, body={"resourceType": "Bundle", "type": "transaction-response"})
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

    def test_remarks_of_the_server_are_kept_for_the_audit(self) -> None:
        fine = outcome(200, {"severity": "information", "code": "informational"})
        with ScriptedFhir(fine) as server:
            receipt = destination_at(server.url).deliver([make_bundle()])

        assert receipt.warnings == ("information informational",)


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

"""The stand-ins of the demonstration behave as the peers for which they stand."""

from __future__ import annotations

import io
import json
import socket
import struct
import threading
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from listener.demo.mock_servers import MockPacs, Reply, Request, StandInFhir
from listener.modality.store_scu import PeerAddress, send_images
from tests.builders import build_image
from tests.listener.peers import PATIENCE_S, close_sending

PATIENT = {"resourceType": "Patient", "id": "p1", "active": True}


def test_the_pacs_answers_an_echo(tmp_path: Path) -> None:
    entity = AE()
    entity.add_requested_context(Verification)

    with MockPacs(tmp_path) as pacs:
        association = entity.associate("127.0.0.1", pacs.port, ae_title=pacs.ae_title)
        status = association.send_c_echo().Status
        association.release()

    assert status == 0x0000


def test_the_pacs_keeps_what_it_gets_as_files_that_can_be_read(tmp_path: Path) -> None:
    image = build_image()

    with MockPacs(tmp_path) as pacs:
        (answer,) = send_images([image], _address(pacs))

    assert answer.is_stored
    assert [path.name for path in pacs.stored] == [f"{image.SOPInstanceUID}.dcm"]
    assert dcmread(pacs.stored[0]).PixelData == image.PixelData


def test_the_pacs_leaves_the_search_for_garbage_to_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pynetdicom's server has it done every 60 looks: with ours, every three seconds."""
    searches: list[str] = []
    monkeypatch.setattr("pynetdicom.transport.gc.collect", lambda: searches.append("all"))

    with MockPacs(tmp_path) as pacs:
        for _ in range(200):
            pacs._server.service_actions()

    assert searches == []


def test_the_pacs_takes_no_uid_that_is_a_path(tmp_path: Path) -> None:
    image = build_image()
    image.SOPInstanceUID = "1.2/../../x"

    with MockPacs(tmp_path / "pacs") as pacs:
        (answer,) = send_images([image], _address(pacs))

    assert not answer.is_stored
    assert list(tmp_path.rglob("*.*")) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"entry": [{"resource": {}}]}',
        b'{"entry": [{"resource": {"resourceType": "Patient", "id": "p1"}, '
        b'"request": {"method": "POST", "url": "Patient/p1"}}]}',
        b'{"entry": [{"resource": {"resourceType": "Patient", "id": "p2"}, '
        b'"request": {"method": "PUT", "url": "Patient/p1"}}]}',
    ],
)
def test_the_fhir_endpoint_refuses_what_is_no_transaction(body: bytes) -> None:
    with StandInFhir() as ehr:
        status, outcome = _ask(ehr, "POST", "", body)

        assert status == 400
        assert outcome["resourceType"] == "OperationOutcome"
        assert ehr.versions == {}


def test_the_fhir_endpoint_takes_nothing_of_a_client_that_breaks_off() -> None:
    asked: list[Request] = []

    class Noting(StandInFhir):
        def answer(self, request: Request) -> Reply | None:
            asked.append(request)
            return super().answer(request)

    with Noting() as endpoint:
        address = urlsplit(endpoint.url)
        with socket.create_connection((address.hostname, address.port), timeout=60) as client:
            client.sendall(b"POST /fhir HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
            close_sending(client)
            assert client.recv(100) == b""

    assert asked == []


def test_the_fhir_endpoint_keeps_a_version_only_when_it_is_new() -> None:
    changed = {**PATIENT, "active": False}

    with StandInFhir() as ehr:
        said = [_put(ehr, resource) for resource in (PATIENT, PATIENT, changed)]

        assert said == ["201 Created", "200 OK", "200 OK"]
        assert ehr.versions["Patient/p1"] == [PATIENT, changed]
        assert _ask(ehr, "GET", "/Patient/p1") == (200, changed)


def test_the_fhir_endpoint_says_what_it_is_and_what_it_has_not() -> None:
    with StandInFhir() as ehr:
        capability = _ask(ehr, "GET", "/metadata")
        missing = _ask(ehr, "GET", "/Patient/nobody")

    assert capability[1]["fhirVersion"] == "4.0.1"
    assert missing[0] == 404


def _address(pacs: MockPacs) -> PeerAddress:
    return PeerAddress(ae_title=pacs.ae_title, host="127.0.0.1", port=pacs.port)


def _put(ehr: StandInFhir, resource: dict[str, Any]) -> str:
    url = f"{resource['resourceType']}/{resource['id']}"
    entry = {"resource": resource, "request": {"method": "PUT", "url": url}}
    _, said = _ask(ehr, "POST", "", json.dumps({"entry": [entry]}).encode())
    return str(said["entry"][0]["response"]["status"])


def _ask(ehr: StandInFhir, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
    base = urlsplit(ehr.url)
    connection = HTTPConnection(str(base.hostname), base.port)
    connection.request(method, base.path + path, body)
    answer = connection.getresponse()
    said = json.load(io.BytesIO(answer.read()))
    connection.close()
    return answer.status, said


def test_a_client_that_is_killed_before_it_has_its_answer_is_no_news(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Operators who watch the demonstration's terminal would take a traceback for an error."""
    was_asked, is_gone = threading.Event(), threading.Event()

    class Slow(StandInFhir):
        def answer(self, request: Request) -> Reply | None:
            was_asked.set()
            assert is_gone.wait(PATIENCE_S)
            return super().answer(request)

    with Slow() as endpoint:
        address = urlsplit(endpoint.url)
        with socket.create_connection((address.hostname, address.port)) as client:
            client.sendall(b"GET /fhir/metadata HTTP/1.1\r\nHost: x\r\n\r\n")
            assert was_asked.wait(PATIENCE_S)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        is_gone.set()
        until = time.monotonic() + PATIENCE_S
        while any("process_request" in one.name for one in threading.enumerate()):
            assert time.monotonic() < until
            time.sleep(0.01)

    assert capsys.readouterr().err == ""

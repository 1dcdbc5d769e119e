"""Whatever bytes come from outside end in an answer or in an error that is promised."""

from __future__ import annotations

import http.client
import io
import socket
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import httpx
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from config.sections import WebSettings
from listener.dicom.associate_request import parse_request
from listener.dicom.dimse import decode_command
from listener.dicom.negotiation import accept
from listener.dicom.upper_layer import Pdu, PduType, ProtocolViolation, fragments
from listener.modality.secondary_capture import read_files
from listener.storage.dataset_scan import scan_dataset
from listener.storage.inbox import Inbox, InboxLimits
from listener.storage.part10 import split_header
from listener.web.server import WebServer
from listener.web.stow_rs import StowReader
from pipeline.decoding.frames import ImageLimits, read_frames
from pipeline.errors import Rejected, SmearlinkError
from reporting.audit.trail import Actor
from reporting.delivery.destinations.fhir_server import FhirDestination
from reporting.delivery.destinations.hl7_mllp import Hl7Destination
from reporting.delivery.destinations.stow_rs import StowDestination
from tests.acceptance.standins import TcpPeer
from tests.builders import build_image, dataset_bytes, every_kind, file_bytes
from tests.fakes import RecordingAudit
from tests.fuzz.changes import CASES, changed
from tests.listener.house import until
from tests.listener.peers import (
    PATIENCE_S,
    RawPeer,
    association_request,
    close_sending,
    listening,
    pdu,
    store_command,
)
from tests.reporting.delivery.labelled import make_bundle, make_message, make_picture

pytestmark = [
    pytest.mark.fuzz,
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of pydicom, which quotes what it reads
]

IMAGE = build_image()
REQUEST = association_request(SecondaryCaptureImageStorage)
LIMITS = ImageLimits(max_megapixels=1.0)
SLOW_CASES = max(80, CASES // 10)
"""For targets where each case is a connection that waits."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_association_requests() -> None:
    for data in changed("associate", REQUEST):
        with suppress(ProtocolViolation):
            accept(parse_request(data), max_pdu_bytes=16384)


def test_fragments_and_commands() -> None:
    command = store_command(IMAGE)
    for data in changed("fragments", pdu(command, is_command=True)[6:]):
        with suppress(ProtocolViolation):
            for fragment in fragments(Pdu(kind=PduType.DATA, body=memoryview(data))):
                decode_command(bytes(fragment.data))


def test_whole_conversations(tmp_path: Path) -> None:
    """A listener that heard any of these serves the next honest peer."""
    said = REQUEST + pdu(store_command(IMAGE), is_command=True) + pdu(dataset_bytes(IMAGE))
    audit = RecordingAudit()
    with listening(Inbox(tmp_path), audit, dimse_timeout_s=0.2, idle_timeout_s=0.2) as listener:
        for data in changed("conversation", said):
            with RawPeer(listener.port) as peer, suppress(ConnectionError):
                peer.say(data)
                peer.say_no_more()
                while peer.hear()[0]:
                    pass
        listener.check_accepting()
        until(lambda: _is_served(listener.port))
    assert "defect_met" not in audit.events
    assert list((tmp_path / "tmp").iterdir()) == []


def _is_served(port: int) -> bool:
    """False where this peer was set aside for longer than the listener waits."""
    with RawPeer(port) as peer, suppress(ConnectionError, AssertionError):
        peer.associate(SecondaryCaptureImageStorage)
        peer.store(IMAGE, data=dataset_bytes(IMAGE))
        return peer.hear_status() in (0x0000, 0xC011)
    return False


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_datasets(syntax: UID) -> None:
    image = build_image(transfer_syntax=syntax)
    for data in changed("dataset", dataset_bytes(image)):
        with suppress(Rejected):
            scan_dataset(io.BytesIO(data), start=0, length=len(data), transfer_syntax_uid=syntax)


def test_part_10_files() -> None:
    for data in changed("part10", file_bytes(IMAGE)):
        with suppress(Rejected):
            split_header(data, source="fuzz", is_all=True)


def test_deflated_images(tmp_path: Path) -> None:
    machine = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = machine.compress(dataset_bytes(IMAGE)) + machine.flush()
    inbox = Inbox(tmp_path, limits=InboxLimits(max_object_bytes=2**20))
    header = file_bytes(build_image(transfer_syntax=DeflatedExplicitVRLittleEndian))[:2000]
    split = split_header(header, source="fuzz", is_all=False)
    assert split is not None
    for data in changed("deflated", packed):
        with suppress(Rejected), inbox.receive(split[0]) as incoming:
            incoming.write(data)
            incoming.commit()


@pytest.mark.parametrize(("name", "image"), list(every_kind()), ids=[n for n, _ in every_kind()])
def test_pixel_data(name: str, image: object) -> None:
    """Of each transfer syntax and photometric interpretation; only the pixels are changed."""
    file = file_bytes(image)  # type: ignore[arg-type]
    at = max(file.rfind(b"\xe0\x7f\x10\x00"), 400)  # in a deflated one anywhere
    for data in list(changed(f"pixels/{name}", file[at + 12 :]))[: max(20, CASES // 5)]:
        with suppress(SmearlinkError, InvalidDicomError):
            try:
                dataset = dcmread(io.BytesIO(file[: at + 12] + data), force=True)
            except Exception:  # noqa: BLE001, S112 - the scan refuses what pydicom cannot read
                continue
            for frame in read_frames(dataset, limits=LIMITS):
                assert frame.pixels.dtype == np.uint8


def test_stow_requests() -> None:
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + file_bytes(IMAGE) + b"\r\n--b--\r\n"
    with TemporaryDirectory() as folder:
        inbox = Inbox(Path(folder))
        for data in changed("stow", body):
            reader = StowReader(
                b"b",
                inbox=inbox,
                on_received=lambda _: None,
                audit=RecordingAudit(),
                actor=Actor(host="127.0.0.1"),
            )
            with suppress(Rejected), reader:
                for start in range(0, len(data), 5000):
                    reader.feed(data[start : start + 5000])
                reader.finish()
        assert list((Path(folder) / "tmp").iterdir()) == []


def test_http_requests() -> None:
    app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("here"))])
    server = WebServer(WebSettings(port=0), app)
    server.start()
    get = b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n"
    post = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    post += b"5\r\nhello\r\n0\r\n\r\n"
    try:
        for data in changed("http", get, post):
            with (
                socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as peer,
                suppress(ConnectionError),
            ):
                peer.sendall(data)
                close_sending(peer)
                while peer.recv(4096):
                    pass
        assert httpx.get(f"http://127.0.0.1:{server.port}/").text == "here"
    finally:
        server.stop(0.0)


def test_answers_of_a_lis() -> None:
    message = make_message()
    control_id = message.content.split(b"|")[9]
    answer = b"\x0bMSH|^~\\&|LIS||||2026||ACK|1|P|2.5.1\rMSA|AA|" + control_id + b"\r\x1c\r"
    said = [b""]

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while b"\x1c\r" not in connection.recv(2**16):
                pass
            connection.sendall(said[0])

    with TcpPeer(serve) as peer:
        lis = Hl7Destination(name="lis", host="localhost", port=peer.port, timeout_s=1.0)
        for data in changed("hl7_answer", answer):
            said[0] = data
            with suppress(SmearlinkError):
                lis.deliver([message])


@pytest.mark.parametrize("kind", ["fhir", "stow"])
def test_answers_of_a_server(kind: str) -> None:
    bundle = (
        b'{"resourceType":"Bundle","type":"transaction-response","entry":'
        b'[{"response":{"status":"201 Created"}},{"response":{"status":"201"}}]}'
    )
    outcome = (
        b'<OperationOutcome xmlns="http://hl7.org/fhir"><issue><severity value="error"/>'
        b'<code value="invalid"/></issue></OperationOutcome>'
    )
    stored = b'{"00081199":{"vr":"SQ","Value":[{"00081155":{"vr":"UI","Value":["1.2.3"]}}]}}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    said = [b""]

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            request = http.client.parse_headers(_after_first_line(connection))
            connection.settimeout(0.05)
            with suppress(TimeoutError):
                while connection.recv(2**20):
                    pass
            connection.sendall(said[0])
            assert request is not None

    with TcpPeer(serve) as peer:
        url = f"http://127.0.0.1:{peer.port}"
        fhir = FhirDestination(name="ehr", url=url, timeout_s=1.0)
        archive = StowDestination(name="archive", url=url, timeout_s=1.0)
        seeds = [head + bundle, head + outcome] if kind == "fhir" else [head + stored]
        for data in list(changed(f"{kind}_answer", *seeds))[:SLOW_CASES]:
            said[0] = data
            with suppress(SmearlinkError):
                if kind == "fhir":
                    fhir.deliver([make_bundle()])
                else:
                    archive.deliver([make_picture()])


def _after_first_line(connection: socket.socket) -> io.BufferedReader:
    file = connection.makefile("rb")
    file.readline()
    return file


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_pictures_to_send(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (40, 48, 3), np.uint8)
    seed = cv2.imencode(suffix, pixels)[1].tobytes()
    path = tmp_path / f"picture{suffix}"
    for data in list(changed(f"picture{suffix}", seed))[: max(40, CASES // 4)]:
        path.write_bytes(data)
        for read in read_files([path], limits=LIMITS):
            assert (read.image is None) != (read.problem is None)

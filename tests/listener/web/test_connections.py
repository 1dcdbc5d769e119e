"""Who is silent, slow or too many keeps nobody else from the web port."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from config.sections import ServerTls, WebSettings
from listener.web.connections import WebLimits
from listener.web.server import WebServer
from tests.certificates import make_authority

PATIENCE_S = 60.0
HEAD = b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
BIG = b"x" * 2**24


async def _body(request: Request) -> Response:
    try:
        return PlainTextResponse(str(len(await request.body())))
    except ClientDisconnect:
        return Response(status_code=499)


APP = Starlette(
    routes=[
        Route("/healthz", lambda _: PlainTextResponse("ok")),
        Route("/big", lambda _: Response(BIG)),
        Route("/body", _body, methods=["POST"]),
    ]
)


@contextmanager
def serving(settings: WebSettings | None = None, **limits: float) -> Iterator[int]:
    server = WebServer(settings or WebSettings(port=0), APP, limits=WebLimits(**limits))  # type: ignore[arg-type]
    server.start()
    try:
        yield server.port
    finally:
        server.stop(0.0)


def connect(port: int, said: bytes = b"") -> socket.socket:
    """A connection that has said so much, or as much as the server has waited for."""
    peer = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    with suppress(ConnectionError):
        peer.sendall(said)
    return peer


def is_hung_up_on(peer: socket.socket) -> bool:
    """Waits for the other side to close."""
    try:
        while peer.recv(2**16):
            pass
    except ConnectionError:
        return True
    finally:
        peer.close()
    return True


def health(port: int) -> int:
    return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE_S).status_code


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX: "], ids=["silent", "half"])
def test_connections_without_a_request_make_room_for_a_probe(said: bytes) -> None:
    with serving(connections=8) as port:
        idle = [connect(port, said) for _ in range(100)]

        assert health(port) == 200
        for one in idle:
            one.close()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX: "], ids=["silent", "half"])
def test_a_head_that_does_not_come_is_waited_for_so_long_and_no_longer(said: bytes) -> None:
    with serving(head_s=0.1) as port:
        assert is_hung_up_on(connect(port, said))


def test_a_kept_connection_is_closed_also_when_the_next_head_drips() -> None:
    with serving(keep_alive_s=0.5) as port, connect(port) as peer:
        peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in peer.recv(4096)
        peer.sendall(b"GET /healthz HT")

        assert is_hung_up_on(peer)


def test_a_body_in_drips_is_cut_off() -> None:
    with serving(body_s=0.1, slowest_bytes_per_s=2**30) as port:
        assert is_hung_up_on(connect(port, HEAD + b"x"))


def test_a_response_that_nobody_takes_is_cut_off() -> None:
    with serving(response_s=0.1) as port, connect(port) as peer:
        peer.sendall(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n")
        ends = select.poll()
        ends.register(peer, select.POLLERR | select.POLLHUP)

        assert ends.poll(PATIENCE_S * 1000)


def test_one_body_too_many_is_answered_503_and_health_still_200() -> None:
    with serving(bodies=1, slowest_bytes_per_s=1) as port, connect(port, HEAD) as first:
        first.sendall(b"fast enough" * 1000)
        assert health(port) == 200  # and the first request is in progress
        answers = [_refusal(port) for _ in range(3)]

        assert all(b"Retry-After: 5".lower() in answer.lower() for answer in answers)
        assert health(port) == 200


def _refusal(port: int) -> bytes:
    with connect(port, HEAD + b"x") as another:
        return another.recv(4096)


def test_the_slowest_body_makes_room_for_another() -> None:
    with serving(bodies=1, slowest_bytes_per_s=2**30) as port, connect(port, HEAD + b"x") as slow:
        while True:
            with connect(port, HEAD + b"x") as another:
                ready, _, _ = select.select([slow, another], [], [], PATIENCE_S)
                if slow in ready:
                    break
                assert another.recv(4096).startswith(b"HTTP/1.1 503")

        assert is_hung_up_on(slow)


def test_no_requests_but_health_where_there_are_too_many() -> None:
    with serving(requests=0) as port:
        refused = httpx.get(f"http://127.0.0.1:{port}/big")

        assert refused.status_code == 503
        assert refused.json()["title"] == "too_many_requests"
        assert health(port) == 200


def test_half_a_tls_handshake_keeps_nobody_out(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    files = authority.issue("smearlink")
    tls = ServerTls(
        enabled=True,
        certificate=files.certificate,
        private_key=files.private_key,
        require_client_certificate=False,
    )
    context = ssl.create_default_context(cafile=authority.ca_certificates)
    context.check_hostname = False
    hello = bytes.fromhex("16030100c8010000c40303")
    with serving(WebSettings(port=0, tls=tls), connections=8, head_s=5.0) as port:
        halves = [connect(port, hello) for _ in range(50)]
        answer = httpx.get(f"https://127.0.0.1:{port}/healthz", verify=context, timeout=PATIENCE_S)

        assert answer.status_code == 200
        for one in halves:
            one.close()


class TestHost:
    @pytest.mark.parametrize("host", ["evil.example.org", "localhost.evil.org:8104", ""])
    def test_a_name_that_is_not_ours_is_misdirected(self, host: str) -> None:
        with serving() as port:
            answer = httpx.get(f"http://127.0.0.1:{port}/big", headers={"Host": host})

        assert answer.status_code == 421
        assert "web.allowed_hosts" in answer.json()["detail"]

    @pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8104", "127.0.0.1", "[::1]:8104"])
    def test_our_names_and_any_address_are_answered(self, host: str) -> None:
        with serving() as port:
            answer = httpx.get(f"http://127.0.0.1:{port}/healthz", headers={"Host": host})
            page = httpx.get(f"http://127.0.0.1:{port}/big", headers={"Host": host})

        assert (answer.status_code, page.status_code) == (200, 200)

    def test_a_name_that_the_site_adds(self) -> None:
        settings = WebSettings(port=0, allowed_hosts=("smears.example.org",))
        with serving(settings) as port:
            answer = httpx.get(
                f"http://127.0.0.1:{port}/big", headers={"Host": "smears.example.org"}
            )

        assert answer.status_code == 200

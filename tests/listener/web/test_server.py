"""The web server's socket: bound when started, guarded by token or certificate, let go of."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from config.sections import ServerTls, WebSettings
from listener.web import server as web_server
from listener.web.server import WebServer, read_token
from pipeline.errors import Rejected
from reporting.delivery.transport.tls import TlsFiles
from tests.certificates import Authority, make_authority
from tests.listener.house import until
from tests.listener.peers import PATIENCE_S

APP = Starlette(routes=[Route("/", lambda _request: PlainTextResponse("here"))])


@pytest.mark.parametrize("token", ["", "short", "\nsecond-line-is-long-enough", "x" * 15, "ü" * 20])
def test_a_token_that_can_be_guessed_stops_the_start(tmp_path: Path, token: str) -> None:
    path = tmp_path / "token"
    path.write_text(token, encoding="utf-8")

    with pytest.raises(Rejected, match="openssl rand -hex 32") as refusal:
        read_token(WebSettings(token_file=path))

    assert refusal.value.code == "web_token_unusable"
    assert not token or token not in refusal.value.message


def test_the_token_is_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("0123456789abcdef \nnot this\n")

    assert read_token(WebSettings(token_file=path)) == "0123456789abcdef"
    assert read_token(WebSettings()) is None


def test_a_port_that_is_taken_is_an_error_at_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = WebServer(WebSettings(port=taken.getsockname()[1]), APP)

        with pytest.raises(OSError, match="in use"):
            server.start()


def test_the_port_is_free_again_after_a_stop() -> None:
    with _serving(WebSettings(port=0)) as server:
        port = server.port
        assert httpx.get(f"http://127.0.0.1:{port}/").text == "here"

    socket.create_server(("127.0.0.1", port)).close()


def test_a_server_at_rest_answers_and_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "_RESTING_TICK_S", 86_400.0)
    with _serving(WebSettings(port=0)) as server:
        answers = [httpx.get(f"http://127.0.0.1:{server.port}/") for _ in range(3)]
        running, thread = server._server, server._thread
        assert running is not None and running.connections is not None and thread is not None
        connections = running.connections
        until(lambda: not connections.need_sweeps)
        server.stop(PATIENCE_S)

    assert [answer.text for answer in answers] == ["here"] * 3
    assert all(answer.headers["date"] for answer in answers)
    assert not thread.is_alive()


def test_stopping_what_was_never_started_is_no_error() -> None:
    server = WebServer(WebSettings(port=0), APP)

    server.stop(0.0)

    with pytest.raises(RuntimeError):
        _ = server.port


def test_plain_http_gets_nothing_where_tls_is_on(tmp_path: Path) -> None:
    authority, files = _site(tmp_path)

    with _serving(_tls(authority, files)) as server, pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{server.port}/")


def test_without_a_client_certificate_nobody_gets_in_where_one_is_required(tmp_path: Path) -> None:
    authority, files = _site(tmp_path)

    with (
        _serving(_tls(authority, files, required=True)) as server,
        pytest.raises((httpx.TransportError, ssl.SSLError)),
    ):
        httpx.get(f"https://127.0.0.1:{server.port}/", verify=_trusting(authority))


def test_who_shows_a_certificate_gets_in(tmp_path: Path) -> None:
    authority, files = _site(tmp_path)
    context = _trusting(authority)
    client = authority.issue("camera")
    assert client.certificate is not None
    context.load_cert_chain(client.certificate, client.private_key)

    with _serving(_tls(authority, files, required=True)) as server:
        assert httpx.get(f"https://127.0.0.1:{server.port}/", verify=context).text == "here"


def _site(folder: Path) -> tuple[Authority, TlsFiles]:
    authority = make_authority(folder)
    return authority, authority.issue("smearlink")


def _tls(authority: Authority, files: TlsFiles, *, required: bool = False) -> WebSettings:
    return WebSettings(
        port=0,
        tls=ServerTls(
            enabled=True,
            certificate=files.certificate,
            private_key=files.private_key,
            ca_certificates=authority.ca_certificates,
            require_client_certificate=required,
        ),
    )


def _trusting(authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.ca_certificates)
    context.check_hostname = False
    return context


@contextmanager
def _serving(settings: WebSettings) -> Iterator[WebServer]:
    server = WebServer(settings, APP)
    server.start()
    try:
        yield server
    finally:
        server.stop(1.0)

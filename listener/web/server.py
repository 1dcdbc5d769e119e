"""Runs the web application in a thread of its own, from `start` to `stop`."""

from __future__ import annotations

import socket
import ssl
import threading

import uvicorn
from starlette.types import ASGIApp

from config.sections import ServerTls, WebSettings
from pipeline.errors import Rejected
from reporting.delivery.transport.tls import ServerContexts, TlsFiles

MAX_CONNECTIONS = 64
KEEP_ALIVE_S = 15
BACKLOG = 64


class WebServer:
    """One uvicorn server on one socket; the port is bound by `start`, not by the constructor."""

    def __init__(self, settings: WebSettings, app: ASGIApp) -> None:
        self._settings, self._app = settings, app
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port in use, also when the settings say 0."""
        if self._socket is None:
            raise RuntimeError("the web server was not started")
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Bind and serve; connections are taken from now on. OSError when the port is taken."""
        host = self._settings.host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server(
            (host, self._settings.port), family=family, backlog=BACKLOG
        )
        config = uvicorn.Config(
            self._app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        config.load()
        config.ssl = _tls_context(self._settings.tls)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        self._thread.start()

    def stop(self, grace_s: float) -> None:
        """Take no more requests, let those in hand end within `grace_s`, then hang up."""
        if self._server is None or self._thread is None or self._socket is None:
            return
        self._server.config.timeout_graceful_shutdown = max(1, round(grace_s))
        self._server.should_exit = True
        self._thread.join(grace_s + 5)
        self._socket.close()

    def _run(self) -> None:
        if self._server is not None and self._socket is not None:
            self._server.run(sockets=[self._socket])


def read_token(settings: WebSettings) -> str | None:
    """The bearer token of the site: the first line of its file, or None when there is no file."""
    if settings.token_file is None:
        return None
    token = settings.token_file.read_text(encoding="utf-8").split("\n", 1)[0].strip()
    if len(token) < 16 or not token.isascii() or not token.isprintable():
        raise Rejected(
            "web.token_file: the first line must be a token of at least 16 printable characters; "
            "make one with: openssl rand -hex 32",
            code="web_token_unusable",
        )
    return token


def _tls_context(tls: ServerTls) -> ssl.SSLContext | None:
    """The server's context; each handshake takes the newest certificate files."""
    if not tls.enabled:
        return None
    files = TlsFiles(
        certificate=tls.certificate,
        private_key=tls.private_key,
        ca_certificates=tls.ca_certificates,
    )
    contexts = ServerContexts(files, require_client_certificate=tls.require_client_certificate)
    first = contexts.current()

    def renew(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = contexts.current()

    first.sni_callback = renew
    return first

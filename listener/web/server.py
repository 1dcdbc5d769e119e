"""Runs the web application on a thread of its own, from `start` to `stop`."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from contextlib import suppress
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from config.sections import ServerTls, WebSettings
from listener.web.connections import LimitedRequests, TimedProtocol, WebConnections, WebLimits
from listener.web.host_check import HostCheck, own_names
from pipeline.errors import Rejected
from reporting.delivery.transport.tls import ServerContexts, TlsFiles

BACKLOG = 1024
_TICK_S = 0.1
_TICKS_PER_DATE = 10
"""uvicorn renews the Date header at the first of so many."""
_RESTING_TICK_S = 5.0
"""While there is no connection; the first one, and a stop, end the rest."""


class WebServer:
    """One uvicorn server on one socket; the port is bound by `start`, not by the constructor."""

    def __init__(
        self, settings: WebSettings, app: ASGIApp, *, limits: WebLimits | None = None
    ) -> None:
        self._settings, self._app = settings, app
        self._limits = limits or WebLimits()
        self._socket: socket.socket | None = None
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port in use, also when the settings say 0."""
        if self._socket is None:
            raise RuntimeError("the web server was not started")
        return int(self._socket.getsockname()[1])

    def counts(self) -> dict[str, int]:
        """What happened to connections without a request, by reason."""
        connections = self._server.connections if self._server is not None else None
        if connections is None:
            return {"dropped": 0, "refused_by_system": 0}
        return {
            "dropped": connections.dropped,
            "refused_by_system": connections.refused_by_system,
        }

    def start(self) -> None:
        """Binds and serves; connections are accepted from now on. OSError when the port is
        taken.
        """
        host = self._settings.host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server(
            (host, self._settings.port), family=family, backlog=BACKLOG
        )
        config = uvicorn.Config(
            HostCheck(self._app, own_names(self._settings.allowed_hosts)),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            http=TimedProtocol,
            timeout_keep_alive=round(self._limits.keep_alive_s),
        )
        config.load()
        config.ssl = _tls_context(self._settings.tls)
        self._server = _Server(config, self._socket, self._limits)
        self._thread = threading.Thread(target=self._server.run, name="web", daemon=True)
        self._thread.start()

    def stop(self, grace_s: float) -> None:
        """Takes no more requests, lets those in progress end within `grace_s`, then hangs up."""
        if self._server is None or self._thread is None or self._socket is None:
            return
        self._server.config.timeout_graceful_shutdown = max(1, round(grace_s))
        self._server.begin_stop()
        self._thread.join(grace_s + 5)
        self._socket.close()


class _Server(uvicorn.Server):
    """uvicorn with our own accepting: its own neither bounds nor times connections."""

    def __init__(self, config: uvicorn.Config, sock: socket.socket, limits: WebLimits) -> None:
        super().__init__(config)
        self._socket, self._limits = sock, limits
        self._loop: asyncio.AbstractEventLoop | None = None
        self.connections: WebConnections | None = None

    def begin_stop(self) -> None:
        """Has the loop end soon; called from another thread."""
        self.should_exit = True
        if self._loop is not None and self.connections is not None:
            with suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self.connections.wake)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to accept."""
        await super().startup(sockets=[])
        self._loop = asyncio.get_running_loop()
        connections = WebConnections(
            self._socket,
            self._limits,
            make_protocol=partial(
                TimedProtocol,
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
                _loop=self._loop,
            ),
            tls_context=self.config.ssl,
        )
        self.config.loaded_app = LimitedRequests(
            self.config.loaded_app, self._limits, connections.drop_slowest_body
        )
        self.connections = connections
        connections.open()

    async def main_loop(self) -> None:
        """Ticks ten times per second as uvicorn does, but seldom while nobody is connected."""
        counter = 0
        while not await self.on_tick(counter):
            counter = (counter + 1) % _TICKS_PER_DATE
            if self.connections is None or self.connections.need_sweeps:
                await asyncio.sleep(_TICK_S)
            else:
                await self.connections.rest(_RESTING_TICK_S)
                counter = 0

    async def on_tick(self, counter: int) -> bool:
        """Closes what has taken too long; every tenth tick renews the Date header."""
        if self.connections is not None:
            self.connections.sweep()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accepts no more, and waits for the requests in progress."""
        if self.connections is not None:
            self.connections.close()
        await super().shutdown(sockets)


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

"""The HTTP connections of the web server: how many there may be, and how long each may take.

    accept ─► silent (a descriptor) ─► TLS handshake ─► request head ─► body ─► response

Every stage has a deadline. Where there are as many connections as there may be, a newcomer takes
the place of one that has no request in progress: a silent one first, of the address that has most.
Requests in progress are fewer than connections, so that a health probe always gets in.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

HEALTH_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
_ACCEPTS_PER_TURN = 32
_ACCEPT_PAUSE_S = 0.1
"""After accept() failed for want of descriptors or memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebLimits:
    """What connections may cost and take."""

    connections: int = 128
    requests: int = 64
    """Requests in progress; health and metrics do not count."""
    bodies: int = 24
    """Requests with a body in progress."""
    head_s: float = 10.0
    """TLS handshake; then the head of the first request."""
    keep_alive_s: float = 15.0
    """From a response to the head of the next request, whole."""
    body_s: float = 30.0
    """Waiting for a body, besides what its length takes at the slowest speed."""
    slowest_bytes_per_s: int = 16 * 1024
    response_s: float = 30.0
    """Without a byte of a response being taken."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Visitor:
    """A connection from accept to close."""

    socket: socket.socket
    address: str
    deadline: float
    protocol: TimedProtocol | None = None
    """None while it is silent or shakes hands."""
    is_silent: bool = True
    handshake: asyncio.Task[None] | None = None


class TimedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with the clocks that the limits need."""

    idle_since: float = 0.0
    """When the connection or the last response ended; what follows is a head, until a request."""
    body_bytes: int = 0
    body_wait_s: float = 0.0
    _unsent: int = 0
    _stalled_since: float = 0.0
    on_made: Callable[[], None] = staticmethod(lambda: None)
    on_lost: Callable[[], None] = staticmethod(lambda: None)

    def connection_made(self, transport: Any) -> None:
        """Start to count idle time."""
        self.idle_since = time.monotonic()
        super().connection_made(transport)
        self.on_made()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the slot back."""
        super().connection_lost(exc)
        self.on_lost()

    def data_received(self, data: bytes) -> None:
        """Count what arrives, for the deadlines of header and body."""
        was_busy = self.is_busy
        self.body_bytes += len(data)
        super().data_received(data)
        if self.is_busy and not was_busy:
            self.body_bytes, self.body_wait_s = len(data), 0.0

    def on_response_complete(self) -> None:
        """Start to count idle time again."""
        self.idle_since = time.monotonic()
        super().on_response_complete()

    @property
    def is_busy(self) -> bool:
        """Whether a request is in progress."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def is_receiving(self) -> bool:
        """Whether the body of a request is arriving."""
        return self.is_busy and self.cycle.more_body

    def is_overdue(self, now: float, passed_s: float, limits: WebLimits) -> bool:
        """Whether the peer has taken too long over the stage that it is in."""
        if self.transport.get_write_buffer_size():
            self.idle_since = now
            return self._is_stalled(now, limits)
        if not self.is_busy:
            patience_s = limits.head_s if self.cycle is None else limits.keep_alive_s
            return now - self.idle_since > patience_s
        if self.is_receiving and not self.flow.read_paused:
            self.body_wait_s += passed_s
        return self.is_receiving and self.is_slow(limits, grace_s=limits.body_s)

    def is_slow(self, limits: WebLimits, *, grace_s: float) -> bool:
        """Whether the body arrives more slowly than any honest one."""
        return self.body_wait_s > grace_s + self.body_bytes / limits.slowest_bytes_per_s

    def _is_stalled(self, now: float, limits: WebLimits) -> bool:
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self._stalled_since = unsent, now
        return now - self._stalled_since > limits.response_s


class WebConnections:
    """Accepts on one socket inside the server's event loop."""

    def __init__(
        self,
        server: socket.socket,
        limits: WebLimits,
        *,
        make_protocol: Callable[[], TimedProtocol],
        tls_context: ssl.SSLContext | None,
    ) -> None:
        self._server = server
        self._limits = limits
        self._make_protocol = make_protocol
        self._tls_context = tls_context
        self._loop = asyncio.get_running_loop()
        self._visitors: dict[_Visitor, None] = {}  # in the order of their arrival
        self._accepts_again_at = 0.0
        self._swept_at = time.monotonic()
        self._woken = asyncio.Event()
        self.dropped = 0
        """Connections that were closed to make room for others."""
        self.refused_by_system = 0

    def open(self) -> None:
        """Accepts from now on."""
        self._server.setblocking(False)
        self._loop.add_reader(self._server, self._accept_some)

    def close(self) -> None:
        """Accepts no more, and closes what has no request."""
        with suppress(ValueError, OSError):
            self._loop.remove_reader(self._server)
        for visitor in list(self._visitors):
            if visitor.protocol is None:
                self._drop(visitor)

    @property
    def need_sweeps(self) -> bool:
        """Whether there is anything that can take too long."""
        return bool(self._visitors) or self._accepts_again_at > 0

    async def rest(self, longest_s: float) -> None:
        """Returns when somebody connects, at `wake`, or after `longest_s`."""
        self._woken.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                await self._woken.wait()

    def wake(self) -> None:
        """Ends a rest."""
        self._woken.set()

    def sweep(self) -> None:
        """Closes what has taken too long; called several times per second while `need_sweeps`."""
        now = time.monotonic()
        passed_s, self._swept_at = now - self._swept_at, now
        for visitor in list(self._visitors):
            if visitor.protocol is None:
                if now > visitor.deadline:
                    self._drop(visitor)
            elif visitor.protocol.is_overdue(now, passed_s, self._limits):
                self._drop(visitor)
        if self._accepts_again_at and now >= self._accepts_again_at:
            self._accepts_again_at = 0.0
            self.open()

    def drop_slowest_body(self) -> bool:
        """Hangs up on a sender whose body arrives too slowly; False where there is none."""
        for visitor in self._visitors:
            protocol = visitor.protocol
            if protocol and protocol.is_receiving and protocol.is_slow(self._limits, grace_s=1.0):
                self.dropped += 1
                self._drop(visitor)
                return True
        return False

    def _accept_some(self) -> None:
        self.wake()
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, address = self._server.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self.refused_by_system += 1
                self._loop.remove_reader(self._server)
                self._accepts_again_at = time.monotonic() + _ACCEPT_PAUSE_S
                self._make_room()
                return
            if len(self._visitors) >= self._limits.connections and not self._make_room():
                sock.close()
                self.dropped += 1
                continue
            self._add(sock, str(address[0]))

    def _add(self, sock: socket.socket, address: str) -> None:
        visitor = _Visitor(
            socket=sock, address=address, deadline=time.monotonic() + self._limits.head_s
        )
        self._visitors[visitor] = None
        sock.setblocking(False)
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Neither TLS state nor a parser is made before the first byte.
        self._loop.add_reader(sock, self._begin, visitor)

    def _begin(self, visitor: _Visitor) -> None:
        self._loop.remove_reader(visitor.socket)
        visitor.is_silent = False
        visitor.handshake = self._loop.create_task(self._connect(visitor))

    async def _connect(self, visitor: _Visitor) -> None:
        protocol = self._make_protocol()
        protocol.on_made = lambda: setattr(visitor, "protocol", protocol)
        protocol.on_lost = lambda: self._forget(visitor)
        options: dict[str, Any] = {}
        if self._tls_context is not None:
            options = {"ssl": self._tls_context, "ssl_handshake_timeout": self._limits.head_s}
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, visitor.socket, **options)
        except (OSError, asyncio.CancelledError):
            self._forget(visitor)
            with suppress(OSError):
                visitor.socket.close()

    def _make_room(self) -> bool:
        """Closes a connection without a request in progress; False where there is none."""
        idle = [
            visitor
            for visitor in self._visitors
            if visitor.protocol is None or not visitor.protocol.is_busy
        ]
        if not idle:
            return False
        silent = [visitor for visitor in idle if visitor.is_silent] or idle
        address, _ = Counter(visitor.address for visitor in silent).most_common(1)[0]
        self.dropped += 1
        self._drop(next(visitor for visitor in silent if visitor.address == address))
        return True

    def _drop(self, visitor: _Visitor) -> None:
        self._forget(visitor)
        if visitor.protocol is not None:
            _reset(visitor.protocol.transport)
        elif visitor.handshake is not None:
            visitor.handshake.cancel()
        else:
            self._loop.remove_reader(visitor.socket)
            visitor.socket.close()

    def _forget(self, visitor: _Visitor) -> None:
        self._visitors.pop(visitor, None)


def _reset(transport: asyncio.Transport) -> None:
    """Closes at once and leaves nothing for the kernel to send to a peer that takes nothing."""
    sock = transport.get_extra_info("socket")
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class LimitedRequests:
    """An ASGI application with a number of requests in progress, beyond which it answers 503."""

    def __init__(
        self, app: ASGIApp, limits: WebLimits, drop_slowest_body: Callable[[], bool]
    ) -> None:
        self._app = app
        self._limits = limits
        self._drop_slowest_body = drop_slowest_body
        self._requests = self._bodies = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request, or says that there are too many."""
        if scope["type"] != "http" or scope["path"] in HEALTH_PATHS:
            await self._app(scope, receive, send)
            return
        has_body = scope["method"] in ("POST", "PUT", "PATCH")
        is_full = self._requests >= self._limits.requests
        if has_body and self._bodies >= self._limits.bodies:
            is_full = is_full or not self._drop_slowest_body()
        if is_full:
            await refuse(send, 503, "too_many_requests", "Too many requests in progress.")
            return
        self._requests += 1
        self._bodies += has_body
        try:
            await self._app(scope, receive, send)
        finally:
            self._requests -= 1
            self._bodies -= has_body


async def refuse(send: Send, status: int, code: str, detail: str) -> None:
    """Sends a problem document (RFC 9457) and closes the connection."""
    body = (
        f'{{"type":"about:blank","status":{status},"title":"{code}","detail":"{detail}"}}'
    ).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        (b"cache-control", b"no-store"),
    ]
    if status == 503:
        headers.append((b"retry-after", b"5"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""Accepts connections and reads each one's A-ASSOCIATE-RQ, all on one thread.

    accept ─► TLS handshake ─► A-ASSOCIATE-RQ ─► `on_request`, which starts a thread or rejects

Whatever their number, peers that have not associated yet cost one descriptor each and no thread,
and their number is bounded: one more drops the oldest of the address that has most of them. The
loop does not end before `stop`: what goes wrong in a turn is counted and the next turn begins.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from listener.dicom.upper_layer import ProtocolViolation, abort, associate_length

LINGER_S = 1.0
"""How long a rejected peer may take to read the answer and hang up (PS3.8 state 13)."""
_TURN_S = 2.0
"""The longest turn without an event; the heartbeat of `is_turning`."""
_STALLED_S = 5.0
_ACCEPTS_PER_TURN = 32
"""Then requests are read again: a flood of connections must not outrun those who talk."""
_RECEIVE_BYTES = 64 * 1024
_ACCEPT_PAUSE_S = 0.1
"""After accept() failed for want of descriptors or memory."""


@dataclass(slots=True, kw_only=True, eq=False)
class Connection:
    """A peer before its association."""

    socket: socket.socket
    address: str
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    is_shaking_hands: bool = False
    is_leaving: bool = False
    """Answered for the last time; what it still sends is read and forgotten."""

    def fileno(self) -> int:
        """For the selector."""
        return self.socket.fileno()


@dataclass(slots=True, kw_only=True)
class AcceptorCounts:
    """What happened before anybody associated, for the metrics."""

    dropped: int = 0
    """Connections hung up on to make room for newer ones."""
    refused_by_system: int = 0
    """accept() failures: no descriptor, no memory."""
    faults: int = 0
    """Turns that ended in an exception."""


class Acceptor:
    """The event loop in front of the associations."""

    def __init__(
        self,
        server: socket.socket,
        *,
        on_request: Callable[[Connection, bytes], bytes | None],
        on_failure: Callable[[Connection, str], None],
        timeout_s: float,
        max_connections: int,
        tls_context: Callable[[], ssl.SSLContext] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_request` takes the connection over and returns None, or returns a last word that
        is sent before the connection is closed. `on_failure` hears why a connection came to
        nothing, as a stable code.
        """
        self._server = server
        self._on_request = on_request
        self._on_failure = on_failure
        self._timeout_s = timeout_s
        self._max_connections = max_connections
        self._tls_context = tls_context
        self._monotonic = monotonic
        self._selector = selectors.DefaultSelector()
        self._connections: dict[Connection, None] = {}  # in the order of their arrival
        self._accepts_again_at = 0.0
        self._is_accepting = False
        self._last_turn = monotonic()
        self._stopping = threading.Event()
        self._waker, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="dicom-accept", daemon=True)
        self.counts = AcceptorCounts()

    def start(self) -> None:
        """Begin to accept connections."""
        self._server.setblocking(False)
        self._selector.register(self._waker, selectors.EVENT_READ)
        self._thread.start()

    def stop(self) -> None:
        """Ends the loop and hangs up on everybody in it."""
        self._stopping.set()
        with suppress(OSError):
            self._wake.send(b"\0")
        self._thread.join()
        self._selector.close()
        self._waker.close()
        self._wake.close()

    @property
    def is_turning(self) -> bool:
        """Whether connections are being accepted: the thread lives and has turned lately."""
        return self._thread.is_alive() and self._monotonic() - self._last_turn < _STALLED_S

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._turn()
            except Exception:  # noqa: BLE001 - the loop must not end; counted, and in the metrics
                self.counts.faults += 1
                self._stopping.wait(_ACCEPT_PAUSE_S)
        for connection in list(self._connections):
            self._close(connection)

    def _turn(self) -> None:
        now = self._last_turn = self._monotonic()
        self._set_accepting(now >= self._accepts_again_at)
        for key, _ in self._selector.select(self._wait_s(now)):
            if isinstance(key.fileobj, Connection) and key.fileobj in self._connections:
                self._serve(key.fileobj)
        if self._is_accepting:
            self._accept_some()
        now = self._monotonic()
        for connection in [one for one in self._connections if one.deadline <= now]:
            self._expire(connection)

    def _wait_s(self, now: float) -> float:
        soonest = min((one.deadline for one in self._connections), default=now + _TURN_S)
        if not self._is_accepting:
            soonest = min(soonest, self._accepts_again_at)
        return min(_TURN_S, max(0.0, soonest - now))

    def _set_accepting(self, wanted: bool) -> None:
        if wanted and not self._is_accepting:
            self._selector.register(self._server, selectors.EVENT_READ)
        elif self._is_accepting and not wanted:
            self._selector.unregister(self._server)
        self._is_accepting = wanted

    def _accept_some(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, address = self._server.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self.counts.refused_by_system += 1
                self._accepts_again_at = self._monotonic() + _ACCEPT_PAUSE_S
                self._make_room()
                return
            if len(self._connections) >= self._max_connections:
                self._make_room()
            self._add(sock, str(address[0]))

    def _add(self, sock: socket.socket, address: str) -> None:
        connection = Connection(
            socket=sock, address=address, deadline=self._monotonic() + self._timeout_s
        )
        self._connections[connection] = None
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(connection, selectors.EVENT_READ)
        except OSError:
            self._close(connection)
            return
        if self._tls_context is None:
            self._serve(connection)  # an honest peer's request often lies there already

    def _make_room(self) -> None:
        """Drops the oldest silent connection of the address that has most, or its oldest."""
        if not self._connections:
            return
        address, _ = Counter(one.address for one in self._connections).most_common(1)[0]
        of_address = [one for one in self._connections if one.address == address]
        dropped = next((one for one in of_address if self._is_silent(one)), of_address[0])
        if dropped in self._connections:  # else looking at it has ended it
            self.counts.dropped += 1
            self._close(dropped)

    def _is_silent(self, connection: Connection) -> bool:
        """Whether nothing came of it; looks once more, as it may have begun to talk just now."""
        if not connection.received and self._tls_context is None:
            self._serve(connection)
        return not connection.received

    def _serve(self, connection: Connection) -> None:
        """Reads what there is; the boundary of one connection's faults."""
        try:
            if connection.is_leaving:
                self._read_and_forget(connection)
            elif self._tls_context is not None and not self._is_secure(
                connection, self._tls_context
            ):
                return
            else:
                self._read_request(connection)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except ProtocolViolation as err:
            self._on_failure(connection, err.code)
            self._say_last(connection, abort(err.reason))
        except ssl.SSLError:
            self._on_failure(connection, "tls_failed")
            self._close(connection)
        except OSError:
            self._close(connection)
        except Exception:
            self._close(connection)
            raise

    def _is_secure(self, connection: Connection, tls_context: Callable[[], ssl.SSLContext]) -> bool:
        """Whether the TLS handshake is done; goes one step further where it is not.

        TLS state is made when the first bytes have come: silence costs a descriptor only.
        """
        if not isinstance(connection.socket, ssl.SSLSocket):
            context = tls_context()
            self._selector.unregister(connection)
            connection.socket = context.wrap_socket(
                connection.socket, server_side=True, do_handshake_on_connect=False
            )
            connection.is_shaking_hands = True
            self._selector.register(connection, selectors.EVENT_READ)
        if connection.is_shaking_hands:
            try:
                connection.socket.do_handshake()
            except ssl.SSLWantWriteError:
                self._selector.modify(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
                return False
            self._selector.modify(connection, selectors.EVENT_READ)
            connection.is_shaking_hands = False
        return True

    def _read_request(self, connection: Connection) -> None:
        """Reads until the request is whole, and never past it."""
        received = connection.received
        while True:
            wanted = associate_length(received) - len(received)
            if wanted == 0:
                self._hand_over(connection)
                return
            data = connection.socket.recv(min(wanted, _RECEIVE_BYTES))
            if not data:
                self._close(connection)
                return
            received += data

    def _hand_over(self, connection: Connection) -> None:
        self._forget(connection)
        connection.socket.setblocking(True)
        last_word = self._on_request(connection, bytes(connection.received))
        if last_word is not None:
            connection.socket.setblocking(False)
            self._connections[connection] = None
            self._selector.register(connection, selectors.EVENT_READ)
            self._say_last(connection, last_word)

    def _say_last(self, connection: Connection, last_word: bytes) -> None:
        """Sends ten bytes, which any send buffer takes, and waits for the peer to hang up."""
        connection.is_leaving = True
        connection.deadline = self._monotonic() + min(LINGER_S, self._timeout_s)
        connection.received.clear()
        try:
            connection.socket.send(last_word)
        except OSError:
            self._close(connection)

    def _read_and_forget(self, connection: Connection) -> None:
        while connection.socket.recv(_RECEIVE_BYTES):
            pass
        self._close(connection)

    def _expire(self, connection: Connection) -> None:
        if not connection.is_leaving:
            self._on_failure(connection, "peer_silent")
        self._close(connection)

    def _forget(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        with suppress(KeyError, ValueError):
            self._selector.unregister(connection)

    def _close(self, connection: Connection) -> None:
        self._forget(connection)
        with suppress(OSError):
            connection.socket.close()

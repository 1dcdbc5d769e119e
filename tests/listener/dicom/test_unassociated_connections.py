"""The loop in front of the associations: bounded, patient with nobody, and without an end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydicom.uid import SecondaryCaptureImageStorage

from listener.dicom.unassociated_connections import Acceptor, Connection
from listener.dicom.upper_layer import reject
from tests.listener.house import until
from tests.listener.peers import PATIENCE_S, association_request

REQUEST = association_request(SecondaryCaptureImageStorage)
REJECTION = reject(2, 3, 2)


@contextmanager
def accepting(
    on_request: Callable[[Connection, bytes], bytes | None] = lambda *_: REJECTION,
    *,
    failures: list[str] | None = None,
    server: socket.socket | None = None,
    **options: Any,
) -> Iterator[tuple[Acceptor, int]]:
    server = server or socket.create_server(("127.0.0.1", 0))
    told: list[str] = [] if failures is None else failures
    acceptor = Acceptor(
        server,
        on_request=on_request,
        on_failure=lambda _, code: told.append(code),
        **{"timeout_s": PATIENCE_S, "max_connections": 8, **options},
    )
    acceptor.start()
    try:
        yield acceptor, server.getsockname()[1]
    finally:
        acceptor.stop()
        server.close()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def answer_to(port: int, said: bytes = REQUEST) -> bytes:
    with connect(port) as peer:
        peer.sendall(said)
        return peer.recv(100)


def test_silent_connections_keep_nobody_out_and_cost_no_thread() -> None:
    with accepting() as (acceptor, port):
        before = threading.active_count()
        silent = [connect(port) for _ in range(100)]
        answer = answer_to(port)

        assert answer == REJECTION
        assert threading.active_count() <= before
        assert acceptor.counts.dropped >= 92
        for one in silent:
            one.close()


def test_a_peer_that_has_begun_to_talk_outlasts_the_silent() -> None:
    with accepting() as (_, port), connect(port) as slow:
        slow.sendall(REQUEST[:50])
        silent = [connect(port) for _ in range(100)]
        assert answer_to(port) == REJECTION
        slow.sendall(REQUEST[50:])

        assert slow.recv(100) == REJECTION
        for one in silent:
            one.close()


class FloodedServer(socket.socket):
    """Gives out one peer and 20 silent ones in one go; after the tenth the first begins to talk."""

    def __init__(self) -> None:
        super().__init__()
        self.bind(("127.0.0.1", 0))
        self.listen()
        self.far_ends: list[socket.socket] = []

    def accept(self) -> tuple[socket.socket, Any]:
        if len(self.far_ends) == 21:
            raise BlockingIOError
        self.setblocking(True)
        self.far_ends.append(connect(self.getsockname()[1]))
        near_end, address = super().accept()
        if len(self.far_ends) == 10:
            self.far_ends[0].sendall(REQUEST[:50])
        return near_end, address


def test_a_peer_that_begins_to_talk_in_the_midst_of_a_flood_outlasts_the_silent() -> None:
    server = FloodedServer()
    with accepting(server=server) as (acceptor, port), connect(port):
        until(lambda: len(server.far_ends) == 21 and acceptor.counts.dropped)
        slow = server.far_ends[0]
        slow.sendall(REQUEST[50:])

        assert slow.recv(100) == REJECTION
        for one in server.far_ends:
            one.close()


def test_a_silent_peer_is_hung_up_on_in_time() -> None:
    failures: list[str] = []
    with accepting(failures=failures, timeout_s=0.1) as (_, port), connect(port) as silent:
        assert silent.recv(1) == b""

    assert failures == ["peer_silent"]


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n", b"\x01\0\xff\xff\xff\xff"])
def test_what_is_no_request_is_aborted_at_its_header(said: bytes) -> None:
    failures: list[str] = []
    with accepting(failures=failures) as (_, port):
        answer = answer_to(port, said)

    assert answer[0] == 7
    assert failures == ["protocol_broken"]


def test_a_request_is_handed_over_whole_however_it_is_cut() -> None:
    whole: list[bytes] = []

    def answer(_: Connection, data: bytes) -> bytes:
        whole.append(data)
        return REJECTION

    with (
        accepting(answer) as (_, port),
        connect(port) as peer,
    ):
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(REQUEST), 7):
            peer.sendall(REQUEST[start : start + 7])

        assert peer.recv(100) == REJECTION
    assert whole == [REQUEST]


def test_no_fault_ends_the_loop() -> None:
    def faulty(_: Connection, data: bytes) -> bytes | None:
        if b"BAD" in data:
            raise RuntimeError("can't start new thread")
        return REJECTION

    with accepting(faulty) as (acceptor, port):
        bad = association_request(SecondaryCaptureImageStorage, calling="BAD")
        answers = [answer_to(port, said) for said in (bad, REQUEST, bad, REQUEST)]

        assert answers == [b"", REJECTION, b"", REJECTION]
        assert acceptor.is_turning
        assert acceptor.counts.faults == 2


def test_a_loop_that_hangs_or_has_ended_is_seen() -> None:
    now = [0.0]
    entered, go_on = threading.Event(), threading.Event()

    def hangs(_: Connection, __: bytes) -> bytes | None:
        entered.set()
        go_on.wait(PATIENCE_S)
        return REJECTION

    with accepting(hangs, monotonic=lambda: now[0]) as (acceptor, port), connect(port) as peer:
        assert acceptor.is_turning
        peer.sendall(REQUEST)
        assert entered.wait(PATIENCE_S)
        now[0] += 60

        hangs_now = not acceptor.is_turning
        assert hangs_now
        go_on.set()
        assert peer.recv(100) == REJECTION
        assert answer_to(port) == REJECTION
        until(lambda: acceptor.is_turning)  # from the next turn on
    assert not acceptor.is_turning

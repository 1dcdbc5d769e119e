"""An audit record repository for tests: syslog over TLS on loopback (RFC 5425)."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from reporting.delivery.transport.tls import TlsFiles, server_context


@dataclass
class Repository:
    """What has arrived, frame by frame."""

    port: int
    frames: list[bytes] = field(default_factory=list)
    broken: list[bytes] = field(default_factory=list)
    closed_properly: list[bool] = field(default_factory=list)


@contextmanager
def repository(
    files: TlsFiles,
    *,
    require_client_certificate: bool = False,
    port: int = 0,
    answers_close: bool = True,
) -> Iterator[Repository]:
    context = server_context(files, require_client_certificate=require_client_certificate)
    with socket.create_server(("127.0.0.1", port)) as listening:
        listening.settimeout(0.1)
        store = Repository(port=listening.getsockname()[1])
        ending = threading.Event()

        def serve() -> None:
            while not ending.is_set():
                with suppress(OSError):
                    plain, _ = listening.accept()
                    plain.settimeout(60)
                    with context.wrap_socket(plain, server_side=True) as connection:
                        _take(store, connection, answers_close=answers_close)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield store
        finally:
            ending.set()
            thread.join()


def _take(store: Repository, connection: ssl.SSLSocket, *, answers_close: bool) -> None:
    received = bytearray()
    while chunk := connection.recv(65536):
        received += chunk
    # recv gives b"" only after close_notify; a connection that just breaks raises.
    store.closed_properly.append(True)
    frames, rest = frames_in(bytes(received))
    store.frames += frames
    store.broken += [rest] if rest else []
    if answers_close:
        connection.unwrap()


def frames_in(text: bytes) -> tuple[list[bytes], bytes]:
    """The frames of RFC 5425 4.3, and what is left over."""
    frames: list[bytes] = []
    while text:
        length, space, rest = text.partition(b" ")
        if not space or not length.isdigit() or len(rest) < int(length):
            return frames, text
        frames.append(rest[: int(length)])
        text = rest[int(length) :]
    return frames, b""

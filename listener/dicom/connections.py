"""Which connections there are: slots for associations, a limit for strangers, an orderly end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from listener.dicom.association import ConnectionState

MAX_UNASSOCIATED = 64
"""Connections that have not associated yet; one more drops the oldest of them, so that junk
cannot keep a device out."""
_GRACE_STEP_S = 0.05
"""How often a stop looks which of the busy connections have become idle."""


class Connections:
    """Every open connection with its thread; safe to use from all of them."""

    def __init__(self, *, max_associations: int) -> None:
        self._max_associations = max_associations
        self._lock = threading.Lock()
        self._threads: dict[int, tuple[ConnectionState, threading.Thread]] = {}
        self._associations = 0

    def add(self, progress: ConnectionState, serve: Callable[[ConnectionState], None]) -> None:
        """Serve the connection on a thread of its own and close it afterwards."""
        thread = threading.Thread(
            target=self._run, args=(progress, serve), name="dicom-association", daemon=True
        )
        with self._lock:
            strangers = [one for one, _ in self._threads.values() if not one.has_slot]
            self._threads[id(progress)] = progress, thread
        if len(strangers) >= MAX_UNASSOCIATED:
            shutdown_socket(strangers[0])
        thread.start()

    def take_slot(self) -> bool:
        """Count one association more, unless there are enough."""
        with self._lock:
            if self._associations >= self._max_associations:
                return False
            self._associations += 1
            return True

    def drain(self, grace_s: float) -> None:
        """Hang up on everybody: at once on the idle, on the busy when they are done or `grace_s`
        is over; then wait for the threads."""
        deadline = time.monotonic() + grace_s
        while busy := self._hang_up_on(lambda progress: not progress.is_busy):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            busy[0].join(min(remaining, _GRACE_STEP_S))
        for thread in self._hang_up_on(lambda _: True):
            thread.join()

    def _hang_up_on(self, chosen: Callable[[ConnectionState], bool]) -> list[threading.Thread]:
        """Shut the chosen connections; the threads of all that are still there."""
        with self._lock:
            connections = list(self._threads.values())
        for progress, _ in connections:
            if chosen(progress):
                shutdown_socket(progress)
        return [thread for _, thread in connections]

    def _run(self, progress: ConnectionState, serve: Callable[[ConnectionState], None]) -> None:
        try:
            serve(progress)
        finally:
            with self._lock:
                del self._threads[id(progress)]
                self._associations -= progress.has_slot
            progress.socket.close()


def shutdown_socket(progress: ConnectionState) -> None:
    """Wake the connection's thread with an end of stream; it closes the socket itself."""
    with suppress(OSError):
        # Not SSLSocket.shutdown, which would take the TLS state from under its thread.
        socket.socket.shutdown(progress.socket, socket.SHUT_RDWR)

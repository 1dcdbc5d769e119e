"""One process that builds parts of reports, and the thread that hands them to it."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any

from listener.workflow.part_board import PartBoard
from listener.workflow.report_parts import READY, PartBuilt, PartRefused, ReportTask

PARTS_AHEAD = 3
"""Given to a process at once, so that it builds the next one while the disk takes the last."""
REST_S = 60.0
"""How long reports are built without a process after it has ended by itself."""
CLOSE_S = 5.0
"""How long a process may take to end; it notices the closed socket at once."""

_log = logging.getLogger(__name__)


class PartBuilder:
    """Starts its process when it is first worth it, and ends it after `idle_s` without a report."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        idle_s: float,
        rest_s: float = REST_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = command
        self._idle_s = idle_s
        self._rest_s = rest_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._reports: SimpleQueue[tuple[PartBoard, ReportTask] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._child: Child | None = None
        self._is_busy = False
        self._is_closed = False
        self._rests_until = float("-inf")

    @property
    def pid(self) -> int | None:
        """Of the process, while it runs."""
        child = self._child
        return child.process.pid if child else None

    def join(self, board: PartBoard, task: ReportTask, *, may_start: bool) -> bool:
        """Take part in a report, and in no other one meanwhile.

        False when it does not: it is busy, or would have to start its process, or rests.
        """
        with self._lock:
            is_resting = self._monotonic() < self._rests_until
            is_there = self._child is not None or may_start
            if self._is_closed or self._is_busy or is_resting or not is_there:
                return False
            self._is_busy = True
            self._reports.put((board, task))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="part-builder", daemon=True)
                self._thread.start()
            return True

    def kill(self) -> None:
        """End the process at once; what it was given goes back to the board."""
        if (child := self._child) is not None:
            child.process.kill()

    def close(self) -> None:
        """End the process and its thread; one that was stopped does not end by itself."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
            self._reports.put(None)
            self.kill()
        if thread is not None:
            thread.join(timeout=CLOSE_S)

    # --- the thread

    def _run(self) -> None:
        while (report := self._next()) is not None:
            try:
                self._build(*report)
            finally:
                with self._lock:
                    self._is_busy = False

    def _next(self) -> tuple[PartBoard, ReportTask] | None:
        """The next report; None when there is none for long, and the process has ended."""
        report = None
        with suppress(Empty):
            report = self._reports.get(timeout=self._idle_s)
        with self._lock:
            if report is None and not self._is_closed:
                with suppress(Empty):
                    report = self._reports.get_nowait()
            if report is None:
                self._thread = None
                self._end_child()
            return report

    def _build(self, board: PartBoard, task: ReportTask) -> None:
        given: set[int] = set()
        try:
            if self._child is None:
                self._child = start(self._command)
            self._child.expect_ready()
            _work(self._child.connection, board, task, given)
        except Exception as err:  # noqa: BLE001 - whatever it is, the report is built without it
            _log.warning("a process for reports ended: %s", type(err).__name__)
            with self._lock:
                self._rests_until = self._monotonic() + self._rest_s
                self._end_child()
        finally:
            board.give_back(given)

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None


def _work(
    connection: Connection[Any, Any], board: PartBoard, task: ReportTask, given: set[int]
) -> None:
    """Hand parts over until none waits; `given` are those that the process still has."""
    connection.send(task)
    while True:
        while len(given) < PARTS_AHEAD and (number := board.take()) is not None:
            given.add(number)
            connection.send(number)
        if not given:
            return
        answer: PartBuilt | PartRefused = connection.recv()
        given.remove(answer.number)
        if isinstance(answer, PartBuilt):
            board.built(answer.number, answer.results, answer.cards)
        else:
            board.refuse(answer.number)


@dataclass(slots=True, kw_only=True)
class Child:
    """A process that was started, and our end of its socket."""

    process: subprocess.Popen[bytes]
    connection: Connection[Any, Any]
    is_ready: bool = False

    def expect_ready(self) -> None:
        """Wait until it has loaded what it needs; EOFError when it ended before."""
        if not self.is_ready:
            if self.connection.recv() != READY:
                raise EOFError
            self.is_ready = True

    def end(self) -> None:
        """Close the socket, which ends the process, and wait for its end."""
        self.connection.close()
        try:
            self.process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(command: Sequence[str]) -> Child:
    """Start a process. It inherits its end of a socket and nothing else; what libraries print may
    name patients, and goes nowhere.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(  # noqa: S603 - our own command, of no input
            [*command, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "MALLOC_ARENA_MAX": "2"},
        )
        return Child(process=process, connection=Connection(ours.detach()))

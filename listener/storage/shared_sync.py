"""Syncs of one folder that several threads share: group commit.

A sync makes durable whatever happened before it began. So a thread that comes while one is in
progress waits for the next, and all who wait for the next share it.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable


class SharedSync:
    """Calls `sync` for several threads at once, never twice at the same time."""

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._condition = threading.Condition()
        self._begun = 0
        self._ended = 0
        self._failure: tuple[int, Exception] | None = None
        """The last sync that failed, by its number, and why."""
        self.waiting = 0
        """Threads that wait for a sync that another one does."""

    def __call__(self) -> None:
        """Returns when a sync that began after this call has ended; raises what it raised."""
        with self._condition:
            wanted = self._begun + 1
            while self._ended < wanted and self._begun != self._ended:
                self._wait()
            if self._ended >= wanted:
                self._raise_failure(wanted)
                return
            self._begun += 1
        self._lead(wanted)

    def _wait(self) -> None:
        self.waiting += 1
        try:
            self._condition.wait()
        finally:
            self.waiting -= 1

    def _lead(self, number: int) -> None:
        failure: Exception | None = OSError(errno.EINTR, "the sync was interrupted")
        try:
            self._sync()
            failure = None
        except Exception as err:
            failure = err
            raise
        finally:
            with self._condition:
                self._ended = number
                if failure is not None:
                    self._failure = (number, failure)
                self._condition.notify_all()

    def _raise_failure(self, wanted: int) -> None:
        """A sync that failed made nothing durable for those who shared it; a later one that
        succeeds says nothing about what was lost before it.
        """
        if self._failure is not None and self._failure[0] >= wanted:
            raise self._failure[1]

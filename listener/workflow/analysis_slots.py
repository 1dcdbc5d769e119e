"""How many analyses run at once in this process, and which of them run alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ShuttingDown(Exception):
    """The process is stopping: no further analysis begins."""


class AnalysisSlots:
    """A number of slots; an exclusive analysis takes all of them."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._free = places
        self._is_closed = False
        self._changed = threading.Condition()

    @contextmanager
    def entered(self, *, exclusive: bool = False) -> Iterator[None]:
        """Hold one slot, or all of them; raises ShuttingDown once the slots are closed."""
        wanted = self._places if exclusive else 1
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._free >= wanted)
            if self._is_closed:
                raise ShuttingDown
            self._free -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._free += wanted
                self._changed.notify_all()

    def close(self) -> None:
        """Give out no more slots; those held stay so."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

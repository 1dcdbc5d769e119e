"""An amount that several threads share, in which nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MOST_OVERTAKING = 100
"""So many smaller requests go before one that waits; then they wait for it."""


@dataclass(slots=True, eq=False)
class _Waiter:
    overtaken: int = 0


class FairBudget:
    """So much may be in use at once; what needs more than all of it runs alone.

    A small request need not wait for a large one, up to a number of them.
    """

    def __init__(self, total: int) -> None:
        self._total = self._free = total
        self._waiting: list[_Waiter] = []  # in the order of their arrival
        self._changed = threading.Condition()

    @contextmanager
    def reserved(self, wanted: int) -> Iterator[None]:
        """Hold so much, or all of it; waits until it is free. Do not nest."""
        held = min(wanted, self._total)
        with self._changed:
            self._wait_for(held)
            self._free -= held
        try:
            yield
        finally:
            with self._changed:
                self._free += held
                self._changed.notify_all()

    def _wait_for(self, wanted: int) -> None:
        waiter = _Waiter()
        self._waiting.append(waiter)
        try:
            self._changed.wait_for(lambda: self._may_go(waiter, wanted))
            for earlier in self._earlier_than(waiter):
                earlier.overtaken += 1
        finally:
            self._waiting.remove(waiter)
            self._changed.notify_all()  # who waited for this one alone

    def _may_go(self, waiter: _Waiter, wanted: int) -> bool:
        is_their_turn = any(one.overtaken >= MOST_OVERTAKING for one in self._earlier_than(waiter))
        return self._free >= wanted and not is_their_turn

    def _earlier_than(self, waiter: _Waiter) -> list[_Waiter]:
        return self._waiting[: self._waiting.index(waiter)]

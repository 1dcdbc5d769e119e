"""Stop and reload signals, awaited by the main thread.

The kernel may give a signal to any thread, and Python runs its handler in the main thread, which
such a signal does not wake. So the main thread looks once per second. The handlers only put a word
into a SimpleQueue, which may be done in the midst of a read of the same queue; an Event may not.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from types import FrameType

LOOK_EVERY_S = 1.0


class Signals:
    """What this process was told since it was made; make it in the main thread."""

    def __init__(
        self,
        *,
        stop: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
        reload: Sequence[signal.Signals] = (),
    ) -> None:
        self._stop = frozenset(stop)
        self._told: SimpleQueue[int] = SimpleQueue()
        for number in (*stop, *reload):
            signal.signal(number, self._note)

    def wait(self) -> bool:
        """True to reload, False to stop."""
        while True:
            try:
                return self._told.get(timeout=LOOK_EVERY_S) not in self._stop
            except Empty:
                continue

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._told.put(number)

"""Limits how many events of one kind a peer that nobody knows can write into the audit trail.

Each kind of event and code has an allowance that refills with time. What goes beyond it is
counted, and the next event of the kind that is recorded says in `count` how many it stands for.
The metrics count every one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reporting.audit.trail import Actor, AuditSink, Event, Outcome

LIMITED = frozenset(
    {
        Event.ASSOCIATION_REJECTED,
        Event.ASSOCIATION_ABORTED,
        Event.ASSOCIATION_RELEASED,
        Event.REQUEST_REFUSED,
        Event.IMAGE_REFUSED,
        Event.DEFECT_MET,
    }
)
"""What somebody can cause who may store nothing. Received images are always recorded."""
BURST = 200
"""Events of one kind at once: a device that sends a whole series with a fault is recorded whole."""
PER_S = 2.0
MAX_KINDS = 256


@dataclass(slots=True)
class _Allowance:
    left: float
    at: float
    held_back: int = 0


class LimitedAudit:
    """An audit sink in front of another."""

    def __init__(self, sink: AuditSink, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._sink, self._monotonic = sink, monotonic
        self._allowances: dict[tuple[Event, str], _Allowance] = {}
        self._lock = threading.Lock()

    def record(
        self,
        event: Event,
        *,
        actor: Actor | None = None,
        outcome: Outcome = Outcome.SUCCESS,
        **fields: Any,
    ) -> None:
        """Records the event, or counts it for the next one of its kind."""
        if event in LIMITED:
            stands_for = self._take(event, str(fields.get("code", "")))
            if stands_for == 0:
                return
            if stands_for > 1:
                fields = {**fields, "count": stands_for}
        self._sink.record(event, actor=actor, outcome=outcome, **fields)

    def _take(self, event: Event, code: str) -> int:
        """How many events this one stands for; 0 when it is held back."""
        now = self._monotonic()
        with self._lock:
            key = (event, code if len(self._allowances) < MAX_KINDS else "")
            allowance = self._allowances.setdefault(key, _Allowance(BURST, now))
            allowance.left = min(BURST, allowance.left + (now - allowance.at) * PER_S)
            allowance.at = now
            if allowance.left < 1:
                allowance.held_back += 1
                return 0
            allowance.left -= 1
            stands_for, allowance.held_back = 1 + allowance.held_back, 0
            return stands_for

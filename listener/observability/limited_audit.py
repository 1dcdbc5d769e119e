"""Limits how many events of one kind a peer that nobody knows can write into the audit trail.

Each kind of event and code has an allowance that refills with time. What goes beyond it is
counted: the next event of the kind says in `count` how many it stands for, and what is still
uncounted once the flood is over is summarized with the next event of any kind, or at the end.
The metrics count every one.
"""

from __future__ import annotations

import math
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
        Event.ACCESS_REFUSED,
        Event.SIGN_IN_REFUSED,
    }
)
"""What somebody can cause who may store nothing. Received images are always recorded."""
BURST = 200
"""Events of one kind at once: a device that sends a whole series with a fault is recorded whole."""
PER_S = 2.0
MAX_KINDS = 256
SUMMARY_AFTER_S = 10.0
"""Without another event of its kind, what was held back is summarized after this."""


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
        self._summarize(held_since=self._monotonic() - SUMMARY_AFTER_S)

    def close(self) -> None:
        """Records what is still held back."""
        self._summarize(held_since=math.inf)

    def _summarize(self, *, held_since: float) -> None:
        """Records how many events of each kind were held back and are not told of yet."""
        with self._lock:
            due = [
                (kind, allowance)
                for kind, allowance in self._allowances.items()
                if allowance.held_back and allowance.at <= held_since
            ]
            counts = [(event, code, allowance.held_back) for (event, code), allowance in due]
            for _, allowance in due:
                allowance.held_back = 0
        for event, code, count in counts:
            about: dict[str, Any] = {"code": code} if code else {}
            self._sink.record(event, outcome=Outcome.MINOR_FAILURE, count=count, **about)

    def _take(self, event: Event, code: str) -> int:
        """How many events this one stands for; 0 when it is held back."""
        now = self._monotonic()
        with self._lock:
            is_full = len(self._allowances) >= MAX_KINDS
            key = (event, "" if is_full and (event, code) not in self._allowances else code)
            allowance = self._allowances.setdefault(key, _Allowance(BURST, now))
            allowance.left = min(BURST, allowance.left + (now - allowance.at) * PER_S)
            allowance.at = now
            if allowance.left < 1:
                allowance.held_back += 1
                return 0
            allowance.left -= 1
            stands_for, allowance.held_back = 1 + allowance.held_back, 0
            return stands_for

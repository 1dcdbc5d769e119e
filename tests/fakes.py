"""Fakes that more than one room's tests use."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from reporting.audit.schema import check_fields
from reporting.audit.trail import Actor, Event, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One event as it was given."""

    event: Event
    actor: Actor | None
    outcome: Outcome
    fields: dict[str, Any]


class RecordingAudit:
    """An AuditSink that keeps events in memory, and refuses what the real one refuses."""

    def __init__(self) -> None:
        self.recorded: list[Recorded] = []
        self._lock = threading.Lock()

    def record(
        self,
        event: Event,
        *,
        actor: Actor | None = None,
        outcome: Outcome = Outcome.SUCCESS,
        **fields: Any,
    ) -> None:
        check_fields(fields)
        with self._lock:
            self.recorded.append(Recorded(event=event, actor=actor, outcome=outcome, fields=fields))

    @property
    def events(self) -> list[Event]:
        """What happened, in order."""
        return [one.event for one in self.recorded]

    def review_events(self, _since: datetime) -> frozenset[str]:
        """Ids of the acts of reviewers that were recorded."""
        found = (one.fields.get("review_event") for one in self.recorded)
        return frozenset(str(one) for one in found if one)

    def of(self, event: Event) -> list[Recorded]:
        """Every record of one kind."""
        return [one for one in self.recorded if one.event is event]

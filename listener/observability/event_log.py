"""The log follows the audit trail: one line for each event that an engineer watches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from listener.observability.logging_setup import get_log
from reporting.audit.trail import Actor, AuditSink, Event, Outcome

LEVELS: Mapping[Outcome, str] = {
    Outcome.SUCCESS: "info",
    Outcome.MINOR_FAILURE: "warning",
    Outcome.SERIOUS_FAILURE: "error",
    Outcome.MAJOR_FAILURE: "error",
}

LOGGED = frozenset(
    {
        Event.SERVICE_STARTED,
        Event.SERVICE_STOPPED,
        Event.SETTINGS_RELOADED,
        Event.SETTINGS_REFUSED,
        Event.WORKER_TAKEN_OVER,
        Event.ASSOCIATION_REJECTED,
        Event.IMAGE_RECEIVED,
        Event.IMAGE_RECEIVED_AGAIN,
        Event.IMAGE_REFUSED,
        Event.IMAGE_PARKED,
        Event.IMAGE_DELETED,
        Event.SMEAR_REPORTED,
        Event.SMEAR_PARKED,
        Event.REPORT_DELIVERED,
        Event.DELIVERY_POSTPONED,
        Event.DELIVERY_PARKED,
        Event.RESULT_REFUSED,
        Event.COMMITMENT_RECEIVED,
        Event.COMMITMENT_OVERDUE,
        Event.DEFECT_MET,
    }
)
"""What an engineer follows; the audit trail has everything."""

_FIELDS = (
    "worker_id",
    "sop_instance_uid",
    "smear_id",
    "version",
    "count",
    "destination",
    "attempt",
    "delay_s",
    "code",
    "error_type",
    "execution_provider",
)


class LoggedAudit:
    """An audit sink that also logs what it recorded."""

    def __init__(self, sink: AuditSink) -> None:
        self._sink = sink
        self._log: structlog.stdlib.BoundLogger = get_log("listener.events")

    def record(
        self,
        event: Event,
        *,
        actor: Actor | None = None,
        outcome: Outcome = Outcome.SUCCESS,
        **fields: Any,
    ) -> None:
        """Record, then log: a line never says what the trail does not have."""
        self._sink.record(event, actor=actor, outcome=outcome, **fields)
        if event in LOGGED:
            shown = {name: fields[name] for name in _FIELDS if name in fields}
            getattr(self._log, LEVELS[outcome])(str(event), **shown)

"""Maps audit events to the codes of PS3.15 A.5: event ID, type and action.

Our own vocabulary says more than CID 400 can, so the event's own word is always sent beside it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from config import codes
from config.codes import Concept
from reporting.audit.schema import Event, Outcome

OUTCOME_INDICATOR: Mapping[Outcome, str] = {
    Outcome.SUCCESS: "0",
    Outcome.MINOR_FAILURE: "4",
    Outcome.SERIOUS_FAILURE: "8",
    Outcome.MAJOR_FAILURE: "12",
}
"""PS3.15 A.5.1; FHIR AuditEvent.outcome has the same values."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """An event in the terms of PS3.15 A.5.3."""

    event_id: Concept
    action: str
    """C create, R read, U update, D delete, E execute."""
    event_type: Concept | None = None


_STARTED = Meaning(codes.APPLICATION_ACTIVITY, "E", codes.APPLICATION_START)
_STOPPED = Meaning(codes.APPLICATION_ACTIVITY, "E", codes.APPLICATION_STOP)
_CONFIGURED = Meaning(codes.SECURITY_ALERT, "E", codes.SOFTWARE_CONFIGURATION)
_PEER = Meaning(codes.SECURITY_ALERT, "E", codes.NODE_AUTHENTICATION)
_RECORDING = Meaning(codes.SECURITY_ALERT, "E", codes.AUDIT_RECORDING_STARTED)
_TRAIL = Meaning(codes.AUDIT_LOG_USED, "R")
_RECEIVED = Meaning(codes.INSTANCES_TRANSFERRED, "C")
_RECEIVED_AGAIN = Meaning(codes.INSTANCES_TRANSFERRED, "U")
_COMMITMENT = Meaning(codes.INSTANCES_TRANSFERRED, "R")
_READ = Meaning(codes.INSTANCES_ACCESSED, "R")
_CREATED = Meaning(codes.INSTANCES_ACCESSED, "C")
_CHANGED = Meaning(codes.INSTANCES_ACCESSED, "U")
_DELETED = Meaning(codes.INSTANCES_ACCESSED, "D")
_EXPORTED = Meaning(codes.EXPORT, "R")
_LOGIN = Meaning(codes.USER_AUTHENTICATION, "E", codes.LOGIN)
_LOGOUT = Meaning(codes.USER_AUTHENTICATION, "E", codes.LOGOUT)
_RESTRICTED = Meaning(codes.SECURITY_ALERT, "E", codes.RESTRICTED_FUNCTION)

MEANINGS: Mapping[Event, Meaning] = {
    Event.SERVICE_STARTED: _STARTED,
    Event.SERVICE_STOPPED: _STOPPED,
    Event.WORKER_TAKEN_OVER: _STARTED,
    Event.SETTINGS_RELOADED: _CONFIGURED,
    Event.SETTINGS_REFUSED: _CONFIGURED,
    Event.DEFECT_MET: _CONFIGURED,
    Event.ASSOCIATION_REJECTED: _PEER,
    Event.ASSOCIATION_RELEASED: _PEER,
    Event.ASSOCIATION_ABORTED: _PEER,
    Event.REQUEST_REFUSED: _PEER,
    Event.IMAGE_RECEIVED: _RECEIVED,
    Event.IMAGE_RECEIVED_AGAIN: _RECEIVED_AGAIN,
    Event.IMAGE_REFUSED: _RECEIVED,
    Event.IMAGE_ANALYSED: _READ,
    Event.IMAGE_PARKED: _READ,
    Event.IMAGE_RETRIED: _READ,
    Event.IMAGE_DELETED: _DELETED,
    Event.SMEAR_CLOSED: _READ,
    Event.SMEAR_REPORTED: _CREATED,
    Event.SMEAR_PARKED: _READ,
    Event.SMEAR_RETRIED: _READ,
    Event.REVIEW_RECORDED: _CHANGED,
    Event.REPORT_SIGNED: _CHANGED,
    Event.SIGNATURE_REVOKED: _CHANGED,
    Event.REFERENCE_ADDED: _CHANGED,
    Event.REFERENCE_REMOVED: _CHANGED,
    Event.REPORT_DELIVERED: _EXPORTED,
    Event.DELIVERY_POSTPONED: _EXPORTED,
    Event.DELIVERY_PARKED: _EXPORTED,
    Event.DELIVERY_RETRIED: _EXPORTED,
    Event.RESULT_REFUSED: _EXPORTED,
    Event.COMMITMENT_REQUESTED: _COMMITMENT,
    Event.COMMITMENT_RECEIVED: _COMMITMENT,
    Event.COMMITMENT_OVERDUE: _COMMITMENT,
    Event.SESSION_STARTED: _LOGIN,
    Event.SESSION_ENDED: _LOGOUT,
    Event.SIGN_IN_REFUSED: _LOGIN,
    Event.ACCESS_REFUSED: _RESTRICTED,
    Event.ACCOUNT_CHANGED: Meaning(codes.SECURITY_ALERT, "U", codes.USER_SECURITY_CHANGED),
    Event.SMEARS_SEARCHED: Meaning(codes.QUERY, "E"),
    Event.SMEAR_VIEWED: _READ,
    Event.FIELD_VIEWED: _READ,
    Event.RESULTS_EXPORTED: _EXPORTED,
    Event.WORK_RETRIED: _CONFIGURED,
    Event.DESTINATION_TESTED: _CONFIGURED,
    Event.TRAIL_VIEWED: _TRAIL,
    Event.TRAIL_VERIFIED: _TRAIL,
    Event.TRAIL_EXPORTED: _TRAIL,
    Event.QUEUE_MOVED: _READ,
    Event.CHAIN_STARTED: _RECORDING,
    Event.CHAIN_RESUMED: _RECORDING,
    Event.CHAIN_RECOVERED: _RECORDING,
    Event.CHAIN_ROLLED: _TRAIL,
    Event.CHECKPOINT_SIGNED: _TRAIL,
}

_TOLD_ELSEWHERE = frozenset({"time", "event", "outcome", "actor", "study_uid", "hash", "chain"})


def details_of(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Every field of an event that has no place of its own in a message, as text."""
    return [(name, _as_text(value)) for name, value in entry.items() if name not in _TOLD_ELSEWHERE]


def user_of(entry: Mapping[str, Any]) -> str:
    """Who did it: an AE title, a person's account or a host."""
    actor = entry["actor"]
    return str(actor.get("ae_title") or actor.get("user") or actor.get("host") or "smearlink")


def is_address(host: str) -> bool:
    """An IP address rather than a name."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)

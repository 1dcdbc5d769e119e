"""What an audit event may say: the events, the outcomes, the actor, and every field.

Nothing else gets into the trail. A field that is not listed here, or a value that does not fit its
field, is a Defect: so no patient data can be written by mistake. A test holds that everything
listed here is recorded somewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pipeline.errors import Defect


class Event(StrEnum):
    """What happened, in the past tense."""

    # The service
    SERVICE_STARTED = "service_started"
    SERVICE_STOPPED = "service_stopped"
    SETTINGS_RELOADED = "settings_reloaded"
    SETTINGS_REFUSED = "settings_refused"
    WORKER_TAKEN_OVER = "worker_taken_over"
    # The network
    ASSOCIATION_REJECTED = "association_rejected"
    ASSOCIATION_RELEASED = "association_released"
    ASSOCIATION_ABORTED = "association_aborted"
    REQUEST_REFUSED = "request_refused"
    # Images
    IMAGE_RECEIVED = "image_received"
    IMAGE_RECEIVED_AGAIN = "image_received_again"
    IMAGE_REFUSED = "image_refused"
    IMAGE_ANALYSED = "image_analysed"
    IMAGE_PARKED = "image_parked"
    IMAGE_RETRIED = "image_retried"
    IMAGE_DELETED = "image_deleted"
    # Smears
    SMEAR_CLOSED = "smear_closed"
    SMEAR_REPORTED = "smear_reported"
    SMEAR_PARKED = "smear_parked"
    SMEAR_RETRIED = "smear_retried"
    # Review
    REVIEW_RECORDED = "review_recorded"
    REPORT_SIGNED = "report_signed"
    SIGNATURE_REVOKED = "signature_revoked"
    REFERENCE_ADDED = "reference_added"
    REFERENCE_REMOVED = "reference_removed"
    # Delivery
    REPORT_DELIVERED = "report_delivered"
    DELIVERY_POSTPONED = "delivery_postponed"
    DELIVERY_PARKED = "delivery_parked"
    DELIVERY_RETRIED = "delivery_retried"
    RESULT_REFUSED = "result_refused"
    COMMITMENT_REQUESTED = "commitment_requested"
    COMMITMENT_RECEIVED = "commitment_received"
    COMMITMENT_OVERDUE = "commitment_overdue"
    # People
    SESSION_STARTED = "session_started"
    SESSION_ENDED = "session_ended"
    SIGN_IN_REFUSED = "sign_in_refused"
    ACCESS_REFUSED = "access_refused"
    ACCOUNT_CHANGED = "account_changed"
    SMEARS_SEARCHED = "smears_searched"
    SMEAR_VIEWED = "smear_viewed"
    FIELD_VIEWED = "field_viewed"
    RESULTS_EXPORTED = "results_exported"
    WORK_RETRIED = "work_retried"
    DESTINATION_TESTED = "destination_tested"
    TRAIL_VIEWED = "trail_viewed"
    TRAIL_VERIFIED = "trail_verified"
    TRAIL_EXPORTED = "trail_exported"
    QUEUE_MOVED = "queue_moved"
    # Our own faults
    DEFECT_MET = "defect_met"
    # The trail itself
    CHAIN_STARTED = "chain_started"
    CHAIN_RESUMED = "chain_resumed"
    CHAIN_RECOVERED = "chain_recovered"
    CHAIN_ROLLED = "chain_rolled"
    CHECKPOINT_SIGNED = "checkpoint_signed"


class Outcome(StrEnum):
    """DICOM PS3.15 A.5.1: EventOutcomeIndicator 0, 4, 8 and 12."""

    SUCCESS = "success"
    MINOR_FAILURE = "minor_failure"
    SERIOUS_FAILURE = "serious_failure"
    MAJOR_FAILURE = "major_failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who did it: a DICOM peer, a host, a person at the command line. None where unknown."""

    ae_title: str | None = None
    host: str | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A string of one pattern."""

    pattern: re.Pattern[str]

    def accepts(self, value: Any) -> bool:
        """Whether the value is a string of the pattern."""
        return isinstance(value, str) and self.pattern.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number that is not negative."""

    def accepts(self, value: Any) -> bool:
        """Whether the value is a number in range."""
        return isinstance(value, int | float) and 0 <= value < 1e15


@dataclass(frozen=True, slots=True)
class Truth:
    """True or False."""

    def accepts(self, value: Any) -> bool:
        """Whether the value is True or False."""
        return isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Many:
    """A list of texts of one pattern."""

    one: Text

    def accepts(self, value: Any) -> bool:
        """Whether the value is a list of which every member is accepted."""
        is_list = isinstance(value, Sequence | frozenset) and not isinstance(value, str)
        return is_list and all(self.one.accepts(member) for member in value)


Rule = Text | Number | Truth | Many

UID = Text(re.compile(r"[0-9.]{1,64}"))
WORD = Text(re.compile(r"[a-z][a-z0-9_]{0,63}"))
NAME = Text(re.compile(r"[a-z0-9][a-z0-9_\-]{0,39}"))
SHA256 = Text(re.compile(r"[0-9a-f]{64}"))
SMEAR = Text(re.compile(r"(series[-:_]|specimen[-:_])?[0-9a-f.\-]{1,64}"))
STATUS = Text(re.compile(r"0x[0-9A-Fa-f]{4}|[0-9]{3}|[AC][AER]( [0-9]{1,5})?"))
"""Of DIMSE, HTTP or HL7."""
NUMBER = Number()
TRUTH = Truth()

FIELDS: Mapping[str, Rule] = {
    # What it was about
    "study_uid": UID,
    "series_uid": UID,
    "sop_instance_uid": UID,
    "sop_class_uid": UID,
    "transfer_syntax_uid": UID,
    "transaction_uid": UID,
    "smear_id": SMEAR,
    "accession_hash": SHA256,
    "content_sha256": SHA256,
    # How it went
    "code": WORD,
    "status": STATUS,
    "statuses": Many(STATUS),
    "error_type": Text(re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,79}")),
    "reasons": Many(WORD),
    "is_duplicate": TRUTH,
    # By which way
    "destination": NAME,
    "route": NAME,
    "queue": NAME,
    "kinds": Many(WORD),
    "step": WORD,
    "trigger": WORD,
    "protocol": WORD,
    "grade": WORD,
    "act": WORD,
    "given_class": WORD,
    "review_event": Text(re.compile(r"[A-Za-z0-9_.\-]{1,64}")),
    # How much
    "version": NUMBER,
    "revision": NUMBER,
    "cells": NUMBER,
    "attempt": NUMBER,
    "count": NUMBER,
    "frame": NUMBER,
    "frames": NUMBER,
    "fields": NUMBER,
    "fields_rejected": NUMBER,
    "bytes": NUMBER,
    "duration_ms": NUMBER,
    "delay_s": NUMBER,
    "port": NUMBER,
    "cells_found": NUMBER,
    "white_cells": NUMBER,
    "leukemic": NUMBER,
    "normal": NUMBER,
    "referred": NUMBER,
    # By what
    "software_version": Text(re.compile(r"[0-9A-Za-z.+\-]{1,64}")),
    "model_sha256": SHA256,
    "finder_sha256": SHA256,
    "calibration_sha256": SHA256,
    "execution_provider": Text(re.compile(r"[A-Za-z]{1,48}")),
    "worker_id": Text(re.compile(r"[A-Za-z0-9_.\-]{1,64}")),
    # The trail itself
    "file": Text(re.compile(r"(audit|checkpoints)-[A-Za-z0-9_.\-]{1,100}\.jsonl")),
    "next_file": Text(re.compile(r"audit-[A-Za-z0-9_.\-]{1,100}\.jsonl")),
    "chains": Many(Text(re.compile(r"[A-Za-z0-9_.\-]{1,64}"))),
    "torn_bytes": NUMBER,
    "torn_sha256": SHA256,
    "unsigned_events": NUMBER,
    "key_id": Text(re.compile(r"[0-9a-f]{16}")),
    "signature": Text(re.compile(r"[0-9a-f]{128}")),
}
"""Every field that an event may carry, and what it may hold."""

ACTOR_FIELDS: Mapping[str, Text] = {
    # PS3.5 Table 6.2-1, VR AE
    "ae_title": Text(re.compile(r"(?! )[ -\[\]-~]{1,16}(?<! )")),
    "host": Text(re.compile(r"[A-Za-z0-9_.:%\-]{1,253}")),
    "user": Text(re.compile(r"[A-Za-z0-9_.\-@$]{1,64}")),
}


def check_fields(fields: Mapping[str, Any]) -> None:
    """Raise Defect for a field that is not allowed, without saying what it held."""
    for name, value in fields.items():
        rule = FIELDS.get(name)
        if rule is None:
            raise Defect(
                f"Audit events have no field {name!r}; see FIELDS for those that they have.",
                code="audit_field_unknown",
            )
        if not rule.accepts(value):
            raise Defect(
                f"The audit field {name!r} was given a value that it must not hold.",
                code="audit_value_refused",
            )


def describe_actor(actor: Actor) -> dict[str, str]:
    """The actor as fields. What a peer calls itself is free: an odd name becomes "unprintable"."""
    given = {"ae_title": actor.ae_title, "host": actor.host, "user": actor.user}
    return {
        name: value if ACTOR_FIELDS[name].accepts(value) else "unprintable"
        for name, value in given.items()
        if value is not None
    }

"""Records in the audit trail what a person does at the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from config.model import Settings
from listener.observability.audit_trail import open_trail, person_at_terminal
from listener.queue.status import ParkedWork, WorkKind
from pipeline.errors import SmearlinkError
from reporting.audit.trail import Event, Outcome

RETRIED: Mapping[WorkKind, Event] = {
    WorkKind.IMAGE: Event.IMAGE_RETRIED,
    WorkKind.REPORT: Event.SMEAR_RETRIED,
    WorkKind.DELIVERY: Event.DELIVERY_RETRIED,
    WorkKind.COMMITMENT: Event.DELIVERY_RETRIED,
}


class Record(Protocol):
    """Writes one event of the person at the terminal."""

    def __call__(self, event: Event, *, outcome: Outcome = Outcome.SUCCESS, **fields: Any) -> None:
        """Record one act of the operator."""


@contextmanager
def recorded_acts(settings: Settings) -> Iterator[Record]:
    """The trail, opened before anything is done: what cannot be recorded is not done."""
    with open_trail(settings) as trail:
        actor = person_at_terminal()

        def record(event: Event, *, outcome: Outcome = Outcome.SUCCESS, **fields: Any) -> None:
            trail.record(event, actor=actor, outcome=outcome, **fields)

        yield record


def record_retries(record: Record, taken_up: Iterable[ParkedWork]) -> None:
    """One event for each piece of parked work that is taken up again."""
    for one in taken_up:
        about: dict[str, Any] = {
            "smear_id": one.smear_id,
            "sop_instance_uid": one.sop_instance_uid,
            "destination": one.destination,
            "code": one.code,
        }
        record(RETRIED[one.kind], **{name: value for name, value in about.items() if value})


def record_reading(
    settings: Settings, directory: Path | None, event: Event, *, outcome: Outcome, **fields: Any
) -> None:
    """Record that the site's own trail was verified or exported; a copy elsewhere is not.

    Whoever may only read the trail is told that the act was not recorded.
    """
    is_own = directory is None or directory.absolute() == settings.audit_dir.absolute()
    if not is_own or not settings.audit_key_file.exists():
        return
    try:
        with recorded_acts(settings) as record:
            record(event, outcome=outcome, **fields)
    except (SmearlinkError, OSError) as err:
        why = err.message if isinstance(err, SmearlinkError) else err.strerror
        print(f"smearlink: not recorded in the audit trail: {why}", file=sys.stderr)  # noqa: T201

"""`smearlink audit`: verify, show and export, on the trail of the site or of any folder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from config.model import Settings
from listener.cli.console import show_verification
from listener.cli.operator_acts import record_reading
from pipeline.domain import RESEARCH_USE_ONLY
from pipeline.errors import Rejected
from reporting.audit.trail import (
    Event,
    EventFilter,
    Outcome,
    load_or_make_key,
    public_path,
    read_events,
    read_public_key,
    verify_trail,
)
from reporting.durable_files import private_opener

ASIDE = frozenset(
    {
        *("time", "event", "outcome", "actor", "seq", "prev", "hash", "chain"),
        *("software_version", "model_sha256", "calibration_sha256", "research_use_only"),
    }
)
"""Fields that a line for people shows elsewhere, or not at all."""

DIGEST = re.compile("[0-9a-f]{64}|[0-9a-f]{128}")
DIGITS = 12


def verify_audit(
    settings: Settings, directory: Path | None, public_key: Path | None, as_json: bool
) -> bool:
    """Check the trail and print the findings; return whether it is intact."""
    folder = directory or settings.audit_dir
    key = read_public_key(public_key or public_path(settings.audit_key_file))
    result = verify_trail(folder, key)
    if as_json:
        problems = [str(finding) for finding in result.problems]
        print(json.dumps({"is_whole": result.is_whole, "problems": problems}))  # noqa: T201
    else:
        show_verification(result)
    record_reading(
        settings,
        directory,
        Event.TRAIL_VERIFIED,
        outcome=Outcome.SUCCESS if result.is_whole else Outcome.SERIOUS_FAILURE,
        count=result.events,
    )
    return result.is_whole


def show_audit(
    settings: Settings, directory: Path | None, asked: Mapping[str, str], as_json: bool
) -> None:
    """Print the matching events, oldest first."""
    events = read_events(directory or settings.audit_dir, _filter(settings, asked))
    for line in map(json.dumps, events) if as_json else _lines(events):
        print(line)  # noqa: T201


def export_audit(settings: Settings, directory: Path | None, out: Path, form: str) -> int:
    """Write every event to `out`, one message or resource per line; return their number.

    The file is whole or not there. Raises Rejected for an unknown form.
    """
    write = FORMS.get(form)
    if write is None:
        raise Rejected(f"--format: {form!r} is not one of {', '.join(FORMS)}", code="usage")
    folder = directory or settings.audit_dir
    if not folder.is_dir():
        raise Rejected(f"There is no audit folder {folder}; name it.", code="usage")
    count = 0
    draft = out.with_name(f".{out.name}.{uuid4().hex}.part")
    try:
        with open(draft, "x", encoding="utf-8", opener=private_opener) as file:
            for event in read_events(folder):
                file.write(write(event, source=event["chain"]) + "\n")
                count += 1
        draft.replace(out)
    except OSError as err:
        raise Rejected(f"{out} cannot be written ({err.strerror}).", code="usage") from err
    finally:
        draft.unlink(missing_ok=True)
    record_reading(settings, directory, Event.TRAIL_EXPORTED, outcome=Outcome.SUCCESS, count=count)
    return count


def _as_xml(event: Mapping[str, Any], *, source: str) -> str:
    from reporting.audit.dicom_export import dicom_message

    return dicom_message(event, source=source).decode()


def _as_fhir(event: Mapping[str, Any], *, source: str) -> str:
    # Not at the start: the other commands need neither FHIR nor DICOM.
    from reporting.audit.fhir_export import fhir_event

    return fhir_event(event, source=source)


FORMS: Mapping[str, Callable[..., str]] = {"dicom": _as_xml, "fhir": _as_fhir}
"""DICOM Audit Messages (PS3.15 A.5), and FHIR AuditEvents as NDJSON."""


def _filter(settings: Settings, asked: Mapping[str, str]) -> EventFilter:
    return EventFilter(
        study_uid=asked["study"] or None,
        sop_instance_uid=asked["image"] or None,
        accession_hash=_accession_hash(settings, asked["accession"]),
        ae_title=asked["ae"] or None,
        outcome=_outcome(asked["outcome"]),
        since=_moment("since", asked["since"]),
        until=_moment("until", asked["until"]),
    )


def _accession_hash(settings: Settings, accession: str) -> str | None:
    """The hash that the trail keeps; only the site's key can compute it."""
    if not accession:
        return None
    if not settings.audit_key_file.exists():
        raise Rejected(
            f"--accession needs the site's audit key, and there is none in "
            f"{settings.audit_key_file}: run this where the service runs.",
            code="audit_key_missing",
        )
    return load_or_make_key(settings.audit_key_file).accession_hash(accession)


def _outcome(word: str) -> Outcome | None:
    if not word:
        return None
    try:
        return Outcome(word)
    except ValueError as err:
        raise Rejected(
            f"--outcome: {word!r} is not one of {', '.join(Outcome)}", code="usage"
        ) from err


def _moment(option: str, text: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as err:
        raise Rejected(
            f"--{option}: give an ISO time such as 2026-11-24T08:00Z", code="usage"
        ) from err
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _lines(events: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Events for people, with a heading whenever machine, software or network change."""
    before = None
    for event in events:
        network, calibration = event.get("model_sha256", ""), event.get("calibration_sha256", "")
        made_by = (event["chain"], event["software_version"], network, calibration)
        if made_by != before:
            before = made_by
            words = f", network {network[:DIGITS]}" if network else ""
            words += f", site calibration {calibration[:DIGITS]}" if calibration else ""
            yield f"{made_by[0]}: smearlink {made_by[1]}{words}. {RESEARCH_USE_ONLY}"
        yield _line(event)


def _line(event: Mapping[str, Any]) -> str:
    """Time, what, outcome, who, then the rest as name=value."""
    rest = " ".join(f"{n}={_plain(value)}" for n, value in event.items() if n not in ASIDE)
    actor = event["actor"]
    who = actor.get("ae_title") or actor.get("user") or actor.get("host") or ""
    when = event["time"][:23].replace("T", " ")
    return f"{when} {event['event']:<20} {event['outcome']:<15} {who:<16} {rest}".rstrip()


def _plain(value: Any) -> str:
    """Digests and signatures by their beginning; --json shows them whole."""
    if isinstance(value, list):
        return ",".join(map(_plain, value))
    text = str(value)
    return f"{text[:DIGITS]}\N{HORIZONTAL ELLIPSIS}" if DIGEST.fullmatch(text) else text

"""`smearlink audit`: verify, show and export, on the trail of the site or of any folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from config.settings import Settings
from listener.terminal import show_verification
from pipeline.errors import Rejected
from reporting.audit import (
    EventFilter,
    Outcome,
    load_or_make_key,
    public_path,
    read_events,
    read_public_key,
    verify_trail,
)
from reporting.audit_dicom import dicom_message
from reporting.audit_fhir import fhir_event


def verify_audit(
    settings: Settings, directory: Path | None, public_key: Path | None, as_json: bool
) -> bool:
    """Check the trail and say what was found; whether it is whole."""
    folder = directory or settings.audit_dir
    key = read_public_key(public_key or public_path(settings.audit_key_file))
    result = verify_trail(folder, key)
    if as_json:
        problems = [str(finding) for finding in result.problems]
        print(json.dumps({"is_whole": result.is_whole, "problems": problems}))  # noqa: T201
    else:
        show_verification(result)
    return result.is_whole


def show_audit(
    settings: Settings, directory: Path | None, asked: Mapping[str, str], as_json: bool
) -> None:
    """Print the events that fit, oldest first."""
    for event in read_events(directory or settings.audit_dir, _filter(settings, asked)):
        print(json.dumps(event) if as_json else _line(event))  # noqa: T201


def export_audit(settings: Settings, directory: Path | None, out: Path, form: str) -> int:
    """Write every event to `out`, one message or resource a line; how many there were.

    The file is whole or not there. Raises Rejected for a form that we do not know.
    """
    write = FORMS.get(form)
    if write is None:
        raise Rejected(f"--format: {form!r} is none of {', '.join(FORMS)}", code="usage")
    folder = directory or settings.audit_dir
    if not folder.is_dir():
        raise Rejected(f"There is no audit folder {folder}; name it.", code="usage")
    count = 0
    draft = out.with_name(f".{out.name}.part")
    try:
        with draft.open("w", encoding="utf-8") as file:
            for event in read_events(folder):
                file.write(write(event, source=event["chain"]) + "\n")
                count += 1
        draft.replace(out)
    except OSError as err:
        raise Rejected(f"{out} cannot be written ({err.strerror}).", code="usage") from err
    finally:
        draft.unlink(missing_ok=True)
    return count


def _as_xml(event: Mapping[str, Any], *, source: str) -> str:
    return dicom_message(event, source=source).decode()


FORMS: Mapping[str, Callable[..., str]] = {"dicom": _as_xml, "fhir": fhir_event}
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
    """The hash that stands in the trail; only the site's key can make it."""
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
            f"--outcome: {word!r} is none of {', '.join(Outcome)}", code="usage"
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


def _line(event: Mapping[str, Any]) -> str:
    """One event for people: time, what, outcome, then the rest as name=value."""
    aside = {
        "time",
        "event",
        "outcome",
        "actor",
        "seq",
        "prev",
        "hash",
        "chain",
        "research_use_only",
    }
    rest = " ".join(f"{name}={_plain(value)}" for name, value in event.items() if name not in aside)
    actor = event.get("actor") or {}
    who = actor.get("ae_title") or actor.get("user") or actor.get("host") or ""
    return f"{event['time']} {event['event']:<22} {event['outcome']:<15} {who:<16} {rest}"


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)

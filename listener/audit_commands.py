"""`smearlink audit`: verify, show and export, on the trail of the site or of any folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
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


def _filter(settings: Settings, asked: Mapping[str, str]) -> EventFilter:
    accession_hash = None
    if asked["accession"]:
        accession_hash = load_or_make_key(settings.audit_key_file).accession_hash(
            asked["accession"]
        )
    return EventFilter(
        study_uid=asked["study"] or None,
        sop_instance_uid=asked["image"] or None,
        accession_hash=accession_hash,
        ae_title=asked["ae"] or None,
        outcome=_outcome(asked["outcome"]),
        since=_moment("since", asked["since"]),
        until=_moment("until", asked["until"]),
    )


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
    aside = {"time", "event", "outcome", "actor", "seq", "prev", "hash", "research_use_only"}
    rest = " ".join(f"{name}={_plain(value)}" for name, value in event.items() if name not in aside)
    actor = event.get("actor") or {}
    who = actor.get("ae_title") or actor.get("user") or actor.get("host") or ""
    return f"{event['time']} {event['event']:<22} {event['outcome']:<15} {who:<16} {rest}"


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)

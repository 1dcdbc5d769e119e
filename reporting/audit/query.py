"""Queries the trail: events of all chains by time, filtered."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from reporting.audit.record_format import decode, event_files, events_name
from reporting.audit.schema import Event, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Conditions on events; None sets none."""

    study_uid: str | None = None
    sop_instance_uid: str | None = None
    accession_hash: str | None = None
    ae_title: str | None = None
    destination: str | None = None
    event: Event | None = None
    outcome: Outcome | None = None
    since: datetime | None = None
    """Aware; the first moment that is shown."""
    until: datetime | None = None
    """Aware; the first moment that is not."""

    def accepts(self, entry: Mapping[str, Any]) -> bool:
        """Whether an event meets all conditions."""
        asked = {
            "study_uid": self.study_uid,
            "sop_instance_uid": self.sop_instance_uid,
            "accession_hash": self.accession_hash,
            "destination": self.destination,
            "event": self.event,
            "outcome": self.outcome,
        }
        return (
            all(entry.get(name) == value for name, value in asked.items() if value is not None)
            and self.ae_title in (None, entry["actor"].get("ae_title"))
            and (self.since is None or entry["time"] >= _iso(self.since))
            and (self.until is None or entry["time"] < _iso(self.until))
        )


EVERYTHING = EventFilter()


def read_events(directory: Path, filters: EventFilter = EVERYTHING) -> Iterator[Mapping[str, Any]]:
    """The events that `filters` accepts, by time, each with its `hash` and `chain`.

    Lines that do not hold are left to `verify`.
    """
    chains = [_entries(chain, paths) for chain, paths in event_files(directory).items()]
    merged = heapq.merge(*chains, key=lambda entry: str(entry["time"]))
    return (entry for entry in merged if filters.accepts(entry))


def recorded_review_events(directory: Path, *, since: datetime) -> frozenset[str]:
    """Ids of the acts of reviewers that stand in the trail of the day of `since` or after it."""
    # A day is added for writers in whose chain the clock was set back.
    first = events_name(_iso(since - timedelta(days=1)), "").removesuffix("-.jsonl")
    return frozenset(
        str(link.entry["review_event"])
        for paths in event_files(directory).values()
        for path in paths
        if path.name >= first
        for line in _lines(path)
        if b'"review_event"' in line and (link := decode(line.removesuffix(b"\n"))) is not None
        if "review_event" in link.entry
    )


def latest_events(
    directory: Path, events: frozenset[Event], *, count: int, tail_bytes: int = 1 << 20
) -> list[Mapping[str, Any]]:
    """The newest events of some kinds, newest first, from the end of each chain only."""
    found = [
        entry
        for paths in event_files(directory).values()
        for entry in _last_entries(paths[-1], tail_bytes)
        if entry["event"] in events
    ]
    return sorted(found, key=lambda entry: str(entry["time"]), reverse=True)[:count]


def _last_entries(path: Path, tail_bytes: int) -> Iterator[Mapping[str, Any]]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - tail_bytes))
        for line in file:
            link = decode(line.removesuffix(b"\n"))
            if link is not None:
                yield link.entry


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _entries(chain: str, paths: list[Path]) -> Iterator[Mapping[str, Any]]:
    for path in paths:
        with path.open("rb") as file:
            for line in file:
                link = decode(line.removesuffix(b"\n"))
                if link is not None:
                    yield {**link.entry, "hash": link.hash, "chain": chain}


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

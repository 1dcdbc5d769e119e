"""Reads one chain of the trail from where the last read stopped, while it keeps growing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reporting.audit.record_format import decode, event_files

MOST_BYTES = 1 << 20
"""Read at once; some 2,000 events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Between two lines of a chain."""

    file: str = ""
    """Name of a file of events; empty before the first."""
    offset: int = 0


def read_on(
    folder: Path, chain: str, place: Place, *, most_bytes: int = MOST_BYTES
) -> tuple[list[Mapping[str, Any]], Place]:
    """Events after `place`, oldest first, and the place after them; ([], place) at the end.

    A last line without its newline is still being written and waits. Lines that do not hold are
    passed over: `verify_trail` speaks of them.
    """
    names = [path.name for path in event_files(folder).get(chain, [])]
    for name in [name for name in names if name >= place.file]:
        offset = place.offset if name == place.file else 0
        text = _read(folder / name, offset, most_bytes)
        whole = text[: text.rfind(b"\n") + 1]
        if whole:
            links = (decode(line) for line in whole.split(b"\n")[:-1])
            entries: list[Mapping[str, Any]] = [
                {**link.entry, "hash": link.hash} for link in links if link
            ]
            return entries, Place(file=name, offset=offset + len(whole))
    return [], place


def _read(path: Path, offset: int, most_bytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(most_bytes)

"""An index of the audit trail, so that a question to a million events is answered at once.

The files stay the trail: the index holds where each line lies, and its words that people filter
by. What a page shows of an event is read from its line, and a line that was changed is left out.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from listener.observability.logging_setup import get_log
from listener.web.console.database import AUDIT_EVENT, AUDIT_FILE, ConsoleDatabase
from reporting.audit.record_format import decode, event_files
from reporting.audit.trail import Event

PAGE_EVENTS = 100
MOST_COUNTED = 10_000
READ_BYTES = 4 << 20
LOOK_EVERY_S = 1.0


_Lengths = Mapping[str, int]
"""Bytes of each file of the trail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuestion:
    """What is asked of the trail; empty asks for everything."""

    event: str = ""
    outcome: str = ""
    person: str = ""
    device: str = ""
    study: str = ""
    image: str = ""
    smear: str = ""
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_story(self) -> bool:
        """One image, told from its first event on."""
        return bool(self.image)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """Events of a page, and how many there are; counted up to MOST_COUNTED."""

    events: Sequence[Mapping[str, Any]]
    total: int
    number: int

    @property
    def pages(self) -> int:
        """Number of pages, at least one."""
        return max(1, -(-min(self.total, MOST_COUNTED) // PAGE_EVENTS))

    @property
    def is_more(self) -> bool:
        """Whether there are more events than are counted."""
        return self.total > MOST_COUNTED


class AuditIndex:
    """Reads and fills the audit tables."""

    def __init__(self, database: ConsoleDatabase, folder: Path) -> None:
        self._database, self._folder = database, folder
        self._all_read: _Lengths | None = None
        """How long the files were when nothing was left to read."""

    def page(self, asked: AuditQuestion, number: int = 1) -> AuditPage:
        """The newest first; an image's story from its beginning."""
        where = list(_conditions(asked))
        table = AUDIT_EVENT.c
        order = [table.time, table.id] if asked.is_story else [table.time.desc(), table.id.desc()]
        some = sa.select(table.id).where(*where).limit(MOST_COUNTED + 1).subquery()
        with self._database.reading() as connection:
            total = int(
                connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one()
            )
            number = max(1, min(number, -(-min(total, MOST_COUNTED) // PAGE_EVENTS)))
            query = (
                sa.select(table.file, table.place, table.bytes)
                .where(*where)
                .order_by(*order)
                .limit(PAGE_EVENTS)
                .offset((number - 1) * PAGE_EVENTS)
            )
            places = list(connection.execute(query))
        return AuditPage(events=list(self._lines(places)), total=total, number=number)

    def smear_of(self, image: str) -> str:
        """The series that an image came in, from the line of its arrival; "" when unknown."""
        asked = AuditQuestion(image=image)
        for event in self.page(asked).events:
            if event.get("series_uid"):
                return str(event["series_uid"])
        return ""

    def last_success(self) -> Mapping[str, str]:
        """When each destination last took something."""
        table = AUDIT_EVENT.c
        query = (
            sa.select(table.destination, sa.func.max(table.time))
            .where(
                table.destination > "",
                table.event == Event.REPORT_DELIVERED,
                table.outcome == "success",
            )
            .group_by(table.destination)
        )
        with self._database.reading() as connection:
            return {str(name): str(time) for name, time in connection.execute(query)}

    def people(self) -> list[str]:
        """Everybody who did anything."""
        return self._distinct(AUDIT_EVENT.c.person)

    def devices(self) -> list[str]:
        """Every AE title in the trail."""
        return self._distinct(AUDIT_EVENT.c.device)

    def follow(self, stopping: threading.Event) -> None:
        """Index what is written, from where the last run stopped, until told to stop."""
        while not stopping.is_set():
            try:
                if not self.read_on():
                    stopping.wait(LOOK_EVERY_S)
            except Exception as err:  # noqa: BLE001 - the boundary of a loop; tried again
                get_log("listener.web.console.audit_index").warning(
                    "defect_met", error_type=type(err).__name__
                )
                stopping.wait(5.0)

    def read_on(self) -> int:
        """Index the next lines of every chain; how many there were."""
        lengths = self._lengths()
        if lengths == self._all_read:
            return 0
        with self._database.reading() as connection:
            known = {row.file: row.read_to for row in connection.execute(sa.select(AUDIT_FILE))}
        count = sum(
            self._read_file(self._folder / name, known.get(name, 0))
            for name, length in lengths.items()
            if length > known.get(name, 0)
        )
        self._all_read = None if count else lengths
        return count

    def _lengths(self) -> _Lengths:
        paths = (path for chain in event_files(self._folder).values() for path in chain)
        return {path.name: path.stat().st_size for path in paths}

    def _read_file(self, path: Path, place: int) -> int:
        with path.open("rb") as file:
            file.seek(place)
            text = file.read(READ_BYTES)
        whole = text[: text.rfind(b"\n") + 1]
        rows = []
        start = place
        for line in whole.split(b"\n")[:-1]:
            link = decode(line)
            if link is not None:
                rows.append(_row(link.entry, path.name, start, len(line)))
            start += len(line) + 1
        if start == place:
            return 0
        with self._database.writing() as connection:
            # The place is told with the rows: a kill between repeats both or neither.
            if rows:
                connection.execute(sa.insert(AUDIT_EVENT), rows)
            self._database.upsert(connection, AUDIT_FILE, {"file": path.name, "read_to": start})
        return max(1, len(rows))

    def _lines(self, places: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
        for row in places:
            path = self._folder / row.file
            try:
                with path.open("rb") as file:
                    file.seek(row.place)
                    link = decode(file.read(row.bytes))
            except OSError:
                continue
            if link is not None:
                yield {**link.entry, "hash": link.hash}

    def _distinct(self, column: sa.Column[str], most: int = 200) -> list[str]:
        found: list[str] = []
        with self._database.reading() as connection:
            while len(found) < most:
                after = sa.select(sa.func.min(column)).where(column > (found[-1] if found else ""))
                following = connection.execute(after).scalar()
                if following is None:
                    break
                found.append(str(following))
        return found


def _conditions(asked: AuditQuestion) -> Iterator[sa.ColumnElement[bool]]:
    table = AUDIT_EVENT.c
    for name in ("event", "outcome", "person", "device", "study"):
        if word := getattr(asked, name):
            yield table[name] == word
    if asked.image and asked.smear:
        yield sa.or_(table.image == asked.image, table.smear == asked.smear)
    elif asked.image or asked.smear:
        yield table.image == asked.image if asked.image else table.smear == asked.smear
    if asked.since is not None:
        yield table.time >= _iso(asked.since)
    if asked.until is not None:
        yield table.time < _iso(asked.until)


def _row(entry: Mapping[str, Any], file: str, place: int, size: int) -> dict[str, Any]:
    actor = entry.get("actor", {})
    return {
        "time": str(entry.get("time", "")),
        "file": file,
        "place": place,
        "bytes": size,
        "event": str(entry.get("event", "")),
        "outcome": str(entry.get("outcome", "")),
        "person": str(actor.get("user", "")),
        "device": str(actor.get("ae_title", "")),
        "study": str(entry.get("study_uid", "")),
        "image": str(entry.get("sop_instance_uid", "")),
        "smear": str(entry.get("smear_id", "")),
        "destination": str(entry.get("destination", "")),
    }


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

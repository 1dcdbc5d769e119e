"""Keeps the index of smears true to the files: told by events at once, by a scan for the rest.

Every process that analyses or delivers indexes what it did itself, into one table; so a console
shows the work of all workers within a second. The scan at the start, and now and then after it,
finds what a process did that died before its row was written.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Any

from listener.observability.logging_setup import get_log
from listener.storage.inbox import Inbox
from listener.storage.results import ResultsFolder
from listener.storage.smear_grouping import GatherBy, smear_id_of
from listener.web.console.smear_files import SmearFiles
from listener.web.console.smear_index import SmearIndex
from pipeline.domain import SmearId
from pipeline.errors import SmearlinkError
from reporting.audit.trail import Actor, AuditSink, Event, Outcome

TOGETHER_S = 0.3
"""Events of one smear within this time make its row once."""
SCAN_EVERY_S = 600.0
REST_S = 10.0
"""The longest wait for an event before the time of the next scan is looked at."""
ROWS_AT_ONCE = 100

_OF_SMEARS = frozenset(
    {
        Event.SMEAR_REPORTED,
        Event.REPORT_DELIVERED,
        Event.DELIVERY_PARKED,
        Event.DELIVERY_RETRIED,
        Event.COMMITMENT_RECEIVED,
        Event.REVIEW_RECORDED,
        Event.REPORT_SIGNED,
        Event.SIGNATURE_REVOKED,
    }
)

ReadParked = Callable[[], Iterable[tuple[str, str]]]
"""(smear, destination) of every parked delivery."""


class FollowedAudit:
    """An audit sink that tells the indexer which smear an event was about."""

    def __init__(self, audit: AuditSink) -> None:
        self._audit = audit
        self._on_event: Callable[[Event, dict[str, Any]], None] | None = None

    def follow(self, on_event: Callable[[Event, dict[str, Any]], None]) -> None:
        """Pass every event on from now."""
        self._on_event = on_event

    def record(
        self,
        event: Event,
        *,
        actor: Actor | None = None,
        outcome: Outcome = Outcome.SUCCESS,
        **fields: Any,
    ) -> None:
        """Record the event, then pass it on."""
        self._audit.record(event, actor=actor, outcome=outcome, **fields)
        if self._on_event is not None:
            self._on_event(event, fields)


class Indexer:
    """A thread that writes rows; `note` never blocks and never fails."""

    def __init__(
        self,
        *,
        index: SmearIndex,
        files: SmearFiles,
        inbox: Inbox,
        results: ResultsFolder,
        gather_by: GatherBy,
        read_parked: ReadParked,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._index, self._files = index, files
        self._inbox, self._results = inbox, results
        self._gather_by = gather_by
        self._read_parked = read_parked
        self._clock = clock
        self._noted: SimpleQueue[tuple[Event, dict[str, Any]] | None] = SimpleQueue()
        """None ends the wait of a thread that stops."""
        self._stopping = threading.Event()
        self._parked: frozenset[tuple[str, str]] = frozenset()
        self._thread = threading.Thread(target=self._run, name="console-indexer", daemon=True)

    def note(self, event: Event, fields: dict[str, Any]) -> None:
        """An event that was recorded just now."""
        if event in _OF_SMEARS or event is Event.IMAGE_ANALYSED:
            self._noted.put((event, fields))

    def start(self) -> None:
        """Scan, then follow."""
        self._thread.start()

    def stop(self) -> None:
        """Leave what is not written to the next scan."""
        self._stopping.set()
        self._noted.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout=10)

    def scan(self) -> int:
        """Make the rows of smears whose files have changed, and forget those that are gone."""
        self._read_what_is_parked()
        known = self._index.stamps()
        here = set()
        changed: list[SmearId] = []
        count = 0
        for smear_id in self._results.smears():
            here.add(str(smear_id))
            if self._stopping.is_set():
                return count
            if known.get(smear_id) != self._files.stamp(smear_id):
                changed.append(smear_id)
            if len(changed) >= ROWS_AT_ONCE:
                count += self._write(changed)
                changed = []
        count += self._write(changed)
        gone = [smear_id for smear_id in known if smear_id not in here]
        for start in range(0, len(gone), ROWS_AT_ONCE):
            self._index.remove(gone[start : start + ROWS_AT_ONCE])
        return count

    def _run(self) -> None:
        scanned_at = None
        while not self._stopping.is_set():
            try:
                if scanned_at is None or time.monotonic() - scanned_at > SCAN_EVERY_S:
                    scanned_at = time.monotonic()
                    self.scan()
                self._write(self._next_smears())
            except Exception as err:  # noqa: BLE001 - the boundary of a loop; the next scan mends it
                get_log("listener.web.console.indexer").warning(
                    "defect_met", error_type=type(err).__name__
                )
                self._stopping.wait(1.0)

    def _next_smears(self) -> list[SmearId]:
        """Wait for events, and a moment for more of the same smears."""
        try:
            first = self._noted.get(timeout=REST_S)
        except Empty:
            return []
        self._stopping.wait(TOGETHER_S)
        noted = [first] if first is not None else []
        with suppress(Empty):
            while len(noted) < ROWS_AT_ONCE:
                if (further := self._noted.get_nowait()) is not None:
                    noted.append(further)
        if any(event in (Event.DELIVERY_PARKED, Event.DELIVERY_RETRIED) for event, _ in noted):
            self._read_what_is_parked()
        found = [self._smear_of(event, fields) for event, fields in noted]
        return list(dict.fromkeys(smear_id for smear_id in found if smear_id))

    def _smear_of(self, event: Event, fields: dict[str, Any]) -> SmearId | None:
        if event is not Event.IMAGE_ANALYSED:
            return SmearId(str(fields["smear_id"])) if "smear_id" in fields else None
        try:
            image = self._inbox.facts(str(fields["sop_instance_uid"]))
        except SmearlinkError:
            return None
        return smear_id_of(image, self._gather_by)

    def _write(self, smear_ids: Iterable[SmearId]) -> int:
        rows = []
        for smear_id in smear_ids:
            try:
                row = self._files.row(
                    smear_id, parked=self._parked, earlier=self._index.find(smear_id)
                )
            except Exception as err:  # noqa: BLE001 - one smear's damage hides no other
                get_log("listener.web.console.indexer").warning(
                    "defect_met", error_type=type(err).__name__
                )
                continue
            if row is not None:
                rows.append(row)
        if rows:
            self._index.save(rows, at=self._clock())
        return len(rows)

    def _read_what_is_parked(self) -> None:
        with suppress(SmearlinkError):
            self._parked = frozenset(self._read_parked())

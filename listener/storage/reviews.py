"""The review log of a smear: one file per event, in the order of revisions.

    results/<smear>/review/<revision>.json

The files are the truth. A revision is taken by linking a whole, synced file under its number,
which only one process can do; so no event is lost, none is overwritten, and an event that was
confirmed survives a power cut. Comments are in these files alone, never in logs or the audit trail.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from pipeline.errors import Defect, Rejected
from pipeline.findings.review import ReviewEvent
from pipeline.findings.review_records import event_from_record, event_to_record
from reporting.durable_files import make_folder, sync_folder, write_synced

_SUFFIX = ".json"
_DIGITS = 8


class StaleReview(Rejected):
    """Somebody else wrote since the page was loaded; `since` is what they did."""

    def __init__(self, since: Sequence[ReviewEvent]) -> None:
        super().__init__(
            "The review changed since this page was loaded; look at the changes and try again.",
            code="review_stale",
        )
        self.since = tuple(since)


class ReviewLog:
    """The events of one smear. Safe to share between threads; processes share the folder.

    The folder's names are read once; from then on each question looks for the next revisions
    alone, so an act costs the same after a thousand others.
    """

    def __init__(self, folder: Path, *, tmp: Path) -> None:
        self._folder = folder
        self._tmp = tmp
        self._read: dict[int, ReviewEvent] = {}
        self._by_id: dict[str, ReviewEvent] = {}
        self._ordered: tuple[ReviewEvent, ...] = ()
        self._unread: list[int] = []
        """Revisions that are there, and were not read yet."""
        self._last: int | None = None
        """Of the revisions that are known to be there; None before the folder was read."""
        self._lock = threading.Lock()

    def revision(self) -> int:
        """Of the last event; 0 where nobody reviewed the smear."""
        with self._lock:
            return self._find_last()

    def changed_since(self, moment: datetime) -> bool:
        """Whether an event was kept at `moment` or later."""
        try:
            return self._folder.stat().st_mtime >= moment.timestamp()
        except FileNotFoundError:
            return False

    def events(self) -> tuple[ReviewEvent, ...]:
        """Every event, in the order of revisions; raises Defect when one is damaged."""
        with self._lock:
            return self._up_to_date()

    def find(self, event_id: str) -> ReviewEvent | None:
        """The event of this id, or None."""
        with self._lock:
            self._up_to_date()
            return self._by_id.get(event_id)

    def append(self, event: ReviewEvent, *, seen_revision: int) -> ReviewEvent:
        """Keep an event after `seen_revision`; durable on return, with its revision.

        An event whose id is in the log already comes back as it is there. Raises `StaleReview`
        when the log has events that the page did not see, and OSError when the disk is full.
        """
        kept = self.find(event.id)
        if kept is not None:
            # Whoever wrote it may have died before its name was synced.
            sync_folder(self._folder)
            return kept
        revision = seen_revision + 1
        if self.revision() != seen_revision or not self._take(replace(event, revision=revision)):
            kept = self.find(event.id)
            if kept is not None:
                return kept
            raise StaleReview([one for one in self.events() if one.revision > seen_revision])
        kept = self.find(event.id)
        if kept is None:
            raise Defect("A review event is gone right after it was kept.", code="review_damaged")
        return kept

    def _take(self, event: ReviewEvent) -> bool:
        """Write an event under its revision; False when another one is there."""
        make_folder(self._folder)
        make_folder(self._tmp)
        draft = self._tmp / uuid4().hex
        content = json.dumps(event_to_record(event), separators=(",", ":")).encode("utf-8")
        try:
            write_synced(draft, content)
            os.link(draft, self._path(event.revision))
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        sync_folder(self._folder)
        return True

    def _up_to_date(self) -> tuple[ReviewEvent, ...]:
        """Every event, also what other processes wrote meanwhile."""
        self._find_last()
        if not self._unread:
            return self._ordered
        while self._unread:
            event = event_from_record(json.loads(self._path(self._unread[0]).read_bytes()))
            self._read[event.revision] = self._by_id[event.id] = event
            self._unread.pop(0)
        self._ordered = tuple(self._read[revision] for revision in sorted(self._read))
        return self._ordered

    def _find_last(self) -> int:
        """The last revision; looks no further than past those that are known."""
        if self._last is None:
            if not self._folder.is_dir():
                return 0
            self._unread = self._revisions()
            self._last = max(self._unread, default=0)
        while self._path(self._last + 1).exists():
            self._last += 1
            self._unread.append(self._last)
        return self._last

    def _revisions(self) -> list[int]:
        return sorted(int(path.stem) for path in self._folder.glob(f"*{_SUFFIX}"))

    def _path(self, revision: int) -> Path:
        return self._folder / f"{revision:0{_DIGITS}}{_SUFFIX}"

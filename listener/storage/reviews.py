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
from pathlib import Path
from uuid import uuid4

from pipeline.errors import Rejected
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
    """The events of one smear. Safe to share between threads; processes share the folder."""

    def __init__(self, folder: Path, *, tmp: Path) -> None:
        self._folder = folder
        self._tmp = tmp
        self._read: dict[int, ReviewEvent] = {}
        self._lock = threading.Lock()

    def revision(self) -> int:
        """Of the last event; 0 where nobody reviewed the smear."""
        return max(self._revisions(), default=0)

    def events(self) -> tuple[ReviewEvent, ...]:
        """Every event, in the order of revisions; raises Defect when one is damaged."""
        with self._lock:
            for revision in self._revisions():
                if revision not in self._read:
                    self._read[revision] = self._load(revision)
            return tuple(self._read[revision] for revision in sorted(self._read))

    def append(self, event: ReviewEvent, *, seen_revision: int) -> ReviewEvent:
        """Keep an event after `seen_revision`; durable on return, with its revision.

        An event whose id is in the log already comes back as it is there. Raises `StaleReview`
        when the log has events that the page did not see, and OSError when the disk is full.
        """
        kept = self._under_its_id(event.id)
        if kept is not None:
            return kept
        revision = seen_revision + 1
        if self.revision() != seen_revision or not self._take(replace(event, revision=revision)):
            kept = self._under_its_id(event.id)
            if kept is not None:
                return kept
            raise StaleReview([one for one in self.events() if one.revision > seen_revision])
        return self.events()[revision - 1]

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

    def _under_its_id(self, event_id: str) -> ReviewEvent | None:
        return next((one for one in self.events() if one.id == event_id), None)

    def _load(self, revision: int) -> ReviewEvent:
        return event_from_record(json.loads(self._path(revision).read_bytes()))

    def _revisions(self) -> list[int]:
        if not self._folder.is_dir():
            return []
        return sorted(int(path.stem) for path in self._folder.glob(f"*{_SUFFIX}"))

    def _path(self, revision: int) -> Path:
        return self._folder / f"{revision:0{_DIGITS}}{_SUFFIX}"

"""Records what people do to a smear, and has the reviewed smear reported again.

A page builds an act, this module checks it against the smear, keeps it durably, writes the audit
event and enqueues the next version of the report: at once for a signature, after a quiet while
for anything else.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from config.sections import ReviewSettings
from listener.queue.jobs import Job, review_job
from listener.storage.data_folder import Store
from listener.storage.reviewed_smears import ReviewedSmear, read_smear
from listener.storage.reviews import ReviewLog
from pipeline.domain import CellFinding, FieldFindings, SmearFindings, SmearId
from pipeline.errors import Rejected
from pipeline.findings.review import (
    ADDED_FROM,
    CLASSES,
    SIGNING,
    Act,
    ReviewEvent,
    ReviewState,
    check_event,
    field_key,
    fold,
    open_points,
    with_added,
)
from reporting.audit.trail import Actor, AuditSink, Event

SMEARS_KEPT = 32
"""Findings that stay in memory, so that a correction reads no file of the network's findings."""

NO_NEW_REPORT = frozenset({Act.SEEN})
"""Acts that change nothing that leaves."""

FindAt = Callable[[FieldFindings, float, float], CellFinding]
"""Outlines and classifies the cell at x, y (pixels) of a field; raises Rejected where none is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviews:
    """Everything that a reviewer may do, on the data folder of the service."""

    store: Store
    settings: ReviewSettings
    audit: AuditSink
    enqueue: Callable[[Job], None]
    clock: Callable[[], datetime]
    find_at: FindAt | None = None
    """None where no network is loaded: then no missed cell can be added."""
    _found: _FoundSmears

    @classmethod
    def open(
        cls,
        *,
        store: Store,
        settings: ReviewSettings,
        audit: AuditSink,
        enqueue: Callable[[Job], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        find_at: FindAt | None = None,
    ) -> Reviews:
        """Reviews of one data folder; nothing is read yet."""
        return cls(
            store=store,
            settings=settings,
            audit=audit,
            enqueue=enqueue,
            clock=clock,
            find_at=find_at,
            _found=_FoundSmears(store),
        )

    def read(self, smear_id: SmearId) -> ReviewedSmear:
        """The smear with its review as it is now."""
        return ReviewedSmear(found=self._found(smear_id), state=self._state(smear_id))

    def events(self, smear_id: SmearId) -> tuple[ReviewEvent, ...]:
        """Every act of everybody, in order."""
        return self._log(smear_id).events()

    def record(self, smear_id: SmearId, event: ReviewEvent, *, seen_revision: int) -> ReviewEvent:
        """Keep an act; durable on return, with the revision that it made.

        Raises `Rejected` (codes of `check_event`, `review_not_complete`, `review_same_reader`)
        for an act that cannot be, and `StaleReview` when the page had not seen everything.
        """
        log = self._log(smear_id)
        found = self._found(smear_id)
        state = self._state(smear_id)
        event = self._completed(event, found)
        if event.revision == 0 and not any(one.id == event.id for one in log.events()):
            check_event(event, state, found.fields)
            if event.act in {Act.SIGN, Act.COUNTERSIGN}:
                self._check_signature(event, found, state)
        kept = log.append(event, seen_revision=seen_revision)
        self._tell(smear_id, kept)
        if kept.act not in NO_NEW_REPORT:
            delay_s = 0.0 if kept.act in SIGNING else self.settings.quiet_s
            self.enqueue(review_job(smear_id, kept.revision, delay_s=delay_s))
        return kept

    def add_cell(
        self,
        smear_id: SmearId,
        event: ReviewEvent,
        *,
        place: tuple[float, float],
        seen_revision: int,
    ) -> ReviewEvent:
        """Outline the missed cell at `place` (x, y in pixels of the event's field) and keep it."""
        if self.find_at is None:
            raise Rejected("This service has no network to outline a cell.", code="no_network")
        state = self._state(smear_id)
        fields = with_added(self._found(smear_id).fields, state)
        field = next((one for one in fields if field_key(one) in event.fields), None)
        if field is None:
            raise Rejected("A field is not in this smear.", code="review_unknown_field")
        finding = self.find_at(field, *place)
        index = ADDED_FROM + self._log(smear_id).revision()
        added = replace(finding, cell=replace(finding.cell, index=index))
        return self.record(smear_id, replace(event, added=added), seen_revision=seen_revision)

    def open_points(self, smear_id: SmearId) -> Mapping[str, int]:
        """What stands in the way of a signature, as the site's settings count it."""
        read = self.read(smear_id)
        return self._open_points(read.found, read.state)

    def _open_points(self, found: SmearFindings, state: ReviewState) -> dict[str, int]:
        wanted = {
            "unidentified": self.settings.must_identify,
            "unseen": self.settings.must_see_all,
        }
        return {name: n for name, n in open_points(found, state).items() if wanted[name]}

    def _check_signature(
        self, event: ReviewEvent, found: SmearFindings, state: ReviewState
    ) -> None:
        left = self._open_points(found, state)
        if left and not event.reason.strip():
            what = " and ".join(f"{count} {name}" for name, count in left.items())
            raise Rejected(
                f"{what} cells are left; settle them, or sign with a reason.",
                code="review_not_complete",
            )
        signed_by = {one.reviewer.account for one in state.signatures}
        if event.act is Act.COUNTERSIGN and event.reviewer.account in signed_by:
            raise Rejected(
                "Somebody else must countersign.",
                code="review_same_reader",
            )

    def _completed(self, event: ReviewEvent, found: SmearFindings) -> ReviewEvent:
        """The event with the model that found the cells, and what a signature covers."""
        event = replace(event, model_sha256=found.model.sha256)
        if event.act in SIGNING:
            return replace(event, fields=tuple(field_key(one) for one in found.fields))
        return event

    def _tell(self, smear_id: SmearId, event: ReviewEvent) -> None:
        """The act in the audit trail: by id and class, without comment, reason or name."""
        events = {
            Act.SIGN: Event.REPORT_SIGNED,
            Act.COUNTERSIGN: Event.REPORT_SIGNED,
            Act.WITHDRAW: Event.SIGNATURE_REVOKED,
        }
        given = {"given_class": event.to} if event.to in CLASSES else {}
        fields: dict[str, Any] = {
            "smear_id": smear_id,
            "review_event": event.id,
            "revision": event.revision,
            "act": str(event.act),
            "cells": len(event.cells),
            "model_sha256": event.model_sha256,
            **given,
        }
        told = events.get(event.act, Event.REVIEW_RECORDED)
        self.audit.record(told, actor=Actor(user=event.reviewer.account), **fields)

    def _state(self, smear_id: SmearId) -> ReviewState:
        return fold(self._log(smear_id).events(), readers=self.settings.readers)

    def _log(self, smear_id: SmearId) -> ReviewLog:
        return self._found.log(smear_id)


class _FoundSmears:
    """What the network found, kept in memory while the files are the same. Safe among threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._kept: OrderedDict[SmearId, tuple[object, SmearFindings]] = OrderedDict()
        self._logs: OrderedDict[SmearId, ReviewLog] = OrderedDict()

    def __call__(self, smear_id: SmearId) -> SmearFindings:
        stamp = self._store.results.smear(smear_id).analysed()
        with self._lock:
            kept = self._kept.get(smear_id)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        found = read_smear(self._store, smear_id).found
        with self._lock:
            self._kept[smear_id] = (stamp, found)
            self._kept.move_to_end(smear_id)
            while len(self._kept) > SMEARS_KEPT:
                self._kept.popitem(last=False)
        return found

    def log(self, smear_id: SmearId) -> ReviewLog:
        """The review log of a smear; events that were read once stay in memory."""
        with self._lock:
            if smear_id not in self._logs:
                self._logs[smear_id] = self._store.results.smear(smear_id).review()
            self._logs.move_to_end(smear_id)
            while len(self._logs) > SMEARS_KEPT:
                self._logs.popitem(last=False)
            return self._logs[smear_id]

"""Records what people do to a smear, and has the reviewed smear reported again.

A page builds an act, this module checks it against the smear, keeps it durably, writes the audit
event and enqueues the next version of the report: at once for a signature, after a quiet while
for anything else.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from config.sections import ReviewSettings
from listener.queue.jobs import Job, review_job
from listener.storage.data_folder import Store
from listener.storage.reviewed_smears import ReviewedSmear, read_smear
from listener.storage.reviews import ReviewLog, StaleReview
from pipeline.domain import CellFinding, FieldFindings, SmearFindings, SmearId
from pipeline.errors import Rejected, SmearlinkError
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
from pipeline.findings.review_records import event_to_record
from reporting.audit.trail import Actor, AuditSink, Event

SMEARS_KEPT = 32
"""Findings that stay in memory, so that a correction reads no file of the network's findings."""

CAUGHT_UP_FOR = timedelta(days=7)
"""A process that died longer ago has left nothing that another one did not catch up with."""

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
    recorded_since: Callable[[datetime], frozenset[str]]
    """Ids of the acts that stand in the audit trail since a moment."""
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
        recorded_since: Callable[[datetime], frozenset[str]],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        find_at: FindAt | None = None,
    ) -> Reviews:
        """Reviews of one data folder; nothing is read yet."""
        return cls(
            store=store,
            settings=settings,
            audit=audit,
            enqueue=enqueue,
            recorded_since=recorded_since,
            clock=clock,
            find_at=find_at,
            _found=_FoundSmears(store),
        )

    def read(self, smear_id: SmearId) -> ReviewedSmear:
        """The smear with its review as it is now."""
        return ReviewedSmear(found=self._found(smear_id), state=self.state(smear_id))

    def state(self, smear_id: SmearId) -> ReviewState:
        """What the review of a smear says now."""
        return self._found.state(smear_id, readers=self.settings.readers)

    def events(self, smear_id: SmearId) -> tuple[ReviewEvent, ...]:
        """Every act of everybody, in order."""
        return self._log(smear_id).events()

    def record(self, smear_id: SmearId, event: ReviewEvent, *, seen_revision: int) -> ReviewEvent:
        """Keep an act; durable on return, with the revision that it made.

        Raises `Rejected` (codes of `check_event`, `review_not_complete`, `review_same_reader`)
        for an act that cannot be, and `StaleReview` when the page had not seen everything.
        """
        log = self._log(smear_id)
        with self._found.writing(smear_id):
            known = log.find(event.id)
            if known is not None:
                _check_sent_again(event, known)
            kept = known or self._keep(smear_id, event, seen_revision)
            # The audit trail has an act once: a request that comes again is told again only if
            # the process that kept it died before it could tell.
            if known is None or known.id not in self.recorded_since(known.at):
                self._tell(smear_id, kept)
        self._report(smear_id, kept)
        return kept

    def catch_up(self) -> int:
        """Tell and report what a process kept and then died; returns how many smears it met.

        Looks at the last act of each smear that was reviewed within `CAUGHT_UP_FOR`: whoever
        wrote the next one had told the ones before.
        """
        since = self.clock() - CAUGHT_UP_FOR
        last = dict(self._last_acts(since))
        told = self.recorded_since(since) if last else frozenset()
        met = 0
        for smear_id, event in last.items():
            latest = self.store.results.smear(smear_id).latest()
            is_told = event.id in told
            if not is_told:
                self._tell(smear_id, event)
            if not is_told or latest is None or latest.review_revision < event.revision:
                self._report(smear_id, event)
                met += 1
        return met

    def _last_acts(self, since: datetime) -> Iterator[tuple[SmearId, ReviewEvent]]:
        for smear_id in self.store.results.smears():
            log = self.store.results.smear(smear_id).review()
            with suppress(SmearlinkError):  # whoever opens a damaged review is told
                if log.changed_since(since) and (events := log.events()):
                    yield smear_id, events[-1]

    def _keep(self, smear_id: SmearId, event: ReviewEvent, seen_revision: int) -> ReviewEvent:
        """Check a new act, and keep it durably."""
        found = self._found(smear_id)
        state = self.state(smear_id)
        event = self._completed(event, found)
        check_event(event, state, found.fields)
        self._check_signature(event, found, state)
        return self._log(smear_id).append(event, seen_revision=seen_revision)

    def _report(self, smear_id: SmearId, event: ReviewEvent) -> None:
        """Have the smear reported as it was after an act; asked twice it is done once."""
        if event.act not in NO_NEW_REPORT:
            delay_s = 0.0 if event.act in SIGNING else self.settings.quiet_s
            self.enqueue(review_job(smear_id, event.revision, delay_s=delay_s))

    def check_signature(self, smear_id: SmearId, event: ReviewEvent, *, seen_revision: int) -> str:
        """SHA-256 of what the signature would stand under; kept is nothing.

        Raises as `record` does where the signature cannot be.
        """
        found, state = self._found(smear_id), self.state(smear_id)
        if state.revision != seen_revision:
            later = [one for one in self.events(smear_id) if one.revision > seen_revision]
            raise StaleReview(later)
        event = self._completed(event, found)
        check_event(event, state, found.fields)
        self._check_signature(event, found, state)
        return self.content_sha256(smear_id)

    def sign(
        self, smear_id: SmearId, event: ReviewEvent, *, seen_revision: int, content_sha256: str
    ) -> ReviewEvent:
        """Keep a signature under what `check_signature` gave the SHA-256 of, and nothing else.

        Raises Rejected `review_changed` when acts or fields came meanwhile.
        """
        is_kept = self._log(smear_id).find(event.id) is not None
        if not is_kept and self.content_sha256(smear_id) != content_sha256:
            raise Rejected(
                "Nothing was signed: the smear changed while you signed in. Look at it again.",
                code="review_changed",
            )
        return self.record(smear_id, event, seen_revision=seen_revision)

    def content_sha256(self, smear_id: SmearId) -> str:
        """Of every act so far, of the fields and of the network that looked at them."""
        found = self._found(smear_id)
        content = {
            "events": [event_to_record(one) for one in self.events(smear_id)],
            "fields": sorted(field_key(one) for one in found.fields),
            "model": found.model.key,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def add_cell(
        self,
        smear_id: SmearId,
        event: ReviewEvent,
        *,
        place: tuple[float, float],
        seen_revision: int,
    ) -> ReviewEvent:
        """Outline the missed cell at `place` (x, y in pixels of the event's field) and keep it."""
        if self._log(smear_id).find(event.id) is not None:
            return self.record(smear_id, event, seen_revision=seen_revision)
        if self.find_at is None:
            raise Rejected("This service has no network to outline a cell.", code="no_network")
        state = self.state(smear_id)
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
        if event.act not in {Act.SIGN, Act.COUNTERSIGN}:
            return
        left = self._open_points(found, state)
        if left and not event.reason.strip():
            what = " and ".join(f"{count} {name}" for name, count in left.items())
            raise Rejected(
                f"{what} cells are left: decide on them, or sign with a reason.",
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

    def _log(self, smear_id: SmearId) -> ReviewLog:
        return self._found.log(smear_id)


def _check_sent_again(event: ReviewEvent, known: ReviewEvent) -> None:
    """Raise Rejected `review_already_sent` where a page sends another act under the same id.

    A page that the browser kept (the back button) has the id of an act that it sent before.
    """
    if _said(event) != _said(known):
        raise Rejected(
            "This page was used before. Nothing was saved: reload it and try again.",
            code="review_already_sent",
        )


def _said(event: ReviewEvent) -> tuple[object, ...]:
    fields = () if event.act in SIGNING else event.fields
    return (
        event.reviewer.account,
        event.act,
        event.cells,
        fields,
        event.to,
        event.reason,
        event.comment,
    )


@dataclass(slots=True)
class _OpenReview:
    """The review of one smear in memory."""

    log: ReviewLog
    writing: threading.Lock = field(default_factory=threading.Lock)
    """One act at a time is kept and told."""
    folded: tuple[tuple[int, int], ReviewState] | None = None
    """The state at a number of events and readers."""


class _FoundSmears:
    """What the network found and the reviews, in memory while the files are the same.

    Safe among threads.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._kept: OrderedDict[SmearId, tuple[object, SmearFindings]] = OrderedDict()
        self._reviews: OrderedDict[SmearId, _OpenReview] = OrderedDict()

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
        return self._review(smear_id).log

    def writing(self, smear_id: SmearId) -> threading.Lock:
        """Held while an act of a smear is kept and told."""
        return self._review(smear_id).writing

    def state(self, smear_id: SmearId, *, readers: int) -> ReviewState:
        """The fold over the log, made again when an event came."""
        review = self._review(smear_id)
        events = review.log.events()
        folded = review.folded
        if folded is None or folded[0] != (len(events), readers):
            folded = review.folded = ((len(events), readers), fold(events, readers=readers))
        return folded[1]

    def _review(self, smear_id: SmearId) -> _OpenReview:
        with self._lock:
            if smear_id not in self._reviews:
                log = self._store.results.smear(smear_id).review()
                self._reviews[smear_id] = _OpenReview(log)
            self._reviews.move_to_end(smear_id)
            while len(self._reviews) > SMEARS_KEPT:
                self._reviews.popitem(last=False)
            return self._reviews[smear_id]

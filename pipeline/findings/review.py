"""Review of a smear by people: events, and the reviewed smear as a pure fold over them.

An event is never edited or deleted; undo is an event too. The state of a review depends on the
revisions of its events, not on the order in which they are read, and independent events (of
different cells) may come in either order with the same outcome. What the network said of a cell
stays beside every decision of a person.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import NewType

from pipeline.domain import (
    Call,
    Cell,
    CellChange,
    CellFinding,
    CellType,
    Comment,
    FieldFindings,
    ModelCounts,
    PersonDecision,
    QualityFlag,
    ReferralReason,
    Reviewer,
    Signature,
    SignatureMeaning,
    SignOff,
    SmearFindings,
    SmearReview,
)
from pipeline.errors import Rejected
from pipeline.findings.decision import BLASTS
from pipeline.findings.smear_summary import Bucket, bucket_of, gather_smear, referred_cell_count

CellKey = NewType("CellKey", str)
"""`<SOP Instance UID>:<frame>:<index>`: one cell of a smear, the same in every version."""

FieldKey = NewType("FieldKey", str)
"""`<SOP Instance UID>:<frame>`: one field of a smear."""

UNIDENTIFIED = "unidentified"
NOT_A_CELL = "not_a_cell"
CLASSES: tuple[str, ...] = (
    *(str(one) for one in CellType if one is not CellType.UNDETERMINED),
    UNIDENTIFIED,
    NOT_A_CELL,
)
"""Everything that a person may call a cell."""

TARGET_COUNTS = (100, 200, 400)
"""White cells that laboratories count per smear (CLSI H20-A2: 200 per reader); 0 is all."""

ADDED_FROM = 10_000
"""Indexes of cells that people add start here, so that they never meet the finder's."""


class Act(StrEnum):
    """What a person did."""

    RECLASSIFY = "reclassify"
    CONFIRM = "confirm"
    NOT_A_CELL = "not_a_cell"
    SEEN = "seen"
    ADD_CELL = "add_cell"
    COMMENT = "comment"
    STAR = "star"
    UNSTAR = "unstar"
    EXCLUDE_FIELD = "exclude_field"
    INCLUDE_FIELD = "include_field"
    SET_TARGET = "set_target"
    SIGN = "sign"
    COUNTERSIGN = "countersign"
    WITHDRAW = "withdraw"
    UNDO = "undo"


DECIDING = frozenset({Act.RECLASSIFY, Act.CONFIRM, Act.NOT_A_CELL})
"""Acts that say what a cell is."""
SIGNING = frozenset({Act.SIGN, Act.COUNTERSIGN, Act.WITHDRAW})
"""Acts of a signature: they are withdrawn, never undone."""
CHANGING = DECIDING | {Act.EXCLUDE_FIELD, Act.INCLUDE_FIELD, Act.SET_TARGET}
"""Acts that may change what a signed report says."""
ADDING = frozenset({Act.ADD_CELL, Act.COMMENT, Act.STAR, Act.UNSTAR})
"""Acts that add to a signed report."""
ON_CELLS = DECIDING | {Act.SEEN, Act.STAR, Act.UNSTAR}
ON_FIELDS = frozenset({Act.EXCLUDE_FIELD, Act.INCLUDE_FIELD})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReviewEvent:
    """One act of one person."""

    id: str
    """Chosen by the page, so that a request sent twice is one event."""
    revision: int = 0
    """Place in the log of its smear, from 1; 0 until it is in the log."""
    at: datetime
    """Aware, UTC."""
    reviewer: Reviewer
    act: Act
    cells: tuple[CellKey, ...] = ()
    fields: tuple[FieldKey, ...] = ()
    """Of a signature: the fields that it covers."""
    before: tuple[str, ...] = ()
    """The class of each cell as the page showed it."""
    to: str = ""
    """The class given, or the target count."""
    reason: str = ""
    comment: str = ""
    undoes: str = ""
    """Id of the event that this one takes back."""
    added: CellFinding | None = None
    """A missed cell: what finder and network say of the place that the person pointed to."""
    model_sha256: str = ""
    is_blind: bool = False
    """Made by a reader to whom no suggestion was shown."""

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise ValueError("a review event needs a time zone")
        if self.revision < 0:
            raise ValueError("a revision is counted from 1")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReviewState:
    """What a review says at one revision."""

    revision: int = 0
    decisions: Mapping[CellKey, PersonDecision] = field(default_factory=dict)
    """The last decision about each cell that nobody took back."""
    readings: Mapping[str, Mapping[CellKey, PersonDecision]] = field(default_factory=dict)
    """The same by account: what each reader said for themselves."""
    seen: frozenset[CellKey] = frozenset()
    """Looked at: decided, or marked as seen."""
    starred: frozenset[CellKey] = frozenset()
    comments: tuple[Comment, ...] = ()
    excluded: frozenset[FieldKey] = frozenset()
    target_count: int = 0
    """0 counts every cell."""
    added: Mapping[CellKey, CellFinding] = field(default_factory=dict)
    signatures: tuple[Signature, ...] = ()
    sign_off: SignOff = SignOff.UNSIGNED
    is_current: bool = True
    """False when something changed after the last signature."""


# --- keys of cells and fields


def field_key(findings: FieldFindings) -> FieldKey:
    """The key of a field."""
    return FieldKey(f"{findings.sop_instance_uid}:{findings.frame}")


def cell_key(findings: FieldFindings, cell: Cell) -> CellKey:
    """The key of a cell of a field."""
    return CellKey(f"{field_key(findings)}:{cell.index}")


def field_of(key: CellKey) -> FieldKey:
    """The field in which a cell lies."""
    return FieldKey(key.rsplit(":", 1)[0])


# --- checks of one event


def check_event(event: ReviewEvent, state: ReviewState, fields: Sequence[FieldFindings]) -> None:
    """Raise `Rejected` when an event makes no sense for this smear.

    Codes: `review_unknown_cell`, `review_unknown_field`, `review_unknown_class`,
    `review_bad_target`, `review_nothing_to_undo`, `review_incomplete`.
    """
    cells = {cell_key(one, found.cell) for one in fields for found in one.cells} | set(state.added)
    if any(key not in cells for key in event.cells):
        raise Rejected("A cell is not in this smear; reload the page.", code="review_unknown_cell")
    keys = {field_key(one) for one in fields}
    if any(key not in keys for key in event.fields):
        raise Rejected(
            "A field is not in this smear; reload the page.", code="review_unknown_field"
        )
    _check_complete(event)
    _check_values(event)


def _check_complete(event: ReviewEvent) -> None:
    missing = {
        "the cells": event.act in ON_CELLS and not event.cells,
        "the field": event.act in ON_FIELDS and not event.fields,
        "the field and the outline of the missed cell": event.act is Act.ADD_CELL
        and (event.added is None or len(event.fields) != 1),
        "a text": event.act is Act.COMMENT and not event.comment.strip(),
        "a reason": event.act is Act.WITHDRAW and not event.reason.strip(),
    }
    for what, is_missing in missing.items():
        if is_missing:
            raise Rejected(f"This act needs {what}.", code="review_incomplete")
    if event.act is Act.UNDO and not event.undoes:
        raise Rejected("Name the act to undo.", code="review_nothing_to_undo")


def _check_values(event: ReviewEvent) -> None:
    if event.act in {Act.RECLASSIFY, Act.CONFIRM} and event.to not in CLASSES:
        raise Rejected(
            f"A cell can be called one of: {', '.join(CLASSES)}.", code="review_unknown_class"
        )
    if event.act is Act.ADD_CELL and event.to not in (*CLASSES, ""):
        raise Rejected("A missed cell needs a known class.", code="review_unknown_class")
    if event.act is Act.SET_TARGET and event.to not in {"0", *map(str, TARGET_COUNTS)}:
        raise Rejected("The target count is 100, 200, 400 or 0 for all.", code="review_bad_target")


# --- the fold


def fold(events: Iterable[ReviewEvent], *, readers: int = 1) -> ReviewState:
    """The state of a review; events in any order, each counted once by its id.

    An undo takes back the event that it names; the undo of an undo brings that event back.
    `readers` is how many people must sign the same content before it counts as signed.
    """
    once = {event.id: event for event in events}
    ordered = sorted(once.values(), key=_place)
    undone = _undone(ordered)
    builder = _Builder()
    for event in ordered:
        if event.id not in undone:
            builder.apply(event)
    return builder.state(ordered, undone, readers)


def _place(event: ReviewEvent) -> tuple[int, str]:
    return event.revision, event.id


def _undone(ordered: Sequence[ReviewEvent]) -> frozenset[str]:
    """Ids of events without effect; an undo reaches earlier events alone, and no signature."""
    by_id = {event.id: event for event in ordered}
    undone: set[str] = set()
    for event in reversed(ordered):
        target = by_id.get(event.undoes)
        if event.act is not Act.UNDO or event.id in undone or target is None:
            continue
        if target.act not in SIGNING and _place(target) < _place(event):
            undone.add(target.id)
    return frozenset(undone)


class _Builder:
    """Collects a state while events are applied in the order of their revisions."""

    def __init__(self) -> None:
        self._decisions: dict[CellKey, PersonDecision] = {}
        self._readings: dict[str, dict[CellKey, PersonDecision]] = {}
        self._seen: set[CellKey] = set()
        self._starred: set[CellKey] = set()
        self._comments: list[Comment] = []
        self._excluded: set[FieldKey] = set()
        self._target = 0
        self._added: dict[CellKey, CellFinding] = {}

    def apply(self, event: ReviewEvent) -> None:
        match event.act:
            case Act.RECLASSIFY | Act.CONFIRM:
                self._decide(event, event.cells, event.to)
            case Act.NOT_A_CELL:
                self._decide(event, event.cells, NOT_A_CELL)
            case Act.ADD_CELL if event.added is not None:
                key = CellKey(f"{event.fields[0]}:{event.added.cell.index}")
                self._added[key] = event.added
                self._decide(event, (key,), event.to or UNIDENTIFIED)
            case Act.COMMENT:
                self._comments.append(_comment(event))
            case Act.SEEN:
                self._seen.update(event.cells)
            case Act.STAR:
                self._starred.update(event.cells)
            case Act.UNSTAR:
                self._starred.difference_update(event.cells)
            case Act.EXCLUDE_FIELD:
                self._excluded.update(event.fields)
            case Act.INCLUDE_FIELD:
                self._excluded.difference_update(event.fields)
            case Act.SET_TARGET:
                self._target = int(event.to)
            case _:
                pass

    def _decide(self, event: ReviewEvent, cells: Iterable[CellKey], to: str) -> None:
        decision = PersonDecision(to=to, reviewer=event.reviewer, at=event.at, reason=event.reason)
        own = self._readings.setdefault(event.reviewer.account, {})
        for key in cells:
            self._decisions[key] = own[key] = decision
            self._seen.add(key)

    def state(
        self, ordered: Sequence[ReviewEvent], undone: frozenset[str], readers: int
    ) -> ReviewState:
        sign_off, is_current = _sign_off(ordered, undone, readers)
        return ReviewState(
            revision=ordered[-1].revision if ordered else 0,
            decisions=self._decisions,
            readings=self._readings,
            seen=frozenset(self._seen),
            starred=frozenset(self._starred),
            comments=tuple(self._comments),
            excluded=frozenset(self._excluded),
            target_count=self._target,
            added={key: one for key, one in self._added.items() if key in self._decisions},
            signatures=tuple(_signature(event) for event in ordered if event.act in SIGNING),
            sign_off=sign_off,
            is_current=is_current,
        )


def _comment(event: ReviewEvent) -> Comment:
    return Comment(
        event_id=event.id,
        at=event.at,
        reviewer=event.reviewer,
        cells=event.cells,
        text=event.comment,
    )


def _signature(event: ReviewEvent) -> Signature:
    return Signature(
        reviewer=event.reviewer,
        at=event.at,
        meaning=SignatureMeaning(event.act),
        revision=event.revision,
        fields=event.fields,
        reason=event.reason,
    )


def _sign_off(
    ordered: Sequence[ReviewEvent], undone: frozenset[str], readers: int
) -> tuple[SignOff, bool]:
    """How far the report is signed (FHIR R4 DiagnosticReport.status), and whether it still is.

    Nothing is final, corrected, appended or amended before as many people signed as the site
    wants. Once changed after that, a report stays changed: an undo is a change as well. A change
    between two signatures asks for the first one again.
    """
    was_signed = is_withdrawn = changed = added = False
    is_current = True
    signed_by: set[str] = set()
    for event in ordered:
        match event.act:
            case Act.SIGN | Act.COUNTERSIGN if event.act is Act.SIGN or signed_by:
                signed_by.add(event.reviewer.account)
                if len(signed_by) >= readers:
                    was_signed, is_withdrawn, is_current = True, False, True
            case Act.WITHDRAW:
                signed_by.clear()
                if was_signed:
                    is_withdrawn = changed = is_current = True
            case act if act in CHANGING | {Act.UNDO}:
                signed_by.clear()
                if was_signed:
                    changed, is_current = True, False
            case act if act in ADDING and event.id not in undone:
                signed_by.clear()
                if was_signed:
                    added, is_current = True, False
            case _:
                pass
    if is_withdrawn:
        return SignOff.WITHDRAWN, is_current
    return _signed_as(was_signed=was_signed, changed=changed, added=added), is_current


def _signed_as(*, was_signed: bool, changed: bool, added: bool) -> SignOff:
    if not was_signed:
        return SignOff.UNSIGNED
    if changed and added:
        return SignOff.AMENDED
    if changed:
        return SignOff.CORRECTED
    return SignOff.APPENDED if added else SignOff.FINAL


# --- the reviewed smear


def review_smear(smear: SmearFindings, state: ReviewState) -> SmearFindings:
    """The smear as people left it, counted again; what the network counted is in `review`.

    A smear without a review event comes back unchanged.
    """
    if state.revision == 0:
        return smear
    changes = tuple(_changes(smear, state))
    fields, beyond = _reviewed_fields(smear.fields, state)
    counted = gather_smear(
        smear.smear_id, fields, acquired=[one.sop_instance_uid for one in smear.fields]
    )
    sign_off, is_current = _with_late_fields(smear, state)
    return replace(
        counted,
        review=SmearReview(
            revision=state.revision,
            sign_off=sign_off,
            is_current=is_current,
            signatures=state.signatures,
            reviewers=_reviewers(state),
            model_counts=_model_counts(smear),
            changes=changes,
            confirmed=sum(1 for _ in _decisions_in(smear, state)) - len(changes),
            not_cells=sum(change.to == NOT_A_CELL for change in changes),
            beyond_target=beyond,
            target_count=state.target_count,
            added=len(state.added),
            excluded_fields=tuple(sorted(state.excluded)),
            starred=tuple(sorted(state.starred)),
            comments=state.comments,
        ),
    )


def _model_counts(smear: SmearFindings) -> ModelCounts:
    return ModelCounts(
        white_cells_counted=smear.white_cells_counted,
        leukemic_count=smear.leukemic_count,
        referred_count=referred_cell_count(smear),
        differential=smear.differential,
        leukemic_fraction=smear.leukemic_fraction,
    )


def _with_late_fields(smear: SmearFindings, state: ReviewState) -> tuple[SignOff, bool]:
    """A field that came after the last signature amends the report."""
    signed = [one for one in state.signatures if one.meaning is SignatureMeaning.REVIEWED]
    if not signed or state.sign_off in {SignOff.UNSIGNED, SignOff.WITHDRAWN}:
        return state.sign_off, state.is_current
    covered = set(signed[-1].fields)
    if covered and any(field_key(one) not in covered for one in smear.fields):
        return SignOff.AMENDED, False
    return state.sign_off, state.is_current


def _reviewed_fields(
    fields: Sequence[FieldFindings], state: ReviewState
) -> tuple[tuple[FieldFindings, ...], int]:
    """The fields with people's decisions, and how many cells are beyond the target count."""
    reviewed: list[FieldFindings] = []
    counted = beyond = 0
    for one in fields:
        kept: list[CellFinding] = []
        for finding in _decided_cells(one, state):
            if bucket_of(finding) is Bucket.COUNTED:
                if state.target_count and counted >= state.target_count:
                    beyond += 1
                    continue
                counted += 1
            kept.append(finding)
        reviewed.append(_excluded(one) if field_key(one) in state.excluded else one)
        reviewed[-1] = replace(reviewed[-1], cells=tuple(kept))
    return tuple(reviewed), beyond


def _decided_cells(one: FieldFindings, state: ReviewState) -> Iterator[CellFinding]:
    """Cells of a field after review: none of an excluded field, none that are no cell."""
    if field_key(one) in state.excluded:
        return
    for finding in _with_added(one, state):
        decision = state.decisions.get(cell_key(one, finding.cell))
        if decision is None:
            yield finding
        elif decision.to != NOT_A_CELL:
            yield _decided(finding, decision)


def with_added(fields: Iterable[FieldFindings], state: ReviewState) -> tuple[FieldFindings, ...]:
    """The fields with the cells that people added."""
    return tuple(replace(one, cells=tuple(_with_added(one, state))) for one in fields)


def _with_added(one: FieldFindings, state: ReviewState) -> Iterator[CellFinding]:
    yield from one.cells
    own = [key for key in state.added if field_of(key) == field_key(one)]
    yield from (state.added[key] for key in sorted(own))


def _decided(finding: CellFinding, decision: PersonDecision) -> CellFinding:
    decision = replace(decision, model_type=finding.cell_type, model_call=finding.call)
    if decision.to == UNIDENTIFIED:
        return replace(
            finding,
            call=Call.REFERRED,
            reasons=(ReferralReason.UNIDENTIFIED,),
            decision=decision,
        )
    cell_type = CellType(decision.to)
    return replace(
        finding,
        cell_type=cell_type,
        call=Call.LEUKEMIC if cell_type in BLASTS else Call.NORMAL,
        reasons=(),
        decision=decision,
    )


def _excluded(one: FieldFindings) -> FieldFindings:
    quality = replace(
        one.quality, is_usable=False, flags=one.quality.flags | {QualityFlag.EXCLUDED}
    )
    return replace(one, quality=quality)


def _decisions_in(
    smear: SmearFindings, state: ReviewState
) -> Iterator[tuple[CellKey, CellFinding, PersonDecision]]:
    for one in smear.fields:
        for finding in _with_added(one, state):
            key = cell_key(one, finding.cell)
            if key in state.decisions:
                yield key, finding, state.decisions[key]


def _changes(smear: SmearFindings, state: ReviewState) -> Iterator[CellChange]:
    """Cells of which a person said something else than the network."""
    for key, finding, decision in _decisions_in(smear, state):
        if key in state.added or not _agrees(finding, decision):
            yield CellChange(
                cell=key,
                model_type=finding.cell_type,
                model_call=finding.call,
                to=decision.to,
                reviewer=decision.reviewer,
            )


def _agrees(finding: CellFinding, decision: PersonDecision) -> bool:
    if decision.to in {NOT_A_CELL, UNIDENTIFIED}:
        return decision.to == UNIDENTIFIED and finding.call is Call.REFERRED
    decided = _decided(finding, decision)
    return decided.call is finding.call and decided.cell_type is finding.cell_type


def _reviewers(state: ReviewState) -> tuple[Reviewer, ...]:
    """Everyone whose decision or signature stands, once per account."""
    people = [decision.reviewer for decision in state.decisions.values()]
    people += [signature.reviewer for signature in state.signatures]
    by_account = {person.account: person for person in people}
    return tuple(by_account[account] for account in sorted(by_account))


# --- may it be signed?


def open_points(smear: SmearFindings, state: ReviewState) -> Mapping[str, int]:
    """What stands in the way of a signature: cells `unidentified` and `unseen`, where not zero.

    Unidentified is a cell that the network referred or could not type, or a person left so, and
    that nobody decided since. Cells of excluded fields do not count.
    """
    unidentified = unseen = 0
    for one in smear.fields:
        if field_key(one) in state.excluded:
            continue
        for finding in _with_added(one, state):
            key = cell_key(one, finding.cell)
            decision = state.decisions.get(key)
            if decision is None:
                unidentified += bucket_of(finding) in {Bucket.REFERRED, Bucket.UNDETERMINED}
            else:
                unidentified += decision.to == UNIDENTIFIED
            unseen += key not in state.seen
    found = {"unidentified": unidentified, "unseen": unseen}
    return {name: count for name, count in found.items() if count}

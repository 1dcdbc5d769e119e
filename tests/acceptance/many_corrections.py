"""A long review of one smear by people who do anything, beside a count that is kept by hand."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from listener.web.console.permissions import Role
from pipeline.domain import (
    CELL_TYPES,
    Call,
    CellType,
    FieldFindings,
    Reviewer,
    SmearFindings,
)
from pipeline.findings.decision import BLASTS
from pipeline.findings.review import (
    CLASSES,
    NOT_A_CELL,
    UNIDENTIFIED,
    Act,
    CellKey,
    FieldKey,
    ReviewEvent,
    cell_key,
    field_key,
)
from tests.findings import make_cell, make_cell_finding, make_field_findings
from tests.listener.web.console.site import NOW, ConsoleSite
from tests.reporting.counts_said import NOT_COUNTED, Counts

PEOPLE = tuple(Reviewer(account=name, name=name.capitalize()) for name in ("rosa", "rita", "omar"))
FIELDS, CELLS_PER_FIELD, COLUMNS, STEP_PX = 4, 54, 9, 60
NORMAL_TYPES = (*(kind for kind in CELL_TYPES if kind not in BLASTS), CellType.UNDETERMINED)
NOT_REDONE = {Act.SIGN, Act.COUNTERSIGN, Act.WITHDRAW}

WEIGHTS = {
    Act.RECLASSIFY: 45,
    Act.CONFIRM: 10,
    Act.NOT_A_CELL: 7,
    Act.SEEN: 6,
    Act.ADD_CELL: 5,
    Act.COMMENT: 2,
    Act.STAR: 3,
    Act.UNSTAR: 2,
    Act.EXCLUDE_FIELD: 3,
    Act.INCLUDE_FIELD: 5,
    Act.SET_TARGET: 2,
    Act.UNDO: 10,
}


def crowded_fields() -> list[FieldFindings]:
    """Four fields with 216 cells of every type and call."""
    return [
        make_field_findings(
            sop_instance_uid=f"1.2.826.0.1.3680043.10.999.{number}",
            width=COLUMNS * STEP_PX,
            height=CELLS_PER_FIELD // COLUMNS * STEP_PX,
            cells=[
                make_cell_finding(
                    make_cell(
                        n + 1,
                        STEP_PX * (n % COLUMNS) + STEP_PX // 2,
                        STEP_PX * (n // COLUMNS) + STEP_PX // 2,
                        radius=20,
                    ),
                    call,
                    cell_type=cell_type,
                )
                for n in range(CELLS_PER_FIELD)
                for call, cell_type in [_found_as(n + number)]
            ],
        )
        for number in range(1, FIELDS + 1)
    ]


def _found_as(n: int) -> tuple[Call, CellType]:
    """Each fourth cell a blast, each fifth referred, the others of every other type in turn."""
    if n % 4 == 0:
        return Call.LEUKEMIC, CellType.BLAST
    return Call.REFERRED if n % 5 == 0 else Call.NORMAL, NORMAL_TYPES[n % len(NORMAL_TYPES)]


@dataclass
class ByHand:
    """Counts as a person with pencil and paper would: a line an act, undone ones struck out."""

    found: dict[FieldKey, dict[CellKey, str]]
    """What the network called each cell, in the order of fields and cells."""
    lines: list[ReviewEvent] = field(default_factory=list)

    @classmethod
    def of(cls, fields: Sequence[FieldFindings]) -> ByHand:
        return cls(
            {
                field_key(one): {
                    cell_key(one, c.cell): _class_of(c.call, c.cell_type) for c in one.cells
                }
                for one in fields
            }
        )

    def count(self) -> Counts:
        cells, excluded, target = self._cells_now()
        piles: Counter[str] = Counter()
        counted = found = 0
        for key, of_field in cells.items():
            if key in excluded:
                continue
            for called in of_field.values():
                is_counted = called not in {UNIDENTIFIED, *map(str, NOT_COUNTED)}
                if called == NOT_A_CELL or (is_counted and target and counted >= target):
                    continue
                counted += is_counted
                found += 1
                piles[called] += 1
        referred = piles.pop(UNIDENTIFIED, 0)
        apart = sum(piles.pop(str(kind), 0) for kind in NOT_COUNTED)
        return Counts(found, counted, referred, apart, _in_words(piles))

    def _cells_now(self) -> tuple[dict[FieldKey, dict[CellKey, str]], set[FieldKey], int]:
        cells = {key: dict(of_field) for key, of_field in self.found.items()}
        excluded: set[FieldKey] = set()
        target = 0
        for act in self._standing():
            match act.act:
                case Act.RECLASSIFY | Act.CONFIRM | Act.NOT_A_CELL:
                    called = NOT_A_CELL if act.act is Act.NOT_A_CELL else act.to
                    for key in act.cells:
                        place = cells[FieldKey(key.rpartition(":")[0])]
                        if key in place:  # else adding it was undone
                            place[key] = called
                case Act.ADD_CELL if act.added is not None:
                    [place_key] = act.fields
                    cells[place_key][CellKey(f"{place_key}:{act.added.cell.index}")] = act.to
                case Act.EXCLUDE_FIELD:
                    excluded.update(act.fields)
                case Act.INCLUDE_FIELD:
                    excluded.difference_update(act.fields)
                case Act.SET_TARGET:
                    target = int(act.to)
        return cells, excluded, target

    def _standing(self) -> Iterator[ReviewEvent]:
        struck: set[str] = set()
        for act in reversed(self.lines):
            if act.act is Act.UNDO and act.id not in struck:
                struck.add(act.undoes)
        return (act for act in self.lines if act.id not in struck)

    @property
    def undoable(self) -> list[str]:
        """Ids of acts that an undo may name, undone ones and undos among them."""
        return [act.id for act in self.lines if act.act not in NOT_REDONE]


def _class_of(call: Call, cell_type: CellType) -> str:
    if call is Call.REFERRED:
        return UNIDENTIFIED
    return str(CellType.BLAST if call is Call.LEUKEMIC else cell_type)


def _in_words(piles: Counter[str]) -> dict[str, int]:
    words: Counter[str] = Counter()
    for called, count in piles.items():
        is_blast = called in {str(kind) for kind in BLASTS}
        words["blast" if is_blast else called.replace("_", " ")] += count
    return {word: count for word, count in words.items() if count}


class LongReview:
    """People at one smear of a console: random acts, and signatures when the test says so."""

    def __init__(self, root: Path, *, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - a test that can be repeated
        self.site = ConsoleSite(root)
        self.fields = crowded_fields()
        self.smear_id = self.site.put_smear(self.fields, builds=False)
        self.site.add_account("rosa", Role.REVIEWER)
        self.by_hand = ByHand.of(self.fields)

    @property
    def smear(self) -> SmearFindings:
        """As people left it."""
        return self.site.parts.reviews.read(self.smear_id).smear

    def sign(self, act: Act) -> None:
        """Signed by somebody else each time, over whatever is open."""
        self._record(self._event(act, reason="a random review"))

    def do_something(self) -> None:
        """One random act of a random person."""
        kinds = list(WEIGHTS)
        act = self._chance.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
        if act is Act.UNDO and not self.by_hand.undoable:
            act = Act.SEEN
        event = self._event(act, **self._what_of(act))
        if act is not Act.ADD_CELL:
            self._record(event)
            return
        place = (self._chance.uniform(50, 400), self._chance.uniform(50, 300))
        kept = self.site.parts.reviews.add_cell(
            self.smear_id, event, place=place, seen_revision=len(self.by_hand.lines)
        )
        self.by_hand.lines.append(kept)

    def _what_of(self, act: Act) -> dict[str, object]:
        chance = self._chance
        fields = tuple(self.by_hand.found)
        match act:
            case Act.UNDO:
                # What was done last is undone more often.
                return {"undoes": chance.choice(self.by_hand.undoable[-40:])}
            case Act.SET_TARGET:
                return {"to": chance.choice(("0", "100", "200", "400"))}
            case Act.EXCLUDE_FIELD | Act.INCLUDE_FIELD:
                return {"fields": (chance.choice(fields),)}
            case Act.ADD_CELL:
                return {"fields": (chance.choice(fields),), "to": chance.choice(CLASSES)}
            case _:
                words = {"comment": "a remark"} if act is Act.COMMENT else {}
                to = {"to": chance.choice(CLASSES)} if act in {Act.RECLASSIFY, Act.CONFIRM} else {}
                return {"cells": self._some_cells(), **words, **to}

    def _some_cells(self) -> tuple[CellKey, ...]:
        state = self.site.parts.reviews.state(self.smear_id)
        known = [key for cells in self.by_hand.found.values() for key in cells]
        return tuple(self._chance.sample([*known, *state.added], self._chance.randint(1, 5)))

    def _event(self, act: Act, **what: object) -> ReviewEvent:
        return ReviewEvent(
            id=f"act{len(self.by_hand.lines):04}",
            at=NOW,
            reviewer=self._chance.choice(PEOPLE),
            act=act,
            **what,  # type: ignore[arg-type]
        )

    def _record(self, event: ReviewEvent) -> None:
        kept = self.site.parts.reviews.record(
            self.smear_id, event, seen_revision=len(self.by_hand.lines)
        )
        self.by_hand.lines.append(kept)

"""Which cells stand together on a smear's page, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from pipeline.domain import (
    CELL_TYPES,
    Call,
    CellFinding,
    CellType,
    FieldFindings,
    PersonDecision,
    ReferralReason,
    SmearFindings,
)
from pipeline.findings.decision import BLASTS
from pipeline.findings.review import NOT_A_CELL, UNIDENTIFIED, CellKey, ReviewState, cell_key

BLAST, SMUDGE = str(CellType.BLAST), str(CellType.SMUDGE_CELL)
_APART = frozenset({CellType.UNDETERMINED, CellType.SMUDGE_CELL})

GALLERY_ORDER: tuple[str, ...] = (
    UNIDENTIFIED,
    str(CellType.UNDETERMINED),
    BLAST,
    *(str(kind) for kind in CellType if kind not in BLASTS | _APART),
    SMUDGE,
    NOT_A_CELL,
)
"""What a person must look at first stands first."""


class CellOrder(StrEnum):
    """How the cells of a gallery are sorted."""

    SUSPICIOUS = "suspicious"
    DOUBTFUL = "doubtful"
    SIZE = "size"
    PLACE = "place"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedCell:
    """A cell with where it lies: in the smear, and in its class's sprite."""

    finding: CellFinding
    field_number: int
    """From 1, in the order of acquisition."""
    cell_class: str
    """What the network called it; its sprite is of this class."""
    sprite_position: int
    key: CellKey
    now: str
    """Its class after review."""
    is_decided: bool = False
    """A person said so; else the class is a suggestion."""
    is_seen: bool = False
    is_starred: bool = False

    @property
    def leukemic(self) -> float:
        """Probability that the cell is leukemic."""
        return self.finding.prediction.leukemic_probability

    @property
    def number(self) -> int:
        """Number of the cell in its field."""
        return self.finding.cell.index


def class_of(finding: CellFinding) -> str:
    """The gallery of a cell: what it was called, or that it was not."""
    if ReferralReason.SMUDGE_CELL in finding.reasons:
        return SMUDGE
    if finding.call is Call.REFERRED:
        return UNIDENTIFIED
    if finding.call is Call.LEUKEMIC or finding.cell_type in BLASTS:
        return BLAST
    return str(finding.cell_type)


def type_words(finding: CellFinding) -> str:
    """The type with its probability; blasts together, as the network tells no lineage."""
    name = BLAST if finding.cell_type in BLASTS else finding.cell_type.replace("_", " ")
    return f"{name} {told_probability(finding):.2f}"


def told_probability(finding: CellFinding) -> float:
    """The network's probability of the type that is told; of the likeliest where none is."""
    types = BLASTS if finding.cell_type in BLASTS else {finding.cell_type}
    each = zip(CELL_TYPES, finding.prediction.type_probabilities, strict=False)
    told = [probability for kind, probability in each if kind in types]
    return sum(told) if told else max(finding.prediction.type_probabilities, default=0.0)


def place_cells(smear: SmearFindings) -> Mapping[str, Sequence[PlacedCell]]:
    """Every cell by class, in the order of fields and cells: the order of the sprites."""
    found: dict[str, list[PlacedCell]] = {name: [] for name in GALLERY_ORDER}
    for number, field in enumerate(smear.fields, start=1):
        for finding in field.cells:
            here = found.setdefault(class_of(finding), [])
            here.append(
                PlacedCell(
                    finding=finding,
                    field_number=number,
                    cell_class=class_of(finding),
                    sprite_position=len(here),
                    key=cell_key(field, finding.cell),
                    now=class_of(finding),
                )
            )
    return {name: cells for name, cells in found.items() if cells}


def review_cells(
    placed: Mapping[str, Sequence[PlacedCell]], state: ReviewState
) -> Mapping[str, Sequence[PlacedCell]]:
    """The same cells by the class that people gave them."""
    found: dict[str, list[PlacedCell]] = {name: [] for name in GALLERY_ORDER}
    for cells in placed.values():
        for cell in cells:
            decision = state.decisions.get(cell.key)
            now = cell.now if decision is None else _gallery_of(decision.to)
            found.setdefault(now, []).append(
                replace(
                    cell,
                    now=now,
                    is_decided=decision is not None,
                    is_seen=cell.key in state.seen,
                    is_starred=cell.key in state.starred,
                )
            )
    return {name: cells for name, cells in found.items() if cells}


def _gallery_of(word: str) -> str:
    return BLAST if word in BLASTS else word


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FieldCell:
    """A cell on the page of its field: what the network said, and what people made of it."""

    finding: CellFinding
    key: CellKey
    was: str
    """Its class by the network."""
    now: str
    call: str
    """Its outline's kind: a call, or `not_a_cell`."""
    decision: PersonDecision | None
    is_added: bool

    @property
    def words(self) -> str:
        """Its class, after what the network called it where that was something else."""
        if self.decision is None or self.is_added or self.was == self.now:
            return self.now
        return f"{self.was} → {self.now}"


def field_cells(field: FieldFindings, state: ReviewState) -> list[FieldCell]:
    """The cells of a field by number, as people left them."""
    return [
        _field_cell(cell_key(field, finding.cell), finding, state)
        for finding in sorted(field.cells, key=lambda one: one.cell.index)
    ]


def _field_cell(key: CellKey, finding: CellFinding, state: ReviewState) -> FieldCell:
    decision = state.decisions.get(key)
    was = class_of(finding)
    now = was if decision is None else _gallery_of(decision.to)
    calls = {NOT_A_CELL: NOT_A_CELL, UNIDENTIFIED: str(Call.REFERRED), BLAST: str(Call.LEUKEMIC)}
    return FieldCell(
        finding=finding,
        key=key,
        was=was,
        now=now,
        call=str(finding.call) if decision is None else calls.get(now, str(Call.NORMAL)),
        decision=decision,
        is_added=key in state.added,
    )


def in_order(cells: Sequence[PlacedCell], order: CellOrder) -> list[PlacedCell]:
    """Sorted for people; cells that are equal keep their place."""
    return sorted(cells, key=_KEYS[order])


def _place(cell: PlacedCell) -> tuple[float, ...]:
    return cell.field_number, cell.number


_KEYS: Mapping[CellOrder, Callable[[PlacedCell], tuple[float, ...]]] = {
    CellOrder.SUSPICIOUS: lambda cell: (-cell.leukemic, *_place(cell)),
    CellOrder.DOUBTFUL: lambda cell: (abs(cell.leukemic - 0.5), *_place(cell)),
    CellOrder.SIZE: lambda cell: (-cell.finding.cell.shape.area_um2, *_place(cell)),
    CellOrder.PLACE: _place,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFilter:
    """Which cells are shown; empty shows all."""

    call: str = ""
    reason: str = ""
    cell_class: str = ""

    def accepts(self, cell: PlacedCell) -> bool:
        """Whether a cell is shown."""
        return (
            self.call in ("", cell.finding.call)
            and (not self.reason or self.reason in cell.finding.reasons)
            and self.cell_class in ("", cell.now)
        )


def reasons_in(smear: SmearFindings) -> Iterator[ReferralReason]:
    """The reasons that a smear's cells were referred for, as the filter offers them."""
    return (reason for reason in ReferralReason if smear.referred.get(reason))

"""A second reader's page: every cell without what the network or anybody else said of it.

Nothing of a suggestion is in the bytes of the page: one sprite of all cells in the order of fields,
no class, no probability, no count. Once the reader has named every cell, the agreement is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import uuid4

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from listener.web.console.galleries import BLAST, class_of
from listener.web.console.gate import actor_of
from listener.web.console.layout import Layout
from listener.web.console.pictures import Pictures, all_cells
from listener.web.console.review_pages import last_act
from listener.web.console.sessions import Visitor
from listener.web.console.smear_files import OpenSmear
from listener.workflow.reviews import Reviews
from pipeline.domain import PersonDecision
from pipeline.findings.agreement import CellAgreement, agree_on_cells
from pipeline.findings.decision import BLASTS
from pipeline.findings.review import CellKey, ReviewState
from pipeline.rendering.sprite import TILE_PX, sprite_place, sprite_size
from reporting.audit.trail import AuditSink, Event

NETWORK = "the network"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindTile:
    """One cell, and what this reader said of it."""

    key: CellKey
    field_number: int
    number: int
    x: int
    y: int
    said: str


class BlindPage:
    """`/smears/{smear}/read`."""

    def __init__(
        self,
        *,
        open_smear: Callable[[Request], OpenSmear | None],
        pictures: Pictures,
        reviews: Reviews,
        layout: Layout,
        audit: AuditSink,
        class_keys: Mapping[str, str],
    ) -> None:
        self._open_smear, self._pictures, self._reviews = open_smear, pictures, reviews
        self._layout, self._audit = layout, audit
        self._class_keys = class_keys

    async def show(self, request: Request, visitor: Visitor) -> Response:
        """All cells, blind."""
        opened = await run_in_threadpool(self._open_smear, request)
        if opened is None:
            return self._layout.problem(request, 404, "smear_absent", visitor=visitor)
        self._audit.record(
            Event.SMEAR_VIEWED,
            actor=actor_of(request, visitor),
            smear_id=opened.smear.smear_id,
            version=opened.index.version,
            trigger="blind",
        )
        return await run_in_threadpool(self._page, visitor, opened)

    def _page(self, visitor: Visitor, opened: OpenSmear) -> Response:
        smear_id = opened.smear.smear_id
        state = self._reviews.read(smear_id).state
        own = state.readings.get(visitor.name, {})
        tiles = list(_tiles(opened, own))
        is_done = bool(tiles) and all(tile.said for tile in tiles)
        columns, rows = sprite_size(len(tiles))
        return self._layout.page(
            "blind.html",
            visitor,
            smear_id=smear_id,
            tiles=tiles,
            read=sum(bool(tile.said) for tile in tiles),
            revision=state.revision,
            digest=self._pictures.digest(opened),
            width=columns * TILE_PX,
            height=rows * TILE_PX,
            tile_px=TILE_PX,
            class_keys=self._class_keys,
            event_id=uuid4().hex,
            may_undo=bool(last_act(self._reviews.events(smear_id), visitor.name)),
            agreements=list(_agreements(opened, state, visitor.name)) if is_done else [],
        )


def _tiles(opened: OpenSmear, own: Mapping[CellKey, PersonDecision]) -> Iterator[BlindTile]:
    for cell in all_cells(opened.smear):
        x, y = sprite_place(cell.sprite_position)
        yield BlindTile(
            key=cell.key,
            field_number=cell.field_number,
            number=cell.number,
            x=x,
            y=y,
            said=own[cell.key].to if cell.key in own else "",
        )


def _agreements(
    opened: OpenSmear, state: ReviewState, account: str
) -> Iterator[tuple[str, CellAgreement]]:
    """With each other reader on the cells that both named, and with the network."""
    own = state.readings[account]
    for other, reading in state.readings.items():
        both = [key for key in own if key in reading]
        if other != account and both:
            yield other, _agreement([(own[key].to, reading[key].to) for key in both])
    said = {cell.key: class_of(cell.finding) for cell in all_cells(opened.smear)}
    yield NETWORK, _agreement([(own[key].to, said[key]) for key in own if key in said])


def _agreement(pairs: Sequence[tuple[str, str]]) -> CellAgreement:
    """Blasts are one class, as no lineage is told."""
    merged = [tuple(BLAST if word in BLASTS else word for word in pair) for pair in pairs]
    return agree_on_cells([(first, second) for first, second in merged], frozenset({BLAST}))

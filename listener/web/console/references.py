"""The site's reference cells in the console: keep a cell of a signed smear, look at the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response

from listener.storage.reference_cells import REFERENCE_CLASSES, ReferenceCell, ReferenceCells
from listener.web.console.exports import labelled
from listener.web.console.galleries import PlacedCell, place_cells, review_cells
from listener.web.console.gate import actor_of
from listener.web.console.layout import CONSOLE_HEADERS, Layout
from listener.web.console.pictures import Pictures
from listener.web.console.sessions import Visitor
from listener.web.console.smear_files import OpenSmear
from listener.workflow.reviews import Reviews
from pipeline.domain import SignOff, SOPInstanceUID
from pipeline.errors import NeedsReview, Rejected
from pipeline.findings.review import ReviewState
from reporting.audit.trail import AuditSink, Event

OF_ITS_CLASS, OF_OTHERS = 6, 1
"""References beside a cell: of its own class, and of each other one."""
NOT_SIGNED = frozenset({SignOff.UNSIGNED, SignOff.WITHDRAWN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """The references of one class as a page shows them."""

    cell_class: str
    cells: Sequence[ReferenceCell]
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """The library, and by which id a cell would stand in it."""

    cells: ReferenceCells
    id_of: Callable[[str], str]
    """Keyed digest of a cell's key: 32 digits, the same in every process of the site."""

    def beside(self, cell_class: str) -> list[Shelf]:
        """What is shown beside a cell: its own class first."""
        shelves = []
        for name in sorted(REFERENCE_CLASSES, key=lambda one: (one != cell_class, one)):
            kept = self.cells.of_class(name)
            if kept:
                most = OF_ITS_CLASS if name == cell_class else OF_OTHERS
                shelves.append(Shelf(cell_class=name, cells=kept[:most], count=len(kept)))
        return shelves

    def holds(self, cell_key: str) -> ReferenceCell | None:
        """The card of a cell that is a reference already."""
        return self.cells.find(self.id_of(cell_key))


class ReferencePages:
    """`POST /smears/{smear}/references` and `/references/{class}/{id}`."""

    def __init__(
        self,
        *,
        references: References,
        open_smear: Callable[[Request], OpenSmear | None],
        reviews: Reviews,
        pictures: Pictures,
        check_pixels: Callable[[SOPInstanceUID], None],
        layout: Layout,
        audit: AuditSink,
        software_version: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._references, self._open_smear = references, open_smear
        self._reviews, self._pictures = reviews, pictures
        self._check_pixels = check_pixels
        self._layout, self._audit = layout, audit
        self._software_version, self._clock = software_version, clock

    async def change(self, request: Request, visitor: Visitor) -> Response:
        """Keep a cell as a reference of its class, or take it out again."""
        form = await request.form()
        return await run_in_threadpool(self._change, request, visitor, form)

    async def picture(self, request: Request, visitor: Visitor) -> Response:
        """One reference."""
        path = self._references.cells.picture(
            request.path_params["cell_class"], request.path_params["reference"]
        )
        if path is None:
            return self._layout.problem(request, 404, "no_such_file", visitor=visitor)
        headers = {**CONSOLE_HEADERS, "Cache-Control": "private, max-age=3600"}
        return FileResponse(str(path), media_type="image/jpeg", headers=headers)

    def _change(self, request: Request, visitor: Visitor, form: FormData) -> Response:
        opened = self._open_smear(request)
        if opened is None:
            return self._layout.problem(request, 404, "smear_absent", visitor=visitor)
        key = str(form.get("cell", ""))
        state = self._reviews.state(opened.smear.smear_id)
        try:
            cell = _cell(opened, state, key)
            if form.get("act") == "remove":
                self._remove(request, visitor, cell)
            else:
                self._keep(request, visitor, opened, state, cell)
        except NeedsReview as err:
            return self._layout.problem(request, 410, err.code, visitor=visitor, detail=err.message)
        except Rejected as err:
            return self._layout.problem(request, 409, err.code, visitor=visitor, detail=err.message)
        page = f"/smears/{opened.smear.smear_id}/fields/{cell.field_number}?cell={cell.number}"
        return RedirectResponse(page, status_code=303)

    def _keep(
        self,
        request: Request,
        visitor: Visitor,
        opened: OpenSmear,
        state: ReviewState,
        cell: PlacedCell,
    ) -> None:
        if state.sign_off in NOT_SIGNED or not state.is_current:
            raise Rejected(
                "A reference comes from a signed smear: sign it first.", code="smear_not_signed"
            )
        if cell.now not in REFERENCE_CLASSES:
            raise Rejected("A cell without a class is no reference.", code="review_unknown_class")
        field = opened.smear.fields[cell.field_number - 1]
        self._check_pixels(field.sop_instance_uid)
        kept = ReferenceCell(
            id=self._references.id_of(cell.key),
            cell_class=cell.now,
            kept_by=visitor.name,
            kept_at=self._clock(),
            software_version=self._software_version,
        )
        with self._pictures.memory_for(field):
            picture = self._pictures.crop(opened, cell)
        self._references.cells.keep(kept, labelled(picture))
        self._tell(request, visitor, Event.REFERENCE_ADDED, cell)

    def _remove(self, request: Request, visitor: Visitor, cell: PlacedCell) -> None:
        if self._references.cells.remove(self._references.id_of(cell.key)):
            self._tell(request, visitor, Event.REFERENCE_REMOVED, cell)

    def _tell(self, request: Request, visitor: Visitor, event: Event, cell: PlacedCell) -> None:
        """By class alone: a line that named the smear would undo the pseudonym."""
        self._audit.record(event, actor=actor_of(request, visitor), given_class=cell.now)


def _cell(opened: OpenSmear, state: ReviewState, key: str) -> PlacedCell:
    for cells in review_cells(place_cells(opened.smear), state).values():
        for cell in cells:
            if cell.key == key:
                return cell
    raise Rejected("A cell is not in this smear; reload the page.", code="review_unknown_cell")

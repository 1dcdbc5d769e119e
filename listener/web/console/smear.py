"""One smear: what is known of it, its differential, its cells by class, its fields, its results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from urllib.parse import urlencode
from uuid import uuid4

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from listener.storage.dataset_scan import is_uid
from listener.storage.reference_cells import REFERENCE_CLASSES
from listener.web.console.galleries import (
    BLAST,
    CellFilter,
    CellOrder,
    PlacedCell,
    field_cells,
    in_order,
    place_cells,
    reasons_in,
    review_cells,
    type_words,
)
from listener.web.console.gate import actor_of
from listener.web.console.layout import CONSOLE_HEADERS, Layout
from listener.web.console.permissions import Permission
from listener.web.console.pictures import Pictures
from listener.web.console.references import NOT_SIGNED, References
from listener.web.console.review_pages import last_act
from listener.web.console.sessions import KnownBy, Visitor
from listener.web.console.smear_files import OpenSmear, SmearFiles, SmearIdentity
from listener.web.console.smear_index import SmearIndex
from listener.workflow.reviews import Reviews
from pipeline.domain import (
    Call,
    CellFinding,
    CellType,
    FieldFindings,
    Interval,
    SmearFindings,
    SmearId,
)
from pipeline.errors import NeedsReview, Rejected
from pipeline.findings.decision import BLASTS
from pipeline.findings.percentages import wilson
from pipeline.findings.review import field_key, with_added
from pipeline.findings.smear_summary import referred_cell_count, usable_field_count
from pipeline.rendering.sprite import TILE_PX, WINDOW_UM, sprite_place, sprite_size
from reporting.audit.trail import AuditSink, Event
from reporting.content.sign_off import MEANING_WORDS, cell_in_words

VIEW_LASTS_S = 600.0
MOST_VIEWS = 10_000
MOST_OF_A_CLASS = 200
"""Cells of one class on the overview; the class's own page has all of them."""
PICTURE_HEADERS = {
    **CONSOLE_HEADERS,
    # The address holds the digest of what the picture was drawn from.
    "Cache-Control": "private, max-age=3600, immutable",
}
KINDS_OF_FIELD_PICTURES = frozenset({"original", "annotated", "thumb", "heat"})


class RecentViews:
    """Tells an opened smear from a page that fetches itself again while work goes on.

    What a browser says of itself is not asked: it could hide that somebody looked.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = Lock()
        self._seen: dict[object, float] = {}

    def is_new(self, view: object) -> bool:
        """True unless the same session opened the same version within VIEW_LASTS_S."""
        now = self._monotonic()
        with self._lock:
            is_new = now - self._seen.get(view, -VIEW_LASTS_S) >= VIEW_LASTS_S
            if is_new:
                self._seen[view] = now
            if len(self._seen) > MOST_VIEWS:
                self._seen = {one: at for one, at in self._seen.items() if now - at < VIEW_LASTS_S}
            return is_new


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferentialRow:
    """One line of the differential."""

    name: str
    count: int
    share: Interval
    usual: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One cell as a gallery shows it."""

    cell: PlacedCell
    x: int
    y: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """One class on the page."""

    name: str
    tiles: Sequence[Tile]
    count: int
    """Of all cells of the class that pass the filter, shown or not."""


class SmearPages:
    """`/smears/{smear}` and the pictures below it."""

    def __init__(
        self,
        *,
        files: SmearFiles,
        index: SmearIndex,
        pictures: Pictures,
        layout: Layout,
        audit: AuditSink,
        reference_ranges: Mapping[str, tuple[float, float]],
        exports: Sequence[tuple[str, str]],
        reviews: Reviews,
        class_keys: Mapping[str, str],
        signs_through_proxy: bool,
        sign_in_again_url: str,
        references: References,
    ) -> None:
        self._files, self._index, self._pictures = files, index, pictures
        self._layout, self._audit = layout, audit
        self._reference_ranges = reference_ranges
        self._exports = exports
        self._reviews, self._class_keys = reviews, class_keys
        self._signs_through_proxy = signs_through_proxy
        self._sign_in_again_url = sign_in_again_url
        self._references = references
        self._views = RecentViews()

    def opened(self, request: Request) -> OpenSmear | None:
        """The smear that an address names."""
        smear_id = request.path_params["smear"]
        opened = self._files.open(SmearId(smear_id)) if is_uid(smear_id) else None
        if opened is None:
            return None
        read = self._reviews.read(SmearId(smear_id))
        fields = with_added(read.found.fields, read.state)
        return replace(opened, smear=replace(read.found, fields=fields))

    async def show(self, request: Request, visitor: Visitor) -> Response:
        """The page of a smear."""
        opened = await run_in_threadpool(self.opened, request)
        if opened is None:
            return self._layout.problem(request, 404, "smear_absent", visitor=visitor)
        seen = (visitor.name, visitor.token, str(opened.smear.smear_id), opened.index.version)
        if self._views.is_new(seen):
            self._audit.record(
                Event.SMEAR_VIEWED,
                actor=actor_of(request, visitor),
                smear_id=opened.smear.smear_id,
                version=opened.index.version,
            )
        return await run_in_threadpool(self._page, request, visitor, opened)

    async def sprite(self, request: Request, visitor: Visitor) -> Response:
        """All cells of a class in one picture."""
        opened = await run_in_threadpool(self.opened, request)
        if opened is None or request.path_params["digest"] != self._pictures.digest(opened):
            return self._layout.problem(request, 404, "smear_absent", visitor=visitor)
        name: str = request.path_params["name"]
        is_heat = name.endswith("-heat")
        cell_class = name.removesuffix("-heat")
        return await self._picture(
            request,
            visitor,
            lambda: self._pictures.sprite(opened, cell_class, is_heat=is_heat),
        )

    async def field_picture(self, request: Request, visitor: Visitor) -> Response:
        """One field: original, annotated, thumb or heat."""
        opened = await run_in_threadpool(self.opened, request)
        number, kind = request.path_params["number"], request.path_params["kind"]
        if opened is None or not 1 <= number <= len(opened.smear.fields):
            return self._layout.problem(request, 404, "field_absent", visitor=visitor)
        if kind not in KINDS_OF_FIELD_PICTURES:
            return self._layout.problem(request, 404, "no_such_file", visitor=visitor)

        def made() -> object:
            if kind != "annotated":
                return self._pictures.field(opened, number, kind)
            reviewed = self._reviews.read(opened.smear.smear_id).smear
            return self._pictures.annotated(opened, number, reviewed)

        return await self._picture(request, visitor, made)

    async def field(self, request: Request, visitor: Visitor) -> Response:
        """The page of a field."""
        opened = await run_in_threadpool(self.opened, request)
        number = request.path_params["number"]
        if opened is None or not 1 <= number <= len(opened.smear.fields):
            return self._layout.problem(request, 404, "field_absent", visitor=visitor)
        found = opened.smear.fields[number - 1]
        self._audit.record(
            Event.FIELD_VIEWED,
            actor=actor_of(request, visitor),
            smear_id=opened.smear.smear_id,
            study_uid=found.study_uid,
            sop_instance_uid=found.sop_instance_uid,
            frame=found.frame,
        )
        return await run_in_threadpool(self._field_page, request, visitor, opened, number)

    async def _picture(
        self, request: Request, visitor: Visitor, make: Callable[[], object]
    ) -> Response:
        try:
            path = await run_in_threadpool(make)
        except NeedsReview as err:
            return self._layout.problem(request, 410, err.code, visitor=visitor)
        except Rejected as err:
            return self._layout.problem(request, 404, err.code, visitor=visitor)
        return FileResponse(str(path), headers=dict(PICTURE_HEADERS))

    def _page(self, request: Request, visitor: Visitor, opened: OpenSmear) -> Response:
        query = request.query_params
        order = _order(query.get("sort", ""))
        asked = CellFilter(
            call=query.get("call", "") if query.get("call", "") in list(Call) else "",
            reason=query.get("reason", "")[:32],
            cell_class=query.get("class", "")[:32],
        )
        changed_at = self._index.changed_at()
        read = self._reviews.read(opened.smear.smear_id)
        smear, found = read.smear, opened.smear
        placed = review_cells(place_cells(found), read.state)
        row = self._index.find(smear.smear_id) or self._files.row(smear.smear_id, earlier=None)
        return self._layout.page(
            "smear.html",
            visitor,
            smear=smear,
            index=opened.index,
            changed_at=changed_at,
            row=row,
            identity=identity_for(visitor, opened),
            differential=list(_differential(smear, self._reference_ranges)),
            has_ranges=bool(self._reference_ranges),
            galleries=list(_galleries(placed, order, asked)),
            sprites=_sprite_sizes(found),
            classes={name: len(cells) for name, cells in placed.items()},
            review_now=read.state,
            review=smear.review,
            open_points=self._reviews.open_points(found.smear_id),
            total_seen=sum(cell.is_seen for cells in placed.values() for cell in cells),
            class_keys=self._class_keys,
            may_undo=bool(last_act(self._reviews.events(found.smear_id), visitor.name)),
            event_id=uuid4().hex,
            meaning_words=MEANING_WORDS,
            cell_in_words=cell_in_words,
            signs_by=self._signs_by(visitor),
            sign_in_again_url=self._sign_in_again_url,
            referred=referred_cell_count(smear),
            order=order,
            orders=list(CellOrder),
            asked=asked,
            calls=list(Call),
            reasons=list(reasons_in(found)),
            is_heat=query.get("heat", "") == "1",
            query=urlencode(dict(query)),
            digest=self._pictures.digest(opened),
            tile_px=TILE_PX,
            type_words=type_words,
            window_um=WINDOW_UM,
            usable=usable_field_count(smear),
            found=sum(len(field.cells) for field in found.fields),
            cells_now=sum(len(field.cells) for field in smear.fields),
            has_images=self._files.header(found.fields[0].sop_instance_uid) is not None,
            exports=self._exports,
        )

    def _signs_by(self, visitor: Visitor) -> str:
        """How this visitor shows again who they are, or "" where they cannot."""
        if visitor.known_by is KnownBy.PROXY and not self._signs_through_proxy:
            return ""
        return str(visitor.known_by)

    def _field_page(
        self, request: Request, visitor: Visitor, opened: OpenSmear, number: int
    ) -> Response:
        query = request.query_params
        field = opened.smear.fields[number - 1]
        state = self._reviews.read(opened.smear.smear_id).state
        chosen = query.get("cell", "")
        cells = field_cells(field, state)
        cell = next((one for one in cells if str(one.finding.cell.index) == chosen), None)
        places = [one.finding.cell.index for one in cells]
        return self._layout.page(
            "field.html",
            visitor,
            smear=opened.smear,
            identity=identity_for(visitor, opened),
            number=number,
            field=field,
            cells=cells,
            cell=cell,
            before=_neighbor(places, chosen, -1),
            after=_neighbor(places, chosen, 1),
            view=_view_box(field, cell.finding if cell else None, query.get("zoom", "")),
            zoom=_zoom(query.get("zoom", ""), cell is not None),
            shown=query.get("view", "outlines"),
            digest=self._pictures.digest(opened),
            path_of=svg_path,
            type_words=type_words,
            scale_bar=scale_bar(field),
            has_image=self._files.header(field.sop_instance_uid) is not None,
            field_key=field_key(field),
            comments=[one for one in state.comments if cell and cell.key in one.cells],
            is_excluded=field_key(field) in state.excluded,
            shelves=self._references.beside(cell.now) if cell else [],
            is_reference=bool(cell and self._references.holds(cell.key)),
            may_be_reference=bool(
                cell
                and cell.now in REFERENCE_CLASSES
                and state.sign_off not in NOT_SIGNED
                and state.is_current
            ),
            revision=state.revision,
            event_id=uuid4().hex,
            class_keys=self._class_keys,
        )


def identity_for(visitor: Visitor, opened: OpenSmear) -> SmearIdentity:
    """Whose smear it is, or its pseudonym for those who may not know."""
    identity = opened.identity
    if visitor.may(Permission.IDENTIFY):
        return identity
    return SmearIdentity(patient_id=identity.pseudonym, study_uid=identity.study_uid)


def svg_path(contour: Sequence[Sequence[int]]) -> str:
    """A closed outline as SVG path data; pixel centers lie at a half."""
    points = [f"{x + 0.5:g} {y + 0.5:g}" for x, y in contour]
    return "M" + "L".join(points) + "Z"


def scale_bar(field: FieldFindings) -> tuple[int, float] | None:
    """The longest round length that takes at most a fifth of the field: µm and pixels."""
    if field.scale.source == "assumed":
        return None
    room = field.width * 0.2 * field.scale.um_per_px
    fitting = [um for um in (1, 2, 5, 10, 20, 50, 100, 200, 500) if um <= room]
    return (fitting[-1], fitting[-1] / field.scale.um_per_px) if fitting else None


def _zoom(text: str, has_cell: bool) -> float:
    try:
        return min(64.0, max(1.0, float(text)))
    except ValueError:
        return 3.0 if has_cell else 1.0


def _view_box(
    field: FieldFindings, finding: CellFinding | None, zoom_text: str
) -> tuple[float, float, float, float]:
    """Left, top, width and height of what is shown, around a cell where one is chosen."""
    zoom = _zoom(zoom_text, finding is not None)
    width, height = field.width / zoom, field.height / zoom
    x, y = field.width / 2, field.height / 2
    if finding is not None:
        box = finding.cell.box
        x, y = box.x + box.width / 2, box.y + box.height / 2
    left = min(max(0.0, x - width / 2), field.width - width)
    top = min(max(0.0, y - height / 2), field.height - height)
    return round(left, 2), round(top, 2), round(width, 2), round(height, 2)


def _neighbor(places: Sequence[int], chosen: str, step: int) -> int | None:
    if not places:
        return None
    if not chosen.isdigit() or int(chosen) not in places:
        return places[0] if step > 0 else places[-1]
    position = places.index(int(chosen)) + step
    return places[position] if 0 <= position < len(places) else None


def _order(word: str) -> CellOrder:
    return CellOrder(word) if word in list(CellOrder) else CellOrder.SUSPICIOUS


def _differential(
    smear: SmearFindings, ranges: Mapping[str, tuple[float, float]]
) -> Iterator[DifferentialRow]:
    """Blasts first and together, as the network tells no lineage; then the types by name."""
    counted = smear.white_cells_counted
    if not counted:
        return
    counts = {BLAST: smear.leukemic_count}
    counts |= {
        str(kind): count
        for kind, count in smear.differential.items()
        if kind not in BLASTS and kind is not CellType.UNDETERMINED
    }
    for name, count in counts.items():
        yield DifferentialRow(
            name=name, count=count, share=wilson(count, counted), usual=ranges.get(name)
        )


def _galleries(
    placed: Mapping[str, Sequence[PlacedCell]], order: CellOrder, asked: CellFilter
) -> Iterator[Gallery]:
    for name, cells in placed.items():
        chosen = [cell for cell in in_order(cells, order) if asked.accepts(cell)]
        if chosen:
            most = len(chosen) if asked.cell_class else MOST_OF_A_CLASS
            yield Gallery(
                name=name, tiles=[_tile(cell) for cell in chosen[:most]], count=len(chosen)
            )


def _sprite_sizes(found: SmearFindings) -> dict[str, tuple[int, int]]:
    """Width and height of the sprite of each class that the network gave."""
    return {
        name: (columns * TILE_PX, rows * TILE_PX)
        for name, cells in place_cells(found).items()
        for columns, rows in [sprite_size(len(cells))]
    }


def _tile(cell: PlacedCell) -> Tile:
    x, y = sprite_place(cell.sprite_position)
    return Tile(cell=cell, x=x, y=y)

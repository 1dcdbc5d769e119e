"""Review in the console: what a person says of cells, and the signature under it.

Every write names the revision that its page showed (`If-Match`, or a field of the form); when
somebody else wrote meanwhile the answer is 412 with who changed what, and nothing is overwritten.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from listener.storage.dataset_scan import is_uid
from listener.storage.reviews import StaleReview
from listener.web.console.gate import Gate
from listener.web.console.layout import CONSOLE_HEADERS, Layout
from listener.web.console.sessions import KnownBy, Visitor
from listener.web.console.signing import ProviderSigning, ShownAgain
from listener.workflow.reviews import Reviews
from pipeline.domain import CellType, Reviewer, SmearId
from pipeline.errors import NeedsReview, Rejected, RetryLater
from pipeline.findings.review import (
    DECIDING,
    NOT_A_CELL,
    SIGNING,
    UNIDENTIFIED,
    Act,
    CellKey,
    FieldKey,
    ReviewEvent,
)

MOST_CELLS = 2000
DEFAULT_KEYS: Mapping[str, str] = {
    str(CellType.BLAST): "b",
    str(CellType.LYMPHOCYTE): "l",
    str(CellType.NEUTROPHIL): "n",
    str(CellType.MONOCYTE): "m",
    str(CellType.EOSINOPHIL): "e",
    str(CellType.BASOPHIL): "a",
    str(CellType.IMMATURE_GRANULOCYTE): "i",
    str(CellType.PROMYELOCYTE): "p",
    str(CellType.REACTIVE_LYMPHOCYTE): "r",
    str(CellType.PLASMA_CELL): "k",
    str(CellType.ERYTHROBLAST): "y",
    str(CellType.PLATELET): "t",
    str(CellType.SMUDGE_CELL): "s",
    UNIDENTIFIED: "q",
    NOT_A_CELL: "x",
}
"""One key a class, shown beside its name; `console.class_keys` gives others."""

_ACTS = frozenset(Act) - SIGNING
_SAYS_TO = DECIDING | {Act.ADD_CELL, Act.SET_TARGET}
"""Acts with a class or a number; a plain form sends one with every act."""
_SHOWN_SINCE = 20
NO_SUCH_ACT = "There is no such act."


class ReviewPages:
    """`/smears/{smear}/review` and `/smears/{smear}/sign`."""

    def __init__(
        self,
        *,
        reviews: Reviews,
        gate: Gate,
        layout: Layout,
        shown_again: ShownAgain,
        provider: ProviderSigning | None,
    ) -> None:
        self._reviews = reviews
        self._gate, self._layout = gate, layout
        self._shown_again, self._provider = shown_again, provider

    async def act(self, request: Request, visitor: Visitor) -> Response:
        """One act: reclassify, confirm, not a cell, seen, star, comment, target, undo."""
        form = await request.form(max_fields=MOST_CELLS + 20)
        return await run_in_threadpool(self._act, request, visitor, form)

    async def sign(self, request: Request, visitor: Visitor) -> Response:
        """Sign, countersign or withdraw; the person shows again who they are."""
        form = await request.form()
        return await run_in_threadpool(self._sign, request, visitor, form)

    def _act(self, request: Request, visitor: Visitor, form: FormData) -> Response:
        # A button of the plain form says both at once: "reclassify:lymphocyte".
        word, _, to = str(form.get("act", "")).partition(":")
        if word not in _ACTS:
            return self._problem(request, visitor, form, 422, "review_incomplete", NO_SUCH_ACT)
        act, to = Act(word), to or str(form.get("to", ""))
        if act is Act.RECLASSIFY and to == NOT_A_CELL:
            act = Act.NOT_A_CELL
        smear_id = _smear_id(request)
        event = replace(
            _event(visitor, form, act),
            to=to if act in _SAYS_TO else "",
            cells=tuple(CellKey(str(key)) for key in form.getlist("cell"))[:MOST_CELLS],
            fields=tuple(FieldKey(str(key)) for key in form.getlist("field"))[:MOST_CELLS],
            comment=_one_line(form, "comment", 2000),
            undoes=str(form.get("undoes", "")),
        )
        if act is Act.UNDO and not event.undoes and smear_id:
            event = replace(event, undoes=last_act(self._reviews.events(smear_id), visitor.name))
        return self._record(request, visitor, form, event)

    def _sign(self, request: Request, visitor: Visitor, form: FormData) -> Response:
        word = str(form.get("meaning", ""))
        if word not in SIGNING:
            return self._problem(request, visitor, form, 422, "review_incomplete", NO_SUCH_ACT)
        event = _event(visitor, form, Act(word))
        provider = self._provider
        if visitor.known_by is KnownBy.PROVIDER and provider is not None:

            def ask(smear_id: SmearId, seen: int) -> Response:
                return provider.ask(visitor, smear_id, event, seen_revision=seen)

            return self._answer(request, visitor, form, ask)
        try:
            self._shown_again.check(request, visitor, str(form.get("password", "")))
        except Rejected as err:
            self._gate.record_refusal(request, visitor, err.code)
            return self._problem(request, visitor, form, 403, err.code, err.message)
        return self._record(request, visitor, form, event)

    def _record(
        self, request: Request, visitor: Visitor, form: FormData, event: ReviewEvent
    ) -> Response:
        def keep(smear_id: SmearId, seen: int) -> Response:
            kept = self._kept(smear_id, event, form, seen)
            if _wants_json(request):
                headers = {**CONSOLE_HEADERS, "ETag": f'"{kept.revision}"'}
                return JSONResponse({"revision": kept.revision, "id": kept.id}, headers=headers)
            return RedirectResponse(_page_after(smear_id, form), status_code=303)

        return self._answer(request, visitor, form, keep)

    def _answer(
        self,
        request: Request,
        visitor: Visitor,
        form: FormData,
        do: Callable[[SmearId, int], Response],
    ) -> Response:
        """What `do` answers for the smear and the revision of the page, or why it cannot be."""
        smear_id, seen = _smear_id(request), _seen_revision(request, form)
        if smear_id is None:
            return self._layout.problem(request, 404, "smear_absent", visitor=visitor)
        if seen is None:
            return self._problem(
                request,
                visitor,
                form,
                428,
                "revision_missing",
                "The page did not say what it showed.",
            )
        try:
            return do(smear_id, seen)
        except StaleReview as err:
            return self._stale(request, visitor, form, smear_id, err)
        except Rejected as err:
            return self._problem(request, visitor, form, 409, err.code, err.message)
        except RetryLater as err:
            return self._problem(request, visitor, form, 503, err.code, err.message)
        except NeedsReview as err:
            return self._problem(request, visitor, form, 403, err.code, err.message)

    def _kept(
        self, smear_id: SmearId, event: ReviewEvent, form: FormData, seen: int
    ) -> ReviewEvent:
        if event.act is not Act.ADD_CELL:
            return self._reviews.record(smear_id, event, seen_revision=seen)
        return self._reviews.add_cell(
            smear_id, event, place=(_number(form, "x"), _number(form, "y")), seen_revision=seen
        )

    def _stale(
        self,
        request: Request,
        visitor: Visitor,
        form: FormData,
        smear_id: SmearId,
        err: StaleReview,
    ) -> Response:
        # A reader to whom no suggestion is shown is not told another's decisions either.
        is_blind = form.get("blind") == "1"
        since = [] if is_blind else [_told(event) for event in err.since[-_SHOWN_SINCE:]]
        if _wants_json(request):
            body = {"title": err.code, "detail": err.message, "since": since}
            return JSONResponse(body, status_code=412, headers=dict(CONSOLE_HEADERS))
        return self._layout.page(
            "stale.html", visitor, status=412, words=err.message, since=since, smear_id=smear_id
        )

    def _problem(
        self,
        request: Request,
        visitor: Visitor,
        form: FormData,
        status: int,
        code: str,
        words: str,
    ) -> Response:
        if _wants_json(request):
            body = {"title": code, "detail": words}
            return JSONResponse(body, status_code=status, headers=dict(CONSOLE_HEADERS))
        smear_id = _smear_id(request)
        back = _page_after(smear_id, form) if smear_id else ""
        return self._layout.problem(request, status, code, visitor=visitor, detail=words, back=back)


def last_act(events: Sequence[ReviewEvent], account: str) -> str:
    """The id of a person's last act that is neither taken back nor a signature; "" without one."""
    undone = {event.undoes for event in events if event.act is Act.UNDO}
    for event in reversed(events):
        is_own = event.reviewer.account == account and event.act not in SIGNING | {Act.UNDO}
        if is_own and event.id not in undone:
            return event.id
    return ""


def _event(visitor: Visitor, form: FormData, act: Act) -> ReviewEvent:
    given = str(form.get("event_id", ""))
    return ReviewEvent(
        id=given if given.isalnum() and 16 <= len(given) <= 64 else uuid4().hex,
        at=datetime.now(UTC),
        reviewer=Reviewer(account=visitor.name, name=visitor.full_name or visitor.name),
        act=act,
        before=tuple(str(one) for one in form.getlist("before"))[:MOST_CELLS],
        reason=_one_line(form, "reason", 500),
        is_blind=form.get("blind") == "1",
    )


def _one_line(form: FormData, name: str, most: int) -> str:
    """What somebody typed, without line ends and control characters: results carry it as text."""
    words = " ".join(str(form.get(name, "")).split())
    return "".join(one for one in words if unicodedata.category(one) != "Cc")[:most]


def _page_after(smear_id: SmearId, form: FormData) -> str:
    """The page from which a plain form came."""
    place = str(form.get("back", ""))
    back = f"?{place}" if place and place.isprintable() else ""
    page = "/read" if form.get("blind") == "1" else ""
    number = str(form.get("field_number", ""))
    if number.isdigit():
        page = f"/fields/{number}"
    return f"/smears/{smear_id}{page}{back}"


def _number(form: FormData, name: str) -> float:
    """A place in pixels; Rejected `review_incomplete` for what is no number."""
    try:
        number = float(str(form.get(name, "")))
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e6:
        raise Rejected("Point to the missed cell.", code="review_incomplete")
    return number


def _seen_revision(request: Request, form: FormData) -> int | None:
    text = request.headers.get("if-match") or str(form.get("revision", ""))
    text = text.strip().strip('"')
    return int(text) if text.isdigit() and len(text) < 10 else None


def _smear_id(request: Request) -> SmearId | None:
    word = request.path_params["smear"]
    return SmearId(word) if is_uid(word) else None


def _told(event: ReviewEvent) -> dict[str, Any]:
    return {
        "who": event.reviewer.name,
        "at": event.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S"),
        "act": str(event.act),
        "to": event.to,
        "cells": [cell_words(key) for key in event.cells],
    }


def cell_words(key: str) -> str:
    """A cell's key as people read it: its number within its field."""
    return f"#{key.rsplit(':', 1)[-1]}"


def _wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")

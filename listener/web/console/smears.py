"""The Smears page: newest first, filtered, searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from listener.web.console.gate import actor_of
from listener.web.console.layout import Layout
from listener.web.console.permissions import Permission
from listener.web.console.sessions import Visitor
from listener.web.console.smear_index import (
    DeliveryStanding,
    ReviewStanding,
    SmearFilter,
    SmearIndex,
)
from pipeline.domain import Grade
from reporting.audit.trail import AuditSink, Event

LONGEST_SEARCH = 64


class SmearsPage:
    """`/smears`."""

    def __init__(
        self,
        *,
        index: SmearIndex,
        layout: Layout,
        audit: AuditSink,
        exports: Sequence[tuple[str, str]],
    ) -> None:
        self._index, self._layout, self._audit = index, layout, audit
        self._exports = exports

    async def show(self, request: Request, visitor: Visitor) -> Response:
        """The list."""
        query = request.query_params
        number = query.get("page", "1")
        asked = SmearFilter(
            grade=_one_of(query.get("grade", ""), Grade),
            device=query.get("device", "")[:16],
            state=_one_of(query.get("state", ""), DeliveryStanding),
            review=_one_of(query.get("review", ""), ReviewStanding),
            since=day(query.get("since", "")),
            until=day_after(query.get("until", "")),
        )
        page_number = int(number) if number.isdigit() and len(number) < 8 else 1
        return await run_in_threadpool(self._page, visitor, asked, page_number, dict(query))

    async def search(self, request: Request, visitor: Visitor) -> Response:
        """By accession number or Patient ID, which no address and no log may hold."""
        form = await request.form()
        words = str(form.get("words", "")).strip()[:LONGEST_SEARCH]
        if not visitor.may(Permission.IDENTIFY):
            words = ""
        if words:
            self._audit.record(Event.SMEARS_SEARCHED, actor=actor_of(request, visitor))
        return await run_in_threadpool(self._page, visitor, SmearFilter(words=words), 1, {})

    def _page(
        self, visitor: Visitor, asked: SmearFilter, number: int, query: Mapping[str, str]
    ) -> Response:
        changed_at = self._index.changed_at()
        page = self._index.page(asked, number)
        if not visitor.may(Permission.IDENTIFY):
            page = replace(page, rows=[row.without_identity() for row in page.rows])
        kept = {name: word for name, word in query.items() if word and name != "page"}
        return self._layout.page(
            "smears.html",
            visitor,
            page=page,
            changed_at=changed_at,
            asked=asked,
            since=query.get("since", ""),
            until=query.get("until", ""),
            query=f"{urlencode(kept)}&" if kept else "",
            devices=self._index.devices(),
            states=list(DeliveryStanding),
            reviews=list(ReviewStanding),
            exports=self._exports,
            has_files=bool(page.total) or asked != SmearFilter(),
        )


def _one_of(word: str, words: type[StrEnum]) -> str:
    return word if word in list(words) else ""


def day(text: str) -> datetime | None:
    """The first moment of an ISO date in UTC; None for what is no date."""
    try:
        return datetime.fromisoformat(text[:10]).replace(tzinfo=UTC) if text else None
    except ValueError:
        return None


def day_after(text: str) -> datetime | None:
    """Midnight after the day that `text` names (UTC), or None."""
    until = day(text)
    return until + timedelta(days=1) if until is not None else None

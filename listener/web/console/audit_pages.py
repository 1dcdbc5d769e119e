"""The Audit pages: filter, one image's story, verify, export."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from listener.storage.dataset_scan import is_uid
from listener.web.console.audit_index import AuditIndex, AuditQuestion
from listener.web.console.gate import actor_of
from listener.web.console.layout import CONSOLE_HEADERS, Layout
from listener.web.console.sessions import Visitor
from listener.web.console.smears import day, day_after
from reporting.audit.trail import (
    AuditSink,
    Event,
    EventFilter,
    Outcome,
    read_events,
    read_public_key,
    verify_trail,
)

_ASIDE = frozenset(
    {
        *("time", "event", "outcome", "actor", "seq", "prev", "hash", "chain"),
        *("software_version", "model_sha256", "finder_sha256", "calibration_sha256"),
        "research_use_only",
    }
)
_FORMS = ("jsonl", "dicom", "fhir")


class AuditPages:
    """`/audit` and what lies below it."""

    def __init__(
        self,
        *,
        index: AuditIndex,
        folder: Path,
        public_key: Path,
        layout: Layout,
        audit: AuditSink,
    ) -> None:
        self._index, self._folder, self._public_key = index, folder, public_key
        self._layout, self._audit = layout, audit

    async def show(self, request: Request, visitor: Visitor) -> Response:
        """Events that fit a filter, or one image's story."""
        query = dict(request.query_params)
        asked = question(query)
        number = query.get("page", "1")
        page_number = int(number) if number.isdigit() and len(number) < 6 else 1
        self._audit.record(Event.TRAIL_VIEWED, actor=actor_of(request, visitor))
        return await run_in_threadpool(self._page, visitor, asked, page_number, query)

    async def verify(self, request: Request, visitor: Visitor) -> Response:
        """Check the whole chain now."""

        def check() -> Response:
            result = verify_trail(self._folder, read_public_key(self._public_key))
            self._audit.record(
                Event.TRAIL_VERIFIED,
                actor=actor_of(request, visitor),
                outcome=Outcome.SUCCESS if result.is_whole else Outcome.MAJOR_FAILURE,
            )
            return self._page(visitor, AuditQuestion(), 1, {}, verification=result)

        return await run_in_threadpool(check)

    async def export(self, request: Request, visitor: Visitor) -> Response:
        """The events that fit the filter, as JSON lines, DICOM messages or FHIR resources."""
        form = await request.form()
        words = {name: str(value) for name, value in form.items()}
        form_name = words.get("form", "")
        if form_name not in _FORMS:
            return self._layout.problem(request, 400, "no_such_file", visitor=visitor)
        return await run_in_threadpool(self._export, request, visitor, words, form_name)

    def _export(
        self, request: Request, visitor: Visitor, words: Mapping[str, str], form: str
    ) -> Response:
        asked = question(words)
        write = _writer(form)
        descriptor, path = tempfile.mkstemp(prefix="smearlink-audit-")
        count = 0
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            for event in read_events(self._folder, _filter(asked)):
                if asked.person and event["actor"].get("user") != asked.person:
                    continue
                file.write(write(event) + "\n")
                count += 1
        self._audit.record(Event.TRAIL_EXPORTED, actor=actor_of(request, visitor), count=count)
        ending = {"jsonl": "jsonl", "dicom": "xml.txt", "fhir": "ndjson"}[form]
        return FileResponse(
            path,
            media_type="text/plain",
            filename=f"research-use-only-audit-{form}.{ending}",
            headers=dict(CONSOLE_HEADERS),
            background=BackgroundTask(os.unlink, path),
        )

    def _page(
        self,
        visitor: Visitor,
        asked: AuditQuestion,
        number: int,
        query: Mapping[str, str],
        *,
        verification: object = None,
    ) -> Response:
        full = asked
        if asked.image and not asked.smear:
            full = replace(asked, smear=self._index.smear_of(asked.image))
        page = self._index.page(full, number)
        kept = {name: word for name, word in query.items() if word and name != "page"}
        return self._layout.page(
            "audit.html",
            visitor,
            page=page,
            lines=[_line(event) for event in page.events],
            asked=asked,
            words=query,
            query=f"{urlencode(kept)}&" if kept else "",
            events=list(Event),
            outcomes=list(Outcome),
            people=self._index.people(),
            devices=self._index.devices(),
            verification=verification,
        )


def question(words: Mapping[str, str]) -> AuditQuestion:
    """What a form asks; words that mean nothing ask for nothing."""

    def word(name: str, allowed: type[Event] | type[Outcome]) -> str:
        return words.get(name, "") if words.get(name, "") in list(allowed) else ""

    def uid(name: str) -> str:
        return words.get(name, "").strip() if is_uid(words.get(name, "").strip()) else ""

    return AuditQuestion(
        event=word("event", Event),
        outcome=word("outcome", Outcome),
        person=words.get("person", "")[:64],
        device=words.get("device", "")[:16],
        study=uid("study"),
        image=uid("image"),
        smear=uid("smear"),
        since=day(words.get("since", "")),
        until=day_after(words.get("until", "")),
    )


def _filter(asked: AuditQuestion) -> EventFilter:
    return EventFilter(
        study_uid=asked.study or None,
        sop_instance_uid=asked.image or None,
        ae_title=asked.device or None,
        event=Event(asked.event) if asked.event else None,
        outcome=Outcome(asked.outcome) if asked.outcome else None,
        since=asked.since,
        until=asked.until,
    )


def _writer(form: str) -> Callable[[Mapping[str, Any]], str]:
    if form == "jsonl":
        return lambda event: json.dumps(dict(event), ensure_ascii=False)
    if form == "dicom":
        from reporting.audit.dicom_export import dicom_message

        return lambda event: dicom_message(event, source=str(event["chain"])).decode()
    from reporting.audit.fhir_export import fhir_event

    return lambda event: fhir_event(event, source=str(event["chain"]))


def _line(event: Mapping[str, Any]) -> dict[str, Any]:
    """One event as the table shows it."""
    actor = event.get("actor", {})
    details = {
        name: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in event.items()
        if name not in _ASIDE
    }
    return {
        "time": str(event["time"])[:19].replace("T", " "),
        "event": event["event"],
        "outcome": event["outcome"],
        "who": actor.get("user") or actor.get("ae_title") or actor.get("host") or "",
        "host": actor.get("host", ""),
        "image": event.get("sop_instance_uid", ""),
        "smear": event.get("smear_id", ""),
        "details": details,
        "hash": str(event["hash"])[:12],
    }

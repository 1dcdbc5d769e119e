"""The Upload pages: choose, watch, and see results come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from listener.web.console.gate import actor_of
from listener.web.console.layout import CONSOLE_HEADERS, Layout
from listener.web.console.permissions import Permission
from listener.web.console.sessions import Visitor
from listener.web.console.smear_index import SmearIndex
from listener.web.console.uploads import (
    ENDINGS,
    MOST_FILES,
    Batch,
    UploadedFile,
    Uploads,
    in_words,
)
from pipeline.errors import Rejected

ORDER_FIELDS = ("accession", "patient_id", "notes", "spacing_um")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLine:
    """A file with how far it came."""

    file: UploadedFile
    state: str
    reason: str


class UploadPages:
    """`/upload` and what lies below it."""

    def __init__(self, *, uploads: Uploads, index: SmearIndex, layout: Layout) -> None:
        self._uploads, self._index, self._layout = uploads, index, layout

    async def show(self, _request: Request, visitor: Visitor) -> Response:
        """The empty form, and what this person uploaded last."""
        return await run_in_threadpool(self._page, visitor, None, "")

    async def show_batch(self, request: Request, visitor: Visitor) -> Response:
        """A batch: what came, what is missing, what became of it."""
        batch = await run_in_threadpool(self._batch, request, visitor)
        if batch is None:
            return self._layout.problem(request, 404, "no_such_file", visitor=visitor)
        return await run_in_threadpool(self._page, visitor, batch, "")

    async def begin(self, request: Request, visitor: Visitor) -> Response:
        """A new batch, with its files where the form brought them along."""
        form = await _form(request)
        files = _files(form)
        words = {name: str(form.get(name, "")) for name in ORDER_FIELDS}
        expected = str(form.get("expected", ""))
        try:
            batch = await run_in_threadpool(
                self._uploads.begin,
                visitor.name,
                words,
                int(expected) if expected.isdigit() and len(expected) < 5 else len(files),
            )
        except Rejected as err:
            if _wants_json(request):
                return _json({"code": err.code, "message": err.message}, status=400)
            return await run_in_threadpool(self._page, visitor, None, err.message)
        if _wants_json(request):
            return _json({"batch": batch.id})
        await self._take(request, visitor, batch, files)
        return RedirectResponse(f"/upload/{batch.id}", status_code=303)

    async def add(self, request: Request, visitor: Visitor) -> Response:
        """One more file, or several, of a batch."""
        batch = await run_in_threadpool(self._batch, request, visitor)
        if batch is None:
            return self._layout.problem(request, 404, "no_such_file", visitor=visitor)
        form = await _form(request)
        number = str(form.get("number", ""))
        first = int(number) if number.isdigit() and len(number) < 5 else 0
        taken = await self._take(request, visitor, batch, _files(form), first=first)
        if not _wants_json(request):
            return RedirectResponse(f"/upload/{batch.id}", status_code=303)
        return _json(
            {
                "files": [
                    {
                        "name": one.name,
                        "taken": one.is_taken,
                        "again": one.is_again,
                        "code": one.code,
                        "message": one.message,
                    }
                    for one in taken
                ]
            }
        )

    async def _take(
        self,
        request: Request,
        visitor: Visitor,
        batch: Batch,
        files: Sequence[UploadFile],
        *,
        first: int = 0,
    ) -> list[UploadedFile]:
        here = await run_in_threadpool(self._uploads.files, batch.id)
        start = first or len(here) + 1
        actor = actor_of(request, visitor)
        taken: list[UploadedFile] = []
        for number, file in enumerate(files[:MOST_FILES], start=start):
            if len(here) + len(taken) >= MOST_FILES + len(files):
                break
            taken.append(
                await run_in_threadpool(
                    self._uploads.take, batch, file.filename or "", number, file.file, actor
                )
            )
        return taken

    def _batch(self, request: Request, visitor: Visitor) -> Batch | None:
        return self._uploads.find(request.path_params["batch"], visitor.name)

    def _page(self, visitor: Visitor, batch: Batch | None, problem: str) -> Response:
        changed_at = self._index.changed_at()
        files = self._uploads.files(batch.id) if batch else []
        lines = [_line(self._uploads, file) for file in files]
        smears = sorted({file.smear_id for file in files if file.smear_id})
        rows = self._index.some(smears) if smears else []
        if not visitor.may(Permission.IDENTIFY):
            rows = [row.without_identity() for row in rows]
        taken, refused = in_words(files)
        return self._layout.page(
            "upload.html",
            visitor,
            status=400 if problem else 200,
            batch=batch,
            began_at=batch.began_at if batch else None,
            lines=lines,
            changed_at=changed_at,
            rows=rows,
            smears=smears,
            taken=taken,
            refused=refused,
            missing=max(0, batch.expected - taken - refused) if batch else 0,
            latest=[(one, one.began_at) for one in self._uploads.latest(visitor.name)],
            problem=problem,
            accept=",".join(ENDINGS) + ",application/dicom",
            most=MOST_FILES,
        )


def _line(uploads: Uploads, file: UploadedFile) -> FileLine:
    state, reason = uploads.progress(file)
    return FileLine(file=file, state=state, reason=reason)


async def _form(request: Request) -> FormData:
    return await request.form(max_files=MOST_FILES + 1, max_fields=50)


def _files(form: FormData) -> list[UploadFile]:
    found = form.getlist("files")
    return [one for one in found if isinstance(one, UploadFile) and one.filename]


def _wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


def _json(body: object, *, status: int = 200) -> Response:
    return JSONResponse(body, status_code=status, headers=dict(CONSOLE_HEADERS))

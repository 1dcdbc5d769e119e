"""The service over HTTP: STOW-RS, health, metrics and a status page that changes nothing.

POST /dicom-web/studies   STOW-RS (listener.stow)
GET  /healthz             200 while DICOM peers can associate, else 503
GET  /readyz              200 when every check passes, else 503 with their codes
GET  /metrics             Prometheus
GET  /                    the status page; /status.json is the same for programs

Every refusal is a problem document (RFC 9457). With a token set, only the two health addresses
answer without it.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from python_multipart.multipart import parse_options_header
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from listener.observability.logging_setup import get_log
from listener.observability.metrics import Metrics
from listener.queue.status import WorkflowStatus
from listener.storage.inbox import Inbox, StoredInstance
from listener.web.console.app import Console
from listener.web.console.gate import NOBODY
from listener.web.stow_rs import StowReader, response_dataset, response_status
from pipeline.domain import RESEARCH_USE_ONLY, ModelIdentity
from pipeline.errors import NeedsReview, Rejected, RetryLater, SmearlinkError
from reporting.audit.trail import Actor, AuditSink, Event, Outcome, latest_events

DICOM_JSON = "application/dicom+json"
PIECE_TIMEOUT_S = 60.0
"""A sender that falls silent this long in the middle of a body is let go."""
RETRY_AFTER_S = 30
RECENT_EVENTS = frozenset(
    {
        Event.SMEAR_REPORTED,
        Event.REPORT_DELIVERED,
        Event.DELIVERY_POSTPONED,
        Event.DELIVERY_PARKED,
    }
)
RECENT_COUNT = 30
SAFE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiving:
    """What STOW-RS needs."""

    inbox: Inbox
    on_received: Callable[[StoredInstance], None]
    audit: AuditSink
    max_request_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    """What health, metrics and the status page need. Each call is made anew for each request."""

    software_version: str
    metrics: Metrics
    read_status: Callable[[], WorkflowStatus]
    checks: Mapping[str, Callable[[], None]]
    """By name; each raises a SmearlinkError when the service cannot work."""
    audit_dir: Path
    clock: Callable[[], datetime]
    model: ModelIdentity | None = None
    check_alive: Callable[[], None] = lambda: None
    """Raises a SmearlinkError when the process should be started again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One readiness check, done."""

    name: str
    is_ready: bool
    code: str = ""


def build_app(
    showing: Showing,
    receiving: Receiving | None = None,
    *,
    token: str | None = None,
    console: Console | None = None,
) -> Starlette:
    """The whole application.

    Without `receiving` there is no STOW-RS, without `console` a status page in its place. `token`
    is for programs; the console has its own sign-in.
    """
    pages = _Pages(showing)
    guard = _Guard(token)
    routes = [
        Route("/healthz", pages.health, methods=["GET"]),
        Route("/readyz", pages.ready, methods=["GET"]),
        Route("/metrics", guard(pages.metrics), methods=["GET"]),
        Route("/status.json", guard(pages.status), methods=["GET"]),
    ]
    if console is not None:
        routes += console.routes
    else:
        routes += [
            Route("/console.css", pages.style, methods=["GET"]),
            Route("/", guard(pages.console), methods=["GET"]),
        ]
    if receiving is not None:
        store = _Store(receiving)
        routes.append(Route("/dicom-web/studies", guard(store.store), methods=["POST"]))
    problems = _Problems(console)
    return Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: problems.http,
            RetryLater: problems.later,
            NeedsReview: problems.for_a_person,
            Exception: problems.ours,
        },
    )


Handler = Callable[[Request], Awaitable[Response]]


class _Guard:
    """Lets in who shows the bearer token (RFC 6750), or everybody when there is none."""

    def __init__(self, token: str | None) -> None:
        self._expected = f"Bearer {token}".encode() if token else None

    def __call__(self, handler: Handler) -> Handler:
        expected = self._expected
        if expected is None:
            return handler

        async def guarded(request: Request) -> Response:
            shown = request.headers.get("authorization", "").encode("utf-8", "replace")
            if not hmac.compare_digest(shown, expected):
                problem = _problem(401, "unauthorized", "Show the bearer token of the site.")
                problem.headers["WWW-Authenticate"] = "Bearer"
                return problem
            return await handler(request)

        return guarded


class _Store:
    """The STOW-RS endpoint."""

    def __init__(self, receiving: Receiving) -> None:
        self._receiving = receiving

    async def store(self, request: Request) -> Response:
        actor = Actor(host=request.client.host if request.client else None)
        try:
            boundary = _boundary(request)
            _check_accept(request)
            return await self._receive(request, boundary, actor)
        except Rejected as err:
            self._record_refusal(actor, err)
            return _problem(_REFUSALS.get(err.code, 400), err.code, err.message)
        except RetryLater as err:
            self._record_refusal(actor, err)
            return _try_later(err)

    async def _receive(self, request: Request, boundary: bytes, actor: Actor) -> Response:
        reader = StowReader(
            boundary,
            inbox=self._receiving.inbox,
            on_received=self._receiving.on_received,
            audit=self._receiving.audit,
            actor=actor,
        )
        with reader:
            async for piece in self._pieces(request):
                await run_in_threadpool(reader.feed, piece)
            outcomes = reader.finish()
        response = JSONResponse(
            response_dataset(outcomes),
            status_code=response_status(outcomes),
            media_type=DICOM_JSON,
        )
        if response.status_code == 503:
            response.headers["Retry-After"] = str(RETRY_AFTER_S)
        return response

    async def _pieces(self, request: Request) -> AsyncIterator[bytes]:
        """The body in pieces, each in time, all together within the limit."""
        received = 0
        stream = request.stream()
        while True:
            try:
                async with asyncio.timeout(PIECE_TIMEOUT_S):
                    piece = await anext(stream, None)
            except TimeoutError as err:
                raise Rejected("The body broke off", code="sender_silent") from err
            except ClientDisconnect as err:
                raise Rejected("The sender went away", code="sender_gone") from err
            if piece is None:
                return
            received += len(piece)
            if received > self._receiving.max_request_bytes:
                raise Rejected(
                    f"The request is over {self._receiving.max_request_bytes} bytes; send several",
                    code="request_too_large",
                )
            yield piece

    def _record_refusal(self, actor: Actor, err: SmearlinkError) -> None:
        with suppress(RetryLater):  # a full disk is what the answer says already
            self._receiving.audit.record(
                Event.REQUEST_REFUSED,
                actor=actor,
                outcome=Outcome.MINOR_FAILURE,
                protocol="stow_rs",
                code=err.code,
            )


_REFUSALS = {
    "not_acceptable": 406,
    "sender_silent": 408,
    "request_too_large": 413,
    "unsupported_media_type": 415,
}
"""HTTP statuses of codes; any other is 400."""


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/related" or options.get(b"type", b"application/dicom") != (
        b"application/dicom"
    ):
        raise Rejected(
            'Send multipart/related; type="application/dicom" (PS3.18 10.5.2)',
            code="unsupported_media_type",
        )
    boundary = options.get(b"boundary", b"")
    # RFC 2046 5.1.1
    if not 1 <= len(boundary) <= 70:
        raise Rejected("Content-Type states no usable boundary", code="bad_multipart")
    return boundary


def _check_accept(request: Request) -> None:
    accepted = request.headers.get("accept", "*/*")
    known = (DICOM_JSON, "application/json", "application/*", "*/*")
    if not any(word in accepted for word in known):
        raise Rejected(f"Only {DICOM_JSON} can be answered", code="not_acceptable")


class _Pages:
    """Everything that is only looked at."""

    def __init__(self, showing: Showing) -> None:
        self._showing = showing
        environment = Environment(
            loader=PackageLoader("listener.web"), autoescape=True, trim_blocks=True
        )
        environment.filters |= {"age": _age, "moment": _moment}
        self._page = environment.get_template("console.html")
        self._css = environment.get_template("console.css").render()

    async def health(self, _request: Request) -> Response:
        result = _checked("alive", self._showing.check_alive)
        if not result.is_ready:
            return _problem(503, result.code, "No DICOM peer can associate now.")
        return PlainTextResponse("ok\n", headers=SAFE_HEADERS)

    async def ready(self, _request: Request) -> Response:
        results = await run_in_threadpool(self._check_all)
        is_ready = all(result.is_ready for result in results)
        told = {result.name: "ok" if result.is_ready else result.code for result in results}
        return JSONResponse(
            {"ready": is_ready, "checks": told},
            status_code=200 if is_ready else 503,
            headers=SAFE_HEADERS,
        )

    async def metrics(self, _request: Request) -> Response:
        text = await run_in_threadpool(self._showing.metrics.expose)
        media_type = "text/plain; version=0.0.4; charset=utf-8"
        return Response(text, media_type=media_type, headers=SAFE_HEADERS)

    async def status(self, _request: Request) -> Response:
        status = await run_in_threadpool(self._read_status)
        if status is None:
            return _problem(503, "queues_unreachable", "The queues do not answer.")
        return JSONResponse(status.to_json(), headers=SAFE_HEADERS)

    async def style(self, _request: Request) -> Response:
        return Response(self._css, media_type="text/css", headers=SAFE_HEADERS)

    async def console(self, _request: Request) -> Response:
        return HTMLResponse(await run_in_threadpool(self._render), headers=SAFE_HEADERS)

    def _render(self) -> str:
        showing = self._showing
        return self._page.render(
            label=RESEARCH_USE_ONLY,
            software_version=showing.software_version,
            model=showing.model,
            now=showing.clock(),
            checks=self._check_all(),
            status=self._read_status(),
            recent=latest_events(showing.audit_dir, RECENT_EVENTS, count=RECENT_COUNT),
        )

    def _read_status(self) -> WorkflowStatus | None:
        try:
            return self._showing.read_status()
        except SmearlinkError:
            return None

    def _check_all(self) -> Sequence[CheckResult]:
        return [_checked(name, check) for name, check in self._showing.checks.items()]


def _checked(name: str, check: Callable[[], None]) -> CheckResult:
    """The boundary of a readiness check: it passes, or its code says why not."""
    try:
        check()
    except SmearlinkError as err:
        return CheckResult(name=name, is_ready=False, code=err.code)
    except Exception as err:  # noqa: BLE001 - a boundary; shown
        return CheckResult(name=name, is_ready=False, code=type(err).__name__)
    return CheckResult(name=name, is_ready=True)


def _age(seconds: float) -> str:
    """An age that people can read: 45 s, 12 min, 3.5 h, 2.0 d."""
    for limit, divisor, unit in ((90, 1, "s"), (5400, 60, "min")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} d"


def _moment(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S") if moment is not None else ""


def _problem(status: int, code: str, detail: str) -> JSONResponse:
    """A problem document (RFC 9457)."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "status": status,
        "title": code,
        "detail": detail,
    }
    return JSONResponse(
        body, status_code=status, media_type="application/problem+json", headers=SAFE_HEADERS
    )


def _try_later(err: RetryLater) -> Response:
    problem = _problem(503, err.code, err.message)
    problem.headers["Retry-After"] = str(int(err.after_s or RETRY_AFTER_S))
    return problem


class _Problems:
    """The boundary of the application: a page for people, a problem document for programs."""

    def __init__(self, console: Console | None) -> None:
        self._console = console

    async def http(self, request: Request, err: Exception) -> Response:
        """Unknown addresses and methods. The address is not repeated."""
        status = err.status_code if isinstance(err, HTTPException) else 500
        if self._wants_page(request):
            return self._page(request, status, f"http_{status}")
        details = {
            404: "There is nothing at this address; images go to POST /dicom-web/studies.",
            405: "This address does not take this method.",
        }
        return _problem(status, f"http_{status}", details.get(status, "The request was refused."))

    async def later(self, request: Request, err: Exception) -> Response:
        """The database or the disk does not answer now."""
        if self._wants_page(request):
            return self._page(request, 503, "try_later")
        later = err if isinstance(err, RetryLater) else RetryLater("Try again", code="try_later")
        return _try_later(later)

    async def for_a_person(self, request: Request, err: Exception) -> Response:
        """What is asked for stands in a state that a person must end."""
        code = err.code if isinstance(err, NeedsReview) else "needs_review"
        if self._wants_page(request):
            return self._page(request, 409, code)
        return _problem(409, code, "A person must look at this first; see `smearlink status`.")

    async def ours(self, request: Request, err: Exception) -> Response:
        """Told in the log, answered without details."""
        get_log("listener.web.app").error("defect_met", exc_info=err)
        if self._wants_page(request):
            return self._page(request, 500, "defect")
        return _problem(500, "defect", "A fault of our own; what was not answered was not taken.")

    def _wants_page(self, request: Request) -> bool:
        return self._console is not None and "text/html" in request.headers.get("accept", "")

    def _page(self, request: Request, status: int, code: str) -> Response:
        assert self._console is not None  # noqa: S101 - asked for by _wants_page
        return self._console.layout.problem(request, status, code, visitor=NOBODY)

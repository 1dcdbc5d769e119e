"""Every page's door: who asks, may they, and did the form come from our own page?

    session cookie ─┐
    proxy's header ─┼─► Visitor ─► permission of the page ─► token of the form ─► page
    loopback alone ─┘

A refusal is recorded with who, from where and why; the address that was asked for is not.
"""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from urllib.parse import quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from listener.web.console.accounts import NAME, Accounts
from listener.web.console.layout import Layout
from listener.web.console.permissions import LOCAL_VISITOR, Permission, Role, permissions_of
from listener.web.console.sessions import KnownBy, Sessions, Visitor
from pipeline.errors import RetryLater
from reporting.audit.trail import Actor, AuditSink, Event, Outcome

COOKIE = "smearlink_session"
CSRF_FIELD, CSRF_HEADER = "csrf", "x-csrf-token"
BACKGROUND_HEADER = "x-background"
"""Sent by what the page fetches by itself: it keeps no session alive."""
SMALL_FORM_BYTES = 256 * 1024
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

Handler = Callable[[Request, Visitor], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedProxy:
    """A proxy that signs people in and says in a header who they are."""

    addresses: Sequence[str]
    """Of the proxy: IP addresses or networks. From any other the headers count for nothing."""
    user_header: str
    roles_header: str
    role_names: Mapping[str, Role]
    """The site's own words for roles; `Role` itself is always understood."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What the gate asks of a page's visitors."""

    permission: Permission | None
    """None lets everybody in who is known, or in the case of the sign-in page everybody."""
    max_body_bytes: int = SMALL_FORM_BYTES
    is_open: bool = False
    """The sign-in page and the style sheet."""


class Gate:
    """Wraps the handlers of pages."""

    def __init__(
        self,
        *,
        accounts: Accounts,
        sessions: Sessions,
        audit: AuditSink,
        layout: Layout,
        proxy: TrustedProxy | None,
        has_oidc: bool,
        is_loopback: bool,
    ) -> None:
        self._accounts, self._sessions = accounts, sessions
        self._audit, self._layout = audit, layout
        self._proxy = proxy
        self._networks = [ipaddress.ip_network(one, strict=False) for one in _addresses(proxy)]
        self._has_oidc = has_oidc
        self._is_loopback = is_loopback

    def __call__(self, handler: Handler, door: Door) -> Endpoint:
        """The handler behind its door."""

        async def guarded(request: Request) -> Response:
            visitor = await run_in_threadpool(self.visitor, request)
            if visitor is None and not door.is_open:
                return self._ask_to_sign_in(request)
            visitor = visitor or NOBODY
            if door.permission is not None and not visitor.may(door.permission):
                return self.refuse(request, visitor, 403, "not_permitted")
            if request.method not in ("GET", "HEAD"):
                code = await self._wrong_with_form(request, visitor, door)
                if code:
                    return self.refuse(request, visitor, _FORM_STATUSES.get(code, 403), code)
            return await handler(request, visitor)

        return guarded

    def visitor(self, request: Request) -> Visitor | None:
        """Who asks; None for nobody that is known."""
        if (known := self._from_proxy(request)) is not None:
            return known
        is_background = BACKGROUND_HEADER in request.headers
        token = request.cookies.get(COOKIE, "")
        if (
            token
            and (known := self._sessions.visitor(token, is_background=is_background)) is not None
        ):
            return known
        return self._at_the_machine(request)

    def refuse(self, request: Request, visitor: Visitor, status: int, code: str) -> Response:
        """Say no, and record it."""
        self.record_refusal(request, visitor, code)
        return self._layout.problem(request, status, code, visitor=visitor)

    def record_refusal(self, request: Request, visitor: Visitor | None, code: str) -> None:
        """One event, with no address and nothing that was typed."""
        with suppress(RetryLater):
            self._audit.record(
                Event.ACCESS_REFUSED,
                actor=actor_of(request, visitor),
                outcome=Outcome.MINOR_FAILURE,
                code=code,
            )

    def _ask_to_sign_in(self, request: Request) -> Response:
        self.record_refusal(request, None, "not_signed_in")
        wants_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
        if not wants_page:
            return self._layout.problem(request, 401, "not_signed_in", visitor=NOBODY)
        return RedirectResponse(f"/sign-in?next={quote(request.url.path)}", status_code=303)

    def _from_proxy(self, request: Request) -> Visitor | None:
        if self._proxy is None or not self._is_proxy(request):
            return None
        name = request.headers.get(self._proxy.user_header, "").strip().lower()
        if not NAME.fullmatch(name):
            return None
        words = request.headers.get(self._proxy.roles_header, "").replace(";", ",").split(",")
        roles = roles_named(words, self._proxy.role_names)
        return Visitor(
            name=name,
            roles=roles,
            permissions=permissions_of(roles),
            csrf=self._sessions.sign("proxy", name),
            known_by=KnownBy.PROXY,
        )

    def _is_proxy(self, request: Request) -> bool:
        try:
            peer = ipaddress.ip_address(request.client.host if request.client else "")
        except ValueError:
            return False
        return any(peer in network for network in self._networks)

    def _at_the_machine(self, request: Request) -> Visitor | None:
        """On loopback, while no account exists: read only. The name in the address is checked, or
        any web page could have a name of its own point here and read along (DNS rebinding).
        """
        if not self._is_loopback or self._proxy is not None or self._has_oidc:
            return None
        if (request.url.hostname or "") not in LOOPBACK_NAMES or self._accounts.exist():
            return None
        return Visitor(name="", permissions=LOCAL_VISITOR, csrf=self._sessions.sign("local"))

    async def _wrong_with_form(self, request: Request, visitor: Visitor, door: Door) -> str:
        """Why a form is not taken, or "" when it is: its size, its origin, its token."""
        length = request.headers.get("content-length", "")
        if not length.isdigit():
            return "length_required"
        if int(length) > door.max_body_bytes:
            return "request_too_large"
        if not is_same_origin(request):
            return "cross_site"
        shown = request.headers.get(CSRF_HEADER)
        if shown is None:
            # Starlette counts files and fields; the size of all is limited above.
            form = await request.form(max_files=1000, max_fields=2000)
            shown = str(form.get(CSRF_FIELD, ""))
        expected = visitor.csrf or self._sessions.sign("nobody", request.cookies.get(COOKIE, ""))
        return "" if hmac.compare_digest(shown.encode(), expected.encode()) else "bad_form_token"

    def token_for(self, request: Request, visitor: Visitor) -> str:
        """What a form on this page must send back."""
        return visitor.csrf or self._sessions.sign("nobody", request.cookies.get(COOKIE, ""))


NOBODY = Visitor(name="", permissions=frozenset())
_FORM_STATUSES = {"length_required": 411, "request_too_large": 413}


def is_same_origin(request: Request) -> bool:
    """Whether a form came from a page of ours, as browsers say it (Fetch Metadata, Origin)."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host", "")


def roles_named(words: Sequence[str], names: Mapping[str, Role]) -> tuple[Role, ...]:
    """The roles that a claim or header names; words that mean nothing here are passed over."""
    known = {str(role): role for role in Role} | dict(names)
    found = (known.get(word.strip()) for word in words)
    return tuple(dict.fromkeys(role for role in found if role is not None))


def actor_of(request: Request, visitor: Visitor | None) -> Actor:
    """The visitor in the words of the audit trail."""
    return Actor(
        user=visitor.name if visitor is not None and visitor.name else None,
        host=request.client.host if request.client else None,
    )


def _addresses(proxy: TrustedProxy | None) -> Sequence[str]:
    return proxy.addresses if proxy is not None else ()


class SignInLimiter:
    """Slows down who guesses passwords: by name, known or not, and by address."""

    def __init__(
        self,
        *,
        by_name: int = 5,
        by_address: int = 30,
        within_s: float = 900.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = {"name": by_name, "address": by_address}
        self._within_s = within_s
        self._monotonic = monotonic
        self._failures: dict[tuple[str, str], deque[float]] = {}
        self._lock = Lock()

    def is_blocked(self, name: str, address: str) -> bool:
        """Whether this one must wait."""
        with self._lock:
            return any(
                len(self._recent((kind, word))) >= self._most[kind]
                for kind, word in (("name", name), ("address", address))
            )

    def failed(self, name: str, address: str) -> None:
        """Count a wrong password."""
        with self._lock:
            now = self._monotonic()
            for key in (("name", name), ("address", address)):
                self._failures.setdefault(key, deque(maxlen=100)).append(now)
            self._forget_old(now)

    def succeeded(self, name: str) -> None:
        """Forget what this name got wrong before."""
        with self._lock:
            self._failures.pop(("name", name), None)

    def _recent(self, key: tuple[str, str]) -> deque[float]:
        times = self._failures.get(key, deque())
        while times and self._monotonic() - times[0] > self._within_s:
            times.popleft()
        return times

    def _forget_old(self, now: float) -> None:
        if len(self._failures) > 10_000:
            self._failures = {
                key: times
                for key, times in self._failures.items()
                if times and now - times[-1] <= self._within_s
            }

"""Signing in and out."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from listener.web.console.accounts import Accounts
from listener.web.console.gate import COOKIE, Gate, SignInLimiter, actor_of
from listener.web.console.layout import Layout
from listener.web.console.sessions import Sessions, Visitor
from reporting.audit.trail import Actor, AuditSink, Event, Outcome

WRONG = "The name or the password is wrong, or the account is disabled."
BLOCKED = "Too many wrong passwords. Wait a quarter of an hour, or ask an administrator."


class SignInPages:
    """`/sign-in` and `/sign-out`."""

    def __init__(
        self,
        *,
        accounts: Accounts,
        sessions: Sessions,
        gate: Gate,
        layout: Layout,
        audit: AuditSink,
        limiter: SignInLimiter | None = None,
        oidc_name: str = "",
    ) -> None:
        self._accounts, self._sessions = accounts, sessions
        self._gate, self._layout, self._audit = gate, layout, audit
        self._limiter = limiter or SignInLimiter()
        self._oidc_name = oidc_name

    async def show(self, request: Request, visitor: Visitor) -> Response:
        """The form."""
        if visitor.is_known:
            return RedirectResponse("/smears", status_code=303)
        return self._form(request, next_path=request.query_params.get("next", ""))

    async def sign_in(self, request: Request, _visitor: Visitor) -> Response:
        """Take name and password; what is wrong with them is not told."""
        form = await request.form()
        name = str(form.get("name", "")).strip().lower()[:64]
        next_path = str(form.get("next", ""))
        address = request.client.host if request.client else ""
        if self._limiter.is_blocked(name, address):
            self._record(request, Event.SIGN_IN_REFUSED, code="too_many_tries")
            return self._form(request, next_path=next_path, problem=BLOCKED, status=429)
        account = await run_in_threadpool(
            self._accounts.sign_in, name, str(form.get("password", ""))
        )
        if account is None:
            self._limiter.failed(name, address)
            # The name is not recorded: people type passwords and patients' names there.
            self._record(request, Event.SIGN_IN_REFUSED, code="wrong_password")
            return self._form(request, next_path=next_path, problem=WRONG, status=401)
        self._limiter.succeeded(name)
        old = request.cookies.get(COOKIE, "")
        if old:
            await run_in_threadpool(self._sessions.end, old)
        token = await run_in_threadpool(
            lambda: self._sessions.begin(account.name, account.roles, full_name=account.full_name)
        )
        host = request.client.host if request.client else None
        self._audit.record(Event.SESSION_STARTED, actor=Actor(user=account.name, host=host))
        response = RedirectResponse(local_path(next_path), status_code=303)
        set_cookie(response, token)
        return response

    async def sign_out(self, request: Request, visitor: Visitor) -> Response:
        """End the session, here and on the server."""
        if visitor.token:
            await run_in_threadpool(self._sessions.end, visitor.token)
            self._record(request, Event.SESSION_ENDED, visitor=visitor)
        response = RedirectResponse("/sign-in", status_code=303)
        response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
        return response

    def _form(
        self, request: Request, *, next_path: str, problem: str = "", status: int = 200
    ) -> Response:
        visitor = Visitor(name="", permissions=frozenset())
        return self._layout.page(
            "sign_in.html",
            visitor,
            csrf=self._gate.token_for(request, visitor),
            status=status,
            next_path=local_path(next_path),
            problem=problem,
            oidc_name=self._oidc_name,
        )

    def _record(
        self, request: Request, event: Event, *, visitor: Visitor | None = None, code: str = ""
    ) -> None:
        is_refusal = event is Event.SIGN_IN_REFUSED
        self._audit.record(
            event,
            actor=actor_of(request, visitor),
            outcome=Outcome.MINOR_FAILURE if is_refusal else Outcome.SUCCESS,
            **({"code": code} if code else {}),
        )


def local_path(path: str) -> str:
    """Where to go after signing in: a page of ours, never another site."""
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if is_ours else "/smears"


def set_cookie(response: Response, token: str) -> None:
    """Not for scripts, not for other sites, not without TLS (browsers except loopback)."""
    response.set_cookie(COOKIE, token, path="/", secure=True, httponly=True, samesite="strict")

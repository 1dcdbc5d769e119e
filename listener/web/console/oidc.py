"""Signing in at the site's identity provider: OpenID Connect, authorization code with PKCE.

    /oidc/start ─► provider's page ─► /oidc/callback ─► code for ID token ─► session
    signature   ─► provider's page ─► /oidc/callback ─► code for ID token ─► signature

The ID token is checked as OpenID Connect Core 3.1.3.7 asks: signature by the provider's keys,
issuer, audience, time, nonce. Roles come from a claim; without one that means something here the
person is signed in and may do nothing. A signature asks the provider for the person again
(`prompt=login`, `max_age=0`): the ID token must say that they showed who they are after the click
(`auth_time`), and its nonce is made of what is signed.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlencode

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from listener.web.console.accounts import NAME
from listener.web.console.gate import Gate, roles_named
from listener.web.console.layout import Layout
from listener.web.console.permissions import Role
from listener.web.console.sessions import Sessions, Visitor
from listener.web.console.sign_in import local_path, set_cookie
from pipeline.errors import NeedsReview, RetryLater, SmearlinkError
from reporting.audit.trail import Actor, AuditSink, Event

STATE_COOKIE = "smearlink_oidc"
TRY_LIFE_S = 600.0
MOST_TRIES = 1000
DISCOVERY_LIFE_S = 3600.0
TIMEOUT_S = 10.0
CLOCK_SLACK_S = 60
REAUTHENTICATION_SLACK_S = 10.0
"""How far the provider's clock may be behind ours when somebody signs a result."""
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]
"""Signatures by a key pair alone: never `none`, and no secret that the client would share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcClient:
    """Who we are to the identity provider, and how its claims are read."""

    issuer: str
    client_id: str
    redirect_url: str
    secret_file: Path | None
    scopes: tuple[str, ...]
    user_claim: str
    roles_claim: str
    role_names: Mapping[str, Role]


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Whom the provider signed in."""

    name: str
    full_name: str
    roles: tuple[Role, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reauthentication:
    """Somebody who is known already must show who they are again, for one purpose."""

    account: str
    content_sha256: str
    """Of what they stand for; the nonce is made of it."""
    asked_at: float
    """Unix time of the click."""
    then: Callable[[Request, Person], Response]
    """What follows once they did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Try:
    nonce: str
    verifier: str
    next_path: str
    ends_at: float
    reauthentication: Reauthentication | None


class Oidc:
    """Talks to the identity provider."""

    def __init__(self, client: OidcClient, *, now: Callable[[], float] = time.time) -> None:
        self._client, self._now = client, now
        self._tries: dict[str, _Try] = {}
        self._lock = Lock()
        self._found: tuple[float, Mapping[str, Any]] | None = None

    def begin(
        self, next_path: str, reauthentication: Reauthentication | None = None
    ) -> tuple[str, str]:
        """The provider's address to go to, and the state that must come back."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        if reauthentication is not None:
            bound = f"{nonce}.{reauthentication.content_sha256}"
            nonce = hashlib.sha256(bound.encode()).hexdigest()
        with self._lock:
            now = self._now()
            kept = {key: one for key, one in self._tries.items() if one.ends_at > now}
            self._tries = dict(list(kept.items())[-MOST_TRIES:])
            self._tries[state] = _Try(
                nonce=nonce,
                verifier=verifier,
                next_path=next_path,
                ends_at=now + TRY_LIFE_S,
                reauthentication=reauthentication,
            )
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest())
        asked = {
            "response_type": "code",
            "client_id": self._client.client_id,
            "redirect_uri": self._client.redirect_url,
            "scope": " ".join(self._client.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge.rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        if reauthentication is not None:
            asked |= {"prompt": "login", "max_age": "0"}
        return f"{self._discovered()['authorization_endpoint']}?{urlencode(asked)}", state

    def finish(self, state: str, code: str) -> tuple[Person, str, Reauthentication | None]:
        """The person, the page to go to, and what they were asked again for, if they were.

        Raises NeedsReview when the answer is not to be believed. A state is good for one answer.
        """
        with self._lock:
            tried = self._tries.pop(state, None)
        if tried is None or tried.ends_at <= self._now():
            raise _disbelieved("the sign-in took too long, or was begun elsewhere")
        claims = self._claims(code, tried)
        name = str(claims.get(self._client.user_claim, "")).strip().lower()
        if not NAME.fullmatch(name):
            raise _disbelieved("the account name is missing or has characters that are not allowed")
        if tried.reauthentication is not None:
            self._check_again(claims, name, tried.reauthentication)
        words = claims.get(self._client.roles_claim, [])
        listed = words.replace(",", " ").split() if isinstance(words, str) else map(str, words)
        person = Person(
            name=name,
            full_name=str(claims.get("name", ""))[:128],
            roles=roles_named(list(listed), self._client.role_names),
        )
        return person, tried.next_path, tried.reauthentication

    def _check_again(self, claims: Mapping[str, Any], name: str, asked: Reauthentication) -> None:
        """OpenID Connect Core 3.1.2.1 and 2: the same person, and since the click."""
        if name != asked.account:
            raise _unsigned("somebody else signed in", code="signature_other_person")
        at = claims.get("auth_time")
        if isinstance(at, bool) or not isinstance(at, int | float):
            raise _unsigned(
                "the provider did not say when you showed who you are (auth_time)",
                code="reauthentication_missing",
            )
        if not asked.asked_at - REAUTHENTICATION_SLACK_S <= at <= self._now() + CLOCK_SLACK_S:
            raise _unsigned(
                "the provider did not ask who you are after you signed, or its clock is wrong",
                code="reauthentication_stale",
            )

    def _claims(self, code: str, tried: _Try) -> Mapping[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._client.redirect_url,
            "code_verifier": tried.verifier,
            "client_id": self._client.client_id,
        }
        auth: httpx.Auth = httpx.Auth()
        if self._client.secret_file is not None:
            secret = self._client.secret_file.read_text(encoding="utf-8").strip()
            auth = httpx.BasicAuth(self._client.client_id, secret)
        found = self._discovered()
        answer = _asked(lambda http: http.post(found["token_endpoint"], data=form, auth=auth))
        keys = _asked(lambda http: http.get(found["jwks_uri"]))
        try:
            key_set = KeySet.import_key_set(keys)  # type: ignore[arg-type]
            token = jwt.decode(str(answer.get("id_token", "")), key_set, algorithms=ALGORITHMS)
        except (JoseError, ValueError, KeyError, TypeError) as err:
            raise _disbelieved("the ID token is not signed by the provider") from err
        self._check(token.claims, tried)
        return token.claims

    def _check(self, claims: Mapping[str, Any], tried: _Try) -> None:
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        now = self._now()
        expires, begins = claims.get("exp"), claims.get("nbf", 0)
        is_in_time = (
            isinstance(expires, int | float)
            and isinstance(begins, int | float)
            and begins - CLOCK_SLACK_S <= now < expires + CLOCK_SLACK_S
        )
        is_ours = claims.get("iss") == self._client.issuer and self._client.client_id in audiences
        is_for_us = claims.get("azp", self._client.client_id) == self._client.client_id
        if not (is_ours and is_for_us and is_in_time):
            raise _disbelieved("the ID token is not for this console, or not of this moment")
        if not secrets.compare_digest(str(claims.get("nonce", "")), tried.nonce):
            raise _disbelieved("the ID token answers another sign-in")

    def _discovered(self) -> Mapping[str, Any]:
        with self._lock:
            if self._found is not None and self._now() - self._found[0] < DISCOVERY_LIFE_S:
                return self._found[1]
        address = self._client.issuer.rstrip("/") + "/.well-known/openid-configuration"
        found = _asked(lambda http: http.get(address))
        needed = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        if found.get("issuer") != self._client.issuer or not all(found.get(n) for n in needed):
            raise _disbelieved("what the provider says of itself does not fit console.oidc.issuer")
        with self._lock:
            self._found = (self._now(), found)
        return found


def _asked(ask: Callable[[httpx.Client], httpx.Response]) -> Mapping[str, Any]:
    """A JSON object of the provider; RetryLater when it does not answer, NeedsReview when it
    refuses.
    """
    try:
        with httpx.Client(timeout=TIMEOUT_S, follow_redirects=False) as http:
            answer = ask(http)
    except httpx.HTTPError as err:
        raise RetryLater(
            "The identity provider does not answer; try again, or look at console.oidc.issuer",
            code="identity_provider_unreachable",
        ) from err
    try:
        body = answer.json()
    except ValueError:
        body = None
    if answer.status_code != 200 or not isinstance(body, dict):
        raise _disbelieved(f"the provider answered {answer.status_code}")
    return body


def _disbelieved(why: str) -> NeedsReview:
    return NeedsReview(f"Nobody was signed in: {why}. Try again.", code="oidc_refused")


def _unsigned(why: str, *, code: str) -> NeedsReview:
    return NeedsReview(f"Nothing was signed: {why}. Go back to the smear and try again.", code=code)


class OidcPages:
    """`/oidc/start` and `/oidc/callback`."""

    def __init__(
        self, *, oidc: Oidc, sessions: Sessions, gate: Gate, layout: Layout, audit: AuditSink
    ) -> None:
        self._oidc, self._sessions = oidc, sessions
        self._gate, self._layout, self._audit = gate, layout, audit

    async def start(self, request: Request, visitor: Visitor) -> Response:
        """Send the browser to the provider."""
        next_path = local_path(request.query_params.get("next", ""))
        try:
            address, state = await run_in_threadpool(self._oidc.begin, next_path)
        except SmearlinkError as err:
            return self._refuse(request, visitor, err)
        response = RedirectResponse(address, status_code=303)
        _set_state(response, state)
        return response

    def ask_again(
        self, visitor: Visitor, next_path: str, reauthentication: Reauthentication
    ) -> Response:
        """A page that goes on to the provider, which asks who this is.

        A page, not a redirect: a form's redirect must stay on this site (`form-action`). Raises
        RetryLater and NeedsReview when the provider cannot be asked.
        """
        address, state = self._oidc.begin(next_path, reauthentication)
        response = self._layout.page("ask_again.html", visitor, address=address)
        _set_state(response, state)
        return response

    async def callback(self, request: Request, visitor: Visitor) -> Response:
        """Take the provider's answer, and begin a session."""
        query = request.query_params
        state = query.get("state", "")
        shown = request.cookies.get(STATE_COOKIE, "")
        try:
            if not state or not secrets.compare_digest(state.encode(), shown.encode()):
                raise _disbelieved("the answer belongs to another browser")
            if not query.get("code"):
                raise _disbelieved("the provider gave no code")
            person, next_path, asked = await run_in_threadpool(
                self._oidc.finish, state, query["code"]
            )
        except SmearlinkError as err:
            return self._refuse(request, visitor, err)
        if asked is not None:
            response = await run_in_threadpool(asked.then, request, person)
            response.delete_cookie(STATE_COOKIE, path="/oidc")
            return response
        token = await run_in_threadpool(
            lambda: self._sessions.begin(
                person.name, person.roles, full_name=person.full_name, is_external=True
            )
        )
        host = request.client.host if request.client else None
        self._audit.record(Event.SESSION_STARTED, actor=Actor(user=person.name, host=host))
        # A page, not a redirect: browsers keep a strict cookie back while they follow one that
        # began at another site.
        response = self._layout.page("signed_in.html", visitor, next_path=next_path)
        set_cookie(response, token)
        response.delete_cookie(STATE_COOKIE, path="/oidc")
        return response

    def _refuse(self, request: Request, visitor: Visitor, err: SmearlinkError) -> Response:
        self._gate.record_refusal(request, None, err.code)
        status = 503 if isinstance(err, RetryLater) else 403
        return self._layout.problem(request, status, err.code, visitor=visitor, detail=err.message)


def _set_state(response: Response, state: str) -> None:
    # Lax: the provider's redirect comes from another site, and must bring it along.
    response.set_cookie(
        STATE_COOKIE,
        state,
        max_age=int(TRY_LIFE_S),
        path="/oidc",
        secure=True,
        httponly=True,
        samesite="lax",
    )

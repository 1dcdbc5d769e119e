"""Signing a smear: who signs shows again who they are, where the console knows them from.

account      the password again
provider     the provider asks again, and its answer names what is signed (`oidc`)
proxy        the proxy's header says when it asked last: a short while ago, and once for each
signature
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from threading import Lock

from starlette.requests import Request
from starlette.responses import Response

from listener.web.console.accounts import Accounts
from listener.web.console.gate import NOBODY, Gate, SignInLimiter
from listener.web.console.layout import Layout
from listener.web.console.oidc import OidcPages, Person, Reauthentication
from listener.web.console.permissions import Permission, permissions_of
from listener.web.console.sessions import KnownBy, Visitor
from listener.workflow.reviews import Reviews
from pipeline.domain import SmearId
from pipeline.errors import Rejected
from pipeline.findings.review import ReviewEvent

CLOCK_SLACK_S = 10.0
"""How far the proxy's clock may be ahead of ours."""
MOST_REMEMBERED = 10_000

NEEDS_ACCOUNT = (
    "Nothing was signed: signing needs an account of this console (smearlink user add), or a proxy "
    "that says when it asked who you are (console.proxy.authenticated_at_header)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyTimes:
    """How the proxy says when it asked last who somebody is."""

    header: str = ""
    """Empty where it does not say: then nobody signs through it."""
    within_s: float = 60.0
    sign_in_again_url: str = ""


@dataclass(slots=True)
class ShownAgain:
    """Believes a password or a proxy's header once more; raises Rejected with the way on."""

    accounts: Accounts
    limiter: SignInLimiter
    proxy: ProxyTimes
    now: Callable[[], float] = time.time
    _used: dict[tuple[str, float], float] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def check(self, request: Request, visitor: Visitor, password: str) -> None:
        """Raise Rejected unless whoever sent the form showed who they are just now."""
        match visitor.known_by:
            case KnownBy.ACCOUNT:
                self._check_password(request, visitor, password)
            case KnownBy.PROXY:
                self._check_time(request, visitor)
            case _:
                raise Rejected(NEEDS_ACCOUNT, code="signing_needs_account")

    def _check_password(self, request: Request, visitor: Visitor, password: str) -> None:
        address = request.client.host if request.client else ""
        is_blocked = self.limiter.is_blocked(visitor.name, address)
        if is_blocked or self.accounts.sign_in(visitor.name, password) is None:
            self.limiter.failed(visitor.name, address)
            raise Rejected(
                "Nothing was signed: the password is wrong, or was wrong too often.",
                code="wrong_password",
            )

    def _check_time(self, request: Request, visitor: Visitor) -> None:
        if not self.proxy.header:
            raise Rejected(NEEDS_ACCOUNT, code="signing_needs_account")
        again = f" Sign in again: {self.proxy.sign_in_again_url}" * bool(
            self.proxy.sign_in_again_url
        )
        at = moment_in(request.headers, self.proxy.header)
        if at is None:
            raise Rejected(
                "Nothing was signed: the proxy did not say when it asked who you are "
                f"({self.proxy.header}).{again}",
                code="reauthentication_missing",
            )
        now = self.now()
        if not now - self.proxy.within_s <= at <= now + CLOCK_SLACK_S:
            raise Rejected(
                "Nothing was signed: the proxy asked who you are more than "
                f"{self.proxy.within_s:.0f} s ago.{again}",
                code="reauthentication_stale",
            )
        if not self._is_first_use(visitor.name, at, now):
            raise Rejected(
                "Nothing was signed: each signature needs a sign-in of its own, and one was "
                f"signed with this one already.{again}",
                code="reauthentication_used",
            )

    def _is_first_use(self, account: str, at: float, now: float) -> bool:
        with self._lock:
            if len(self._used) >= MOST_REMEMBERED:
                oldest = now - self.proxy.within_s
                self._used = {key: when for key, when in self._used.items() if when >= oldest}
            key = (account, at)
            is_first = key not in self._used
            self._used[key] = at
            return is_first


class ProviderSigning:
    """Signatures of people whom the identity provider signed in."""

    def __init__(self, *, reviews: Reviews, gate: Gate, layout: Layout, oidc: OidcPages) -> None:
        self._reviews, self._gate, self._layout, self._oidc = reviews, gate, layout, oidc

    def ask(
        self, visitor: Visitor, smear_id: SmearId, event: ReviewEvent, *, seen_revision: int
    ) -> Response:
        """Have the provider ask who this is, for this signature of what the page showed.

        Raises Rejected (`StaleReview` among them) for what cannot be signed, before anybody is
        asked; RetryLater and NeedsReview when the provider cannot be asked.
        """
        clicked_at = time.time()
        content = self._reviews.check_signature(smear_id, event, seen_revision=seen_revision)
        page = f"/smears/{smear_id}"

        def keep(request: Request, person: Person) -> Response:
            if Permission.REVIEW not in permissions_of(person.roles):
                return self._gate.refuse(request, NOBODY, 403, "not_permitted")
            signed = replace(event, at=datetime.now(UTC))
            try:
                self._reviews.sign(
                    smear_id, signed, seen_revision=seen_revision, content_sha256=content
                )
            except Rejected as err:
                return self._layout.problem(
                    request, 409, err.code, visitor=NOBODY, detail=err.message
                )
            return self._layout.page("signature_kept.html", NOBODY, next_path=page)

        bound = f"{content}.{event.act}.{event.id}".encode()
        asked = Reauthentication(
            account=visitor.name,
            content_sha256=hashlib.sha256(bound).hexdigest(),
            asked_at=clicked_at,
            then=keep,
        )
        return self._oidc.ask_again(visitor, page, asked)


def moment_in(headers: Mapping[str, str], name: str) -> float | None:
    """Unix time of a header, given in seconds or as ISO 8601 with a time zone; None otherwise."""
    words = headers.get(name, "").strip()
    is_number = words.isascii() and words.replace(".", "", 1).isdigit()
    try:
        return float(words) if is_number else _iso(words)
    except (ValueError, OverflowError):
        return None


def _iso(words: str) -> float | None:
    moment = datetime.fromisoformat(words)
    return None if moment.tzinfo is None else moment.astimezone(UTC).timestamp()

"""Sessions that live on the server: what the browser holds is a random token and nothing else."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import sqlalchemy as sa

from listener.web.console.database import ACCOUNT, SECRET, SESSION, ConsoleDatabase
from listener.web.console.permissions import Permission, Role, permissions_of

SEEN_EVERY_S = 30.0
"""How often a session's last use is written; a page with 50 pictures is one write."""


class KnownBy(StrEnum):
    """Who says who a visitor is: whoever signs must be asked again there."""

    ACCOUNT = "account"
    PROVIDER = "provider"
    PROXY = "proxy"
    MACHINE = "machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Whoever asks for a page, once it is known who that is."""

    name: str
    """Empty for whoever sits at the machine while no account exists."""
    full_name: str = ""
    roles: tuple[Role, ...] = ()
    permissions: frozenset[Permission]
    csrf: str = ""
    """What a form must send back."""
    token: str = ""
    """Of the session; empty where a proxy names the person."""
    known_by: KnownBy = KnownBy.MACHINE

    def may(self, permission: Permission) -> bool:
        """Whether a page that asks for this is shown."""
        return permission in self.permissions

    @property
    def is_known(self) -> bool:
        """Whether somebody is signed in."""
        return bool(self.name)


class Sessions:
    """The session table."""

    def __init__(
        self,
        database: ConsoleDatabase,
        *,
        idle: timedelta,
        longest: timedelta,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._idle_s = idle.total_seconds()
        self._longest_s = longest.total_seconds()
        self._clock = clock
        self._key = _site_secret(database)

    def begin(
        self, name: str, roles: tuple[Role, ...], *, full_name: str = "", is_external: bool = False
    ) -> str:
        """A new session's token; the table holds its hash alone."""
        token = secrets.token_urlsafe(32)
        now = self._clock().timestamp()
        row = {
            "token_sha256": _sha256(token),
            "account": name,
            "full_name": full_name,
            "roles": ",".join(roles),
            "is_external": is_external,
            "csrf": secrets.token_urlsafe(24),
            "began_at": now,
            "seen_at": now,
        }
        with self._database.writing() as connection:
            connection.execute(
                sa.delete(SESSION).where(
                    sa.or_(
                        SESSION.c.began_at < now - self._longest_s,
                        SESSION.c.seen_at < now - self._idle_s,
                    )
                )
            )
            connection.execute(sa.insert(SESSION).values(**row))
        return token

    def visitor(self, token: str, *, is_background: bool = False) -> Visitor | None:
        """Whose session it is; None when it ended. What a page asks by itself keeps none alive."""
        now = self._clock().timestamp()
        digest = _sha256(token)
        query = (
            sa.select(SESSION, ACCOUNT.c.roles.label("now_roles"), ACCOUNT.c.is_disabled)
            .select_from(SESSION.outerjoin(ACCOUNT, ACCOUNT.c.name == SESSION.c.account))
            .where(SESSION.c.token_sha256 == digest)
        )
        with self._database.reading() as connection:
            row = connection.execute(query).first()
        if row is None or not self._lasts(row.began_at, row.seen_at, now):
            return None
        if not row.is_external and (row.now_roles is None or row.is_disabled):
            return None
        if not is_background and now - row.seen_at > SEEN_EVERY_S:
            with self._database.writing() as connection:
                connection.execute(
                    sa.update(SESSION).where(SESSION.c.token_sha256 == digest).values(seen_at=now)
                )
        # An account's roles of this moment: what was taken away is gone at the next page.
        text = row.roles if row.is_external else row.now_roles
        roles = tuple(Role(one) for one in text.split(",") if one)
        return Visitor(
            name=row.account,
            full_name=row.full_name,
            roles=roles,
            permissions=permissions_of(roles),
            csrf=row.csrf,
            token=token,
            known_by=KnownBy.PROVIDER if row.is_external else KnownBy.ACCOUNT,
        )

    def end(self, token: str) -> None:
        """Sign out."""
        with self._database.writing() as connection:
            connection.execute(sa.delete(SESSION).where(SESSION.c.token_sha256 == _sha256(token)))

    def sign(self, *words: str) -> str:
        """A keyed digest of words, the same in every process of the site."""
        return hmac.new(self._key, "\0".join(words).encode(), hashlib.sha256).hexdigest()

    def _lasts(self, began_at: float, seen_at: float, now: float) -> bool:
        return now - began_at < self._longest_s and now - seen_at < self._idle_s


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _site_secret(database: ConsoleDatabase) -> bytes:
    """The key of `sign`, made once a site."""
    query = sa.select(SECRET.c.value).where(SECRET.c.name == "forms")
    with database.writing() as connection:
        row = connection.execute(query).first()
        if row is None:
            made = secrets.token_hex(32)
            database.upsert(connection, SECRET, {"name": "forms", "value": made})
            return bytes.fromhex(made)
    return bytes.fromhex(row.value)

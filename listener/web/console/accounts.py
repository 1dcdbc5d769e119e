"""Accounts of the console: names, roles and Argon2id hashes of passwords."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from listener.web.console.database import ACCOUNT, SESSION, ConsoleDatabase
from listener.web.console.permissions import Role
from pipeline.errors import Rejected

NAME = re.compile(r"[a-z0-9][a-z0-9._@\-]{0,63}")
SHORTEST_PASSWORD, LONGEST_PASSWORD = 12, 256
"""NIST SP 800-63B asks for 8 at least and no rules of composition; length is what helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A person who may sign in."""

    name: str
    full_name: str
    roles: tuple[Role, ...]
    is_disabled: bool


class Accounts:
    """The account table."""

    def __init__(
        self,
        database: ConsoleDatabase,
        *,
        hasher: PasswordHasher | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._hasher = hasher or PasswordHasher()
        self._clock = clock
        self._nobody = self._hasher.hash("nobody has this password")
        """Verified for a name that is not there, so that both answers take as long."""

    def add(self, name: str, password: str, roles: Iterable[Role], *, full_name: str = "") -> None:
        """Make an account. Raises Rejected for a name that is taken or not fit, a short password
        or no role.
        """
        chosen = tuple(dict.fromkeys(roles))
        _check_name(name)
        _check_password(name, password)
        if not chosen:
            raise Rejected(f"Give at least one role of {', '.join(Role)}", code="no_role")
        if self.find(name) is not None:
            raise Rejected(f"There is an account {name} already", code="account_exists")
        row = {
            "name": name,
            "full_name": full_name,
            "roles": ",".join(chosen),
            "password_hash": self._hasher.hash(password),
            "is_disabled": False,
            "created_at": self._clock().timestamp(),
        }
        with self._database.writing() as connection:
            connection.execute(sa.insert(ACCOUNT).values(**row))

    def find(self, name: str) -> Account | None:
        """The account of a name."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(ACCOUNT).where(ACCOUNT.c.name == name)).first()
        return _account(row) if row is not None else None

    def all(self) -> list[Account]:
        """Every account, by name."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(ACCOUNT).order_by(ACCOUNT.c.name))
            return [_account(row) for row in rows]

    def exist(self) -> bool:
        """Whether anybody can sign in."""
        query = sa.select(ACCOUNT.c.name).where(sa.not_(ACCOUNT.c.is_disabled)).limit(1)
        with self._database.reading() as connection:
            return connection.execute(query).first() is not None

    def set_disabled(self, name: str, is_disabled: bool) -> None:
        """Disable an account, which ends its sessions, or enable it again."""
        self._change(name, {"is_disabled": is_disabled}, ends_sessions=is_disabled)

    def reset(self, name: str, *, password: str | None = None, roles: Iterable[Role] = ()) -> None:
        """Set another password, other roles, or both; the account's sessions end."""
        values: dict[str, object] = {}
        if password is not None:
            _check_password(name, password)
            values["password_hash"] = self._hasher.hash(password)
        if chosen := tuple(dict.fromkeys(roles)):
            values["roles"] = ",".join(chosen)
        self._change(name, values, ends_sessions=True)

    def sign_in(self, name: str, password: str) -> Account | None:
        """The account when the password is right; takes as long for a name that is not there."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(ACCOUNT).where(ACCOUNT.c.name == name)).first()
        is_known = row is not None and not row.is_disabled
        stored = row.password_hash if row is not None and is_known else self._nobody
        try:
            self._hasher.verify(stored, password[:LONGEST_PASSWORD])
        except (Argon2Error, InvalidHashError):
            return None
        return _account(row) if row is not None and is_known else None

    def _change(self, name: str, values: dict[str, object], *, ends_sessions: bool) -> None:
        if self.find(name) is None:
            raise Rejected(f"There is no account {name}", code="account_absent")
        with self._database.writing() as connection:
            if values:
                connection.execute(
                    sa.update(ACCOUNT).where(ACCOUNT.c.name == name).values(**values)
                )
            if ends_sessions:
                connection.execute(sa.delete(SESSION).where(SESSION.c.account == name))


def _account(row: sa.Row[tuple[object, ...]]) -> Account:
    return Account(
        name=row.name,
        full_name=row.full_name,
        roles=tuple(Role(one) for one in row.roles.split(",") if one),
        is_disabled=bool(row.is_disabled),
    )


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise Rejected(
            "A name has 1 to 64 lower-case letters, digits, '.', '_', '-' or '@' and begins with a "
            "letter or digit",
            code="bad_account_name",
        )


def _check_password(name: str, password: str) -> None:
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise Rejected(
            f"A password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters",
            code="password_length",
        )
    if name in password.lower():
        raise Rejected("A password must not hold the account's name", code="password_guessable")

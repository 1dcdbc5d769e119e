"""`smearlink user`: the console's accounts, made and changed beside the running service."""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from config.model import Settings
from listener.cli.console import tell
from listener.service import open_trail
from listener.web.console.accounts import Accounts
from listener.web.console.database import ConsoleDatabase
from listener.web.console.permissions import Role
from pipeline.errors import Rejected
from reporting.audit.trail import Actor, Event


def add_user(
    settings: Settings, name: str, password: str, roles: Sequence[str], full_name: str
) -> None:
    """Make an account."""
    with _accounts(settings, "added") as accounts:
        accounts.add(name, password, _roles(roles), full_name=full_name)
    tell(f"{name} may sign in as {', '.join(roles)}")


def list_users(settings: Settings) -> None:
    """Name, roles and state of each account."""
    database = ConsoleDatabase(settings.database_url)
    try:
        found = Accounts(database).all()
    finally:
        database.close()
    for one in found:
        state = "disabled" if one.is_disabled else "active"
        tell(f"{one.name:<24} {state:<9} {', '.join(one.roles)}  {one.full_name}".rstrip())
    if not found:
        tell("There is no account; `smearlink user add NAME --role ROLE` makes one")


def disable_user(settings: Settings, name: str, *, is_disabled: bool) -> None:
    """Keep somebody out, or let them in again."""
    with _accounts(settings, "disabled" if is_disabled else "enabled") as accounts:
        accounts.set_disabled(name, is_disabled)
    tell(f"{name} is {'disabled, and signed out' if is_disabled else 'enabled'}")


def reset_user(settings: Settings, name: str, password: str | None, roles: Sequence[str]) -> None:
    """Another password, other roles, or both."""
    with _accounts(settings, "reset") as accounts:
        accounts.reset(name, password=password, roles=_roles(roles))
    tell(f"{name} is reset, and signed out")


@contextmanager
def _accounts(settings: Settings, act: str) -> Iterator[Accounts]:
    """The accounts; what is done to them is recorded once it is done."""
    database = ConsoleDatabase(settings.database_url)
    try:
        yield Accounts(database)
    finally:
        database.close()
    with open_trail(settings) as trail:
        trail.record(Event.ACCOUNT_CHANGED, actor=Actor(user=getpass.getuser()), step=act)


def _roles(words: Iterable[str]) -> list[Role]:
    wrong = [word for word in words if word not in list(Role)]
    if wrong:
        raise Rejected(f"--role: {wrong[0]!r} is none of {', '.join(Role)}", code="usage")
    return [Role(word) for word in words]

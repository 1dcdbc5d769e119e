"""Accounts: only who has the password gets in, and what is taken away is gone at once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from listener.web.console.accounts import Accounts
from listener.web.console.database import ACCOUNT, SESSION, ConsoleDatabase
from listener.web.console.permissions import Permission, Role
from listener.web.console.sessions import Sessions
from pipeline.errors import Rejected, RetryLater
from tests.listener.web.console.site import PASSWORD, QUICK_HASHER, Clock


@pytest.fixture
def database(tmp_path: Path) -> ConsoleDatabase:
    return ConsoleDatabase(f"sqlite:///{tmp_path / 'state.sqlite'}")


@pytest.fixture
def accounts(database: ConsoleDatabase) -> Accounts:
    return Accounts(database, hasher=QUICK_HASHER)


@pytest.mark.parametrize(
    ("name", "password", "roles", "code"),
    [
        ("", PASSWORD, [Role.VIEWER], "bad_account_name"),
        ("Jane Doe", PASSWORD, [Role.VIEWER], "bad_account_name"),
        ("../x", PASSWORD, [Role.VIEWER], "bad_account_name"),
        ("a" * 65, PASSWORD, [Role.VIEWER], "bad_account_name"),
        ("jane", "short", [Role.VIEWER], "password_length"),
        ("jane", "x" * 257, [Role.VIEWER], "password_length"),
        ("jane", "my name is Jane!", [Role.VIEWER], "password_guessable"),
        ("jane", PASSWORD, [], "no_role"),
    ],
)
def test_an_account_that_is_not_fit_is_refused(
    accounts: Accounts, name: str, password: str, roles: list[Role], code: str
) -> None:
    with pytest.raises(Rejected) as refused:
        accounts.add(name, password, roles)

    assert refused.value.code == code
    assert accounts.all() == []


def test_the_password_opens_and_no_other_does(accounts: Accounts) -> None:
    accounts.add("jane", PASSWORD, [Role.REVIEWER])

    assert accounts.sign_in("jane", PASSWORD) is not None
    assert accounts.sign_in("jane", PASSWORD + " ") is None
    assert accounts.sign_in("jane", "") is None
    assert accounts.sign_in("nobody", PASSWORD) is None


def test_a_disabled_account_opens_nothing_and_its_sessions_end(
    accounts: Accounts, database: ConsoleDatabase
) -> None:
    sessions = Sessions(database, idle=timedelta(hours=1), longest=timedelta(hours=2))
    accounts.add("jane", PASSWORD, [Role.REVIEWER])
    token = sessions.begin("jane", (Role.REVIEWER,))

    accounts.set_disabled("jane", True)

    assert accounts.sign_in("jane", PASSWORD) is None
    assert sessions.visitor(token) is None
    assert not accounts.exist()


def test_a_reset_changes_password_and_roles_and_ends_sessions(
    accounts: Accounts, database: ConsoleDatabase
) -> None:
    sessions = Sessions(database, idle=timedelta(hours=1), longest=timedelta(hours=2))
    accounts.add("jane", PASSWORD, [Role.REVIEWER])
    token = sessions.begin("jane", (Role.REVIEWER,))

    accounts.reset("jane", password="another pass phrase", roles=[Role.AUDITOR])

    assert sessions.visitor(token) is None
    assert accounts.sign_in("jane", PASSWORD) is None
    found = accounts.sign_in("jane", "another pass phrase")
    assert found is not None
    assert found.roles == (Role.AUDITOR,)


def test_no_password_and_no_session_token_lies_in_the_database(
    accounts: Accounts, database: ConsoleDatabase, tmp_path: Path
) -> None:
    sessions = Sessions(database, idle=timedelta(hours=1), longest=timedelta(hours=2))
    accounts.add("jane", PASSWORD, [Role.REVIEWER])
    token = sessions.begin("jane", (Role.REVIEWER,))

    stored = b"".join(path.read_bytes() for path in tmp_path.glob("console.sqlite*"))

    assert b"jane" in stored
    assert PASSWORD.encode() not in stored
    assert token.encode() not in stored
    with database.reading() as connection:
        (hashed,) = connection.execute(sa.select(ACCOUNT.c.password_hash)).one()
    assert hashed.startswith("$argon2id$")


def test_only_the_service_may_read_the_database(accounts: Accounts, tmp_path: Path) -> None:
    assert (tmp_path / "console.sqlite").stat().st_mode & 0o077 == 0


def test_a_session_ends_when_idle_and_in_any_case(
    accounts: Accounts, database: ConsoleDatabase
) -> None:
    clock = Clock()
    sessions = Sessions(
        database, idle=timedelta(minutes=30), longest=timedelta(hours=2), clock=clock
    )
    accounts.add("jane", PASSWORD, [Role.REVIEWER])
    idle, busy = (sessions.begin("jane", (Role.REVIEWER,)) for _ in range(2))

    for _ in range(5):
        clock.now += timedelta(minutes=20)
        kept = sessions.visitor(busy)
    clock.now += timedelta(minutes=19)
    still = sessions.visitor(busy)
    clock.now += timedelta(minutes=2)

    assert kept is not None
    assert still is not None
    assert sessions.visitor(idle) is None
    assert sessions.visitor(busy) is None


def test_what_a_page_asks_by_itself_keeps_no_session_alive(
    accounts: Accounts, database: ConsoleDatabase
) -> None:
    clock = Clock()
    sessions = Sessions(
        database, idle=timedelta(minutes=30), longest=timedelta(hours=9), clock=clock
    )
    accounts.add("jane", PASSWORD, [Role.VIEWER])
    token = sessions.begin("jane", (Role.VIEWER,))

    for _ in range(3):
        clock.now += timedelta(minutes=11)
        known = sessions.visitor(token, is_background=True)

    assert known is None


def test_roles_that_are_taken_away_are_gone_at_the_next_page(
    accounts: Accounts, database: ConsoleDatabase
) -> None:
    sessions = Sessions(database, idle=timedelta(hours=1), longest=timedelta(hours=2))
    accounts.add("jane", PASSWORD, [Role.ADMINISTRATOR])
    token = sessions.begin("jane", (Role.ADMINISTRATOR,))
    with database.writing() as connection:
        connection.execute(sa.update(ACCOUNT).values(roles="viewer"))

    visitor = sessions.visitor(token)

    assert visitor is not None
    assert not visitor.may(Permission.OPERATE)


def test_old_sessions_are_swept(accounts: Accounts, database: ConsoleDatabase) -> None:
    clock = Clock()
    sessions = Sessions(
        database, idle=timedelta(minutes=30), longest=timedelta(hours=2), clock=clock
    )
    for _ in range(3):
        sessions.begin("jane", (Role.VIEWER,))
    clock.now += timedelta(hours=3)
    sessions.begin("jane", (Role.VIEWER,))

    with database.reading() as connection:
        assert len(connection.execute(sa.select(SESSION)).all()) == 1


def test_a_database_that_is_gone_is_told_without_quoting_it(tmp_path: Path) -> None:
    database = ConsoleDatabase(f"sqlite:///{tmp_path / 'state.sqlite'}")
    accounts = Accounts(database, hasher=QUICK_HASHER)
    with database.writing() as connection:
        connection.execute(sa.text("DROP TABLE account"))

    with pytest.raises(RetryLater) as told:
        accounts.sign_in("jane", PASSWORD)

    assert told.value.code == "database_unavailable"
    assert "jane" not in told.value.message

"""Every address × every role × no role: nothing leaks, and each refusal is recorded."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import httpx
import pytest
from starlette.testclient import TestClient

from config.sections import ConsoleSettings, ProxySettings, RoleName
from listener.web.console.accounts import Accounts
from listener.web.console.app import Address
from listener.web.console.database import ConsoleDatabase
from listener.web.console.gate import COOKIE, SignInLimiter
from listener.web.console.permissions import LOCAL_VISITOR, PERMISSIONS, Permission, Role
from pipeline.errors import Rejected
from reporting.audit.trail import Event
from tests.findings import make_field_findings
from tests.listener.web.console.site import (
    PASSWORD,
    PATIENT,
    ConsoleSite,
    csrf_of,
    is_signed_in,
    sign_in,
)

SECRETS = (*PATIENT.values(), "Doe, Jane")


@pytest.fixture
def site(tmp_path: Path) -> ConsoleSite:
    site = ConsoleSite(tmp_path)
    site.put_smear([make_field_findings()])
    return site


def filled(path: str, site: ConsoleSite) -> str:
    """An address with the names of the smear that is there."""
    smear = next(iter(site.store.results.smears()))
    values = {
        "{smear}": smear,
        "{digest}": "0" * 32,
        "{name}": "blast" if "sprites" in path else "console.css",
        "{number:int}": "1",
        "{kind}": "thumb",
        "{batch}": "0" * 32,
    }
    for name, value in values.items():
        path = path.replace(name, value)
    return path


def asked(client: TestClient, site: ConsoleSite, address: Address, csrf: str) -> httpx.Response:
    path = filled(address.path, site)
    if address.method == "POST":
        return client.post(path, data={"csrf": csrf})
    if path == "/events":  # never ends; HEAD passes the same door
        return client.request("HEAD", path)
    return client.get(path)


@pytest.mark.parametrize("role", [*Role, None])
def test_a_page_is_shown_to_those_who_may_and_to_nobody_else(
    site: ConsoleSite, role: Role | None
) -> None:
    site.add_account("root", Role.ADMINISTRATOR)
    if role is not None:
        site.add_account("jane", role)
    console = site.console()

    with site.client(console) as client:
        csrf = csrf_of(client.get("/sign-in"))
        if role is not None:
            sign_in(client, "jane")
            csrf = csrf_of(client.get("/network"))
        for address in console.addresses:
            if address.door.is_open or address.path == "/sign-out":
                continue
            before = len(site.audit.recorded)
            answer = asked(client, site, address, csrf)
            needs = address.door.permission
            may = role is not None and (needs is None or needs in PERMISSIONS[role])
            told = [
                one for one in site.audit.recorded[before:] if one.event == Event.ACCESS_REFUSED
            ]
            if may:
                assert answer.status_code not in (401, 403), address
                assert told == [], address
                continue
            is_page = role is None and address.method == "GET" and address.path != "/events"
            expected = 303 if is_page else 401 if role is None else 403
            assert answer.status_code == expected, address
            assert len(told) == 1, address
            assert not any(secret in answer.text for secret in SECRETS), address
            assert "/sign-in" in answer.headers.get("location", "/sign-in")


@pytest.mark.parametrize("role", Role)
def test_the_menu_offers_only_what_a_role_may(site: ConsoleSite, role: Role) -> None:
    site.add_account("jane", role)

    with site.client() as client:
        sign_in(client, "jane")
        page = client.get("/network").text

    offered = {
        Permission.LOOK: 'href="/smears"',
        Permission.UPLOAD: 'href="/upload"',
        Permission.WATCH: 'href="/operations"',
        Permission.AUDIT: 'href="/audit"',
    }
    for permission, link in offered.items():
        assert (link in page) == (permission in PERMISSIONS[role])


def test_the_table_in_the_docs_is_the_one_in_the_code() -> None:
    text = Path("docs/console.md").read_text(encoding="utf-8")

    for permission in Permission:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{permission}` |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")][2:]
        shown = [permission in PERMISSIONS[role] for role in Role]
        assert [cell == "yes" for cell in cells] == [*shown, permission in LOCAL_VISITOR]


def test_the_words_of_the_settings_are_the_roles() -> None:
    assert set(get_args(RoleName)) == set(Role)


# --- on the machine, without an account


def test_without_an_account_the_machine_itself_may_read_and_change_nothing(
    site: ConsoleSite,
) -> None:
    with site.client() as client:
        page = client.get("/smears")
        smear = next(iter(site.store.results.smears()))
        shown = client.get(f"/smears/{smear}")
        upload = client.get("/upload")
        retried = client.post("/operations/retry", data={"csrf": csrf_of(page), "key": "x"})

    assert page.status_code == shown.status_code == 200
    assert "Read only" in page.text
    assert not any(secret in page.text + shown.text for secret in SECRETS)
    assert upload.status_code == retried.status_code == 403
    assert site.retried == []


def test_with_the_first_account_the_machine_has_to_sign_in(site: ConsoleSite) -> None:
    with site.client() as client:
        before = client.get("/smears")
        site.add_account("jane", Role.VIEWER)
        after = client.get("/smears")

    assert before.status_code == 200
    assert after.status_code == 303


@pytest.mark.parametrize("host", ["evil.example", "smearlink.evil.example:8104"])
def test_a_name_that_somebody_pointed_here_reads_nothing(site: ConsoleSite, host: str) -> None:
    with site.client(base_url=f"https://{host}") as client:
        assert client.get("/smears").status_code == 303


def test_on_a_network_a_console_without_sign_in_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(Rejected) as refused:
        ConsoleSite(tmp_path, is_loopback=False).console()

    assert refused.value.code == "console_unguarded"
    assert "smearlink user add" in refused.value.message


def test_on_a_network_nobody_reads_without_signing_in(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path, is_loopback=False)
    site.add_account("jane", Role.VIEWER)

    with site.client() as client:
        assert client.get("/smears").status_code == 303
        sign_in(client, "jane")
        assert client.get("/smears").status_code == 200


# --- a trusted proxy


def proxy_site(root: Path, addresses: tuple[str, ...]) -> ConsoleSite:
    roles: dict[str, RoleName] = {"haem-consultants": "reviewer"}
    proxy = ProxySettings(addresses=addresses, roles=roles)
    return ConsoleSite(root, settings=ConsoleSettings(proxy=proxy), is_loopback=False)


def from_address(client: TestClient, address: str) -> None:
    client._transport.client = (address, 50000)


def test_a_proxy_s_header_signs_in_from_its_address_alone(tmp_path: Path) -> None:
    site = proxy_site(tmp_path, ("10.1.0.0/16",))
    named = {"X-Remote-User": "Jane", "X-Remote-Roles": "nurses, haem-consultants"}

    with site.client() as client:
        from_address(client, "10.1.2.3")
        trusted = client.get("/smears", headers=named)
        from_address(client, "10.2.2.3")
        other = client.get("/smears", headers=named)

    assert trusted.status_code == 200
    assert "jane" in trusted.text
    assert other.status_code == 303


@pytest.mark.parametrize("user", ["", "../../x", "a b", "<b>", "x" * 65])
def test_a_proxy_s_header_that_names_nobody_signs_nobody_in(tmp_path: Path, user: str) -> None:
    site = proxy_site(tmp_path, ("10.1.0.0/16",))

    with site.client() as client:
        from_address(client, "10.1.2.3")
        answer = client.get(
            "/smears", headers={"X-Remote-User": user, "X-Remote-Roles": "administrator"}
        )

    assert answer.status_code == 303


def test_whoever_the_proxy_gives_no_role_may_nothing(tmp_path: Path) -> None:
    site = proxy_site(tmp_path, ("10.1.0.0/16",))

    with site.client() as client:
        from_address(client, "10.1.2.3")
        answer = client.get("/smears", headers={"X-Remote-User": "jane", "X-Remote-Roles": "x"})

    assert answer.status_code == 403


# --- signing in


def test_the_session_cookie_is_closed_to_scripts_and_other_sites(site: ConsoleSite) -> None:
    site.add_account("jane", Role.VIEWER)

    with site.client() as client:
        answer = sign_in(client, "jane")

    cookie = answer.headers["set-cookie"].lower()
    assert answer.status_code == 303
    assert all(word in cookie for word in ("secure", "httponly", "samesite=strict", "path=/"))
    assert [one.actor.user for one in site.audit.of(Event.SESSION_STARTED) if one.actor] == ["jane"]


def test_a_wrong_password_and_an_unknown_name_are_answered_alike(site: ConsoleSite) -> None:
    site.add_account("jane", Role.VIEWER)

    with site.client() as client:
        wrong = sign_in(client, "jane", "not the password")
        unknown = sign_in(client, "nobody", "not the password")

    def body(answer: httpx.Response) -> str:
        return answer.text.replace("nobody", "jane")

    assert wrong.status_code == unknown.status_code == 401
    assert body(wrong) == body(unknown)
    assert not is_signed_in(client)
    assert len(site.audit.of(Event.SIGN_IN_REFUSED)) == 2


def test_what_was_typed_as_a_name_is_recorded_nowhere(site: ConsoleSite) -> None:
    with site.client() as client:
        sign_in(client, "Doe, Jane PID-4711", "secret secret")

    assert "4711" not in str(site.audit.recorded)


def test_a_wrong_password_takes_as_long_as_an_unknown_name(tmp_path: Path) -> None:
    """Argon2 runs in either case: the medians differ by less than half."""
    accounts = Accounts(ConsoleDatabase(f"sqlite:///{tmp_path / 'state.sqlite'}"))
    accounts.add("jane", PASSWORD, [Role.VIEWER])

    def seconds(name: str) -> float:
        began = time.process_time()  # what else the machine does is not counted
        accounts.sign_in(name, "not the password")
        return time.process_time() - began

    pairs = [(seconds("jane"), seconds("nobody")) for _ in range(7)]
    known, unknown = (statistics.median(one) for one in zip(*pairs, strict=True))

    assert 0.5 < known / unknown < 2.0


def test_guessing_is_slowed_down_by_name_known_or_not(site: ConsoleSite) -> None:
    site.add_account("jane", Role.VIEWER)

    with site.client() as client:
        for name in ("jane", "nobody"):
            answers = [sign_in(client, name, "wrong wrong wrong").status_code for _ in range(6)]
            assert answers == [401] * 5 + [429]
        right = sign_in(client, "jane")

    assert right.status_code == 429
    assert not is_signed_in(client)


def test_who_is_blocked_may_try_again_later() -> None:
    now = [0.0]
    limiter = SignInLimiter(by_name=2, within_s=100.0, monotonic=lambda: now[0])
    limiter.failed("jane", "1.2.3.4")
    limiter.failed("jane", "1.2.3.4")

    blocked = limiter.is_blocked("jane", "5.6.7.8")
    now[0] = 101.0

    assert blocked
    assert not limiter.is_blocked("jane", "5.6.7.8")


def test_an_address_that_tries_many_names_is_blocked() -> None:
    limiter = SignInLimiter(by_name=5, by_address=3)
    for name in ("a", "b", "c"):
        limiter.failed(name, "1.2.3.4")

    assert limiter.is_blocked("d", "1.2.3.4")
    assert not limiter.is_blocked("d", "1.2.3.5")


def test_signing_out_ends_the_session_on_the_server(site: ConsoleSite) -> None:
    site.add_account("jane", Role.VIEWER)

    with site.client() as client:
        sign_in(client, "jane")
        token = client.cookies[COOKIE]
        client.post("/sign-out", data={"csrf": csrf_of(client.get("/smears"))})
        client.cookies.set(COOKIE, token)
        after = client.get("/smears")

    assert after.status_code == 303
    assert site.audit.events.count(Event.SESSION_ENDED) == 1


@pytest.mark.parametrize("place", ["//evil.example", "https://evil.example", "/\\evil.example", ""])
def test_signing_in_leads_to_a_page_of_ours(site: ConsoleSite, place: str) -> None:
    site.add_account("jane", Role.VIEWER)

    with site.client() as client:
        csrf = csrf_of(client.get("/sign-in"))
        answer = client.post(
            "/sign-in", data={"name": "jane", "password": PASSWORD, "csrf": csrf, "next": place}
        )

    assert answer.headers["location"] == "/smears"


# --- forms


@pytest.fixture
def operator(site: ConsoleSite) -> Iterator[TestClient]:
    site.add_account("olga", Role.OPERATOR)
    with site.client() as client:
        sign_in(client, "olga")
        yield client


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({}, ""),
        ({}, "wrong"),
        ({"sec-fetch-site": "cross-site"}, "right"),
        ({"sec-fetch-site": "same-site"}, "right"),
        ({"origin": "https://evil.example"}, "right"),
        ({"x-csrf-token": "wrong"}, "right"),
    ],
)
def test_a_form_that_another_site_sends_is_refused(
    operator: TestClient, site: ConsoleSite, headers: dict[str, str], field: str
) -> None:
    token = csrf_of(operator.get("/operations")) if field == "right" else field

    answer = operator.post("/operations/retry", data={"csrf": token, "key": "k"}, headers=headers)

    assert answer.status_code == 403
    assert site.retried == []
    assert site.audit.events[-1] == Event.ACCESS_REFUSED


def test_a_form_of_another_session_is_refused(operator: TestClient, site: ConsoleSite) -> None:
    old = csrf_of(operator.get("/operations"))
    operator.cookies.clear()
    sign_in(operator, "olga")

    answer = operator.post("/operations/retry", data={"csrf": old, "key": "k"})

    assert answer.status_code == 403


def test_a_form_without_a_length_or_with_too_much_is_refused(operator: TestClient) -> None:
    token = csrf_of(operator.get("/operations"))

    long = operator.post("/operations/retry", data={"csrf": token, "key": "k" * 300_000})
    endless = operator.post("/operations/retry", content=(piece for piece in [b"csrf=x"]))

    assert long.status_code == 413
    assert endless.status_code == 411


# --- headers


def test_every_page_forbids_scripts_and_pictures_from_elsewhere(site: ConsoleSite) -> None:
    with site.client() as client:
        smear = next(iter(site.store.results.smears()))
        for path in ("/smears", f"/smears/{smear}", f"/smears/{smear}/fields/1", "/nothing"):
            answer = client.get(path)
            policy = answer.headers["content-security-policy"]
            assert "unsafe" not in policy
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["cache-control"] == "no-store"
            assert "style=" not in answer.text
            assert "onclick" not in answer.text
            assert answer.text.count("RESEARCH USE ONLY") >= 2


def test_every_line_about_the_two_old_pages_names_a_test_that_is_there() -> None:
    text = Path("docs/console.md").read_text(encoding="utf-8")
    table = text.split("## What the two old pages could do", 1)[1].split("\n## ", 1)[0]

    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", table)

    assert len(named) >= 8
    for file, test in named:
        assert f"def {test}(" in Path(file).read_text(encoding="utf-8")

"""Whoever signs showed who they are after the click: at the provider, or at the proxy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from starlette.testclient import TestClient

from config.sections import ConsoleSettings, ProxySettings
from listener.web.console.oidc import STATE_COOKIE
from listener.web.console.permissions import Role
from listener.web.console.signing import moment_in
from pipeline.domain import SignOff, SmearId
from pipeline.findings.review import ReviewState
from reporting.audit.trail import Event
from tests.findings import make_field_findings
from tests.listener.web.console.provider import Provider, identity_provider, provided_site
from tests.listener.web.console.site import NOW, ConsoleSite, csrf_of

PERSON = "jane.meyer"


@pytest.fixture
def provider() -> Iterator[Provider]:
    with identity_provider() as made:
        yield made


@pytest.fixture
def site(tmp_path: Path, provider: Provider) -> ConsoleSite:
    site = provided_site(tmp_path, provider)
    site.put_smear([make_field_findings()], builds=False)
    return site


@pytest.fixture
def jane(site: ConsoleSite, provider: Provider) -> Iterator[TestClient]:
    """Signed in at the provider, as a reviewer."""
    with site.client() as client:
        asked = query_of(client.get("/oidc/start").headers["location"])
        provider.claims = {"nonce": asked["nonce"]}
        client.get("/oidc/callback", params={"state": asked["state"], "code": "c0de"})
        yield client


def smear_of(site: ConsoleSite) -> SmearId:
    return next(iter(site.store.results.smears()))


def state_of(site: ConsoleSite) -> ReviewState:
    return site.parts.reviews.state(smear_of(site))


def query_of(address: str) -> dict[str, str]:
    return {name: one[0] for name, one in parse_qs(urlsplit(address).query).items()}


def click_sign(client: TestClient, site: ConsoleSite, **words: str) -> httpx.Response:
    form = {
        "csrf": csrf_of(client.get("/smears")),
        "revision": str(state_of(site).revision),
        "meaning": "sign",
        "reason": "four cells on the slide",
    }
    return client.post(f"/smears/{smear_of(site)}/sign", data=form | words)


def asked_at_provider(page: httpx.Response) -> dict[str, str]:
    """What the browser brings to the provider."""
    return query_of(unescape(page.text.split('content="0;url=', 1)[1].split('"', 1)[0]))


def come_back(
    client: TestClient, provider: Provider, asked: dict[str, str], **claims: Any
) -> httpx.Response:
    provider.claims = {"nonce": asked["nonce"], "auth_time": int(time.time())} | claims
    return client.get("/oidc/callback", params={"state": asked["state"], "code": "c0de"})


# --- a person of the provider


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"auth_time": 1}, "reauthentication_stale"),
        ({"auth_time": int(time.time()) - 3600}, "reauthentication_stale"),
        ({"auth_time": 4_000_000_000}, "reauthentication_stale"),
        ({"auth_time": None}, "reauthentication_missing"),
        ({"auth_time": "now"}, "reauthentication_missing"),
        ({"auth_time": True}, "reauthentication_missing"),
        ({"preferred_username": "rosa"}, "signature_other_person"),
        ({"nonce": "of another sign-in"}, "oidc_refused"),
        ({"roles": ["nurses"]}, "not_permitted"),
    ],
)
def test_an_answer_that_does_not_prove_the_person_signs_nothing(
    jane: TestClient, site: ConsoleSite, provider: Provider, claims: dict[str, Any], code: str
) -> None:
    asked = asked_at_provider(click_sign(jane, site))

    answer = come_back(jane, provider, asked, **claims)

    assert answer.status_code == 403
    assert state_of(site).signatures == ()
    refused = site.audit.of(Event.ACCESS_REFUSED)[-1]
    assert refused.fields["code"] == code


def test_an_answer_signs_once(jane: TestClient, site: ConsoleSite, provider: Provider) -> None:
    asked = asked_at_provider(click_sign(jane, site))
    cookie = jane.cookies[STATE_COOKIE]
    come_back(jane, provider, asked)

    jane.cookies.set(STATE_COOKIE, cookie)
    again = come_back(jane, provider, asked)

    assert again.status_code == 403
    assert len(state_of(site).signatures) == 1


def test_an_answer_in_another_browser_signs_nothing(
    jane: TestClient, site: ConsoleSite, provider: Provider
) -> None:
    asked = asked_at_provider(click_sign(jane, site))
    jane.cookies.delete(STATE_COOKIE)

    assert come_back(jane, provider, asked).status_code == 403
    assert state_of(site).signatures == ()


def test_a_sign_in_is_no_signature_and_a_signature_no_sign_in(
    jane: TestClient, site: ConsoleSite, provider: Provider
) -> None:
    jane_again = query_of(jane.get("/oidc/start").headers["location"])
    come_back(jane, provider, jane_again)
    assert state_of(site).signatures == ()

    asked = asked_at_provider(click_sign(jane, site))
    sessions_before = site.audit.events.count(Event.SESSION_STARTED)
    come_back(jane, provider, asked)

    assert site.audit.events.count(Event.SESSION_STARTED) == sessions_before


def test_what_changed_while_the_person_signed_in_is_not_signed(
    jane: TestClient, site: ConsoleSite, provider: Provider
) -> None:
    asked = asked_at_provider(click_sign(jane, site))
    site.review_as("rosa", smear_of(site), seen_revision=0)

    answer = come_back(jane, provider, asked)

    assert answer.status_code == 409
    assert "changed while you signed in" in answer.text
    assert state_of(site).signatures == ()


def test_what_cannot_be_signed_asks_nobody(jane: TestClient, site: ConsoleSite) -> None:
    open_cells = click_sign(jane, site, reason="")
    behind = click_sign(jane, site, revision="7")
    withdrawn_without_reason = click_sign(jane, site, meaning="withdraw", reason="")

    assert (open_cells.status_code, behind.status_code) == (409, 412)
    assert withdrawn_without_reason.status_code == 409
    assert STATE_COOKIE not in jane.cookies


def test_a_password_in_the_form_is_no_way_round_the_provider(
    jane: TestClient, site: ConsoleSite
) -> None:
    site.add_account(PERSON, Role.REVIEWER)

    click_sign(jane, site, password="a long enough pass phrase")

    assert state_of(site).signatures == ()


def test_a_provider_that_is_down_signs_nothing_and_says_so(
    jane: TestClient, site: ConsoleSite, provider: Provider
) -> None:
    page = click_sign(jane, site)
    provider.status = 500

    answer = come_back(jane, provider, asked_at_provider(page))

    assert answer.status_code == 403
    assert state_of(site).signatures == ()


def test_the_provider_is_asked_again_and_its_answer_signs(
    jane: TestClient, site: ConsoleSite, provider: Provider
) -> None:
    shown = jane.get(f"/smears/{smear_of(site)}").text
    asked = asked_at_provider(click_sign(jane, site))

    answer = come_back(jane, provider, asked)

    assert (asked["prompt"], asked["max_age"]) == ("login", "0")
    assert "Sign at your organization" in shown
    assert 'type="password"' not in shown
    assert answer.status_code == 200
    assert f"url=/smears/{smear_of(site)}" in answer.text
    [signature] = state_of(site).signatures
    assert (signature.reviewer.account, signature.reviewer.name) == (PERSON, "Jane Meyer")
    assert state_of(site).sign_off is SignOff.FINAL
    assert site.audit.events.count(Event.REPORT_SIGNED) == 1


def test_the_nonce_is_made_of_what_is_signed(
    jane: TestClient, site: ConsoleSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same random words, other content gives another nonce."""
    monkeypatch.setattr("listener.web.console.oidc.secrets.token_urlsafe", lambda _: "random")
    first = asked_at_provider(click_sign(jane, site, event_id="a" * 32))
    same = asked_at_provider(click_sign(jane, site, event_id="a" * 32))
    site.review_as("rosa", smear_of(site), seen_revision=0)
    other = asked_at_provider(click_sign(jane, site, event_id="a" * 32))

    assert first["nonce"] == same["nonce"] != other["nonce"]


# --- a person of the proxy


def proxied(root: Path, **proxy: Any) -> ConsoleSite:
    settings = ProxySettings(addresses=("10.1.0.0/16",), **proxy)
    site = ConsoleSite(root, settings=ConsoleSettings(proxy=settings), is_loopback=False)
    site.put_smear([make_field_findings()], builds=False)
    return site


@pytest.fixture
def behind_proxy(tmp_path: Path) -> Iterator[tuple[ConsoleSite, TestClient]]:
    site = proxied(
        tmp_path,
        authenticated_at_header="X-Auth-Time",
        sign_in_again_url="https://proxy.example/again",
    )
    with site.client() as client:
        yield site, through_proxy(client)


def through_proxy(client: TestClient, name: str = "jane") -> TestClient:
    client._transport.client = ("10.1.2.3", 50000)
    client.headers.update({"X-Remote-User": name, "X-Remote-Roles": "reviewer"})
    return client


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({}, "reauthentication_missing"),
        ({"X-Auth-Time": ""}, "reauthentication_missing"),
        ({"X-Auth-Time": "yesterday"}, "reauthentication_missing"),
        ({"X-Auth-Time": "2026-11-28T09:30:00"}, "reauthentication_missing"),
        ({"X-Auth-Time": "-5"}, "reauthentication_missing"),
        ({"X-Auth-Time": "9" * 400}, "reauthentication_stale"),
        ({"X-Auth-Time": str(NOW.timestamp() - 61)}, "reauthentication_stale"),
        ({"X-Auth-Time": str(NOW.timestamp() + 60)}, "reauthentication_stale"),
    ],
)
def test_a_proxy_that_did_not_ask_just_now_signs_nothing(
    behind_proxy: tuple[ConsoleSite, TestClient], header: dict[str, str], code: str
) -> None:
    site, client = behind_proxy
    client.headers.update(header)

    answer = click_sign(client, site)

    assert answer.status_code == 403
    assert "https://proxy.example/again" in answer.text
    assert state_of(site).signatures == ()
    assert site.audit.of(Event.ACCESS_REFUSED)[-1].fields["code"] == code


def test_the_header_counts_from_the_proxy_alone(
    behind_proxy: tuple[ConsoleSite, TestClient],
) -> None:
    site, client = behind_proxy
    csrf = csrf_of(client.get("/smears"))
    client._transport.client = ("10.9.2.3", 50000)
    client.headers.update({"X-Auth-Time": str(NOW.timestamp())})

    answer = client.post(
        f"/smears/{smear_of(site)}/sign",
        data={"csrf": csrf, "revision": "0", "meaning": "sign", "reason": "x"},
    )

    assert answer.status_code == 401
    assert state_of(site).signatures == ()


@pytest.mark.parametrize("moment", [str(NOW.timestamp() - 30), "2026-11-28T10:29:30+01:00"])
def test_one_sign_in_at_the_proxy_is_one_signature(
    behind_proxy: tuple[ConsoleSite, TestClient], moment: str
) -> None:
    site, client = behind_proxy
    client.headers.update({"X-Auth-Time": moment})

    signed = click_sign(client, site)
    again = click_sign(client, site)

    assert (signed.status_code, again.status_code) == (303, 403)
    assert [one.reviewer.account for one in state_of(site).signatures] == ["jane"]
    assert site.audit.of(Event.ACCESS_REFUSED)[-1].fields["code"] == "reauthentication_used"


def test_a_proxy_that_says_no_time_needs_an_account_to_sign(tmp_path: Path) -> None:
    site = proxied(tmp_path)

    with site.client() as client:
        through_proxy(client).headers.update({"X-Auth-Time": str(NOW.timestamp())})
        shown = client.get(f"/smears/{smear_of(site)}").text
        answer = click_sign(client, site)

    assert "Signing needs an account" in shown
    assert 'name="meaning"' not in shown
    assert answer.status_code == 403
    assert "smearlink user add" in answer.text
    assert state_of(site).signatures == ()


@pytest.mark.parametrize(
    ("words", "moment"),
    [
        ("1764322200", 1764322200.0),
        ("1764322200.5", 1764322200.5),
        ("2025-11-28T09:30:00Z", 1764322200.0),
        ("2025-11-28T09:30:00", None),
        ("1.2.3", None),
        ("nan", None),
        ("", None),
    ],
)
def test_moments_of_headers(words: str, moment: float | None) -> None:
    assert moment_in({"at": words}, "at") == moment

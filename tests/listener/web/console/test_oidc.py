"""OpenID Connect: who the provider signed gets in with its roles; nothing else is believed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc.jwk import OctKey, RSAKey
from starlette.testclient import TestClient

from reporting.audit.trail import Event
from tests.listener.web.console.provider import (
    CLIENT,
    REDIRECT,
    Provider,
    identity_provider,
    provided_site,
)
from tests.listener.web.console.site import ConsoleSite, is_signed_in


@pytest.fixture
def provider() -> Iterator[Provider]:
    with identity_provider() as made:
        yield made


@pytest.fixture
def site(tmp_path: Path, provider: Provider) -> ConsoleSite:
    return provided_site(tmp_path, provider)


@pytest.fixture
def client(site: ConsoleSite) -> Iterator[TestClient]:
    with site.client() as client:
        yield client


def begin(client: TestClient) -> dict[str, str]:
    """Go to the provider; what the browser brings there."""
    answer = client.get("/oidc/start?next=/upload")
    return {
        name: one[0] for name, one in parse_qs(urlsplit(answer.headers["location"]).query).items()
    }


def come_back(client: TestClient, provider: Provider, **changes: str) -> httpx.Response:
    """Sign in there, and come back with a code."""
    asked = begin(client)
    provider.claims.setdefault("nonce", asked["nonce"])
    query = {"state": asked["state"], "code": "c0de"} | changes
    return client.get("/oidc/callback", params=query)


def test_a_person_of_the_provider_gets_in_with_their_roles(
    client: TestClient, provider: Provider, site: ConsoleSite
) -> None:
    answer = come_back(client, provider)
    page = client.get("/upload")

    assert answer.status_code == 200
    assert "url=/upload" in answer.text
    assert page.status_code == 200
    assert "Jane Meyer" in page.text
    assert "reviewer" in page.text
    (told,) = site.audit.of(Event.SESSION_STARTED)
    assert told.actor is not None
    assert told.actor.user == "jane.meyer"


def test_the_code_is_bound_to_this_sign_in_by_pkce(client: TestClient, provider: Provider) -> None:
    asked = begin(client)
    provider.claims["nonce"] = asked["nonce"]
    client.get("/oidc/callback", params={"state": asked["state"], "code": "c0de"})

    (form,) = provider.forms
    digest = hashlib.sha256(form["code_verifier"][0].encode()).digest()
    assert asked["code_challenge_method"] == "S256"
    assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == asked["code_challenge"]
    assert form["redirect_uri"] == [REDIRECT]


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"aud": "another"},
        {"aud": ["another", CLIENT], "azp": "another"},
        {"exp": 1},
        {"exp": "never"},
        {"nbf": 4_000_000_000},
        {"nonce": "of another sign-in"},
        {"preferred_username": ""},
        {"preferred_username": "../root"},
    ],
)
def test_a_token_that_is_not_for_us_signs_nobody_in(
    client: TestClient, provider: Provider, site: ConsoleSite, claims: dict[str, Any]
) -> None:
    provider.claims = claims

    answer = come_back(client, provider)

    assert answer.status_code == 403
    assert not is_signed_in(client)
    assert site.audit.events[-1] == Event.ACCESS_REFUSED


def test_a_token_that_another_key_signed_signs_nobody_in(
    client: TestClient, provider: Provider
) -> None:
    provider.sign_with = RSAKey.generate_key(2048, {"kid": "1"})

    assert come_back(client, provider).status_code == 403
    assert not is_signed_in(client)


def test_a_token_signed_with_a_shared_secret_signs_nobody_in(
    client: TestClient, provider: Provider
) -> None:
    provider.algorithm = "HS256"
    provider.sign_with = OctKey.import_key(b"0123456789abcdef0123456789abcdef")

    assert come_back(client, provider).status_code == 403


@pytest.mark.parametrize("changes", [{"state": "other"}, {"state": ""}, {"code": ""}])
def test_an_answer_that_this_browser_did_not_ask_for_is_refused(
    client: TestClient, provider: Provider, changes: dict[str, str]
) -> None:
    assert come_back(client, provider, **changes).status_code == 403


def test_an_answer_is_taken_once(client: TestClient, provider: Provider) -> None:
    asked = begin(client)
    provider.claims["nonce"] = asked["nonce"]
    query = {"state": asked["state"], "code": "c0de"}
    cookie = client.cookies["smearlink_oidc"]

    first = client.get("/oidc/callback", params=query)
    client.cookies.set("smearlink_oidc", cookie)
    second = client.get("/oidc/callback", params=query)

    assert (first.status_code, second.status_code) == (200, 403)


def test_whoever_has_no_role_here_may_nothing(client: TestClient, provider: Provider) -> None:
    provider.claims = {"roles": ["nurses"]}

    come_back(client, provider)

    assert client.get("/smears").status_code == 403


def test_a_provider_that_calls_itself_something_else_is_not_believed(
    client: TestClient, provider: Provider
) -> None:
    provider.issuer_told = "https://evil.example"

    assert client.get("/oidc/start").status_code == 403


def test_a_provider_that_is_down_is_told(client: TestClient, provider: Provider) -> None:
    provider.status = 500

    assert client.get("/oidc/start").status_code == 403
    assert client.get("/sign-in").status_code == 200

"""Access tokens: fetched once, renewed in time and when refused, signed as SMART asks."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from listener.demo.mock_servers import LOOPBACK, Reply
from pipeline.errors import NeedsReview, RetryLater
from reporting.delivery.destinations.fhir_server import FhirDestination
from reporting.delivery.transport.oauth import (
    ClientSecret,
    OAuthClient,
    PrivateKey,
    TokenCache,
    signed_jwt,
)
from tests.acceptance.standins import ScriptedFhir, closed_port
from tests.reporting.delivery.labelled import make_bundle

SECRET = "s3cret:with/signs"


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


def token_reply(token: str, **more: Any) -> Reply:
    return Reply(status=200, body={"access_token": token, "token_type": "Bearer", **more})


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=5) as client:
        yield client


@pytest.fixture
def secret(tmp_path: Path) -> ClientSecret:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    return ClientSecret(secret_file=tmp_path / "secret")


def make_client(url: str, proof: ClientSecret | PrivateKey) -> OAuthClient:
    return OAuthClient(token_url=url, client_id="smearlink", proof=proof, scope="system/*.cu")


def key_file(folder: Path, key: PrivateKeyTypes) -> Path:
    path = folder / "key.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


class TestThingsThatGoWrong:
    def test_an_absent_secret_needs_a_person(self, tmp_path: Path, http: httpx.Client) -> None:
        client = make_client("http://localhost/token", ClientSecret(secret_file=tmp_path / "no"))

        with pytest.raises(NeedsReview) as told:
            TokenCache(client).token(http)

        assert told.value.code == "secret_unusable"

    @pytest.mark.parametrize("make_key", [ed25519.Ed25519PrivateKey.generate, None])
    def test_a_key_of_another_kind_needs_a_person(
        self, tmp_path: Path, make_key: Callable[[], PrivateKeyTypes] | None
    ) -> None:
        path = key_file(tmp_path, make_key()) if make_key else tmp_path / "absent.pem"

        with pytest.raises(NeedsReview):
            signed_jwt({"iss": "smearlink"}, PrivateKey(key_file=path, key_id="k1"))

    def test_a_p_256_key_needs_a_person(self, tmp_path: Path) -> None:
        path = key_file(tmp_path, ec.generate_private_key(ec.SECP256R1()))

        with pytest.raises(NeedsReview):
            signed_jwt({"iss": "smearlink"}, PrivateKey(key_file=path, key_id="k1"))

    @pytest.mark.parametrize("status", [400, 401, 403])
    def test_a_refusal_needs_a_person_and_does_not_tell_the_secret(
        self, secret: ClientSecret, http: httpx.Client, status: int
    ) -> None:
        with ScriptedFhir(Reply(status=status)) as server, pytest.raises(NeedsReview) as told:
            TokenCache(make_client(server.url, secret)).token(http)

        assert told.value.code == "credentials_refused"
        assert SECRET not in told.value.message

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_an_endpoint_in_trouble_is_tried_later(
        self, secret: ClientSecret, http: httpx.Client, status: int
    ) -> None:
        with ScriptedFhir(Reply(status=status)) as server, pytest.raises(RetryLater):
            TokenCache(make_client(server.url, secret)).token(http)

    def test_an_absent_endpoint_is_tried_later(
        self, secret: ClientSecret, http: httpx.Client
    ) -> None:
        with pytest.raises(RetryLater):
            TokenCache(make_client(f"http://{LOOPBACK}:{closed_port()}/t", secret)).token(http)

    @pytest.mark.parametrize(
        "body",
        [
            {"no": "token"},
            {"access_token": None},
            {"access_token": ""},
            {"access_token": 7},
            {"access_token": ["first"]},
            {"access_token": {"value": "first"}},
            {"access_token": "t\u00f6ken"},
            {"access_token": "two words"},
            {"access_token": "first\r\nX-Injected: 1"},
            {"access_token": "first\0"},
            {"access_token": "first", "token_type": "mac"},
            {"access_token": "first", "token_type": "DPoP"},
            {"access_token": "first", "token_type": 1},
            {"error": "invalid_client"},
        ],
    )
    def test_an_answer_without_a_bearer_token_is_tried_later(
        self, secret: ClientSecret, http: httpx.Client, body: dict[str, Any]
    ) -> None:
        with (
            ScriptedFhir(Reply(status=200, body=body)) as server,
            pytest.raises(RetryLater) as told,
        ):
            TokenCache(make_client(server.url, secret)).token(http)

        assert told.value.code == "token_not_understood"

    @pytest.mark.parametrize(
        "content",
        [b"", b"null", b"[]", b'"first"', b"<html>log in</html>", b"\xff", b"[" * 100_000],
    )
    def test_an_answer_that_is_not_a_json_object_is_tried_later(
        self, secret: ClientSecret, content: bytes
    ) -> None:
        endpoint = httpx.MockTransport(lambda _request: httpx.Response(200, content=content))
        cache = TokenCache(make_client("https://sso.example/token", secret))

        with httpx.Client(transport=endpoint) as client, pytest.raises(RetryLater) as told:
            cache.token(client)

        assert told.value.code == "token_not_understood"

    @pytest.mark.parametrize("status", [301, 302, 404, 405, 410, 501])
    def test_an_address_without_a_token_endpoint_needs_a_person(
        self, secret: ClientSecret, http: httpx.Client, status: int
    ) -> None:
        with ScriptedFhir(Reply(status=status)) as server, pytest.raises(NeedsReview) as told:
            TokenCache(make_client(server.url, secret)).token(http)

        assert told.value.code == "wrong_address"
        assert "token_url" in told.value.message

    @pytest.mark.parametrize("url", ["ftp://sso.example/token", "sso.example/token"])
    def test_a_token_url_that_cannot_be_used_needs_a_person(
        self, secret: ClientSecret, http: httpx.Client, url: str
    ) -> None:
        with pytest.raises(NeedsReview) as told:
            TokenCache(make_client(url, secret)).token(http)

        assert told.value.code == "wrong_address"


class TestToken:
    def test_it_is_fetched_once(self, secret: ClientSecret, http: httpx.Client) -> None:
        with ScriptedFhir(token_reply("first", expires_in=3600)) as server:
            cache = TokenCache(make_client(server.url, secret), now=Clock())

            assert [cache.token(http), cache.token(http)] == ["first", "first"]

        assert len(server.requests) == 1

    @pytest.mark.parametrize("said", [None, "", "soon", -5, 0, "NaN", "Infinity", True, [], 1e400])
    def test_a_lifetime_that_is_not_one_counts_as_not_said(
        self, secret: ClientSecret, http: httpx.Client, said: object
    ) -> None:
        clock = Clock()
        replies = (token_reply("first", expires_in=said), token_reply("second"))
        with ScriptedFhir(*replies) as server:
            cache = TokenCache(make_client(server.url, secret), now=clock)

            first = cache.token(http)
            clock.now_s += 200
            still_first = cache.token(http)
            clock.now_s += 100

            assert [first, still_first, cache.token(http)] == ["first", "first", "second"]

    @pytest.mark.parametrize("kind", ["Bearer", "bearer", "BEARER", " Bearer ", None])
    def test_the_token_type_is_read_without_case(
        self, secret: ClientSecret, http: httpx.Client, kind: str | None
    ) -> None:
        reply = Reply(status=200, body={"access_token": "first", "token_type": kind})
        with ScriptedFhir(reply) as server:
            assert TokenCache(make_client(server.url, secret)).token(http) == "first"

    def test_it_is_renewed_before_it_ends(self, secret: ClientSecret, http: httpx.Client) -> None:
        clock = Clock()
        replies = (token_reply("first", expires_in=100), token_reply("second", expires_in=100))
        with ScriptedFhir(*replies) as server:
            cache = TokenCache(make_client(server.url, secret), now=clock)

            cache.token(http)
            clock.now_s += 71

            assert cache.token(http) == "second"

    def test_a_refused_one_is_not_given_again(
        self, secret: ClientSecret, http: httpx.Client
    ) -> None:
        with ScriptedFhir(token_reply("first"), token_reply("second")) as server:
            cache = TokenCache(make_client(server.url, secret), now=Clock())

            refused = cache.token(http)

            assert cache.token(http, instead_of=refused) == "second"
            assert cache.token(http, instead_of=refused) == "second"

    def test_the_secret_goes_as_http_basic(self, secret: ClientSecret, http: httpx.Client) -> None:
        with ScriptedFhir(token_reply("first")) as server:
            TokenCache(make_client(server.url, secret)).token(http)

        sent = server.requests[0]
        form = parse_qs(sent.body.decode())
        basic = base64.b64decode(sent.headers["authorization"].removeprefix("Basic "))
        assert basic == b"smearlink:s3cret%3Awith%2Fsigns"
        assert form == {"grant_type": ["client_credentials"], "scope": ["system/*.cu"]}


class TestAssertion:
    def test_es384(self, tmp_path: Path) -> None:
        key = ec.generate_private_key(ec.SECP384R1())
        proof = PrivateKey(key_file=key_file(tmp_path, key), key_id="k1")

        head, body, signature = _parts(signed_jwt({"iss": "smearlink"}, proof))

        assert json.loads(_decoded(head)) == {"alg": "ES384", "kid": "k1", "typ": "JWT"}
        raw = _decoded(signature)
        assert len(raw) == 96
        encoded = utils.encode_dss_signature(
            int.from_bytes(raw[:48], "big"), int.from_bytes(raw[48:], "big")
        )
        key.public_key().verify(encoded, f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA384()))

    def test_rs384(self, tmp_path: Path) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        proof = PrivateKey(key_file=key_file(tmp_path, key), key_id="k2")

        head, body, signature = _parts(signed_jwt({"iss": "smearlink"}, proof))

        assert json.loads(_decoded(head))["alg"] == "RS384"
        key.public_key().verify(
            _decoded(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA384()
        )

    def test_the_claims_are_those_of_smart(self, tmp_path: Path, http: httpx.Client) -> None:
        proof = PrivateKey(
            key_file=key_file(tmp_path, ec.generate_private_key(ec.SECP384R1())), key_id="k1"
        )
        clock = Clock()
        with ScriptedFhir(token_reply("first")) as server:
            client = make_client(server.url, proof)
            TokenCache(client, now=clock, new_id=lambda: "once").token(http)

        form = parse_qs(server.requests[0].body.decode())
        claims = json.loads(_decoded(_parts(form["client_assertion"][0])[1]))
        assert "authorization" not in server.requests[0].headers
        assert claims == {
            "iss": "smearlink",
            "sub": "smearlink",
            "aud": client.token_url,
            "jti": "once",
            "iat": int(clock.now_s),
            "exp": int(clock.now_s) + 240,
        }
        assert claims["exp"] - claims["iat"] <= 300


class TestRefreshByADestination:
    def test_a_401_renews_the_token_once(self, secret: ClientSecret) -> None:
        script = (
            token_reply("old"),
            Reply(status=401),
            token_reply("new"),
        )
        with ScriptedFhir(*script) as server:
            tokens = TokenCache(make_client(server.url, secret))
            receipt = FhirDestination(name="ehr", url=server.url, tokens=tokens).deliver(
                [make_bundle()]
            )

        sent = [one.headers.get("authorization") for one in server.requests]
        assert receipt.accepted == (make_bundle().uid,)
        assert [sent[1], sent[3]] == ["Bearer old", "Bearer new"]
        assert len(sent) == 4

    def test_a_second_401_needs_a_person(self, secret: ClientSecret) -> None:
        script = (token_reply("old"), Reply(status=401), token_reply("new"), Reply(status=401))
        with ScriptedFhir(*script) as server, pytest.raises(NeedsReview) as told:
            tokens = TokenCache(make_client(server.url, secret))
            FhirDestination(name="ehr", url=server.url, tokens=tokens).deliver([make_bundle()])

        assert told.value.code == "credentials_refused"
        assert len(server.requests) == 4


def _parts(jwt: str) -> tuple[str, str, str]:
    head, body, signature = jwt.split(".")
    return head, body, signature


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))

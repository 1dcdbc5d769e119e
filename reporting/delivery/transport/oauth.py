"""OAuth 2.0 for services: client credentials by secret (RFC 6749 4.4) or by signed assertion.

The assertion is that of SMART Backend Services (private_key_jwt, RFC 7523): ES384 or RS384.
Secrets and keys are read from their files each time, so that they can be changed at any time.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from reporting.delivery import DeliveryPostponed, DeliveryRefused

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_LIFE_S = 240
"""SMART Backend Services allows five minutes."""
EARLY_S = 30.0
"""A token is renewed this long before it ends, so that none ends on its way."""
DEFAULT_LIFE_S = 300.0
"""When the server does not say (RFC 6749 5.1 only recommends it)."""
P384_BYTES = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSecret:
    """A secret in a file: HTTP Basic, as RFC 6749 2.3.1 asks of every server."""

    secret_file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateKey:
    """A key in a PEM file, whose public half the server knows by `key_id`."""

    key_file: Path
    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthClient:
    """Who we are to an authorization server."""

    token_url: str
    client_id: str
    proof: ClientSecret | PrivateKey
    scope: str = ""


class TokenCache:
    """One access token, shared by the threads of a destination and renewed when needed."""

    def __init__(
        self,
        client: OAuthClient,
        *,
        now: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: secrets.token_urlsafe(24),
    ) -> None:
        self._client = client
        self._now = now
        self._new_id = new_id
        self._lock = threading.Lock()
        self._token = ""
        self._good_until = 0.0

    def token(self, http: httpx.Client, *, instead_of: str = "") -> str:
        """A token that is good now; never `instead_of`, which the server has just refused."""
        with self._lock:
            if self._now() >= self._good_until or self._token == instead_of:
                self._token, life_s = self._fetch(http)
                self._good_until = self._now() + life_s - min(EARLY_S, life_s / 2)
            return self._token

    def _fetch(self, http: httpx.Client) -> tuple[str, float]:
        form = {"grant_type": "client_credentials"}
        if self._client.scope:
            form["scope"] = self._client.scope
        headers = {"Accept": "application/json"}
        if isinstance(self._client.proof, ClientSecret):
            headers["Authorization"] = _basic(self._client.client_id, self._client.proof)
        else:
            form["client_assertion_type"] = ASSERTION_TYPE
            form["client_assertion"] = self._assertion(self._client.proof)
        try:
            answer = http.post(self._client.token_url, data=form, headers=headers)
        except httpx.HTTPError as err:
            raise DeliveryPostponed(
                f"The token endpoint cannot be reached ({type(err).__name__}).",
                code="token_endpoint_unreachable",
            ) from err
        return _token_in(answer)

    def _assertion(self, proof: PrivateKey) -> str:
        now = int(self._now())
        claims = {
            "iss": self._client.client_id,
            "sub": self._client.client_id,
            "aud": self._client.token_url,
            "jti": self._new_id(),
            "iat": now,
            "exp": now + ASSERTION_LIFE_S,
        }
        return signed_jwt(claims, proof)


def signed_jwt(claims: dict[str, Any], proof: PrivateKey) -> str:
    """A JWT (RFC 7515 compact form) signed ES384 with a P-384 key or RS384 with an RSA key."""
    key = _load_key(proof.key_file)
    algorithm = "RS384" if isinstance(key, rsa.RSAPrivateKey) else "ES384"
    header = {"alg": algorithm, "kid": proof.key_id, "typ": "JWT"}
    signed = f"{_encoded_json(header)}.{_encoded_json(claims)}"
    return f"{signed}.{_encoded(_signature(key, signed.encode('ascii')))}"


def _signature(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), hashes.SHA384())
    r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA384())))
    return r.to_bytes(P384_BYTES, "big") + s.to_bytes(P384_BYTES, "big")


def _load_key(path: Path) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise _unusable_secret(f"private key cannot be read ({type(err).__name__})") from err
    if isinstance(key, rsa.RSAPrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1):
        return key
    raise _unusable_secret("private key is neither RSA nor elliptic curve P-384")


def _basic(client_id: str, proof: ClientSecret) -> str:
    try:
        secret = proof.secret_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as err:
        raise _unusable_secret(f"client secret cannot be read ({type(err).__name__})") from err
    pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"
    return f"Basic {base64.b64encode(pair.encode('ascii')).decode('ascii')}"


def _token_in(answer: httpx.Response) -> tuple[str, float]:
    if answer.status_code >= 500 or answer.status_code == 429:
        raise DeliveryPostponed(
            f"The token endpoint answers {answer.status_code}.", code="token_endpoint_unreachable"
        )
    if answer.status_code != 200:
        raise DeliveryRefused(
            f"The token endpoint refuses us ({answer.status_code}): "
            "check client_id, secret or key, and scope.",
            code="credentials_refused",
        )
    try:
        said = answer.json()
        token, life_s = str(said["access_token"]), float(said.get("expires_in", DEFAULT_LIFE_S))
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise DeliveryPostponed(
            "The token endpoint's answer is not an OAuth token (RFC 6749 5.1).",
            code="token_not_understood",
        ) from err
    return token, life_s


def _encoded_json(value: dict[str, Any]) -> str:
    return _encoded(json.dumps(value, separators=(",", ":")).encode("utf-8"))


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def _unusable_secret(what: str) -> DeliveryRefused:
    return DeliveryRefused(
        f"The {what}: check the file that the settings name.", code="secret_unusable"
    )

"""OAuth 2.0 for services: client credentials by secret (RFC 6749 4.4) or by signed assertion.

The assertion is that of SMART Backend Services (private_key_jwt, RFC 7523): ES384 or RS384.
Secrets and keys are read from their files for each request, so that they can be changed any time.
"""

from __future__ import annotations

import base64
import math
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from reporting.delivery import DeliveryPostponed, DeliveryRefused

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_LIFE_S = 240
"""SMART Backend Services allows five minutes."""
EARLY_S = 30.0
"""A token is renewed this long before it ends, so that none ends on its way."""
DEFAULT_LIFE_S = 300.0
"""When the server does not say (RFC 6749 5.1 only recommends it)."""
ACCESS_TOKEN = re.compile(r"[\x21-\x7e]+")
"""1*VSCHAR of RFC 6749 A.12, without the space that would end it in a header."""
WRONG_ADDRESS = (404, 405, 410, 501)
TRY_AGAIN = (408, 425, 429)


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
        """A token that is valid now; never `instead_of`, which the server has just refused."""
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
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as err:
            raise DeliveryRefused("token_url cannot be used.", code="wrong_address") from err
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
    algorithm = "RS384" if isinstance(key, RSAKey) else "ES384"
    header = {"alg": algorithm, "kid": proof.key_id, "typ": "JWT"}
    try:
        return jwt.encode(header, claims, key, algorithms=[algorithm])
    except (JoseError, ValueError) as err:
        raise _unusable_secret(f"private key cannot sign {algorithm}") from err


def _load_key(path: Path) -> RSAKey | ECKey:
    try:
        content = path.read_bytes()
        key = load_pem_private_key(content, password=None)
        if isinstance(key, RSAPrivateKey):
            return RSAKey.import_key(content)
        if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP384R1):
            return ECKey.import_key(content)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm, JoseError) as err:
        raise _unusable_secret(f"private key cannot be read ({type(err).__name__})") from err
    raise _unusable_secret("private key is neither RSA nor elliptic curve P-384")


def _basic(client_id: str, proof: ClientSecret) -> str:
    try:
        secret = proof.secret_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as err:
        raise _unusable_secret(f"client secret cannot be read ({type(err).__name__})") from err
    pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"
    return f"Basic {base64.b64encode(pair.encode('ascii')).decode('ascii')}"


def _token_in(answer: httpx.Response) -> tuple[str, float]:
    """The access token and its lifetime (RFC 6749 5.1); raises for any other answer."""
    if answer.status_code in WRONG_ADDRESS or 300 <= answer.status_code < 400:
        raise DeliveryRefused(
            f"There is no token endpoint at this address ({answer.status_code}): check token_url.",
            code="wrong_address",
        )
    if answer.status_code >= 500 or answer.status_code in TRY_AGAIN:
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
    except (ValueError, RecursionError) as err:
        raise _not_a_token() from err
    if not isinstance(said, dict) or not _is_bearer_token(said):
        raise _not_a_token()
    return said["access_token"], _lifetime_s(said.get("expires_in"))


def _is_bearer_token(said: Mapping[str, Any]) -> bool:
    """Whether the answer holds a token that can stand in an Authorization header (RFC 6750)."""
    token, kind = said.get("access_token"), said.get("token_type")
    return (
        isinstance(token, str)
        and ACCESS_TOKEN.fullmatch(token) is not None
        and (kind is None or (isinstance(kind, str) and kind.strip().lower() == "bearer"))
    )


def _lifetime_s(said: Any) -> float:
    """Seconds as a number or as text; anything else counts as not said."""
    try:
        life_s = float(said)
    except (TypeError, ValueError, OverflowError):
        return DEFAULT_LIFE_S
    return life_s if 0 < life_s < math.inf and not isinstance(said, bool) else DEFAULT_LIFE_S


def _not_a_token() -> DeliveryPostponed:
    return DeliveryPostponed(
        "The token endpoint's answer is not a bearer token (RFC 6749 5.1).",
        code="token_not_understood",
    )


def _unusable_secret(what: str) -> DeliveryRefused:
    return DeliveryRefused(
        f"The {what}: check the file that the settings name.", code="secret_unusable"
    )

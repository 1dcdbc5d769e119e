"""An OpenID Connect provider on loopback, for tests: they change what it says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from joserfc import jwt
from joserfc.jwk import RSAKey

from config.sections import ConsoleSettings, OidcSettings
from tests.listener.web.console.site import ConsoleSite

CLIENT = "smearlink"
REDIRECT = "https://localhost/oidc/callback"


@dataclass
class Provider:
    """An identity provider; tests change what it says."""

    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "1"}))
    claims: dict[str, Any] = field(default_factory=dict)
    algorithm: str = "RS256"
    sign_with: Any = None
    issuer_told: str = ""
    status: int = 200
    forms: list[dict[str, list[str]]] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str) -> dict[str, Any]:
        if path.endswith("openid-configuration"):
            return {
                "issuer": self.issuer_told or self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/jwks",
            }
        if path == "/jwks":
            return {"keys": [self.key.as_dict(private=False)]}
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT,
            "exp": now + 300,
            "iat": now,
            "preferred_username": "Jane.Meyer",
            "name": "Jane Meyer",
            "roles": ["haem", "staff"],
        }
        header = {"alg": self.algorithm, "kid": "1"}
        token = jwt.encode(header, claims | self.claims, self.sign_with or self.key)
        return {"id_token": token, "access_token": "x", "token_type": "Bearer"}


@contextmanager
def identity_provider() -> Iterator[Provider]:
    """Serves until the end of the `with`."""
    made = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = json.dumps(made.answer(self.path)).encode()
            self.send_response(made.status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            made.forms.append(parse_qs(text))
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()


def provided_site(root: Path, provider: Provider) -> ConsoleSite:
    """A console on a network whose people come from the provider."""
    oidc = OidcSettings(
        issuer=provider.url,
        client_id=CLIENT,
        redirect_url=REDIRECT,
        roles={"haem": "reviewer"},
    )
    return ConsoleSite(root, settings=ConsoleSettings(oidc=oidc), is_loopback=False)

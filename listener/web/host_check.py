"""Answers only requests whose Host names this service, so that a web page elsewhere cannot reach
it under a name of its own (DNS rebinding).
"""

from __future__ import annotations

import platform
import socket
from collections.abc import Sequence
from ipaddress import ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from listener.web.connections import HEALTH_PATHS, refuse

LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain"})


class HostCheck:
    """An ASGI application that answers 421 to names which are not its own."""

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        self._app = app
        self._allowed = LOOPBACK_NAMES | {name.lower().rstrip(".") for name in allowed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on when its Host is one of ours."""
        if scope["type"] != "http" or scope["path"] in HEALTH_PATHS or self._is_ours(scope):
            await self._app(scope, receive, send)
            return
        detail = "This service has another name; add it to web.allowed_hosts."
        await refuse(send, 421, "unknown_host", detail)

    def _is_ours(self, scope: Scope) -> bool:
        """Addresses are safe: a name that is resolved again and again is what rebinding needs."""
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1:
            return not hosts and scope["http_version"] == "1.0"
        name = host_name(hosts[0].decode("latin-1"))
        return name in self._allowed or _is_address(name)


def own_names(allowed_hosts: Sequence[str]) -> list[str]:
    """The names under which this machine answers: its own, and those that the site adds."""
    return [platform.node(), socket.gethostname(), *allowed_hosts]


def host_name(host: str) -> str:
    """The name or address in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() or host.lower() if ":" in host else host.lower()


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True

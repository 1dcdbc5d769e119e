"""A stand-in PACS and a stand-in FHIR endpoint for the demonstration: small, local, well behaved.

They keep what they are given and nothing else; neither is meant for any other use.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseServer
from types import TracebackType
from typing import Any, Self

from pydicom.uid import UID
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    Verification,
)
from pynetdicom.transport import ThreadedAssociationServer

from reporting.delivery.destinations.transfer_syntax import TRANSFER_SYNTAXES

LOOPBACK = "127.0.0.1"
POLL_S = 0.05
"""How often a server looks whether it shall end."""
SUCCESS = 0x0000
CANNOT_UNDERSTAND = 0xC000
UID_FORM = re.compile(r"[0-9.]{1,64}")
FHIR_JSON = "application/fhir+json"
ENTRY_URL = re.compile(r"([A-Z][A-Za-z]{1,40})/([A-Za-z0-9\-.]{1,64})")


class _Server(ThreadedAssociationServer):
    """pynetdicom's, without its habits that suit a server that polls twice a second."""

    def service_actions(self) -> None:
        """Nothing: pynetdicom has Python look for garbage everywhere after each 60 polls."""

    def shutdown(self) -> None:
        """End as every server does."""
        BaseServer.shutdown(self)


class MockPacs:
    """Stores what it gets by C-STORE as `<SOP Instance UID>.dcm`; answers C-ECHO."""

    def __init__(self, folder: Path, *, ae_title: str = "STANDIN", port: int = 0) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self._wanted_port = port
        self._server: Any = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        entity = AE(ae_title=self.ae_title)
        entity.supported_contexts = self.contexts()
        self._server = entity.make_server(
            (LOOPBACK, self._wanted_port),
            evt_handlers=self.handlers(),
            server_class=_Server,
        )
        threading.Thread(target=self._server.serve_forever, args=(POLL_S,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        """The port that it listens on, also when 0 was asked for."""
        return int(self._server.server_address[1])

    @property
    def stored(self) -> tuple[Path, ...]:
        """The files that it keeps, by name."""
        return tuple(sorted(self.folder.glob("*.dcm")))

    def contexts(self) -> list[Any]:
        """Every storage SOP class in every transfer syntax that we send."""
        syntaxes: list[str | UID] = [*TRANSFER_SYNTAXES.values()]
        storage = (context.abstract_syntax for context in AllStoragePresentationContexts)
        classes = (*storage, Verification, StorageCommitmentPushModel)
        return [build_context(one, syntaxes) for one in classes if one]

    def handlers(self) -> list[Any]:
        """What it does on which event."""
        return [(evt.EVT_C_STORE, self.on_store)]

    def on_store(self, event: evt.Event) -> int:
        """Keep the data set as it came."""
        uid = str(getattr(event.request, "AffectedSOPInstanceUID", ""))
        if not UID_FORM.fullmatch(uid):
            return CANNOT_UNDERSTAND
        partial = self.folder / f"{uid}.part"
        partial.write_bytes(event.encoded_dataset())
        partial.replace(self.folder / f"{uid}.dcm")
        return SUCCESS


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request as the stand-in got it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What it answers."""

    status: int
    body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


class StandInFhir:
    """Takes transactions of PUT entries and keeps each version of each resource."""

    def __init__(self, *, port: int = 0) -> None:
        self.versions: dict[str, list[Mapping[str, Any]]] = {}
        """By `Type/id`, oldest first."""
        self._wanted_port = port
        self._lock = threading.Lock()
        self._server: Any = None

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer((LOOPBACK, self._wanted_port), _handler_for(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(POLL_S,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}/fhir"

    def answer(self, request: Request) -> Reply | None:
        """The reply to a request; None closes the connection without one."""
        if request.method == "GET" and request.path == "/fhir/metadata":
            return Reply(status=200, body=_capability())
        if request.method == "POST" and request.path == "/fhir":
            return self._transaction(request.body)
        if request.method == "GET":
            return self._read(request.path.removeprefix("/fhir/"))
        return _outcome(404, "not-found")

    def _transaction(self, body: bytes) -> Reply:
        try:
            entries = [_entry(one) for one in json.loads(body)["entry"]]
        except (ValueError, KeyError, TypeError):
            return _outcome(400, "structure")
        with self._lock:
            answers = [self._put(url, resource) for url, resource in entries]
        said = {"resourceType": "Bundle", "type": "transaction-response", "entry": answers}
        return Reply(status=200, body=said)

    def _put(self, url: str, resource: Mapping[str, Any]) -> dict[str, Any]:
        versions = self.versions.setdefault(url, [])
        status = "200 OK" if versions else "201 Created"
        if not versions or versions[-1] != resource:
            versions.append(resource)
        etag = f'W/"{len(versions)}"'
        location = f"{url}/_history/{len(versions)}"
        return {"response": {"status": status, "etag": etag, "location": location}}

    def _read(self, url: str) -> Reply:
        with self._lock:
            versions = self.versions.get(url, [])
            return Reply(status=200, body=versions[-1]) if versions else _outcome(404, "not-found")


def _handler_for(endpoint: StandInFhir) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            if len(body) < length:  # the client broke off: this is no request
                self.close_connection = True
                return
            reply = endpoint.answer(
                Request(
                    method=self.command,
                    path=self.path,
                    headers={name.lower(): value for name, value in self.headers.items()},
                    body=body,
                )
            )
            if reply is None:
                self.close_connection = True
                return
            self._write(reply)

        def handle(self) -> None:
            """Requests until the client is gone, which is no news."""
            with suppress(ConnectionError):
                super().handle()

        do_GET = do_POST = do_PUT = handle_any  # noqa: N815 (names set by http.server)

        def _write(self, reply: Reply) -> None:
            content = json.dumps(reply.body).encode("utf-8")
            self.send_response_only(reply.status)
            for name, value in {"Content-Type": FHIR_JSON, **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing: request lines hold no news, and stderr is the user's."""

    return Handler


def _entry(entry: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The `Type/id` and the resource of a PUT entry; raises ValueError for any other."""
    resource, request = entry["resource"], entry["request"]
    found = ENTRY_URL.fullmatch(request["url"])
    if request["method"] != "PUT" or found is None:
        raise ValueError("not a PUT to Type/id")
    if found.groups() != (resource["resourceType"], resource["id"]):
        raise ValueError("the URL does not name the resource")
    return request["url"], resource


def _outcome(status: int, code: str) -> Reply:
    issue = {"severity": "error", "code": code}
    return Reply(status=status, body={"resourceType": "OperationOutcome", "issue": [issue]})


def _capability() -> dict[str, Any]:
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "kind": "instance",
        "fhirVersion": "4.0.1",
        "format": ["json"],
        "rest": [{"mode": "server", "interaction": [{"code": "transaction"}]}],
    }

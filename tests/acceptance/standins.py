"""Destinations that misbehave on purpose: they hang, refuse, break off or answer nonsense.

Nothing here sleeps: what hangs waits for an event that its own end sets.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from listener.demo.mock_servers import LOOPBACK, MockPacs, Reply, Request, StandInFhir
from reporting.delivery.transport.pynetdicom_fixes import send_whole_messages

HANGS_AT_MOST_S = 30.0
"""So that a failed test ends too."""


class FaultyPacs(MockPacs):
    """A PACS whose answer to each C-STORE is scripted.

    `statuses` are used up in turn, then everything is Success; `hangs` never answers.
    """

    def __init__(
        self,
        folder: Path,
        *,
        statuses: Sequence[int] = (),
        hangs: bool = False,
        ae_title: str = "STANDIN",
        contexts: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(folder, ae_title=ae_title)
        self.received: list[tuple[str, str]] = []
        """SOP Instance UID and transfer syntax of each C-STORE."""
        self._statuses = list(statuses)
        self._hangs = hangs
        self._contexts = contexts
        self._ended = threading.Event()

    def mend(self) -> None:
        """Be well from now on: forget the scripted statuses."""
        self._statuses.clear()

    def contexts(self) -> list[Any]:
        return super().contexts() if self._contexts is None else [*self._contexts]

    def on_store(self, event: evt.Event) -> int:
        self.received.append(
            (str(event.request.AffectedSOPInstanceUID), str(event.context.transfer_syntax))
        )
        if self._hangs:
            self._ended.wait(HANGS_AT_MOST_S)
        status = self._statuses.pop(0) if self._statuses else 0x0000
        is_stored = status == 0x0000 or status >> 12 == 0xB
        return super().on_store(event) or status if is_stored else status

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        super().__exit__(kind, err, trace)


class CommittingPacs(FaultyPacs):
    """A PACS that takes commitment requests and reports, on the same or a new association.

    `refuses` maps a SOP Instance UID to the failure reason that is reported for it. `names` are the
    instances of each report in turn, all of them in one without it; `also` are instances that
    nobody asked about.
    """

    def __init__(
        self,
        folder: Path,
        *,
        action_status: int = 0x0000,
        reports: bool = True,
        report_to: tuple[str, int] | None = None,
        refuses: dict[str, int] | None = None,
        names: Sequence[Collection[str]] | None = None,
        also: Sequence[str] = (),
    ) -> None:
        super().__init__(folder)
        self._names = names
        self._also = also
        self.requests: list[Dataset] = []
        self.report_status: list[int] = []
        self._action_status = action_status
        self._reports = reports
        self._report_to = report_to
        self._refuses = refuses or {}

    def handlers(self) -> list[Any]:
        return [
            *super().handlers(),
            (evt.EVT_ESTABLISHED, lambda event: send_whole_messages(event.assoc)),
            (evt.EVT_N_ACTION, self._on_action),
        ]

    def _on_action(self, event: evt.Event) -> tuple[int, None]:
        request = event.action_information
        self.requests.append(request)
        if self._action_status == 0x0000 and self._reports:
            threading.Thread(target=self._report, args=(event.assoc, request), daemon=True).start()
        return self._action_status, None

    def _report(self, association: Any, request: Dataset) -> None:
        if self._report_to is None:
            self._send_reports(association, request)
            return
        entity = AE(ae_title=self.ae_title)
        entity.add_requested_context(StorageCommitmentPushModel)
        other = entity.associate(*self._report_to)
        self._send_reports(other, request)
        other.release()

    def _send_reports(self, association: Any, request: Dataset) -> None:
        asked = list(request.ReferencedSOPSequence)
        if self._names is None:
            self._send_report(association, request, asked)
            return
        for names in self._names:
            named = [one for one in asked if one.ReferencedSOPInstanceUID in names]
            self._send_report(association, request, [*named, *map(_reference, self._also)])

    def _send_report(self, association: Any, request: Dataset, asked: list[Dataset]) -> None:
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        failed = [one for one in asked if one.ReferencedSOPInstanceUID in self._refuses]
        report.ReferencedSOPSequence = [one for one in asked if one not in failed]
        if failed:
            report.FailedSOPSequence = [self._failed_item(one) for one in failed]
        with contextlib.suppress(RuntimeError, ValueError):
            response, _ = association.send_n_event_report(
                report,
                2 if failed else 1,
                StorageCommitmentPushModel,
                StorageCommitmentPushModelInstance,
            )
            self.report_status.append(response.get("Status", -1))

    def _failed_item(self, asked: Dataset) -> Dataset:
        item = Dataset()
        item.update(asked)
        item.FailureReason = self._refuses[str(asked.ReferencedSOPInstanceUID)]
        return item


def _reference(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    item.ReferencedSOPInstanceUID = uid
    return item


class ScriptedFhir(StandInFhir):
    """A FHIR endpoint that gives these replies in turn, then behaves well.

    None in the script closes the connection without an answer; `hangs` never answers.
    """

    def __init__(self, *replies: Reply | None, hangs: bool = False) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self._replies = list(replies)
        self._hangs = hangs
        self._ended = threading.Event()

    def answer(self, request: Request) -> Reply | None:
        self.requests.append(request)
        if self._hangs:
            self._ended.wait(HANGS_AT_MOST_S)
            return None
        if self._replies:
            return self._replies.pop(0)
        return super().answer(request)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        super().__exit__(kind, err, trace)


def http_answer(
    status: int, content: bytes = b"", *, media_type: str = "application/fhir+json"
) -> Callable[[socket.socket], None]:
    """Serves one HTTP request for `TcpPeer` with an answer of any bytes."""

    def serve(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as request:
            length = 0
            while line := request.readline().strip():
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            request.read(length)
            connection.sendall(
                f"HTTP/1.1 {status} Said\r\nContent-Type: {media_type}\r\n"
                f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode()
                + content
            )

    return serve


Serve = Callable[[socket.socket], None]
"""What a peer does with a connection."""


class TcpPeer:
    """A bare TCP server: `serve` is run on a thread for each connection that comes."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._listening = socket.create_server((LOOPBACK, 0))
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept()
        self._listening.close()
        for connection in self._open:
            connection.close()

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()


def says_nothing(_connection: socket.socket) -> None:
    """Takes the connection, reads nothing, answers nothing."""


def hangs_up(connection: socket.socket) -> None:
    """Closes at once."""
    connection.close()


_reserved: list[socket.socket] = []


def closed_port() -> int:
    """A port that nobody listens on, nor any other test meanwhile: it is bound and never opened."""
    reserved = socket.socket()
    reserved.bind((LOOPBACK, 0))
    _reserved.append(reserved)
    return int(reserved.getsockname()[1])


FREE_PORTS = range(20_000, 32_000)
"""Below those that systems give to whoever asks for any (RFC 6056), so that nobody gets them."""


def free_ports(count: int) -> list[int]:
    """Ports for another process to listen on, all different; free a moment ago."""
    found: list[int] = []
    for port in random.SystemRandom().sample(FREE_PORTS, len(FREE_PORTS)):
        if len(found) == count:
            break
        with contextlib.suppress(OSError), socket.create_server((LOOPBACK, port)):
            found.append(port)
    return found

"""Receivers of every kind that remember all that they were sent, for trials by killing.

Delivery is at least once: the same bytes under the same id may come again. Other bytes under the
same id, or a second id for the same report, are duplicates.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from email.parser import BytesParser
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self
from xml.etree import ElementTree as ET

from pydicom import Dataset, dcmread
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from listener.demo.mock_servers import LOOPBACK, MockPacs, Reply, Request, StandInFhir
from listener.storage.results import ReportIndex
from reporting.delivery.transport.mllp import control_id_of, framed, read_frame
from reporting.results import DICOM_KINDS, Result, ResultKind
from tests.acceptance.standins import TcpPeer
from tests.certificates import make_authority
from tests.reporting.delivery.syslog_server import Repository, repository

PATIENCE_S = 30.0
NO_SUCH_TRANSACTION = 0x0115


class CountingPeer(Protocol):
    """A receiver beside the PACS and the EHR."""

    kinds: frozenset[ResultKind]

    @property
    def destination(self) -> Mapping[str, Any]:
        """Its [[destination]]."""

    def has(self, result: Result) -> bool:
        """Whether it holds this result, and nothing newer in its place."""

    def duplicated(self, reports: Sequence[ReportIndex]) -> int:
        """How much there is of which there should be one; `reports` are all that were made."""


class CountingPacs(MockPacs):
    """A stand-in that remembers every content that it was sent under each UID."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.contents: dict[str, set[str]] = defaultdict(set)

    def on_store(self, event: evt.Event) -> int:
        status = super().on_store(event)
        digest = hashlib.sha256(event.request.DataSet.getvalue()).hexdigest()
        self.contents[str(event.request.AffectedSOPInstanceUID)].add(digest)
        return status


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentRequest:
    """An N-ACTION that is still to be reported on."""

    association: Association
    information: Dataset


class CommittingCountingPacs(CountingPacs):
    """Reports on each commitment request until the report is answered, whoever died meanwhile.

    Every other report is tried on the association of its request first, then all on associations
    of their own to wherever `port_of_service` says.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port_of_service: Callable[[], int | None] = lambda: None
        self.requests = 0
        self.reported = 0
        self.unknown: list[str] = []
        """Transactions whose report was refused as unknown."""
        self.tried_in_vain = 0
        """Reports that met a dead service."""
        self._waiting: deque[CommitmentRequest] = deque()
        self._changed = threading.Condition()
        self._is_ended = False
        self._is_holding = False
        self._reporter = threading.Thread(target=self._report_all, daemon=True)

    def __enter__(self) -> Self:
        super().__enter__()
        self._reporter.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()
        self._reporter.join(PATIENCE_S)
        super().__exit__(kind, err, trace)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Report nothing within the block, and all of it after."""
        with self._changed:
            self._is_holding = True
        try:
            yield
        finally:
            with self._changed:
                self._is_holding = False
                self._changed.notify_all()

    def handlers(self) -> list[Any]:
        return [*super().handlers(), (evt.EVT_N_ACTION, self._on_action)]

    def _on_action(self, event: evt.Event) -> tuple[int, None]:
        request = CommitmentRequest(association=event.assoc, information=event.action_information)
        with self._changed:
            self.requests += 1
            self._waiting.append(request)
            self._changed.notify_all()
        return 0x0000, None

    def _report_all(self) -> None:
        number = 0
        while (request := self._next()) is not None:
            number += 1
            with suppress(RuntimeError, ValueError, OSError):
                status = self._report(request, on_same=number % 2 == 1)
                if status is not None:
                    self.reported += 1
                    if status == NO_SUCH_TRANSACTION:
                        self.unknown.append(str(request.information.TransactionUID))
                    continue
            self.tried_in_vain += 1
            with self._changed:
                self._waiting.append(request)
                self._changed.wait(0.2)  # the service is dead; another life is to come

    def _next(self) -> CommitmentRequest | None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_ended or (self._waiting and not self._is_holding)
            )
            return None if self._is_ended else self._waiting.popleft()

    def _report(self, request: CommitmentRequest, *, on_same: bool) -> int | None:
        if on_same and request.association.is_established:
            return self._say(request.association, request.information)
        port = self.port_of_service()
        if port is None:
            return None
        entity = AE(ae_title=self.ae_title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
        entity.add_requested_context(StorageCommitmentPushModel)
        association = entity.associate(LOOPBACK, port, ae_title="SMEARLINK")
        if not association.is_established:
            return None
        status = self._say(association, request.information)
        if association.is_established:
            association.release()
        return status

    def _say(self, association: Association, information: Dataset) -> int | None:
        report = Dataset()
        report.TransactionUID = information.TransactionUID
        report.ReferencedSOPSequence = information.ReferencedSOPSequence
        response, _ = association.send_n_event_report(
            report, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        return int(response.Status) if "Status" in response else None


class CountingArchive(StandInFhir):
    """A DICOMweb server that stores what STOW-RS brings."""

    kinds = DICOM_KINDS

    def __init__(self) -> None:
        super().__init__()
        self.contents: dict[str, set[bytes]] = defaultdict(set)

    @property
    def destination(self) -> Mapping[str, Any]:
        return {"type": "stow", "name": "archive", "url": self.url}

    def has(self, result: Result) -> bool:
        return result.content in self.contents.get(result.uid, ())

    def duplicated(self, reports: Sequence[ReportIndex]) -> int:
        known = {result.uid for report in reports for result in report.results}
        two_contents = sum(len(contents) > 1 for contents in self.contents.values())
        return two_contents + len(self.contents.keys() - known)

    def answer(self, request: Request) -> Reply | None:
        head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
        parts = BytesParser().parsebytes(head + request.body).get_payload()
        stored = []
        for part in parts:
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            uid = str(dcmread(io.BytesIO(content), stop_before_pixels=True).SOPInstanceUID)
            self.contents[uid].add(content)
            stored.append({"00081155": {"vr": "UI", "Value": [uid]}})
        body = {"00081199": {"vr": "SQ", "Value": stored}}
        return Reply(status=200, body=body, headers={"Content-Type": "application/dicom+json"})


class CountingLis(TcpPeer):
    """A laboratory system that acknowledges every message by MLLP."""

    kinds = frozenset({ResultKind.HL7_MESSAGE})

    def __init__(self) -> None:
        super().__init__(self._take)
        self.messages: dict[str, set[bytes]] = defaultdict(set)
        """By message control id (MSH-10)."""
        self.last: dict[str, str] = {}
        """The control id of the last message on each filler order number (OBR-3)."""

    @property
    def destination(self) -> Mapping[str, Any]:
        return {"type": "hl7", "name": "lis", "host": LOOPBACK, "port": self.port}

    def has(self, result: Result) -> bool:
        control_id = control_id_of(result.content)
        is_here = result.content in self.messages.get(control_id, ())
        return is_here and self.last[_filler_number(result.content)] == control_id

    def duplicated(self, reports: Sequence[ReportIndex]) -> int:
        two_contents = sum(len(contents) > 1 for contents in self.messages.values())
        smears = {report.smear_id for report in reports}
        # A report keeps its number, and each of its versions is one message.
        more_numbers = max(0, len(self.last) - len(smears))
        return two_contents + more_numbers + max(0, len(self.messages) - len(reports))

    def _take(self, connection: Any) -> None:
        # A sender that dies in the middle of a message leaves half a frame.
        with connection, suppress(OSError, ValueError):
            while True:
                message = read_frame(connection, PATIENCE_S)
                control_id = control_id_of(message)
                self.messages[control_id].add(message)
                self.last[_filler_number(message)] = control_id
                connection.sendall(framed(_acknowledgment(control_id)))


class CountingFolder:
    """A share that another system reads."""

    kinds = frozenset({ResultKind.TABLE, ResultKind.FHIR_BUNDLE})

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def destination(self) -> Mapping[str, Any]:
        kinds = sorted(map(str, self.kinds))
        return {"type": "folder", "name": "share", "path": str(self._path), "kinds": kinds}

    def has(self, result: Result) -> bool:
        path = self._path / result.name
        return path.is_file() and path.read_bytes() == result.content

    def duplicated(self, reports: Sequence[ReportIndex]) -> int:
        """Files that no report has; drafts of dead processes begin with a dot."""
        known = {result.name for report in reports for result in report.results}
        visible = {path.name for path in self._path.glob("[!.]*")}
        return len(visible - known)


@dataclass
class EveryPeer:
    """All of them, and the audit repository."""

    pacs: CommittingCountingPacs
    others: tuple[CountingPeer, ...]
    audit: Repository
    syslog: Mapping[str, Any] = field(default_factory=dict)
    """[audit.syslog] that names the repository."""

    def forwarded(self) -> set[str]:
        """Hashes of the lines of the trail that the repository received."""
        return set(_hashes(self.audit.frames))


@contextmanager
def every_peer(root: Path) -> Iterator[EveryPeer]:
    """One receiver of each kind on loopback, ready."""
    authority = make_authority(root / "certificates")
    with ExitStack() as stack:
        pacs = CommittingCountingPacs(root / "pacs")
        archive = stack.enter_context(CountingArchive())
        lis = CountingLis()
        stack.enter_context(lis)
        audit = stack.enter_context(repository(authority.issue("repository")))
        yield EveryPeer(
            pacs=pacs,
            others=(archive, lis, CountingFolder(root / "share")),
            audit=audit,
            syslog={
                "enabled": True,
                "host": LOOPBACK,
                "port": audit.port,
                "ca_certificates": str(authority.ca_certificates),
            },
        )


def _filler_number(message: bytes) -> str:
    [order] = [line for line in message.decode().split("\r") if line.startswith("OBR|")]
    return order.split("|")[3]


def _acknowledgment(control_id: str) -> bytes:
    return f"MSH|^~\\&|LIS||||20261128||ACK|1|P|2.5.1\rMSA|AA|{control_id}\r".encode()


def _hashes(frames: Iterable[bytes]) -> Iterator[str]:
    """The hash of the line in each DICOM Audit Message."""
    for frame in tuple(frames):
        message = ET.fromstring(frame.partition(b"\xef\xbb\xbf")[2])  # noqa: S314 - our own
        for found in message.findall("ParticipantObjectIdentification"):
            words = [found.attrib["ParticipantObjectID"]]
            words += [
                base64.b64decode(detail.attrib["value"]).decode()
                for detail in found.iter("ParticipantObjectDetail")
                if detail.attrib["type"] == "hash"
            ]
            yield from (word for word in words if re.fullmatch("[0-9a-f]{64}", word))

"""One association, from the first byte of a connection to the last, on a thread of its own.

Every wait has a deadline, every message gets an answer or an abort, and an image that cannot be
taken is read to its end all the same, so that the sender hears why.
"""

from __future__ import annotations

import io
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from cryptography import x509
from pydicom import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    Verification,
)

from listener.dicom.dimse import (
    MAX_COMMAND_BYTES,
    Command,
    CommandField,
    Status,
    decode_command,
    encode_response,
)
from listener.dicom.negotiation import (
    AccessPolicy,
    Agreement,
    Caller,
    Refusal,
    accept,
    read_request,
    rejection_for,
)
from listener.dicom.upper_layer import (
    AbortReason,
    ConnectionLost,
    Fragment,
    PduType,
    PeerAborted,
    ProtocolViolation,
    ReleaseRequested,
    UpperLayer,
    abort,
    command_pdu,
    fragments,
    reject,
    release_reply,
)

MAX_REPORT_BYTES = 4 * 2**20
"""A commitment report takes some 200 bytes an image."""
SLOWEST_BYTES_PER_S = 16 * 1024
"""A sender slower than this over a whole message is taken for one that wants to hold a slot."""
LINGER_S = 1.0
"""How long a peer may take to read our last word and hang up."""


class End(Enum):
    """How an association ended."""

    RELEASED = auto()
    ABORTED_BY_PEER = auto()
    ABORTED_BY_US = auto()
    LOST = auto()
    REFUSED = auto()
    STOPPED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds for each phase of a connection."""

    acse_s: float
    """TLS handshake and association request together."""
    dimse_s: float
    """Between two signs of life within a message, and for the peer to take an answer."""
    idle_s: float
    """Between two messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a service made of a message."""

    status: Status
    comment: str = ""


class Services(Protocol):
    """What can be asked of us once an association stands."""

    def store(
        self,
        caller: Caller,
        command: Command,
        transfer_syntax_uid: str,
        pieces: Iterator[memoryview],
    ) -> Answer:
        """Take one image in; may leave `pieces` unread. Raises only the Interrupted of `pieces`."""

    def stored(self) -> None:
        """The answer to the last `store` is out, or could not be sent."""

    def report_commitment(self, caller: Caller, command: Command, report: Dataset) -> Answer:
        """Take a storage commitment report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScpPolicy:
    """The rules that every connection is held to."""

    access: AccessPolicy
    deadlines: Deadlines
    max_pdu_bytes: int
    max_message_bytes: int
    """A dataset that was refused is read on up to here, so that the sender hears why; what goes
    on longer is cut off."""
    tls_context: Callable[[], ssl.SSLContext] | None
    take_slot: Callable[[], bool]
    """Whether there is room for one more association; it is given back by the caller."""
    is_stopping: Callable[[], bool]


@dataclass(slots=True, kw_only=True)
class ConnectionState:
    """Where a connection stands, for whoever watches it from outside."""

    socket: socket.socket
    caller: Caller
    """Without an AE title until it has introduced itself."""
    has_slot: bool = False
    is_busy: bool = False
    """In the middle of a message: hanging up now would make the sender send again."""
    problem: str = ""
    """The code of what went wrong, if anything did."""


def serve_association(progress: ConnectionState, house: ScpPolicy, services: Services) -> End:
    """Serve one connection to its end. Raises nothing that the peer can cause."""
    deadline = time.monotonic() + house.deadlines.acse_s
    try:
        _secure(progress, house)
    except OSError:
        progress.problem = "tls_failed"
        return End.LOST
    wire = UpperLayer(progress.socket, max_pdu_bytes=house.max_pdu_bytes)
    try:
        agreement = _negotiate(wire, progress, house, within_s=deadline - time.monotonic())
        if agreement is None:
            return End.REFUSED
        return _Association(wire, agreement, progress, house, services).run()
    except ProtocolViolation as err:
        progress.problem = err.code
        _say_abort(wire, err.reason)
        return End.ABORTED_BY_US
    except ConnectionLost as err:
        progress.problem = err.code
        _say_abort(wire, AbortReason.NOT_SPECIFIED)
        return End.LOST


def _secure(progress: ConnectionState, house: ScpPolicy) -> None:
    """Put the socket inside TLS, where TLS is on; here, so that the accept loop never waits."""
    progress.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if house.tls_context is None:
        return
    wrapped = house.tls_context().wrap_socket(
        progress.socket, server_side=True, do_handshake_on_connect=False
    )
    progress.socket = wrapped
    wrapped.settimeout(house.deadlines.acse_s)
    wrapped.do_handshake()


def _negotiate(
    wire: UpperLayer, progress: ConnectionState, house: ScpPolicy, *, within_s: float
) -> Agreement | None:
    """Negotiate; None when the caller was turned away."""
    pdu = wire.read_pdu(first_byte_s=within_s, rest_s=within_s)
    if pdu.kind is not PduType.ASSOCIATE_RQ:
        raise ProtocolViolation("Expected A-ASSOCIATE-RQ", reason=AbortReason.UNEXPECTED_PDU)
    request = read_request(wire.header_of(pdu))
    progress.caller = Caller(
        ae_title=request.calling_ae_title,
        address=progress.caller.address,
        certificate_subject=_certificate_subject(progress.socket),
    )
    refusal = rejection_for(request, progress.caller, house.access)
    if refusal is None and not house.take_slot():
        refusal = Refusal.TOO_MANY_ASSOCIATIONS
    if refusal is not None:
        progress.problem = refusal.name.lower()
        wire.send(reject(*refusal.value), within_s=house.deadlines.acse_s)
        wire.linger(within_s=LINGER_S)
        return None
    progress.has_slot = True
    agreement = accept(request, max_pdu_bytes=house.max_pdu_bytes)
    wire.send(agreement.reply, within_s=house.deadlines.acse_s)
    return agreement


def _certificate_subject(sock: socket.socket) -> str:
    certificate = sock.getpeercert(binary_form=True) if isinstance(sock, ssl.SSLSocket) else None
    if certificate is None:
        return ""
    return x509.load_der_x509_certificate(certificate).subject.rfc4514_string()


def _say_abort(wire: UpperLayer, reason: AbortReason) -> None:
    with suppress(ConnectionLost):
        wire.send(abort(reason), within_s=LINGER_S)
        wire.linger(within_s=LINGER_S)


class _Association:
    """The messages of one accepted association."""

    def __init__(
        self,
        wire: UpperLayer,
        agreement: Agreement,
        progress: ConnectionState,
        house: ScpPolicy,
        services: Services,
    ) -> None:
        self._wire = wire
        self._contexts = agreement.contexts
        self._caller = progress.caller
        self._progress = progress
        self._house = house
        self._services = services
        self._arriving = self._fragments()

    def run(self) -> End:
        try:
            while not self._house.is_stopping():
                self._serve_message()
        except ReleaseRequested:
            self._wire.send(release_reply(), within_s=self._house.deadlines.dimse_s)
            self._wire.linger(within_s=LINGER_S)
            return End.RELEASED
        except PeerAborted as err:
            self._progress.problem = err.code
            return End.ABORTED_BY_PEER
        self._progress.problem = "service_stopping"
        _say_abort(self._wire, AbortReason.NOT_SPECIFIED)
        return End.STOPPED

    def _serve_message(self) -> None:
        context, command = self._read_command()
        match command.field, context.abstract_syntax:
            case CommandField.C_ECHO_RQ, _:
                self._finish(context, command, Answer(status=Status.SUCCESS))
            case CommandField.C_STORE_RQ, syntax if syntax != Verification:
                self._store(context, command)
            case CommandField.N_EVENT_REPORT_RQ, syntax if syntax == StorageCommitmentPushModel:
                self._take_report(context, command)
            case CommandField.C_CANCEL_RQ, _:
                """Nothing that we do can be cancelled, and a cancel has no response."""
            case _:
                answer = Answer(status=Status.UNRECOGNIZED_OPERATION)
                self._finish(context, command, answer)

    def _store(self, context: PresentationContext, command: Command) -> None:
        pieces = self._pieces(context, command)
        answer = self._services.store(
            self._caller, command, str(context.transfer_syntax[0]), pieces
        )
        try:
            for _ in pieces:
                """What was refused is read to its end: the answer must follow the message."""
            self._answer(context, command, answer)
        finally:
            self._services.stored()

    def _take_report(self, context: PresentationContext, command: Command) -> None:
        data = bytearray()
        for piece in self._pieces(context, command):
            data += piece
            if len(data) > MAX_REPORT_BYTES:
                raise ProtocolViolation(
                    "A commitment report is too long", reason=AbortReason.NOT_SPECIFIED
                )
        is_implicit = context.transfer_syntax[0] == ImplicitVRLittleEndian
        try:
            report = read_dataset(io.BytesIO(bytes(data)), is_implicit, True)
        except Exception as err:
            raise ProtocolViolation(
                "A commitment report is no dataset", reason=AbortReason.NOT_SPECIFIED
            ) from err
        answer = self._services.report_commitment(self._caller, command, report)
        self._answer(context, command, answer)

    def _finish(self, context: PresentationContext, command: Command, answer: Answer) -> None:
        for _ in self._pieces(context, command):
            """A dataset that nobody asked for."""
        self._answer(context, command, answer)

    def _answer(self, context: PresentationContext, command: Command, answer: Answer) -> None:
        response = encode_response(command, answer.status, comment=answer.comment)
        self._wire.send(
            command_pdu(_id_of(context), response), within_s=self._house.deadlines.dimse_s
        )

    def _read_command(self) -> tuple[PresentationContext, Command]:
        self._progress.is_busy = False
        fragment = next(self._arriving)
        self._progress.is_busy = True
        context = self._contexts.get(fragment.context_id)
        if context is None:
            raise _unexpected("A presentation context that was not accepted")
        data = bytearray()
        while True:
            if not fragment.is_command or fragment.context_id != _id_of(context):
                raise _unexpected("Expected a command (PS3.8 annex E)")
            data += fragment.data
            if len(data) > MAX_COMMAND_BYTES:
                raise _unexpected("A command is too long")
            if fragment.is_last:
                return context, decode_command(data)
            fragment = next(self._arriving)

    def _pieces(self, context: PresentationContext, command: Command) -> Iterator[memoryview]:
        """The dataset that belongs to `command`, as it comes in."""
        if not command.has_dataset:
            return
        started, received = time.monotonic(), 0
        for fragment in self._arriving:
            if fragment.is_command or fragment.context_id != _id_of(context):
                raise _unexpected("Expected a dataset (PS3.8 annex E)")
            received += len(fragment.data)
            if received > self._house.max_message_bytes:
                raise ProtocolViolation("A dataset has no end", reason=AbortReason.NOT_SPECIFIED)
            patience_s = self._house.deadlines.dimse_s + received / SLOWEST_BYTES_PER_S
            if time.monotonic() - started > patience_s:
                raise ConnectionLost("The peer sends too slowly", code="peer_slow")
            yield fragment.data
            if fragment.is_last:
                return

    def _fragments(self) -> Iterator[Fragment]:
        """Everything that comes in, until the peer or we end it."""
        while True:
            is_busy, deadlines = self._progress.is_busy, self._house.deadlines
            pdu = self._wire.read_pdu(
                first_byte_s=deadlines.dimse_s if is_busy else deadlines.idle_s,
                rest_s=deadlines.dimse_s,
            )
            if pdu.kind is PduType.DATA:
                yield from fragments(pdu)
            elif pdu.kind is PduType.ABORT:
                raise PeerAborted
            elif pdu.kind is PduType.RELEASE_RQ and not is_busy:
                raise ReleaseRequested
            else:
                raise _unexpected("Expected P-DATA-TF")


def _id_of(context: PresentationContext) -> int:
    return int(context.context_id or 0)


def _unexpected(message: str) -> ProtocolViolation:
    return ProtocolViolation(message, reason=AbortReason.UNEXPECTED_PDU)

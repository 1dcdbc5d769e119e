"""Serves one association on a thread of its own, from the A-ASSOCIATE-RQ to its end.

Every wait has a deadline, every message gets a response or an A-ABORT, and a dataset that is
refused is read to its end all the same, so that the sender receives the status.
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
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    Verification,
)

from listener.dicom.ae_title_access import AccessPolicy, Caller, rejection_for
from listener.dicom.associate_request import parse_request
from listener.dicom.dimse import (
    MAX_COMMAND_BYTES,
    Command,
    CommandField,
    Status,
    decode_command,
    encode_response,
)
from listener.dicom.negotiation import AcceptedContext, Agreement, accept
from listener.dicom.reception import Answer
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
from listener.storage.dataset_scan import check_structure
from pipeline.errors import Rejected

MAX_REPORT_BYTES = 2**20
"""A commitment report takes some 200 bytes an image."""
MAX_REPORT_ELEMENTS = 50_000
"""Items and elements of a report; an image takes three."""
SLOWEST_BYTES_PER_S = 16 * 1024
"""A sender slower than this over a whole message is taken for one that only holds its place."""
COMMAND_S = 10.0
"""A whole command arrives within this time of its first byte; it is one PDU of 200 bytes."""
SLOW_AFTER_S = 2.0
"""How long a dataset may take to come up to speed before its association counts as at rest."""
LINGER_S = 1.0
"""How long a peer may take to read our last PDU and hang up."""


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
    """Between two signs of life within a message, and for the peer to take a response."""
    idle_s: float
    """Between two messages."""


class Services(Protocol):
    """What a peer can request on an association."""

    def store(
        self, command: Command, transfer_syntax_uid: str, pieces: Iterator[memoryview]
    ) -> Answer:
        """Receives one image; may leave `pieces` unread. Raises only the AssociationEnded of
        `pieces`.
        """

    def stored(self) -> None:
        """The response to the last `store` has been sent, or could not be."""

    def refuse_report(self, command: Command) -> Answer | None:
        """Why this caller may not send this report, before its dataset is read; None if it may."""

    def report_commitment(self, report: Dataset) -> Answer:
        """Receives a storage commitment report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScpPolicy:
    """The rules for every association."""

    access: AccessPolicy
    deadlines: Deadlines
    max_pdu_bytes: int
    max_message_bytes: int
    """A dataset that was refused is read up to here, so that the sender receives the status;
    a longer one ends in an A-ABORT."""
    is_stopping: Callable[[], bool]
    monotonic: Callable[[], float] = time.monotonic


@dataclass(slots=True, kw_only=True, eq=False)
class ConnectionState:
    """The state of an association, written by its thread and read by others."""

    socket: socket.socket
    caller: Caller
    started_at: float = 0.0
    """monotonic time when the request had arrived."""
    is_busy: bool = False
    """In the middle of a message: hanging up now would make the sender send again."""
    resting_since: float | None = None
    """When the last message ended; None once the next command is complete."""
    dataset_since: float | None = None
    """When the dataset that is arriving began."""
    dataset_bytes: int = 0
    has_carried: bool = False
    """Whether an image or a report came in it."""
    is_displaced: bool = False
    """Hung up on to make room for another peer."""
    problem: str = ""
    """The code of what went wrong, if anything did."""
    deviations: tuple[str, ...] = ()
    """What deviates from the standard in its request and was tolerated."""

    def resting_s(self, now: float) -> float:
        """Time without progress: between messages, within a command, or in a dataset too slow."""
        since, dataset_since = self.resting_since, self.dataset_since
        if since is not None:
            return now - since
        if dataset_since is not None and now - dataset_since > SLOW_AFTER_S:
            return max(0.0, now - dataset_since - self.dataset_bytes / SLOWEST_BYTES_PER_S)
        return 0.0


def serve_association(
    state: ConnectionState, policy: ScpPolicy, services: Services, request: bytes
) -> End:
    """Serves the association that `request` asks for. Raises nothing that the peer can cause."""
    upper_layer = UpperLayer(state.socket, max_pdu_bytes=policy.max_pdu_bytes)
    try:
        agreement = _negotiate(upper_layer, state, policy, request)
        if agreement is None:
            return End.REFUSED
        return _Association(upper_layer, agreement, state, policy, services).run()
    except ProtocolViolation as err:
        state.problem = err.code
        _send_abort(upper_layer, err.reason)
        return End.ABORTED_BY_US
    except ConnectionLost as err:
        state.problem = "displaced" if state.is_displaced else err.code
        _send_abort(upper_layer, AbortReason.NOT_SPECIFIED)
        return End.LOST


def certificate_subject(sock: socket.socket) -> str:
    """RFC 4514 text of the client certificate that the TLS handshake verified; empty without."""
    certificate = sock.getpeercert(binary_form=True) if isinstance(sock, ssl.SSLSocket) else None
    if certificate is None:
        return ""
    return x509.load_der_x509_certificate(certificate).subject.rfc4514_string()


def _negotiate(
    upper_layer: UpperLayer, state: ConnectionState, policy: ScpPolicy, pdu: bytes
) -> Agreement | None:
    """Accepts or rejects the association; None when it was rejected."""
    request = parse_request(pdu)
    state.deviations = request.deviations
    rejection = rejection_for(request, state.caller, policy.access)
    if rejection is not None:
        state.problem = rejection.name.lower()
        upper_layer.send(reject(*rejection.value), within_s=policy.deadlines.acse_s)
        upper_layer.linger(within_s=LINGER_S)
        return None
    agreement = accept(request, max_pdu_bytes=policy.max_pdu_bytes)
    upper_layer.send(agreement.reply, within_s=policy.deadlines.acse_s)
    return agreement


def _send_abort(upper_layer: UpperLayer, reason: AbortReason) -> None:
    with suppress(ConnectionLost):
        upper_layer.send(abort(reason), within_s=LINGER_S)
        upper_layer.linger(within_s=LINGER_S)


class _Association:
    """The messages of one accepted association."""

    def __init__(
        self,
        upper_layer: UpperLayer,
        agreement: Agreement,
        state: ConnectionState,
        policy: ScpPolicy,
        services: Services,
    ) -> None:
        self._upper_layer = upper_layer
        self._contexts = agreement.contexts
        self._state = state
        self._policy = policy
        self._monotonic = policy.monotonic
        self._services = services
        self._command_deadline: float | None = None
        self._arriving = self._fragments()

    def run(self) -> End:
        """Serves messages until the peer or the service ends the association."""
        try:
            while not self._policy.is_stopping():
                self._serve_message()
        except ReleaseRequested:
            self._upper_layer.send(release_reply(), within_s=self._policy.deadlines.dimse_s)
            self._upper_layer.linger(within_s=LINGER_S)
            return End.RELEASED
        except PeerAborted as err:
            self._state.problem = err.code
            return End.ABORTED_BY_PEER
        self._state.problem = "service_stopping"
        _send_abort(self._upper_layer, AbortReason.NOT_SPECIFIED)
        return End.STOPPED

    def _serve_message(self) -> None:
        context, command = self._read_command()
        match command.field, context.abstract_syntax:
            case CommandField.C_ECHO_RQ, _:
                self._finish(context, command, Answer(status=Status.SUCCESS))
            case CommandField.C_STORE_RQ, syntax if syntax != Verification:
                self._store(context, command)
            case CommandField.N_EVENT_REPORT_RQ, syntax if syntax == StorageCommitmentPushModel:
                self._receive_report(context, command)
            case CommandField.C_CANCEL_RQ, _:
                """Nothing that we do can be cancelled, and a C-CANCEL has no response."""
            case _:
                answer = Answer(status=Status.UNRECOGNIZED_OPERATION)
                self._finish(context, command, answer)

    def _store(self, context: AcceptedContext, command: Command) -> None:
        pieces = self._pieces(context, command)
        self._state.has_carried = True
        answer = self._services.store(command, str(context.transfer_syntax), pieces)
        try:
            for _ in pieces:
                """What was refused is read to its end: the response must follow the message."""
            self._respond(context, command, answer)
        finally:
            self._services.stored()

    def _receive_report(self, context: AcceptedContext, command: Command) -> None:
        refusal = self._services.refuse_report(command)
        if refusal is not None:
            self._finish(context, command, refusal)
            return
        data = bytearray()
        for piece in self._pieces(context, command):
            data += piece
            if len(data) > MAX_REPORT_BYTES:
                raise ProtocolViolation(
                    "A commitment report is too long", reason=AbortReason.NOT_SPECIFIED
                )
        is_implicit = context.transfer_syntax == ImplicitVRLittleEndian
        report = _read_report(bytes(data), is_implicit=is_implicit)
        self._state.has_carried = True
        answer = self._services.report_commitment(report)
        self._respond(context, command, answer)

    def _finish(self, context: AcceptedContext, command: Command, answer: Answer) -> None:
        for _ in self._pieces(context, command):
            """A dataset that is not wanted."""
        self._respond(context, command, answer)

    def _respond(self, context: AcceptedContext, command: Command, answer: Answer) -> None:
        response = encode_response(command, answer.status, comment=answer.comment)
        self._upper_layer.send(
            command_pdu(context.context_id, response), within_s=self._policy.deadlines.dimse_s
        )

    def _read_command(self) -> tuple[AcceptedContext, Command]:
        state = self._state
        state.resting_since, state.is_busy = self._monotonic(), False
        fragment = next(self._arriving)
        state.is_busy = True
        self._command_deadline = self._monotonic() + min(COMMAND_S, self._policy.deadlines.dimse_s)
        context = self._contexts.get(fragment.context_id)
        if context is None:
            raise _unexpected("A presentation context that was not accepted")
        data = bytearray()
        while True:
            if not fragment.is_command or fragment.context_id != context.context_id:
                raise _unexpected("Expected a command (PS3.8 annex E)")
            data += fragment.data
            if len(data) > MAX_COMMAND_BYTES:
                raise _unexpected("A command is too long")
            if fragment.is_last:
                self._command_deadline = state.resting_since = None
                return context, decode_command(data)
            fragment = next(self._arriving)

    def _pieces(self, context: AcceptedContext, command: Command) -> Iterator[memoryview]:
        """The dataset that belongs to `command`, as it arrives."""
        if not command.has_dataset:
            return
        state, monotonic = self._state, self._monotonic
        most, dimse_s = self._policy.max_message_bytes, self._policy.deadlines.dimse_s
        started = state.dataset_since = monotonic()
        received = state.dataset_bytes = 0
        try:
            for context_id, is_command, is_last, data in self._arriving:
                if is_command or context_id != context.context_id:
                    raise _unexpected("Expected a dataset (PS3.8 annex E)")
                received = state.dataset_bytes = received + len(data)
                if received > most:
                    raise ProtocolViolation(
                        "A dataset has no end", reason=AbortReason.NOT_SPECIFIED
                    )
                arrived = monotonic()
                if arrived - started > dimse_s + received / SLOWEST_BYTES_PER_S:
                    raise ConnectionLost("The peer sends too slowly", code="peer_slow")
                if is_last:
                    state.dataset_since = None
                yield data
                if is_last:
                    return
                # The time that we took ourselves is not held against the sender.
                started += monotonic() - arrived
                state.dataset_since = started
        finally:
            state.dataset_since = None

    def _fragments(self) -> Iterator[Fragment]:
        """Everything that arrives, until the peer or we end it."""
        while True:
            pdu = self._upper_layer.arrived_data() or self._upper_layer.read_pdu(
                first_byte_s=self._patience_s(), rest_s=self._rest_s()
            )
            if pdu.kind is PduType.DATA:
                yield from fragments(pdu)
            elif pdu.kind is PduType.ABORT:
                raise PeerAborted
            elif pdu.kind is PduType.RELEASE_RQ and not self._state.is_busy:
                raise ReleaseRequested
            else:
                raise _unexpected("Expected P-DATA-TF")

    def _patience_s(self) -> float:
        """How long the next PDU may take to begin."""
        deadlines = self._policy.deadlines
        if not self._state.is_busy:
            return deadlines.idle_s
        return self._rest_s()

    def _rest_s(self) -> float:
        """How long a PDU may take, and no longer than the command that it belongs to."""
        if self._command_deadline is None:
            return self._policy.deadlines.dimse_s
        return max(0.0, self._command_deadline - self._monotonic())


def _read_report(data: bytes, *, is_implicit: bool) -> Dataset:
    """The dataset of a commitment report. Raises ProtocolViolation when it is none."""
    try:
        check_structure(data, is_implicit=is_implicit, max_elements=MAX_REPORT_ELEMENTS)
        return read_dataset(io.BytesIO(data), is_implicit, True)
    except Rejected as err:
        raise ProtocolViolation(err.message, reason=AbortReason.NOT_SPECIFIED) from err
    except Exception as err:
        raise ProtocolViolation(
            "A commitment report is not a dataset", reason=AbortReason.NOT_SPECIFIED
        ) from err


def _unexpected(message: str) -> ProtocolViolation:
    return ProtocolViolation(message, reason=AbortReason.UNEXPECTED_PDU)

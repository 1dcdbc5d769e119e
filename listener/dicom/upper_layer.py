"""Reads and writes DICOM Upper Layer PDUs (PS3.8 section 9.3) on a socket that may be hostile.

Nothing is read without a deadline and nothing is kept beyond a length that was agreed. Payloads
are passed on as slices of one buffer, so an image passes through without being copied.
"""

from __future__ import annotations

import math
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

MAX_ASSOCIATE_BYTES = 256 * 1024
"""The largest A-ASSOCIATE-RQ: 128 contexts with a dozen syntaxes each stay far below."""
_CONTROL_BYTES = 4
"""A-RELEASE-RQ, A-RELEASE-RP and A-ABORT carry four bytes."""


class PduType(IntEnum):
    """PS3.8 section 9.3.1."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


class AbortReason(IntEnum):
    """PS3.8 table 9-26, source DICOM UL service-provider."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    INVALID_PARAMETER = 6


class AssociationEnded(Exception):
    """The association ends here, whatever was in progress; `code` is a stable word."""

    code = "interrupted"


class ReleaseRequested(AssociationEnded):
    """A-RELEASE-RQ came in."""

    code = "released"


class PeerAborted(AssociationEnded):
    """A-ABORT came in."""

    code = "peer_aborted"


class ConnectionLost(AssociationEnded):
    """The peer is gone, silent, or not a DICOM peer; it may not receive an A-ABORT."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class ProtocolViolation(AssociationEnded):
    """The peer sent what the protocol does not allow; the response is an A-ABORT."""

    code = "protocol_broken"

    def __init__(self, message: str, *, reason: AbortReason) -> None:
        super().__init__(message)
        self.reason = reason


class Pdu(NamedTuple):
    """One PDU; `body` is a slice of the wire's buffer, valid until the next one is read."""

    kind: PduType
    body: memoryview


class Fragment(NamedTuple):
    """One presentation data value (PS3.8 9.3.5.1 and annex E.2)."""

    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview


_PDU_HEADER = Struct(">BxL")
_ITEM = Struct(">BxH")
_CONTEXT_RESULT = Struct(">BxBx")
_FRAGMENT_HEADER = Struct(">LBB")
_ABORT = Struct(">BxLxxBB")
_REJECT = Struct(">BxLxBBB")
_IS_COMMAND, _IS_LAST = 1, 2


class UpperLayer:
    """PDUs over one connected socket, with one buffer for all of them."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        max_pdu_bytes: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sock = sock
        self._readiness = None if isinstance(sock, ssl.SSLSocket) else Readiness(sock)
        """Of a plain socket; TLS keeps bytes of its own, of which the kernel knows nothing."""
        self._max_pdu_bytes = max_pdu_bytes
        self._monotonic = monotonic
        self._buffer = bytearray(max(MAX_ASSOCIATE_BYTES, 4 * max_pdu_bytes) + _PDU_HEADER.size)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0

    def read_pdu(self, *, first_byte_s: float, rest_s: float) -> Pdu:
        """The next PDU: its first byte within `first_byte_s`, all of it `rest_s` after that.

        Raises ConnectionLost or ProtocolViolation.
        """
        deadline = 0.0
        if self._end - self._start < _PDU_HEADER.size:
            self._fill(1, self._monotonic() + first_byte_s)
            deadline = self._monotonic() + rest_s
            self._fill(_PDU_HEADER.size, deadline)
        number, length = _PDU_HEADER.unpack_from(self._buffer, self._start)
        kind = self._checked_kind(number, length)
        if self._end - self._start < _PDU_HEADER.size + length:
            self._fill(_PDU_HEADER.size + length, deadline or self._monotonic() + rest_s)
        begin = self._start + _PDU_HEADER.size
        self._start = begin + length
        return Pdu(kind=kind, body=self._view[begin : self._start])

    def arrived_data(self) -> Pdu | None:
        """The next PDU where it is a P-DATA-TF that is there already; `read_pdu` judges others."""
        begin, end = self._start + _PDU_HEADER.size, self._end
        if begin > end:
            return None
        number, length = _PDU_HEADER.unpack_from(self._buffer, self._start)
        if number != PduType.DATA or length > self._max_pdu_bytes or begin + length > end:
            return None
        self._start = begin + length
        return Pdu(PduType.DATA, self._view[begin : self._start])

    def send(self, data: bytes, *, within_s: float) -> None:
        """Send all of `data`. Raises ConnectionLost."""
        try:
            if self._readiness is not None:
                self._readiness.send_all(data, within_s)
            else:
                self._sock.settimeout(within_s)
                self._sock.sendall(data)
        except OSError as err:
            raise ConnectionLost("The peer does not take our answer", code="peer_lost") from err

    def linger(self, *, within_s: float) -> None:
        """Read and forget until the peer closes, as PS3.8 table 9-10 asks (state 13): a close
        with bytes unread would reset the line and take our last word with it.
        """
        deadline = self._monotonic() + within_s
        try:
            if isinstance(self._sock, ssl.SSLSocket):
                self._sock.settimeout(within_s)
                self._sock.unwrap()
                return
            while self._receive_into(self._view, deadline):
                pass
        except (OSError, ConnectionLost):
            return

    def _checked_kind(self, number: int, length: int) -> PduType:
        kind = _kind_of(number)
        if length > self._longest(kind):
            raise ProtocolViolation(
                "A PDU is longer than agreed (PS3.8 D.1)", reason=AbortReason.INVALID_PARAMETER
            )
        return kind

    def _longest(self, kind: PduType) -> int:
        if kind is PduType.DATA:
            return self._max_pdu_bytes
        return MAX_ASSOCIATE_BYTES if kind is PduType.ASSOCIATE_RQ else _CONTROL_BYTES

    def _fill(self, count: int, deadline: float) -> None:
        """Makes `count` contiguous bytes available from `_start` on."""
        if self._end - self._start >= count:
            return
        if self._start == self._end or self._start + count > len(self._buffer):
            self._compact()
        while self._end - self._start < count:
            received = self._receive_into(self._view[self._end :], deadline)
            if not received:
                raise ConnectionLost("The peer closed the connection", code="peer_gone")
            self._end += received

    def _compact(self) -> None:
        rest = self._end - self._start
        self._view[:rest] = bytes(self._view[self._start : self._end])
        self._start, self._end = 0, rest

    def _receive_into(self, target: memoryview, deadline: float) -> int:
        remaining = deadline - self._monotonic()
        if remaining <= 0:
            raise ConnectionLost("The peer was silent for too long", code="peer_silent")
        try:
            if self._readiness is not None:
                return self._readiness.receive_into(target, remaining)
            self._sock.settimeout(remaining)
            return self._sock.recv_into(target)
        except (TimeoutError, ssl.SSLWantReadError) as err:
            raise ConnectionLost("The peer was silent for too long", code="peer_silent") from err
        except OSError as err:
            raise ConnectionLost("The connection broke", code="peer_lost") from err


class Readiness:
    """Waits for a plain socket only when there is a need to: a socket with a timeout would cost
    two system calls more for each PDU.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._reading, self._writing = select.poll(), select.poll()
        self._reading.register(sock, select.POLLIN)
        self._writing.register(sock, select.POLLOUT)
        self._is_drained = True
        """The last read took all that was there, so that the next one has to wait."""

    def receive_into(self, target: memoryview, within_s: float) -> int:
        """Some bytes, 0 at the end of the stream. Raises OSError, TimeoutError among them."""
        give_up = time.monotonic() + within_s
        while True:
            if self._is_drained:
                _wait(self._reading, give_up)
            try:
                received = self._sock.recv_into(target)
            except BlockingIOError:
                self._is_drained = True
                continue
            self._is_drained = received < len(target)
            return received

    def send_all(self, data: bytes, within_s: float) -> None:
        """Sends all of `data`. Raises OSError, TimeoutError among them."""
        rest = memoryview(data)
        give_up = time.monotonic() + within_s
        while rest:
            try:
                rest = rest[self._sock.send(rest) :]
            except BlockingIOError:
                _wait(self._writing, give_up)


def _wait(poll: select.poll, give_up: float) -> None:
    rest_ms = max(0, math.ceil(1000 * (give_up - time.monotonic())))
    if not poll.poll(rest_ms):
        raise TimeoutError("the peer was silent for too long")


def associate_length(received: bytes | bytearray) -> int:
    """How many bytes the A-ASSOCIATE-RQ that begins with `received` has, as far as is known yet.

    Raises ProtocolViolation as soon as it is another PDU, or too long.
    """
    if not received:
        return _PDU_HEADER.size
    if _kind_of(received[0]) is not PduType.ASSOCIATE_RQ:
        raise ProtocolViolation("Expected A-ASSOCIATE-RQ", reason=AbortReason.UNEXPECTED_PDU)
    if len(received) < _PDU_HEADER.size:
        return _PDU_HEADER.size
    _, length = _PDU_HEADER.unpack_from(received)
    if length > MAX_ASSOCIATE_BYTES:
        raise ProtocolViolation(
            "The A-ASSOCIATE-RQ is too long", reason=AbortReason.INVALID_PARAMETER
        )
    return _PDU_HEADER.size + int(length)


def fragments(pdu: Pdu) -> Iterator[Fragment]:
    """Every presentation data value of a P-DATA-TF. Raises ProtocolViolation."""
    body = pdu.body
    position, size = 0, len(body)
    while position < size:
        begin = position + _FRAGMENT_HEADER.size
        if begin > size:
            raise _torn()
        length, context_id, control = _FRAGMENT_HEADER.unpack_from(body, position)
        end = position + 4 + length
        if length < 2 or end > size:
            raise _torn()
        yield Fragment(
            context_id=context_id,
            is_command=control & _IS_COMMAND != 0,
            is_last=control & _IS_LAST != 0,
            data=body[begin:end],
        )
        position = end


def command_pdu(context_id: int, command: bytes) -> bytes:
    """One command in one P-DATA-TF; ours are far below any peer's maximum."""
    value = _FRAGMENT_HEADER.pack(len(command) + 2, context_id, _IS_COMMAND | _IS_LAST) + command
    return _PDU_HEADER.pack(PduType.DATA, len(value)) + value


def associate_acceptance(
    echoed: bytes,
    *,
    application_context: str,
    contexts: Sequence[tuple[int, int, str]],
    roles: Sequence[tuple[str, bool, bool]],
    max_pdu_bytes: int,
    implementation_class_uid: str,
    implementation_version_name: str,
) -> bytes:
    """A-ASSOCIATE-AC (PS3.8 9.3.3, PS3.7 D.3.3); titles and reserved bytes are `echoed`.

    `contexts` are id, result and transfer syntax; `roles` are SOP class, SCU and SCP role.
    """
    results = b"".join(
        _item(0x21, _CONTEXT_RESULT.pack(context_id, result) + _item(0x40, syntax.encode()))
        for context_id, result, syntax in contexts
    )
    granted = b"".join(
        _item(0x54, len(uid).to_bytes(2, "big") + uid.encode() + bytes((is_scu, is_scp)))
        for uid, is_scu, is_scp in roles
    )
    user_information = (
        _item(0x51, max_pdu_bytes.to_bytes(4, "big"))
        + _item(0x52, implementation_class_uid.encode())
        + granted
        + _item(0x55, implementation_version_name.encode())
    )
    body = (
        b"\0\1\0\0"
        + echoed
        + _item(0x10, application_context.encode())
        + results
        + _item(0x50, user_information)
    )
    return _PDU_HEADER.pack(PduType.ASSOCIATE_AC, len(body)) + body


def release_reply() -> bytes:
    """A-RELEASE-RP."""
    return _PDU_HEADER.pack(PduType.RELEASE_RP, _CONTROL_BYTES) + bytes(_CONTROL_BYTES)


def abort(reason: AbortReason) -> bytes:
    """A-ABORT by the service-provider."""
    return _ABORT.pack(PduType.ABORT, _CONTROL_BYTES, 2, reason)


def reject(result: int, source: int, reason: int) -> bytes:
    """A-ASSOCIATE-RJ (PS3.8 table 9-21)."""
    return _REJECT.pack(PduType.ASSOCIATE_RJ, _CONTROL_BYTES, result, source, reason)


def _item(kind: int, body: bytes) -> bytes:
    return _ITEM.pack(kind, len(body)) + body


_KINDS = {int(kind): kind for kind in PduType}


def _kind_of(number: int) -> PduType:
    kind = _KINDS.get(number)
    if kind is None:
        raise ProtocolViolation("Not a DICOM PDU", reason=AbortReason.UNRECOGNIZED_PDU)
    return kind


def _torn() -> ProtocolViolation:
    return ProtocolViolation(
        "A presentation data value does not fit its PDU", reason=AbortReason.INVALID_PARAMETER
    )

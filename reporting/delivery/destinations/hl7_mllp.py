"""Sends ORU^R01 to a laboratory system by MLLP and judges its acknowledgment (HL7 2.5.1, 2.9)."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from pipeline.errors import Defect
from reporting.delivery import DeliveryPostponed, DeliveryRefused, Receipt, Refusal
from reporting.delivery.outcome import deliver_each
from reporting.delivery.transport.mllp import (
    Acknowledgment,
    control_id_of,
    framed,
    read_acknowledgment,
    read_frame,
)
from reporting.delivery.transport.tls import TlsFiles, connected, connection_failure
from reporting.research_label import check_labels
from reporting.results import Result, ResultKind

ACCEPTED = ("AA", "CA")
ERROR = ("AE", "CE")
REJECTED = ("AR", "CR")
PASSING_ERRORS = ("206", "207")
"""Of table 0357: record locked, internal error."""
LASTING_ERRORS = ("200", "201", "202", "203")
"""Unsupported message type, event, processing id, version."""
SENDER_AND_RECEIVER = slice(2, 6)
"""MSH-3 to MSH-6; MSH-1 is the separator itself, so their indexes are one lower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hl7Destination:
    """A laboratory information system or interface engine."""

    name: str
    host: str
    port: int
    sending_application: str = "SMEARLINK"
    sending_facility: str = ""
    receiving_application: str = ""
    receiving_facility: str = ""
    kinds: frozenset[ResultKind] = frozenset({ResultKind.HL7_MESSAGE})
    timeout_s: float = 30.0
    tls: TlsFiles | None = None

    def deliver(self, results: Sequence[Result]) -> Receipt:
        """Send each message on a connection of its own, and wait for its acknowledgment.

        So an application acknowledgment that follows a commit one (CA) can confuse nothing.
        """
        return deliver_each(check_labels(results, self.kinds), self._send)

    def check(self) -> str:
        """Whether the port accepts a connection; MLLP has no echo."""
        with self._connected():
            return f"{self.host}:{self.port} takes a connection"

    def _connected(self) -> AbstractContextManager[socket.socket]:
        return connected(self.name, self.host, self.port, tls=self.tls, timeout_s=self.timeout_s)

    def _send(self, result: Result) -> str:
        message = self._addressed(result.content)
        frame = _framed(self.name, message)
        with self._connected() as connection:
            said = self._acknowledgment(connection, frame)
        return _judged(self.name, result.uid, said, control_id_of(message))

    def _acknowledgment(self, connection: socket.socket, frame: bytes) -> Acknowledgment:
        try:
            connection.sendall(frame)
            return read_acknowledgment(read_frame(connection, self.timeout_s))
        except ssl.SSLError as err:
            raise connection_failure(self.name, err) from err
        except OSError as err:
            raise DeliveryPostponed(
                f"{self.name} does not acknowledge ({type(err).__name__}).", code="no_answer"
            ) from err
        except ValueError as err:
            raise DeliveryPostponed(
                f"{self.name} answers with something else than an HL7 acknowledgment.",
                code="answer_not_understood",
            ) from err

    def _addressed(self, content: bytes) -> bytes:
        """The message with this destination's MSH-3 to MSH-6."""
        head, separator, rest = content.partition(b"\r")
        fields = head.decode("utf-8").split("|")
        if fields[0] != "MSH" or len(fields) < 12:
            raise Defect("An HL7 message does not begin with MSH.", code="hl7_malformed")
        fields[SENDER_AND_RECEIVER] = [
            self.sending_application,
            self.sending_facility,
            self.receiving_application,
            self.receiving_facility,
        ]
        return "|".join(fields).encode("utf-8") + separator + rest


def _framed(name: str, message: bytes) -> bytes:
    try:
        return framed(message)
    except ValueError as err:
        raise DeliveryRefused(
            f"A message to {name} cannot be sent: an identifier of its images holds a control "
            "character (VT or FS) that MLLP reserves. Correct it at the source, send again.",
            code="hl7_unsendable",
        ) from err


def _judged(name: str, uid: str, said: Acknowledgment, control_id: str) -> str:
    """A remark, mostly empty, when it was accepted; raises otherwise.

    The connection carried one message only: an acknowledgment that names none is for that one.
    """
    if said.code and not said.control_id:
        remark = "the acknowledgment names no message (MSA-2)"
    elif said.control_id.lower() == control_id.lower():
        remark = ""
    else:
        raise DeliveryPostponed(
            f"{name} acknowledges another message than the one sent (MSA-2).",
            code="answer_not_understood",
        )
    if said.code in ACCEPTED:
        return remark
    status = f"{said.code} {said.error_code}".strip()
    refused = (Refusal(uid=uid, status=status, reason=_meaning(said)),)
    if _is_passing(said):
        raise DeliveryPostponed(
            f"{name} cannot take the message now ({status}).", code="hl7_busy", refused=refused
        )
    raise DeliveryRefused(
        f"{name} refuses the message ({status}, {_meaning(said)}): its own log says why.",
        code="hl7_refused",
        refused=refused,
    )


def _is_passing(said: Acknowledgment) -> bool:
    """A rejection is about the system unless it names the message's type (section 2.9.2.2)."""
    if said.code in REJECTED:
        return said.error_code not in LASTING_ERRORS
    return said.error_code in PASSING_ERRORS or said.code not in ERROR


def _meaning(said: Acknowledgment) -> str:
    named = {
        "100": "segment sequence error",
        "101": "required field missing",
        "102": "data type error",
        "103": "table value not found",
        "200": "unsupported message type",
        "201": "unsupported event code",
        "202": "unsupported processing id",
        "203": "unsupported version id",
        "204": "unknown key identifier",
        "205": "duplicate key identifier",
        "206": "application record locked",
        "207": "application internal error",
    }
    return named.get(said.error_code, "error" if said.code in ERROR else "rejected")

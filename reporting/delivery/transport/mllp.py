"""HL7 v2 over MLLP: frames on a socket, and the acknowledgment in them (HL7 2.5.1 chapter 2)."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

START = b"\x0b"
END = b"\x1c\x0d"
MAX_ANSWER_BYTES = 1024 * 1024
READ_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgment:
    """What MSA and ERR say. No text of the other side: it may repeat a name."""

    code: str
    """AA, AE, AR, CA, CE or CR; empty when the message holds none."""
    control_id: str
    """Of the message that it answers (MSA-2)."""
    error_code: str = ""
    """ERR-3.1 of HL7 table 0357, where it is one."""


def framed(message: bytes) -> bytes:
    """The message between start and end block; raises ValueError when it holds one itself."""
    if START in message or END[:1] in message:
        raise ValueError("the message holds an MLLP block character")
    return START + message + END


def read_frame(
    connection: socket.socket, timeout_s: float, clock: Callable[[], float] = time.monotonic
) -> bytes:
    """The next message, whole; raises TimeoutError, ConnectionError or ValueError."""
    deadline = clock() + timeout_s
    received = bytearray()
    while END not in received:
        left_s = deadline - clock()
        if left_s <= 0:
            raise TimeoutError("no whole answer in time")
        connection.settimeout(left_s)
        chunk = connection.recv(READ_BYTES)
        if not chunk:
            raise ConnectionError("closed before the answer was whole")
        received += chunk
        if len(received) > MAX_ANSWER_BYTES:
            raise ValueError("the answer has no end")
    start = received.find(START)
    if start < 0:
        raise ValueError("the answer has no start")
    return bytes(received[start + 1 : received.index(END, start)])


def control_id_of(message: bytes) -> str:
    """MSH-10, which the acknowledgment has to repeat."""
    return _fields(message, "MSH")[9]


def read_acknowledgment(message: bytes) -> Acknowledgment:
    """Raises ValueError when it is not an acknowledgment."""
    said = _fields(message, "MSA")
    error = _fields(message, "ERR")
    reason = error[3].split(_component_separator(message))[0]
    return Acknowledgment(
        code=said[1][:2], control_id=said[2], error_code=reason if reason.isdigit() else ""
    )


def _fields(message: bytes, segment: str) -> list[str]:
    """The fields of the first such segment, index 0 its name; padded, so that any may be read."""
    text = message.decode("utf-8", errors="replace")
    if not text.startswith("MSH") or len(text) < 8:
        raise ValueError("the message does not begin with MSH")
    separator = text[3]
    found = (line.split(separator) for line in text.replace("\n", "\r").split("\r"))
    fields = next((one for one in found if one[0] == segment), [])
    return [*fields, *[""] * 20]


def _component_separator(message: bytes) -> str:
    return chr(message[4])

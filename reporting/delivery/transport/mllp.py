"""HL7 v2 over MLLP: frames on a socket, and the acknowledgment in them (HL7 2.5.1 chapter 2).

Writes frames as the standard has them and reads them leniently: a byte order mark, CRLF between
segments, padding, a missing start block, a missing CR after the end block and the block-level
acknowledgments of MLLP Release 2 change nothing about an acknowledgment.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

START = b"\x0b"
END = b"\x1c\x0d"
END_BLOCK = END[:1]
"""Ends a message wherever it stands: no HL7 character set has it inside one."""
BYTE_ORDER_MARK = "\ufeff"
PADDING = " \t\0\r\n" + BYTE_ORDER_MARK
BLOCK_RECEIVED, BLOCK_REFUSED = b"\x06", b"\x15"
"""Contents of a frame of its own that MLLP Release 2 sends before the message's answer."""
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
    """Of HL7 table 0357, where it is one: ERR-3.1, or ERR-1.4 or MSA-6.1 of versions before 2.5."""


def framed(message: bytes) -> bytes:
    """The message between start and end block; raises ValueError if it contains one itself."""
    if START in message or END_BLOCK in message:
        raise ValueError("the message contains an MLLP block character")
    return START + message + END


def read_frame(
    connection: socket.socket, timeout_s: float, clock: Callable[[], float] = time.monotonic
) -> bytes:
    """The next message, complete; raises TimeoutError, ConnectionError or ValueError.

    It ends with the end block: the CR that should follow may be missing or come later. Frames that
    hold nothing but that a block arrived are passed over.
    """
    deadline = clock() + timeout_s
    received, left = b"", MAX_ANSWER_BYTES
    while True:
        while END_BLOCK not in received:
            chunk = _received(connection, deadline - clock())
            left -= len(chunk)
            if left < 0:
                raise ValueError("the answer has no end")
            received += chunk
        message, _, received = received.partition(END_BLOCK)
        content = message.rpartition(START)[2]
        signal = content.strip(b"\r\n\0 ")
        if signal == BLOCK_REFUSED:
            raise ConnectionError("the block was refused")
        if signal not in (b"", BLOCK_RECEIVED):
            return content


def _received(connection: socket.socket, left_s: float) -> bytes:
    if left_s <= 0:
        raise TimeoutError("no complete answer in time")
    connection.settimeout(left_s)
    chunk = connection.recv(READ_BYTES)
    if not chunk:
        raise ConnectionError("closed before the answer was complete")
    return chunk


def control_id_of(message: bytes) -> str:
    """MSH-10, which the acknowledgment has to repeat."""
    return _fields(message, "MSH")[9]


def read_acknowledgment(message: bytes) -> Acknowledgment:
    """The acknowledgment; raises ValueError for any other message."""
    said = _fields(message, "MSA")
    return Acknowledgment(
        code=said[1].upper()[:2],
        control_id=said[2],
        error_code=next(filter(None, _error_codes(message, said)), ""),
    )


def _error_codes(message: bytes, said: Sequence[str]) -> Iterator[str]:
    """Where versions 2.1 to 2.8 put the code of an error; "" for what is no code."""
    delimiters = _text(message)
    component, subcomponent = delimiters[4], delimiters[7]
    error = _fields(message, "ERR")
    yield _code_in(error[3].split(component)[0])
    parts = error[1].split(component)
    yield _code_in(parts[3].split(subcomponent)[0] if len(parts) > 3 else "")
    yield _code_in(said[6].split(component)[0])


def _code_in(text: str) -> str:
    code = text.strip()
    return code if code.isascii() and code.isdigit() else ""


def _fields(message: bytes, segment: str) -> list[str]:
    """The fields of the first such segment, index 0 its name; any later index is empty."""
    text = _text(message)
    separator = text[3]
    segments = (line.strip(PADDING).split(separator) for line in re.split("[\r\n]+", text))
    found = next((fields for fields in segments if fields[0] == segment), [])
    return [*(field.strip(PADDING) for field in found), *[""] * 20]


def _text(message: bytes) -> str:
    """The message from its MSH on; raises ValueError if it does not begin with one."""
    text = message.decode("utf-8", errors="replace").lstrip(PADDING)
    if not text.startswith("MSH") or len(text) < 8:
        raise ValueError("the message does not begin with MSH")
    return text

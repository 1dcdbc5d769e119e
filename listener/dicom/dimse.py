"""Decodes DIMSE commands and encodes responses (PS3.7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from listener.dicom.upper_layer import AbortReason, ProtocolViolation

MAX_COMMAND_BYTES = 16 * 1024
"""A C-STORE-RQ takes some 200 bytes; attribute lists of other commands a few thousand."""
NO_DATASET = 0x0101
"""Command Data Set Type (0000,0800): nothing follows."""


class CommandField(IntEnum):
    """PS3.7 table E.1-1."""

    C_STORE_RQ = 0x0001
    C_ECHO_RQ = 0x0030
    N_EVENT_REPORT_RQ = 0x0100
    C_CANCEL_RQ = 0x0FFF


class Status(IntEnum):
    """The statuses of our responses."""

    SUCCESS = 0x0000
    """Done; for C-STORE: durable."""
    PROCESSING_FAILURE = 0x0110
    """A fault of our own (PS3.7 C.5.9); nothing was kept, send it again."""
    INVALID_SOP_INSTANCE = 0x0117
    """Invalid SOP Instance UID (PS3.7 9.1.1.1.9)."""
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    """SOP class that is not accepted, for example a whole-slide image (PS3.7 9.1.1.1.9)."""
    UNRECOGNIZED_OPERATION = 0x0211
    """A command that a storage SCP does not know (PS3.7 C.5.4)."""
    NO_SUCH_EVENT_TYPE = 0x0113
    """An event that a storage commitment SCU does not know (PS3.7 C.5.3)."""
    INVALID_ARGUMENT = 0x0115
    """A commitment report on no transaction, or on one not open with its sender (PS3.7 C.5.6)."""
    NOT_AUTHORIZED = 0x0124
    """This peer is no destination that commits storage (PS3.7 C.5.24)."""
    OUT_OF_RESOURCES = 0xA700
    """No room on the disk, or it cannot be written: send it again later (PS3.4 table B.2-1)."""
    DATASET_MISMATCH = 0xA900
    """Dataset and command name another SOP class or instance (PS3.4 table B.2-1)."""
    CANNOT_UNDERSTAND = 0xC000
    """Not a dataset, or a truncated one (PS3.4 table B.2-1)."""
    CANNOT_UNDERSTAND_TOO_LARGE = 0xC010
    """Larger than this site accepts; sending it again does not help."""
    CANNOT_UNDERSTAND_CONFLICT = 0xC011
    """This SOP Instance UID is stored with other content; the first one is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A request, as far as we need it (PS3.7 section 9.3)."""

    field: int
    message_id: int
    has_dataset: bool
    sop_class_uid: str
    sop_instance_uid: str
    event_type_id: int


_ELEMENT = Struct("<HHL")
_US = Struct("<H")
_UL = Struct("<L")

_GROUP_LENGTH = 0x0000
_SOP_CLASS = 0x0002
_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_RESPONDED_TO = 0x0120
_DATASET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_SOP_INSTANCE = 0x1000
_EVENT_TYPE = 0x1002
_MAX_COMMENT = 64
"""VR LO"""


def decode_command(data: bytes | bytearray) -> Command:
    """Read a command set: implicit VR little endian, group 0000 only (PS3.7 6.3.1).

    Raises ProtocolViolation when it is not one.
    """
    elements = _elements(data)
    return Command(
        field=_number(elements, _FIELD),
        message_id=_number(elements, _MESSAGE_ID, default=0),
        has_dataset=_number(elements, _DATASET_TYPE) != NO_DATASET,
        sop_class_uid=_text(elements, _SOP_CLASS),
        sop_instance_uid=_text(elements, _SOP_INSTANCE),
        event_type_id=_number(elements, _EVENT_TYPE, default=0),
    )


def encode_response(command: Command, status: Status, *, comment: str = "") -> bytes:
    """The response to `command`, without a dataset. `comment` never carries patient data."""
    elements: dict[int, bytes] = {
        _SOP_CLASS: _padded(command.sop_class_uid, "\0"),
        _FIELD: _US.pack(command.field | 0x8000),
        _RESPONDED_TO: _US.pack(command.message_id),
        _DATASET_TYPE: _US.pack(NO_DATASET),
        _STATUS: _US.pack(status),
    }
    if comment:
        elements[_ERROR_COMMENT] = _padded(comment[:_MAX_COMMENT], " ")
    if command.sop_instance_uid and status is not Status.INVALID_SOP_INSTANCE:
        elements[_SOP_INSTANCE] = _padded(command.sop_instance_uid, "\0")
    if command.field == CommandField.N_EVENT_REPORT_RQ:
        elements[_EVENT_TYPE] = _US.pack(command.event_type_id)
    body = b"".join(
        _ELEMENT.pack(0, tag, len(elements[tag])) + elements[tag] for tag in sorted(elements)
    )
    return _ELEMENT.pack(0, _GROUP_LENGTH, _UL.size) + _UL.pack(len(body)) + body


def _elements(data: bytes | bytearray) -> Mapping[int, bytes]:
    elements: dict[int, bytes] = {}
    position = 0
    while position < len(data):
        if len(data) - position < _ELEMENT.size:
            raise _malformed()
        group, number, length = _ELEMENT.unpack_from(data, position)
        begin, position = position + _ELEMENT.size, position + _ELEMENT.size + length
        if group != 0 or position > len(data):
            raise _malformed()
        elements[number] = bytes(data[begin:position])
    return elements


def _number(elements: Mapping[int, bytes], tag: int, *, default: int | None = None) -> int:
    value = elements.get(tag)
    if value is None and default is not None:
        return default
    if value is None or len(value) != _US.size:
        raise _malformed()
    (number,) = _US.unpack(value)
    return int(number)


def _text(elements: Mapping[int, bytes], tag: int) -> str:
    return elements.get(tag, b"").decode("ascii", errors="replace").strip(" \0")


def _padded(text: str, padding: str) -> bytes:
    data = text.encode("ascii", errors="replace")
    return data + padding.encode() if len(data) % 2 else data


def _malformed() -> ProtocolViolation:
    return ProtocolViolation(
        "Not a command set (PS3.7 6.3.1)", reason=AbortReason.INVALID_PARAMETER
    )

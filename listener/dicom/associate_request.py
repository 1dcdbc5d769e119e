"""Parses an A-ASSOCIATE-RQ (PS3.8 9.3.2) with bounded work, and tolerates what a PACS tolerates.

The fixed part is read first: titles and version decide about most callers before any item is
looked at. Items and sub-items of unknown types are skipped (PS3.8 9.3.1, PS3.7 D.3.3), and what
deviates from the standard without being ambiguous is noted, not refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import Struct

from listener.dicom.upper_layer import AbortReason, ProtocolViolation

MAX_CONTEXTS = 128
"""Context ids are the odd numbers of one byte (PS3.8 9.3.2.2)."""
MAX_ITEMS = 8192
"""Items and sub-items of one request: 128 contexts with 60 transfer syntaxes each stay below."""

_FIXED = Struct(">HH16s16s32s")
_ITEM = Struct(">BBH")
_PDU_HEADER_BYTES = 6
_UID_BYTES = 64

_APPLICATION_CONTEXT, _PRESENTATION_CONTEXT, _USER_INFORMATION = 0x10, 0x20, 0x50
_ABSTRACT_SYNTAX, _TRANSFER_SYNTAX = 0x30, 0x40
_ROLE_SELECTION = 0x54
_VERSION_NAME = 0x55
_KNOWN_USER_ITEMS = range(0x51, 0x5A)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """The fixed part of an A-ASSOCIATE-RQ, as sent and as understood."""

    protocol_version: int
    called_ae_title: str
    calling_ae_title: str
    echoed: bytes
    """Both titles and the reserved bytes, which the acceptance repeats unchanged."""
    deviations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedContext:
    """One presentation context of the request."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociateRequest:
    """A whole A-ASSOCIATE-RQ."""

    head: RequestHead
    application_context: str
    contexts: tuple[ProposedContext, ...]
    roles: dict[str, tuple[bool, bool]]
    """SCU and SCP role proposed by SOP Class UID (PS3.7 D.3.3.4)."""
    deviations: tuple[str, ...]
    """Stable words for what deviates from the standard and was tolerated."""


def parse_head(pdu: bytes | memoryview) -> RequestHead:
    """Reads the first 74 bytes. Raises ProtocolViolation when there are fewer, or when a title
    holds what no character set for titles has.
    """
    if len(pdu) < _PDU_HEADER_BYTES + _FIXED.size:
        raise _invalid("The A-ASSOCIATE-RQ is shorter than its fixed part (PS3.8 9.3.2)")
    version, _, called, calling, _ = _FIXED.unpack_from(pdu, _PDU_HEADER_BYTES)
    begin = _PDU_HEADER_BYTES + 4
    deviations: list[str] = []
    return RequestHead(
        protocol_version=version,
        called_ae_title=_title(called, deviations),
        calling_ae_title=_title(calling, deviations),
        echoed=bytes(pdu[begin : begin + 64]),
        deviations=tuple(deviations),
    )


def parse_request(pdu: bytes | memoryview) -> AssociateRequest:
    """Parses the whole PDU, header included. Raises ProtocolViolation when its items do not fit."""
    head = parse_head(pdu)
    builder = _Builder(deviations=list(head.deviations))
    for kind, body in builder.items(memoryview(pdu)[_PDU_HEADER_BYTES + _FIXED.size :]):
        if kind == _APPLICATION_CONTEXT:
            builder.application_context = _uid(body)
        elif kind == _PRESENTATION_CONTEXT:
            builder.add_context(body)
        elif kind == _USER_INFORMATION:
            builder.read_user_information(body)
        else:
            builder.note("unknown_item")
    return AssociateRequest(
        head=head,
        application_context=builder.application_context,
        contexts=tuple(builder.contexts.values()),
        roles=builder.roles,
        deviations=tuple(builder.deviations),
    )


@dataclass(slots=True)
class _Builder:
    """Collects the items of one request and counts them."""

    deviations: list[str]
    application_context: str = ""
    contexts: dict[int, ProposedContext] = field(default_factory=dict)
    roles: dict[str, tuple[bool, bool]] = field(default_factory=dict)
    count: int = 0

    def note(self, deviation: str) -> None:
        if deviation not in self.deviations:
            self.deviations.append(deviation)

    def items(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Yields type and body of each item, none of which may reach past `data`."""
        position = 0
        while position < len(data):
            self.count += 1
            if self.count > MAX_ITEMS:
                raise _invalid(f"More than {MAX_ITEMS} items")
            if len(data) - position < _ITEM.size:
                raise _invalid("An item breaks off")
            kind, _, length = _ITEM.unpack_from(data, position)
            begin, position = position + _ITEM.size, position + _ITEM.size + length
            if position > len(data):
                raise _invalid("An item is longer than what holds it")
            yield kind, data[begin:position]

    def add_context(self, body: memoryview) -> None:
        if len(body) < 4:
            raise _invalid("A presentation context has no id (PS3.8 9.3.2.2)")
        context_id, abstract_syntax, syntaxes = body[0], "", []
        for kind, value in self.items(body[4:]):
            if kind == _ABSTRACT_SYNTAX:
                abstract_syntax = _uid(value)
            elif kind == _TRANSFER_SYNTAX:
                syntaxes.append(_uid(value))
            else:
                self.note("unknown_item")
        if not syntaxes:
            self.note("context_without_transfer_syntax")
        if context_id in self.contexts or len(self.contexts) >= MAX_CONTEXTS:
            self.note("repeated_context_id")
            return
        self.contexts[context_id] = ProposedContext(
            context_id=context_id,
            abstract_syntax=abstract_syntax,
            transfer_syntaxes=tuple(syntaxes),
        )

    def read_user_information(self, body: memoryview) -> None:
        for kind, value in self.items(body):
            if kind == _ROLE_SELECTION:
                self.add_role(value)
            elif kind == _VERSION_NAME and len(value) > 16:
                self.note("long_version_name")
            elif kind not in _KNOWN_USER_ITEMS:
                self.note("unknown_user_item")

    def add_role(self, value: memoryview) -> None:
        """PS3.7 D.3.3.4: UID length, UID, one byte for each role."""
        length = int.from_bytes(value[:2], "big")
        if len(value) < 4 + length:
            raise _invalid("A role selection is torn (PS3.7 D.3.3.4)")
        uid = _uid(value[2 : 2 + length])
        self.roles[uid] = bool(value[2 + length]), bool(value[3 + length])


def _title(raw: bytes, deviations: list[str]) -> str:
    """PS3.8 9.3.2: 16 characters of the basic G0 set, padded with spaces."""
    text = raw.rstrip(b"\0 ").lstrip(b" ")
    if b"\0" in raw and "nul_padded_ae_title" not in deviations:
        deviations.append("nul_padded_ae_title")
    if not text and "blank_ae_title" not in deviations:
        deviations.append("blank_ae_title")
    title = text.split(b"\0")[0].decode("ascii", errors="replace").replace("\ufffd", "?")
    if not text.isascii():
        deviations.append("non_ascii_ae_title")
    if not title.isprintable() or (title and not title.strip("?")):
        raise _invalid("An AE title is not text (PS3.5 6.2, VR AE)")
    return title


def _uid(value: memoryview) -> str:
    """The text of a UID field; one that is too long or not ASCII matches nothing that we know."""
    raw = bytes(value[: _UID_BYTES + 2])
    return raw.decode("ascii", errors="replace").strip(" \0")


def _invalid(message: str) -> ProtocolViolation:
    return ProtocolViolation(message, reason=AbortReason.INVALID_PARAMETER)

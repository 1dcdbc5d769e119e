"""A-ASSOCIATE-RQs as they really come: small faults are tolerated and noted, work is bounded."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import SecondaryCaptureImageStorage

from listener.dicom.ae_title_access import AccessPolicy, Caller, rejection_for
from listener.dicom.associate_request import MAX_CONTEXTS, MAX_ITEMS, parse_head, parse_request
from listener.dicom.negotiation import accept
from listener.dicom.upper_layer import ProtocolViolation
from tests.listener.peers import association_request

SC = SecondaryCaptureImageStorage.encode()
EXPLICIT = b"1.2.840.10008.1.2.1"
TITLE = b"SMEARLINK".ljust(16)
SCOPE = b"SCOPE1".ljust(16)


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(body)) + body


def context(number: int = 1, *, syntaxes: tuple[bytes, ...] = (EXPLICIT,)) -> bytes:
    proposed = b"".join(item(0x40, syntax) for syntax in syntaxes)
    return item(0x20, bytes([number, 0, 0, 0]) + item(0x30, SC) + proposed)


def request(
    *,
    called: bytes = TITLE,
    calling: bytes = SCOPE,
    contexts: bytes = context(),
    user: bytes = b"",
    more: bytes = b"",
) -> bytes:
    body = (
        b"\0\1\0\0"
        + called
        + calling
        + bytes(32)
        + item(0x10, b"1.2.840.10008.3.1.1.1")
        + contexts
        + item(0x50, item(0x51, b"\0\0\x40\0") + item(0x52, b"1.2.3") + user)
        + more
    )
    return struct.pack(">BxL", 1, len(body)) + body


# --- what is refused


@pytest.mark.parametrize(
    "data",
    [
        request()[:60],
        request(called=b"\xff" * 16),
        request(called=b"PACS\x07".ljust(16)),
        request(contexts=item(0x20, b"\1")),
        request(contexts=item(0x20, b"\1\0\0\0\x30\0\0\x40")),
        request(user=item(0x54, b"\0\x40")),
        request(more=b"\x70\0\xff\xff"),
        request(more=item(0x70, b"") * (MAX_ITEMS + 1)),
    ],
    ids=[
        "short",
        "noise",
        "control-character",
        "context-without-id",
        "torn-item",
        "torn-role",
        "item-past-the-end",
        "very-many-items",
    ],
)
def test_what_cannot_be_understood_is_a_protocol_violation(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        parse_request(data)


@given(data=st.binary(max_size=400))
def test_any_items_are_parsed_or_refused(data: bytes) -> None:
    try:
        parsed = parse_request(request(more=data))
    except ProtocolViolation:
        return

    accept(parsed, max_pdu_bytes=16384)


# --- what is tolerated


@pytest.mark.parametrize(
    ("data", "deviation"),
    [
        (request(calling=b" " * 16), "blank_ae_title"),
        (request(calling=bytes(16)), "blank_ae_title"),
        (request(called=b"SMEARLINK".ljust(16, b"\0")), "nul_padded_ae_title"),
        (request(calling="KÜV".encode("latin-1").ljust(16)), "non_ascii_ae_title"),
        (request(user=item(0x5F, b"ab")), "unknown_user_item"),
        (request(more=item(0x70, b"ab")), "unknown_item"),
        (request(user=item(0x55, b"VERY_LONG_VERSION_20")), "long_version_name"),
        (request(contexts=context() + context(3, syntaxes=())), "context_without_transfer_syntax"),
        (request(contexts=context() + context()), "repeated_context_id"),
    ],
)
def test_small_faults_are_noted_and_the_association_is_accepted(
    data: bytes, deviation: str
) -> None:
    parsed = parse_request(data)
    caller = Caller(ae_title="", address="10.0.0.1", certificate_subject="")
    policy = AccessPolicy(called_aes=frozenset({"SMEARLINK"}))

    assert deviation in parsed.deviations
    assert rejection_for(parsed, caller, policy) is None
    assert 1 in accept(parsed, max_pdu_bytes=16384).contexts


def test_a_context_without_transfer_syntaxes_is_answered_as_one_that_has_none_of_ours() -> None:
    parsed = parse_request(request(contexts=context(3, syntaxes=())))

    agreement = accept(parsed, max_pdu_bytes=16384)

    assert agreement.contexts == {}
    assert b"\x21\0\0\x19\x03\0\x04\0" in agreement.reply


def test_titles_are_echoed_as_they_came() -> None:
    """PS3.8 9.3.3: the acceptance repeats them unchanged."""
    data = request(called=b"  SMEARLINK\0\0\0\0\0")

    assert parse_head(data).called_ae_title == "SMEARLINK"
    assert b"  SMEARLINK\0\0\0\0\0" in accept(parse_request(data), max_pdu_bytes=16384).reply


def test_a_request_in_order_has_no_deviation() -> None:
    assert parse_request(association_request(SecondaryCaptureImageStorage)).deviations == ()


def test_no_more_contexts_are_kept_than_there_are_ids() -> None:
    many = b"".join(context(number % 256) for number in range(600))

    assert len(parse_request(request(contexts=many)).contexts) <= MAX_CONTEXTS

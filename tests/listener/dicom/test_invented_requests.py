"""Association requests of odd devices, devised from public bug reports of DICOM toolkits.

What a PACS takes is taken, with a note; what is refused is refused under its AE title.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest

from listener.dicom.ae_title_access import AccessPolicy, Caller, Rejection, rejection_for
from listener.dicom.associate_request import parse_head, parse_request
from listener.dicom.negotiation import accept
from tests.listener.dicom.test_associate_request import EXPLICIT, SC, TITLE, context, item

ANYBODY = Caller(ae_title="", address="10.0.0.1", certificate_subject="")
TO_US = AccessPolicy(called_aes=frozenset({"SMEARLINK"}))
APPLICATION = item(0x10, b"1.2.840.10008.3.1.1.1")
USER = item(0x51, b"\0\0\x40\0") + item(0x52, b"1.2.3")
STORAGE_COMMITMENT = b"1.2.840.10008.1.20.1"


def request(
    *,
    called: bytes = TITLE,
    calling: bytes = b"SCOPE1".ljust(16),
    version: bytes = b"\0\1",
    reserved: bytes = bytes(32),
    application: bytes = APPLICATION,
    contexts: bytes = context(),
    user: bytes = USER,
    more: bytes = b"",
) -> bytes:
    body = version + b"\0\0" + called + calling + reserved + application + contexts
    body += (item(0x50, user) if user else b"") + more
    return struct.pack(">BxL", 1, len(body)) + body


def titled(text: bytes) -> bytes:
    return request(calling=text.ljust(16)[:16])


def role(uid: bytes, scu: int = 1, scp: int = 0) -> bytes:
    return item(0x54, struct.pack(">H", len(uid)) + uid + bytes((scu, scp)))


TAKEN: Mapping[str, bytes] = {
    "title-in-small-letters": titled(b"scope1"),
    "title-with-a-backslash": titled(b"SCOPE\\1"),
    "title-with-blanks-inside": titled(b"LAB SCOPE 1"),
    "title-of-16-characters": titled(b"SCOPE_OF_ROOM_12"),
    "title-of-one-character": titled(b"S"),
    "title-with-punctuation": titled(b"lab@scope:1/a"),
    "title-behind-blanks": titled(b"          SCOPE1"),
    "title-of-16-blanks": titled(b""),
    "title-in-latin-1": titled("MÜLLER".encode("latin-1")),
    "title-in-utf-8": titled("MÜLLER".encode()),
    "title-with-text-behind-its-end": titled(b"SCOPE1\0garbage"),
    "called-title-padded-with-zero-bytes": request(called=b"SMEARLINK".ljust(16, b"\0")),
    "called-title-behind-blanks": request(called=b"   SMEARLINK    "),
    "every-bit-of-the-version": request(version=b"\xff\xff"),
    "reserved-bytes-in-use": request(reserved=b"\xa5" * 32),
    "application-context-padded": request(application=item(0x10, b"1.2.840.10008.3.1.1.1\0")),
    "application-context-twice": request(application=APPLICATION * 2),
    "application-context-last": request(application=b"", more=APPLICATION),
    "user-information-first": request(application=item(0x50, USER) + APPLICATION, user=b""),
    "user-information-twice": request(more=item(0x50, USER)),
    "no-user-information": request(user=b""),
    "maximum-length-twice": request(user=item(0x51, b"\0\0\x40\0") + USER),
    "maximum-length-unlimited": request(user=item(0x51, bytes(4))),
    "maximum-length-of-two-bytes": request(user=item(0x51, b"\x40\0")),
    "implementation-twice": request(user=USER + item(0x52, b"1.2.4")),
    "implementation-empty": request(user=item(0x51, b"\0\0\x40\0") + item(0x52, b"")),
    "version-name-empty": request(user=USER + item(0x55, b"")),
    "version-name-of-64-characters": request(user=USER + item(0x55, b"V" * 64)),
    "asynchronous-operations": request(user=USER + item(0x53, b"\0\0\0\0")),
    "extended-negotiation": request(user=USER + item(0x56, b"\0\1\x31\2\0\0")),
    "common-extended-negotiation": request(user=USER + item(0x57, b"\0\1\x31\0\0\0\0")),
    "user-identity": request(user=USER + item(0x58, b"\1\0\0\4user\0\0")),
    "user-identity-of-junk": request(user=USER + item(0x58, b"\xff")),
    "role-for-what-is-not-proposed": request(user=USER + role(b"1.2.3.4")),
    "role-twice": request(user=USER + role(SC) + role(SC, 0, 1)),
    "role-padded": request(user=USER + role(SC + b"\0")),
    "abstract-syntax-padded-with-a-zero-byte": request(
        contexts=item(0x20, b"\1\0\0\0" + item(0x30, SC + b"\0") + item(0x40, EXPLICIT))
    ),
    "abstract-syntax-padded-with-a-blank": request(
        contexts=item(0x20, b"\1\0\0\0" + item(0x30, SC + b" ") + item(0x40, EXPLICIT + b" "))
    ),
    "transfer-syntax-before-abstract-syntax": request(
        contexts=item(0x20, b"\1\0\0\0" + item(0x40, EXPLICIT) + item(0x30, SC))
    ),
    "transfer-syntax-twice": request(contexts=context(syntaxes=(EXPLICIT, EXPLICIT))),
    "transfer-syntax-empty-too": request(contexts=context(syntaxes=(b"", EXPLICIT))),
    "unknown-transfer-syntax-too": request(contexts=context(syntaxes=(b"1.2.3.4", EXPLICIT))),
    "context-with-a-result": request(
        contexts=item(0x20, b"\1\0\xff\0" + item(0x30, SC) + item(0x40, EXPLICIT))
    ),
    "unknown-item-in-a-context": request(
        contexts=item(0x20, b"\1\0\0\0" + item(0x30, SC) + item(0x99, b"x") + item(0x40, EXPLICIT))
    ),
    "context-of-another-class-too": request(
        contexts=item(0x20, b"\3\0\0\0" + item(0x30, b"1.2.3") + item(0x40, EXPLICIT)) + context()
    ),
    "unknown-items-between": request(contexts=item(0x60, b"") + context() + item(0xFF, b"ab")),
    "commitment-too": request(
        contexts=context()
        + item(0x20, b"\3\0\0\0" + item(0x30, STORAGE_COMMITMENT) + item(0x40, EXPLICIT)),
        user=USER + role(STORAGE_COMMITMENT, 0, 1),
    ),
}


@pytest.mark.invented(kind=15)
@pytest.mark.parametrize("name", TAKEN)
def test_an_odd_request_is_accepted(name: str) -> None:
    parsed = parse_request(TAKEN[name])

    assert rejection_for(parsed, ANYBODY, TO_US) is None
    assert 1 in accept(parsed, max_pdu_bytes=16384).contexts


REFUSED: Mapping[str, tuple[bytes, Rejection]] = {
    "called-in-small-letters": (
        request(called=b"smearlink".ljust(16)),
        Rejection.CALLED_AE_UNKNOWN,
    ),
    "called-nobody": (request(called=b" " * 16), Rejection.CALLED_AE_UNKNOWN),
    "called-zero-bytes": (request(called=bytes(16)), Rejection.CALLED_AE_UNKNOWN),
    "called-as-a-part": (request(called=b"SMEARLINK2".ljust(16)), Rejection.CALLED_AE_UNKNOWN),
    "another-version": (request(version=b"\0\2"), Rejection.PROTOCOL_VERSION_UNKNOWN),
    "no-version": (request(version=b"\0\0"), Rejection.PROTOCOL_VERSION_UNKNOWN),
    "no-application-context": (request(application=b""), Rejection.APPLICATION_CONTEXT_UNKNOWN),
    "another-application-context": (
        request(application=item(0x10, b"1.2.3")),
        Rejection.APPLICATION_CONTEXT_UNKNOWN,
    ),
}


@pytest.mark.invented(kind=15)
@pytest.mark.parametrize("name", REFUSED)
def test_a_request_is_refused_with_its_reason_and_title(name: str) -> None:
    data, rejection = REFUSED[name]

    assert rejection_for(parse_request(data), ANYBODY, TO_US) is rejection
    assert parse_head(data).calling_ae_title == "SCOPE1"


@pytest.mark.invented(kind=15)
@pytest.mark.parametrize(
    ("sent", "understood"),
    [
        (b"SCOPE1", "SCOPE1"),
        (b"SCOPE1\0\0\0", "SCOPE1"),
        (b"SCOPE1\0 \0 ", "SCOPE1"),
        (b"  SCOPE1", "SCOPE1"),
        (b"SCOPE1\0SCOPE2", "SCOPE1"),
        ("KÜV".encode("latin-1"), "K?V"),
        (b"", ""),
    ],
)
def test_a_title_is_understood_without_its_padding(sent: bytes, understood: str) -> None:
    assert parse_head(titled(sent)).calling_ae_title == understood

"""Data sets as odd devices encode them, devised from public bug reports of DICOM toolkits.

What a PACS takes is taken whole, and the identifiers are found; what is not whole is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.listener.storage.test_dataset_scan import a_smear, encoded, peeked, refused

ROWS = b"\x28\0\x10\0"
"""(0028,0010), before which elements are put."""
UID = "1.2.3.4.1"


def explicit(tag: bytes, vr: bytes, value: bytes) -> bytes:
    if vr in (b"OB", b"OW", b"UN", b"SQ", b"UT"):
        return tag + vr + b"\0\0" + struct.pack("<L", len(value)) + value
    return tag + vr + struct.pack("<H", len(value)) + value


def with_element(element: bytes, *, before: bytes = ROWS) -> bytes:
    content = encoded(a_smear())
    at = content.index(before)
    return content[:at] + element + content[at:]


def behind(element: bytes) -> bytes:
    return encoded(a_smear()) + element


def items(*bodies: bytes, is_open: bool = False) -> bytes:
    made = b""
    for body in bodies:
        length = 0xFFFFFFFF if is_open else len(body)
        made += struct.pack("<HHL", 0xFFFE, 0xE000, length) + body
        made += struct.pack("<HHL", 0xFFFE, 0xE00D, 0) if is_open else b""
    return made


END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
PRIVATE = b"\x27\0\x10\0"
PRIVATE_DATA = b"\x27\0\x01\x10"
IMPLICIT_NOTE = b"\x27\0\x10\0" + struct.pack("<L", 4) + b"ACME"


def sequence(tag: bytes, vr: bytes, content: bytes, *, is_open: bool) -> bytes:
    length = 0xFFFFFFFF if is_open else len(content)
    return tag + vr + b"\0\0" + struct.pack("<L", length) + content + (END if is_open else b"")


def replaced(old: bytes, new: bytes) -> bytes:
    content = encoded(a_smear())
    assert old in content
    return content.replace(old, new)


INSTANCE = b"\x08\0\x18\0UI\x0a\x00" + UID.encode() + b"\0"
TAKEN: Mapping[str, Callable[[], bytes]] = {
    "uid-padded-with-a-blank": lambda: replaced(INSTANCE, INSTANCE[:-1] + b" "),
    "uid-padded-with-more-zeros": lambda: replaced(
        INSTANCE, b"\x08\0\x18\0UI\x0c\x00" + UID.encode() + b"\0\0\0"
    ),
    "uid-of-odd-length": lambda: replaced(INSTANCE, b"\x08\0\x18\0UI\x09\x00" + UID.encode()),
    "uid-behind-a-blank": lambda: replaced(INSTANCE, b"\x08\0\x18\0UI\x0a\x00 " + UID.encode()),
    "private-element-without-creator": lambda: with_element(explicit(PRIVATE_DATA, b"LO", b"note")),
    "private-sequence-as-un-of-undefined-length": lambda: with_element(
        explicit(PRIVATE, b"LO", b"ACME")
        + sequence(PRIVATE_DATA, b"UN", items(IMPLICIT_NOTE), is_open=True)
    ),
    "sequence-open-with-open-items": lambda: with_element(
        sequence(
            PRIVATE_DATA,
            b"SQ",
            items(explicit(PRIVATE, b"LO", b"ACME"), is_open=True),
            is_open=True,
        )
    ),
    "sequence-closed-with-open-items": lambda: with_element(
        sequence(
            PRIVATE_DATA,
            b"SQ",
            items(explicit(PRIVATE, b"LO", b"ACME"), is_open=True),
            is_open=False,
        )
    ),
    "sequence-open-with-closed-items": lambda: with_element(
        sequence(PRIVATE_DATA, b"SQ", items(explicit(PRIVATE, b"LO", b"ACME")), is_open=True)
    ),
    "sequence-empty-and-open": lambda: with_element(
        sequence(PRIVATE_DATA, b"SQ", b"", is_open=True)
    ),
    "sequence-of-empty-items": lambda: with_element(
        sequence(PRIVATE_DATA, b"SQ", items(b"", b""), is_open=False)
    ),
    "element-of-no-length": lambda: with_element(explicit(b"\x10\0\x10\x40", b"LO", b"")),
    "text-of-odd-length": lambda: with_element(explicit(PRIVATE_DATA, b"LO", b"abc")),
    "vr-of-a-standard-to-come": lambda: with_element(
        PRIVATE_DATA + b"XY\0\0" + struct.pack("<L", 4) + b"abcd"
    ),
    "vr-of-dashes": lambda: with_element(PRIVATE_DATA + b"--" + struct.pack("<H", 4) + b"abcd"),
    "group-lengths": lambda: with_element(
        explicit(b"\x28\0\0\0", b"UL", b"\0\1\0\0"), before=b"\x28\0\x02\0"
    ),
    "wrong-group-length": lambda: with_element(
        explicit(b"\x28\0\0\0", b"UL", b"\xff\xff\xff\xff"), before=b"\x28\0\x02\0"
    ),
    "trailing-padding": lambda: behind(explicit(b"\xfc\xff\xfc\xff", b"OB", bytes(512))),
    "private-group-behind-the-pixels": lambda: behind(explicit(b"\xe1\x7f\x10\0", b"LO", b"ACME")),
    "earlier-group-late": lambda: with_element(explicit(b"\x08\0\x70\0", b"LO", b"Mak ")),
    "two-elements-exchanged": lambda: with_element(
        explicit(b"\x10\0\x10\x40", b"LO", b"ab") + explicit(b"\x10\0\x00\x40", b"LT", b"cd")
    ),
}


@pytest.mark.invented(kind=15)
@pytest.mark.parametrize("name", TAKEN)
def test_an_odd_data_set_is_taken(name: str) -> None:
    found = peeked(TAKEN[name]())

    assert found.sop_instance_uid == UID
    assert (found.study_uid, found.series_uid) == ("1.2.3", "1.2.3.4")


REFUSED: Mapping[str, tuple[Callable[[], bytes], str]] = {
    "last-byte-missing": (lambda: encoded(a_smear())[:-1], "truncated_dataset"),
    "sequence-without-its-end": (
        lambda: behind(sequence(b"\xfc\xff\x01\x10", b"SQ", items(b""), is_open=True)[:-8]),
        "truncated_dataset",
    ),
    "item-longer-than-its-sequence": (
        lambda: with_element(
            sequence(PRIVATE_DATA, b"SQ", items(b"")[:4] + b"\xff\0\0\0", is_open=False)
        ),
        "truncated_dataset",
    ),
    "element-longer-than-its-item": (
        lambda: with_element(
            sequence(PRIVATE_DATA, b"SQ", items(PRIVATE + b"LO\xff\0"), is_open=False)
        ),
        "truncated_dataset",
    ),
    "file-meta-inside": (
        lambda: explicit(b"\x02\0\x10\0", b"UI", b"1.2.840.10008.1.2.1\0") + encoded(a_smear()),
        "unreadable_dataset",
    ),
    "command-inside": (
        lambda: struct.pack("<HHL", 0, 0x0110, 2) + b"\1\0" + encoded(a_smear()),
        "unreadable_dataset",
    ),
    "uid-with-letters": (
        lambda: replaced(INSTANCE, b"\x08\0\x18\0UI\x0a\x001.2.3.4.ab"),
        "missing_uid",
    ),
    "uid-with-a-path": (
        lambda: replaced(INSTANCE, b"\x08\0\x18\0UI\x0a\x00../../../x"),
        "missing_uid",
    ),
    "uid-with-two-values": (
        lambda: replaced(INSTANCE, b"\x08\0\x18\0UI\x0a\x001.2.3\\1.24"),
        "missing_uid",
    ),
    "two-instance-uids": (lambda: with_element(INSTANCE), "unreadable_dataset"),
}


@pytest.mark.invented(kind=15)
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_whole_is_refused(name: str) -> None:
    build, code = REFUSED[name]

    assert refused(build()) == code


@pytest.mark.invented(kind=15)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
        (ImplicitVRLittleEndian, ExplicitVRLittleEndian),
    ],
    ids=["explicit-as-implicit", "implicit-as-explicit"],
)
def test_a_data_set_in_another_syntax_than_agreed_is_refused(one: str, other: str) -> None:
    assert refused(encoded(a_smear(), one), other) in {"truncated_dataset", "unreadable_dataset"}

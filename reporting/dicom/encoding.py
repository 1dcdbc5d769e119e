"""Encodes a derived dataset in Explicit VR Little Endian: the bytes of pydicom's writer, sooner.

pydicom's writer serves any syntax and repairs what it finds; most of a report's time went there.
Our own objects are made of a few value representations (PS3.5 6.2), which are encoded here; for
everything else, element by element, pydicom's writer is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from struct import Struct, pack
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.charset import default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_dataset
from pydicom.tag import BaseTag

from reporting.dicom.attributes import SharedElement

Encodings = str | list[str]

_CHARACTER_SET = 0x00080005
_TAG_AND_VR = Struct("<HH2s")
_SHORT_VALUE = Struct("<H")
_LONG_VALUE = Struct("<HL")
_ITEM = Struct("<HHL")
_ITEM_TAG = (0xFFFE, 0xE000)
_ITEM_END = _ITEM.pack(0xFFFE, 0xE00D, 0)
_SEQUENCE_END = _ITEM.pack(0xFFFE, 0xE0DD, 0)
_UNDEFINED = 0xFFFFFFFF
_LONGEST_SHORT = 0xFFFF

_LONG_LENGTH = frozenset({"UT", "UC", "UR"})
"""Of those below, the ones whose length takes 32 bits (PS3.5 7.1.2)."""

_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
"""What Specific Character Set applies to (PS3.5 6.1.2.3)."""


class _NotPlain(Exception):
    """The value needs pydicom's writer."""


def encode_dataset(dataset: Dataset, encodings: Encodings = default_encoding) -> bytes:
    """The dataset without preamble and file meta information, as pydicom's writer gives it."""
    return _encode(dataset, encodings, {})


def _encode(dataset: Dataset, encodings: Encodings, known: dict[int, bytes]) -> bytes:
    """`known` has the items encoded so far, by identity: many sequences share theirs."""
    # Not by pydicom's own access, which makes a tag of each key anew.
    elements = dataset._dict
    if _CHARACTER_SET in elements:
        encodings = dataset[_CHARACTER_SET].value or default_encoding
    parts: list[bytes] = []
    for tag in sorted(elements, key=int):
        if tag & 0xFFFF == 0 and tag >> 16 > 6:
            continue  # retired group length (PS3.5 7.2)
        element = elements[tag]
        if isinstance(element, RawDataElement) and element.VR in _TEXT:
            parts.append(_as_it_came(element))
            continue
        if not isinstance(element, DataElement) or len(element.VR) != 2:
            # As it was read, or of two possible VRs: what that means for the bytes pydicom knows.
            return _by_pydicom(dataset, encodings)
        parts.append(_element(tag, element, encodings, known))
    return b"".join(parts)


def _as_it_came(element: RawDataElement) -> bytes:
    """Text that was copied undecoded, under the character set of its source."""
    buffer = _buffer()
    write_data_element(buffer, element)
    return buffer.getvalue()


def _element(
    tag: BaseTag, element: DataElement, encodings: Encodings, known: dict[int, bytes]
) -> bytes:
    if element.VR == "SQ":
        return _sequence(tag, element, encodings, known)
    if isinstance(element, SharedElement) and (kept := element.encoded) is not None:
        return kept
    encode = _ENCODERS.get(element.VR)
    if encode is None or element.is_undefined_length or element.is_buffered:
        return _element_by_pydicom(element, encodings)
    try:
        encoded = _plain_element(tag, element.VR, encode(element.value))
    except _NotPlain:
        return _element_by_pydicom(element, encodings)
    if isinstance(element, SharedElement):
        element.keep(encoded)
    return encoded


def _plain_element(tag: BaseTag, vr: str, value: bytes) -> bytes:
    length = len(value)
    if vr in _LONG_LENGTH:
        return _head(tag, vr) + _LONG_VALUE.pack(0, length) + value
    if length > _LONGEST_SHORT:
        raise _NotPlain
    return _head(tag, vr) + _SHORT_VALUE.pack(length) + value


def _sequence(
    tag: BaseTag, element: DataElement, encodings: Encodings, known: dict[int, bytes]
) -> bytes:
    parts: list[bytes] = []
    for item in element.value:
        content = known.get(id(item))
        if content is None:
            content = known[id(item)] = _encode(item, encodings, known)
        if getattr(item, "is_undefined_length_sequence_item", False):
            parts += [_ITEM.pack(*_ITEM_TAG, _UNDEFINED), content, _ITEM_END]
        else:
            parts += [_ITEM.pack(*_ITEM_TAG, len(content)), content]
    value = b"".join(parts)
    is_open = element.is_undefined_length
    head = _head(tag, "SQ") + _LONG_VALUE.pack(0, _UNDEFINED if is_open else len(value))
    return head + value + (_SEQUENCE_END if is_open else b"")


@cache
def _head(tag: BaseTag, vr: str) -> bytes:
    """Tag and value representation (PS3.5 7.1.2); there are as many as keywords that we use."""
    return _TAG_AND_VR.pack(tag >> 16, tag & 0xFFFF, vr.encode())


def _element_by_pydicom(element: DataElement, encodings: Encodings) -> bytes:
    buffer = _buffer()
    write_data_element(buffer, element, encodings)
    return buffer.getvalue()


def _by_pydicom(dataset: Dataset, encodings: Encodings) -> bytes:
    buffer = _buffer()
    write_dataset(buffer, dataset, encodings)
    return buffer.getvalue()


def _buffer() -> DicomBytesIO:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    return buffer


def _words(value: Any) -> bytes:
    """ASCII, which every character set shares; padded with a space."""
    text = _joined(value)
    return (text + " " if len(text) % 2 else text).encode("ascii")


def _uid(value: Any) -> bytes:
    text = _joined(value)
    return (text + "\0" if len(text) % 2 else text).encode("ascii")


def _joined(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        if not isinstance(value, Sequence) or not all(isinstance(one, str) for one in value):
            raise _NotPlain
        value = "\\".join(value)
    if not value.isascii():
        raise _NotPlain
    return str(value)


def _number_string(value: Any) -> bytes:
    if value is None or value == "":
        return b""
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    text = "\\".join(
        one.original_string if hasattr(one, "original_string") else str(one) for one in values
    )
    return (text + " " if len(text) % 2 else text).encode("ascii")


def _numbers(letter: str) -> Callable[[Any], bytes]:
    one = Struct(f"<{letter}")

    def encode(value: Any) -> bytes:
        if value is None or value == "":
            return b""
        if isinstance(value, int | float):
            return one.pack(value)
        return pack(f"<{len(value)}{letter}", *value)

    return encode


_ENCODERS: Mapping[str, Callable[[Any], bytes]] = {
    **dict.fromkeys(("AE", "AS", "CS", "DA", "DT", "TM", "LO", "SH", "LT", "ST", "UT"), _words),
    "UI": _uid,
    **dict.fromkeys(("DS", "IS"), _number_string),
    **{
        vr: _numbers(letter)
        for vr, letter in {"US": "H", "UL": "L", "SL": "l", "FL": "f", "FD": "d"}.items()
    },
}

"""Reads a few top-level attributes of an object in Explicit VR Little Endian, sooner than pydicom.

Every object of ours is opened once before it is stored and once before it is sent, for its label
alone. Whatever is not as plain as what smearlink writes is left to pydicom.
"""

from __future__ import annotations

from collections.abc import Collection
from struct import Struct

from pydicom import Dataset
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

_FIRST_ELEMENT = 132
_META_GROUP = 2
_TRANSFER_SYNTAX = BaseTag(0x00020010)
_HEAD = Struct("<HH2sH")
_LENGTH = Struct("<L")
_UNDEFINED = 0xFFFFFFFF
_ESCAPE = b"\x1b"

_SHORT_VRS = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_16)
_LONG_VRS = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)
"""Of those the length takes 32 bits (PS3.5 7.1.2)."""

_Elements = dict[BaseTag, DataElement | RawDataElement]

_OTHER_SYNTAXES = frozenset(
    {DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian}
)


class _NotPlain(Exception):
    """pydicom must read it."""


def read_top_level(content: bytes, wanted: Collection[BaseTag]) -> Dataset | None:
    """These attributes of a Part 10 file, undecoded, with its transfer syntax as file meta.

    Reads as far as the last of them. None where pydicom must read: another syntax, no preamble,
    a sequence of undefined length among them, a text that is not ASCII, or damage.
    """
    try:
        meta, start = _elements(content, _FIRST_ELEMENT, (_TRANSFER_SYNTAX,), group=_META_GROUP)
        if content[_FIRST_ELEMENT - 4 : _FIRST_ELEMENT] != b"DICM" or _syntax(meta) is None:
            return None
        found, _ = _elements(content, start, wanted)
    except _NotPlain:
        return None
    dataset = Dataset(found)
    dataset.file_meta = FileMetaDataset(meta)
    return dataset


def _syntax(meta: _Elements) -> str | None:
    """The transfer syntax, where it is one of explicit little endian elements."""
    element = meta.get(_TRANSFER_SYNTAX)
    if element is None or not element.value:
        return None
    syntax = bytes(element.value).rstrip(b"\0 ").decode("ascii")
    return None if syntax in _OTHER_SYNTAXES else syntax


def _elements(
    content: bytes, start: int, wanted: Collection[BaseTag], *, group: int | None = None
) -> tuple[_Elements, int]:
    """The elements that are wanted, and where the next one begins; all of `group` where given."""
    last = max(wanted)
    found: _Elements = {}
    place, end = start, len(content)
    while place + _HEAD.size <= end:
        group_number, element_number, vr, length = _HEAD.unpack_from(content, place)
        tag = BaseTag(group_number << 16 | element_number)
        if group_number != group if group is not None else tag > last:
            return found, place
        place += _HEAD.size
        if vr in _LONG_VRS:
            length = _long_length(content, place)
            place += _LENGTH.size
        elif vr not in _SHORT_VRS:
            raise _NotPlain
        if place + length > end:
            raise _NotPlain
        if tag in wanted:
            value = content[place : place + length]
            if not value.isascii() or _ESCAPE in value:
                raise _NotPlain
            found[tag] = RawDataElement(tag, vr.decode("ascii"), length, value, place, False, True)
        place += length
    if place != end:
        raise _NotPlain
    return found, place


def _long_length(content: bytes, place: int) -> int:
    if place + _LENGTH.size > len(content):
        raise _NotPlain
    length: int = _LENGTH.unpack_from(content, place)[0]
    if length == _UNDEFINED:
        raise _NotPlain
    return length

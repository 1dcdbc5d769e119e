"""Validates the structure of a received dataset without decoding it, and reads its identifiers.

Every element header is read, every value is skipped, so a gigabyte costs a few kilobytes. What
cannot be walked to its very last byte is not a dataset (PS3.5 section 7) and is refused before
other software touches it. Small deviations that every PACS tolerates are noted.
"""

from __future__ import annotations

import hashlib
import io
import re
import sys
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import lru_cache
from struct import Struct
from typing import BinaryIO, NamedTuple, Protocol

from pydicom.datadict import dictionary_VR
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

from pipeline.errors import Defect, Rejected


class Readable(Protocol):
    """What the scan needs of a file or of an `InflatedStream`: it never goes back."""

    def seek(self, position: int, /) -> object:
        """Goes forward to a position."""

    def read(self, count: int, /) -> bytes:
        """Returns the next bytes."""


MAX_DEPTH = 32
"""Sequences in sequences; real images use five. pydicom recurses and stops at about 200."""
MAX_ELEMENTS = 250_000
"""Element and fragment headers of one dataset; a true-color image has a few hundred."""
MAX_BYTES_BESIDE_PIXELS = 64 * 2**20
"""All elements but the pixels together. Whoever reads an image has them in memory; those of real
images take kilobytes, private ones of cameras some megabytes."""
MAX_IDENTIFIER_BYTES = 1024
"""The longest value that is read."""

_WINDOW_BYTES = 16 * 1024
"""Read at once: what an image usually holds before its pixels."""
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LAST_COMMAND_TAG, _FIRST_DELIMITER_TAG = 0x0003FFFF, 0xFFFE0000
"""Between them lie the tags of a dataset: groups below 0004 belong to commands and file headers."""
_PIXEL_DATA = 0x7FE00010
_SPECIMENS = 0x00400560

_TAG_AND_LENGTH = Struct("<HHL")
_TAG_AND_VR = Struct("<HH2sH")
_LENGTH = Struct("<L")
_SHORT_VRS = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_16)
_LONG_VRS = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)
_PLAIN_LONG_VRS = _LONG_VRS - {b"SQ"}
_LONGEST_HEADER_BYTES = 12
_VR = re.compile(rb"[A-Z]{2}")
"""Of a standard to come: PS3.5 7.1.2 gives new ones the long form."""
_UNKNOWN_VRS = frozenset({b"??", b"--"})
"""Written by some toolkits for what their dictionary lacks, with a length of two bytes."""
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_LEADING_ZERO = re.compile(r"(^|\.)0[0-9]")


def is_uid(text: str) -> bool:
    """Whether `text` can serve as a UID: at most 64 digits and dots.

    PS3.5 9.1 forbids components with leading zeros; many devices make them, and every PACS takes
    them.
    """
    return len(text) <= 64 and _UID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetIdentifiers:
    """What the inbox needs to know of a dataset."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    specimen_key: str
    """SHA-256 over the specimen's identifiers and its patient's, so that equal labels of two
    patients never meet; empty when the dataset names no specimen."""
    deviations: tuple[str, ...] = ()
    """Stable words for what deviates from the standard and was tolerated."""


class Element(NamedTuple):
    """Where one element of the dataset lies; `path` holds the sequences around it."""

    path: tuple[int, ...]
    tag: int
    offset: int
    length: int
    vr: bytes = b""
    """As written; empty where it is implicit."""


def scan_dataset(
    stream: Readable, *, start: int, length: int, transfer_syntax_uid: str
) -> DatasetIdentifiers:
    """Validates the whole structure and reads the identifiers.

    `stream` is seekable and holds the dataset from `start` on, in its native encoding (see
    `InflatedStream` for the deflated one). Raises Rejected `truncated_dataset`,
    `unreadable_dataset`, `object_too_large` or `missing_uid`.
    """
    if transfer_syntax_uid == ExplicitVRBigEndian:
        raise Rejected("Explicit VR Big Endian is retired", code="unsupported_transfer_syntax")
    is_implicit = transfer_syntax_uid == ImplicitVRLittleEndian
    values: _Values = {}
    noted: set[str] = set()
    end = start + length
    pixels_begin = pixels_end = end
    window = _Window(stream, end=end)
    elements = _walk(window, start=start, is_implicit=is_implicit, noted=noted)
    for path, tag, offset, length_of_value, _ in elements:
        if tag in _IDENTIFIER_TAGS and (key := (path, tag)) in _IDENTIFIERS:
            if key in values and not path:
                raise Rejected("An identifier is there twice", code="unreadable_dataset")
            values.setdefault(key, []).append(_value(window, offset, length_of_value))
        elif path:
            continue
        elif tag == _PIXEL_DATA:
            pixels_begin = offset
        elif pixels_begin < end == pixels_end:
            pixels_end = offset
    if length - (pixels_end - pixels_begin) > MAX_BYTES_BESIDE_PIXELS:
        raise Rejected(
            f"More than {MAX_BYTES_BESIDE_PIXELS} bytes beside the pixels", code="object_too_large"
        )
    return _identifiers(values, noted)


def check_structure(data: bytes, *, is_implicit: bool, max_elements: int) -> None:
    """Walks a small dataset to its last byte before anything parses it; raises as `walk` does."""
    for _ in walk(
        io.BytesIO(data), start=0, end=len(data), is_implicit=is_implicit, max_elements=max_elements
    ):
        """Only its structure matters."""


def name_unknown_vrs(data: bytearray, *, start: int) -> None:
    """Names LO in place of VRs such as `??`, at which pydicom would stop reading.

    `data` is a file whose explicit VR dataset begins at `start` and has passed `scan_dataset`.
    """
    for element in walk(io.BytesIO(data), start=start, end=len(data), is_implicit=False):
        if element.vr in _UNKNOWN_VRS:
            at = element.offset - 4
            data[at : at + 2] = b"LO"


def pixel_data_offset(stream: Readable, *, length: int) -> int:
    """Where the Pixel Data element of an explicit VR dataset begins; `length` where it has none.

    `stream` has passed `scan_dataset`.
    """
    for element in walk(stream, start=0, end=length, is_implicit=False):
        if element.tag == _PIXEL_DATA and not element.path:
            return element.offset - (8 if element.vr in _SHORT_VRS | _UNKNOWN_VRS else 12)
    return length


def inflated_length(packed: BinaryIO, *, start: int) -> int:
    """How many plain bytes a deflated dataset has that begins at `start`."""
    packed.seek(start)
    inflation = Inflation(max_bytes=sys.maxsize)
    while piece := packed.read(_INFLATE_STEP):
        inflation.feed(piece)
    return inflation.finish()


class Inflation:
    """Measures a deflated dataset (PS3.5 A.5) as it arrives: its plain bytes are kept nowhere."""

    def __init__(self, *, max_bytes: int) -> None:
        self._machine = zlib.decompressobj(-zlib.MAX_WBITS)
        self._max_bytes = max_bytes
        self._length = 0

    def feed(self, packed: bytes | bytearray | memoryview) -> None:
        """Inflates the next piece. Raises Rejected `object_too_large` as soon as there is more
        than `max_bytes`, or `unreadable_dataset`.
        """
        rest: bytes | bytearray | memoryview = packed
        while rest and not self._machine.eof:
            self._length += len(_inflate(self._machine, rest))
            if self._length > self._max_bytes:
                raise Rejected(
                    f"Inflates to more than {self._max_bytes} bytes", code="object_too_large"
                )
            rest = self._machine.unconsumed_tail

    def finish(self) -> int:
        """The plain length. Raises Rejected `truncated_dataset`."""
        while not self._machine.eof:
            plain = _inflate(self._machine, self._machine.unconsumed_tail)
            if not plain:
                raise Rejected("The deflated dataset breaks off", code="truncated_dataset")
            self._length += len(plain)
        return self._length


class InflatedStream:
    """Reads the plain bytes of a deflated dataset from front to back; only a piece is in memory."""

    def __init__(self, packed: BinaryIO, *, start: int) -> None:
        self._packed = packed
        self._packed.seek(start)
        self._machine = zlib.decompressobj(-zlib.MAX_WBITS)
        self._plain = b""
        self._position = 0
        """Of the first byte of `_plain`."""

    def seek(self, position: int) -> None:
        """Goes forward to `position`; it never goes back."""
        while position > self._position + len(self._plain):
            self._position += len(self._plain)
            self._plain = self._next()
            if not self._plain:
                return
        if position < self._position:
            raise Defect("A deflated dataset is read from front to back", code="seek_backwards")
        self._plain = self._plain[position - self._position :]
        self._position = position

    def read_some(self, count: int) -> bytes:
        """At most `count` of the next bytes, none at the end."""
        if not self._plain:
            self._plain = self._next()
        return self.read(min(count, len(self._plain)))

    def read(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the end."""
        while len(self._plain) < count:
            more = self._next()
            if not more:
                break
            self._plain += more
        data, self._plain = self._plain[:count], self._plain[count:]
        self._position += len(data)
        return data

    def _next(self) -> bytes:
        while not self._machine.eof:
            packed = self._machine.unconsumed_tail or self._packed.read(_INFLATE_STEP)
            plain = _inflate(self._machine, packed)
            if plain or not packed:
                return plain
        return b""


def _inflate(machine: zlib._Decompress, packed: bytes | bytearray | memoryview) -> bytes:
    try:
        return machine.decompress(packed, _INFLATE_STEP)
    except zlib.error as err:
        raise Rejected("Not a deflated dataset (PS3.5 A.5)", code="unreadable_dataset") from err


def is_deflated(transfer_syntax_uid: str) -> bool:
    """Whether the dataset itself is one deflated stream."""
    return transfer_syntax_uid == DeflatedExplicitVRLittleEndian


class _Kind(Enum):
    DATASET = auto()
    SEQUENCE = auto()
    FRAGMENTS = auto()


@dataclass(slots=True, kw_only=True)
class _Scope:
    """What the walk is inside of; `end` is None for an undefined length."""

    kind: _Kind
    end: int | None
    limit: int
    is_implicit: bool
    path: tuple[int, ...]
    last_tag: int = field(default=-1)


class _Window:
    """The next bytes of a stream up to `end`, a piece at a time: positions never go back."""

    def __init__(self, stream: Readable, *, end: int) -> None:
        self._stream = stream
        self.end = end
        self.start = 0
        """Where `data` begins."""
        self.data = b""

    def read(self, position: int, count: int) -> bytes:
        """`count` bytes, fewer where the stream ends."""
        at = position - self.start
        if at + count > len(self.data):
            self._fill(position, count)
            at = 0
        return self.data[at : at + count]

    def _fill(self, position: int, count: int) -> None:
        rest = self.data[position - self.start :]
        if not rest:
            self._stream.seek(position)
        wanted = max(count, min(_WINDOW_BYTES, self.end - position))
        self.start, self.data = position, rest + self._stream.read(wanted - len(rest))


def walk(
    stream: Readable,
    *,
    start: int,
    end: int,
    is_implicit: bool,
    max_elements: int = MAX_ELEMENTS,
) -> Iterator[Element]:
    """Yields every element, sequences opened, in the order of the file.

    Raises Rejected when an element, item or fragment is cut off, out of order or not one at all.
    """
    return _walk(
        _Window(stream, end=end),
        start=start,
        is_implicit=is_implicit,
        max_elements=max_elements,
        noted=set(),
    )


def _walk(
    window: _Window,
    *,
    start: int,
    is_implicit: bool,
    noted: set[str],
    max_elements: int = MAX_ELEMENTS,
) -> Iterator[Element]:
    end = window.end
    scopes = [_Scope(kind=_Kind.DATASET, end=end, limit=end, is_implicit=is_implicit, path=())]
    position = start
    count = 0
    while scopes:
        scope = scopes[-1]
        if position == scope.end:
            scopes.pop()
            continue
        if scope.kind is _Kind.DATASET:
            position, passed = yield from _plain_elements(
                window, position, scope, max_elements - count
            )
            count += passed
            if position == scope.end:
                continue
        count += 1
        if count > max_elements:
            raise Rejected(f"More than {max_elements} elements", code="object_too_large")
        if scope.kind is _Kind.DATASET:
            tag, vr, length, position = _element_header(window, position, scope, noted)
            if tag == _ITEM_END:
                scopes.pop()
                continue
            yield Element(scope.path, tag, position, length, vr)
            inner = _opened(tag, vr, length, position, scope)
        else:
            tag, length, position = _item_header(window, position, scope)
            if tag == _SEQUENCE_END:
                scopes.pop()
                continue
            inner = _opened_item(length, position, scope)
        if inner is None:
            position += length
        else:
            scopes.append(inner)
            if len(scopes) > 2 * MAX_DEPTH:
                raise Rejected(f"Sequences nest deeper than {MAX_DEPTH}", code="unreadable_dataset")


def _plain_elements(
    window: _Window, position: int, scope: _Scope, most: int
) -> Generator[Element, None, tuple[int, int]]:
    """Yields elements as most are: in ascending order, of a known VR and length, no sequences.

    Ends before the first that is otherwise in any way, which `_element_header` judges; returns
    where that is, and how many were yielded. This loop sees each element of each image that
    arrives, so it calls no function for it.
    """
    data, start, count = window.data, window.start, 0
    limit = min(start + len(data), scope.limit)
    is_implicit, path, last_tag = scope.is_implicit, scope.path, scope.last_tag
    if last_tag < _LAST_COMMAND_TAG:
        last_tag = _LAST_COMMAND_TAG
    while position + _LONGEST_HEADER_BYTES <= limit and count < most:
        group, number, vr, length = _TAG_AND_VR.unpack_from(data, position - start)
        tag, value_at = group << 16 | number, position + 8
        if not last_tag < tag < _FIRST_DELIMITER_TAG:
            break
        if is_implicit:
            vr, (length,) = b"", _LENGTH.unpack_from(data, position - start + 4)
            if _is_sequence(tag):
                break
        elif vr in _PLAIN_LONG_VRS:
            (length,) = _LENGTH.unpack_from(data, position - start + 8)
            value_at = position + 12
        elif vr not in _SHORT_VRS:
            break
        if length == _UNDEFINED or value_at + length > scope.limit:
            break
        count, position, last_tag = count + 1, value_at + length, tag
        scope.last_tag = tag
        yield Element(path, tag, value_at, length, vr)
    return position, count


def _element_header(
    window: _Window, position: int, scope: _Scope, noted: set[str]
) -> tuple[int, bytes, int, int]:
    """Tag, VR (empty if implicit), length, and where the value begins."""
    head = _read(window, 8, position, scope)
    group, number, length = _TAG_AND_LENGTH.unpack(head)
    tag, vr, position = group << 16 | number, b"", position + 8
    if tag == _ITEM_END and scope.end is None and length == 0:
        return tag, vr, 0, position
    _check_order(tag, scope, noted)
    if not scope.is_implicit:
        _, _, vr, length = _TAG_AND_VR.unpack(head)
        if vr in _UNKNOWN_VRS:
            noted.add("unknown_vr")
        elif vr not in _SHORT_VRS:
            if vr not in _LONG_VRS and not _VR.fullmatch(vr):
                raise Rejected("An element has no VR (PS3.5 7.1.2)", code="unreadable_dataset")
            (length,) = _LENGTH.unpack(_read(window, 4, position, scope))
            position += 4
    return tag, vr, length, _checked(position, length, scope)


def _item_header(window: _Window, position: int, scope: _Scope) -> tuple[int, int, int]:
    """Tag, length, and where the item begins (PS3.5 7.5)."""
    group, number, length = _TAG_AND_LENGTH.unpack(_read(window, 8, position, scope))
    tag, position = group << 16 | number, position + 8
    is_end = tag == _SEQUENCE_END and scope.end is None and length == 0
    if tag != _ITEM and not is_end:
        raise Rejected("A sequence holds something else than items", code="unreadable_dataset")
    return tag, length, _checked(position, length, scope)


def _check_order(tag: int, scope: _Scope, noted: set[str]) -> None:
    """PS3.5 7.1: tags ascend; groups below 0004 belong to commands and file headers.

    Elements in another order are tolerated, but not after the pixel data, where who reads only
    the head of an image would miss them, and no element twice in a row.
    """
    is_allowed = _LAST_COMMAND_TAG < tag < _FIRST_DELIMITER_TAG
    if not is_allowed or tag == scope.last_tag:
        raise Rejected("An element stands where none may be (PS3.5 7.1)", code="unreadable_dataset")
    if tag < scope.last_tag:
        if scope.last_tag >= _PIXEL_DATA and not scope.path:
            raise Rejected("Elements follow the pixel data", code="unreadable_dataset")
        noted.add("out_of_order_tags")
    scope.last_tag = max(tag, scope.last_tag)


def _opened(tag: int, vr: bytes, length: int, position: int, scope: _Scope) -> _Scope | None:
    """The scope that an element opens, or None when its value is to be skipped."""
    is_undefined = length == _UNDEFINED
    if is_undefined and (tag == _PIXEL_DATA or vr in (b"OB", b"OW")):
        kind = _Kind.FRAGMENTS
    elif is_undefined or vr == b"SQ" or (not vr and _is_sequence(tag)):
        kind = _Kind.SEQUENCE
    else:
        return None
    return _Scope(
        kind=kind,
        end=None if is_undefined else position + length,
        limit=scope.limit if is_undefined else position + length,
        # PS3.5 6.2.2: a sequence sent as UN holds implicit VR
        is_implicit=scope.is_implicit or vr == b"UN",
        path=(*scope.path, tag),
    )


def _opened_item(length: int, position: int, scope: _Scope) -> _Scope | None:
    if scope.kind is _Kind.FRAGMENTS:
        if length == _UNDEFINED:
            raise Rejected("A pixel fragment has no length", code="unreadable_dataset")
        return None
    is_undefined = length == _UNDEFINED
    return _Scope(
        kind=_Kind.DATASET,
        end=None if is_undefined else position + length,
        limit=scope.limit if is_undefined else position + length,
        is_implicit=scope.is_implicit,
        path=scope.path,
    )


@lru_cache(maxsize=4096)
def _is_sequence(tag: int) -> bool:
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False


def _read(window: _Window, count: int, position: int, scope: _Scope) -> bytes:
    if position + count > scope.limit:
        raise _broken_off()
    data = window.read(position, count)
    if len(data) != count:
        raise _broken_off()
    return data


def _checked(position: int, length: int, scope: _Scope) -> int:
    """`position`, when a value of `length` fits there."""
    if length != _UNDEFINED and position + length > scope.limit:
        raise _broken_off()
    return position


def _broken_off() -> Rejected:
    return Rejected("The dataset ends inside an element", code="truncated_dataset")


_INFLATE_STEP = 64 * 1024

_Place = tuple[tuple[int, ...], int]
"""The sequences around an element, and its tag."""
_Values = dict[_Place, list[bytes]]

_SOP_CLASS: _Place = ((), 0x00080016)
_SOP_INSTANCE: _Place = ((), 0x00080018)
_STUDY: _Place = ((), 0x0020000D)
_SERIES: _Place = ((), 0x0020000E)
_PATIENT: tuple[_Place, ...] = (
    ((), 0x00100020),  # PatientID
    ((), 0x00100021),  # IssuerOfPatientID
)
_SPECIMEN: tuple[_Place, ...] = (
    ((), 0x00400512),  # ContainerIdentifier
    ((_SPECIMENS,), 0x00400551),  # SpecimenIdentifier
    ((_SPECIMENS,), 0x00400554),  # SpecimenUID
)
_ISSUERS: tuple[_Place, ...] = tuple(
    (path, tag)
    for path in (
        (0x00400513,),  # IssuerOfTheContainerIdentifierSequence
        (_SPECIMENS, 0x00400562),  # IssuerOfTheSpecimenIdentifierSequence
    )
    for tag in (0x00400031, 0x00400032)  # LocalNamespaceEntityID, UniversalEntityID
)
_IDENTIFIERS = frozenset(
    {_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES, *_PATIENT, *_SPECIMEN, *_ISSUERS}
)
_IDENTIFIER_TAGS = frozenset(tag for _, tag in _IDENTIFIERS)


def _value(window: _Window, offset: int, length: int) -> bytes:
    if length > MAX_IDENTIFIER_BYTES:
        raise Rejected("An identifier is longer than its VR allows", code="unreadable_dataset")
    return window.read(offset, length).strip(b" \0")


def _identifiers(values: _Values, noted: set[str]) -> DatasetIdentifiers:
    uids = {key: _uid(values, key) for key in _UID_NAMES}
    if any(map(_LEADING_ZERO.search, uids.values())):
        noted.add("uid_with_leading_zero")
    return DatasetIdentifiers(
        sop_class_uid=uids[_SOP_CLASS],
        sop_instance_uid=uids[_SOP_INSTANCE],
        study_uid=uids[_STUDY],
        series_uid=uids[_SERIES],
        specimen_key=_specimen_key(values),
        deviations=tuple(sorted(noted)),
    )


def _uid(values: _Values, key: _Place) -> str:
    text = values.get(key, [b""])[0].decode("ascii", errors="replace")
    if not is_uid(text):
        name = _UID_NAMES[key]
        raise Rejected(f"{name} is absent or no UID (PS3.5 9.1)", code="missing_uid")
    return text


_UID_NAMES: dict[_Place, str] = {
    _SOP_CLASS: "SOP Class UID",
    _SOP_INSTANCE: "SOP Instance UID",
    _STUDY: "Study Instance UID",
    _SERIES: "Series Instance UID",
}


def _specimen_key(values: _Values) -> str:
    specimen = [part for key in _SPECIMEN for part in [*values.get(key, []), b""]]
    if not any(specimen):
        return ""
    patient = [values.get(key, [b""])[0] for key in _PATIENT]
    if not patient[0]:
        patient = values[_STUDY]
    issuers = [part for key in _ISSUERS for part in values.get(key, [])]
    return hashlib.sha256(b"\\".join([*patient, *specimen, *issuers])).hexdigest()

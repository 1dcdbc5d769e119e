"""Writes and reads the File Meta Information of stored images (PS3.10 7.1), with reception facts.

The facts of a reception (when, from whom, SHA-256, whose series) are Private Information
(0002,0102) of a fixed length, the last element before the dataset, so that they can be filled in
when the last byte has come.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from struct import Struct
from typing import BinaryIO

from pydicom import Dataset
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipeline.domain import SeriesUID, SOPInstanceUID, StudyUID
from pipeline.errors import Defect, Rejected
from reporting.derived_uids import IMPLEMENTATION_CLASS_UID, derived_uid

IMPLEMENTATION_VERSION_NAME = "SMEARLINK"
FACTS_CREATOR_UID = derived_uid("private_information", "reception facts")
"""Private Information Creator UID (0002,0100) of our reception facts."""
FACTS_BYTES = 1024
MAX_HEADER_BYTES = 64 * 1024
"""The longest file header of a sender that is read; usual ones have a few hundred bytes."""

MAX_SYNTAX_BYTES = 256
"""Where the Transfer Syntax UID of our own header has ended: three UIDs come first."""

_PREAMBLE_BYTES = 132
_GROUP_LENGTH = Struct("<HH2sHL")
_SHORT_ELEMENT = Struct("<HH2sH")
_LONG_ELEMENT = Struct("<HH2sxxL")
"""Explicit VR little endian (PS3.5 7.1.2), as the File Meta Information always is."""
_DIGEST_STEP = 2**20
_compact_json = json.JSONEncoder(separators=(",", ":")).encode
_NOTED = ("received_at", "source", "sha256", "study_uid", "series_uid", "specimen_key")
"""What the file's own header says of the reception."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequest:
    """What a sender announces before it sends a dataset."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    source: str
    """Calling AE title, or the name of another protocol; at most 16 characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInstance:
    """An image that is safe on disk."""

    sop_instance_uid: SOPInstanceUID
    path: Path
    sha256: str
    """Over the dataset's bytes as received, without the file's header."""
    study_uid: StudyUID
    series_uid: SeriesUID
    specimen_key: str
    """Digest of the specimen's identifiers; empty when the image names none."""
    source: str
    received_at: datetime
    is_duplicate: bool = False
    """True when the same bytes were here before."""
    is_mended: bool = False
    """True when it took the place of a copy that had been damaged on disk."""
    deviations: tuple[str, ...] = ()
    """What deviates from the standard in the dataset and was tolerated."""


def encode_header(request: StoreRequest) -> bytes:
    """Preamble and File Meta Information; its last FACTS_BYTES are blank, for the facts."""
    group = b"".join(
        (
            _LONG_ELEMENT.pack(2, 0x0001, b"OB", 2) + b"\0\1",  # FileMetaInformationVersion
            _uid_element(0x0002, request.sop_class_uid),  # MediaStorageSOPClassUID
            _uid_element(0x0003, request.sop_instance_uid),  # MediaStorageSOPInstanceUID
            _uid_element(0x0010, request.transfer_syntax_uid),  # TransferSyntaxUID
            _uid_element(0x0012, IMPLEMENTATION_CLASS_UID),  # ImplementationClassUID
            _short_element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode()),
            # SourceApplicationEntityTitle
            _short_element(0x0016, b"AE", request.source.encode("latin-1", errors="replace")),
            _uid_element(0x0100, FACTS_CREATOR_UID),  # PrivateInformationCreatorUID
            _LONG_ELEMENT.pack(2, 0x0102, b"OB", FACTS_BYTES),  # PrivateInformation
        )
    )
    length = _GROUP_LENGTH.pack(2, 0, b"UL", 4, len(group) + FACTS_BYTES)
    return b"".join((bytes(128), b"DICM", length, group, b" " * FACTS_BYTES))


def _uid_element(number: int, uid: str) -> bytes:
    value = uid.encode("ascii")
    return _SHORT_ELEMENT.pack(2, number, b"UI", len(value) + len(value) % 2) + _even(value, b"\0")


def _short_element(number: int, vr: bytes, value: bytes) -> bytes:
    return _SHORT_ELEMENT.pack(2, number, vr, len(value) + len(value) % 2) + _even(value, b" ")


def _even(value: bytes, padding: bytes) -> bytes:
    return value + padding if len(value) % 2 else value


def encode_facts(image: StoredInstance) -> bytes:
    """What is noted of a reception, as exactly FACTS_BYTES."""
    facts = {name: getattr(image, name) for name in _NOTED}
    facts["received_at"] = image.received_at.isoformat()
    if image.deviations:
        facts["deviations"] = image.deviations
    text = _compact_json(facts).encode("ascii")
    if len(text) > FACTS_BYTES:
        raise Defect("Reception facts outgrew their place", code="facts_too_long")
    return text.ljust(FACTS_BYTES)


def read_received(path: Path) -> StoredInstance:
    """The image as it was noted in its own file, whose name is its SOP Instance UID.

    Raises Rejected `unreadable_dataset` when the file's header is not as we wrote it.
    """
    try:
        facts = json.loads(read_file_meta_info(path).PrivateInformation)
        received_at = datetime.fromisoformat(facts["received_at"])
        noted = {name: str(facts[name]) for name in _NOTED if name != "received_at"}
        deviations = tuple(map(str, facts.get("deviations", ())))
    except OSError:
        raise
    except Exception as err:
        raise _unreadable() from err
    return StoredInstance(
        sop_instance_uid=SOPInstanceUID(path.stem),
        path=path,
        sha256=noted["sha256"],
        study_uid=StudyUID(noted["study_uid"]),
        series_uid=SeriesUID(noted["series_uid"]),
        specimen_key=noted["specimen_key"],
        source=noted["source"],
        received_at=received_at,
        deviations=deviations,
    )


def check_digest(image: StoredInstance) -> None:
    """Raises Rejected `damaged_on_disk` when the dataset's bytes are not those received."""
    digest = hashlib.sha256()
    with image.path.open("rb") as file:
        file.seek(dataset_start(file))
        while piece := file.read(_DIGEST_STEP):
            digest.update(piece)
    if digest.hexdigest() != image.sha256:
        raise Rejected(
            "The stored image was damaged on disk; send it again", code="damaged_on_disk"
        )


def dataset_start(file: BinaryIO) -> int:
    """Where the dataset of one of our files begins. Raises Rejected `unreadable_dataset`."""
    head = file.read(_PREAMBLE_BYTES + _GROUP_LENGTH.size)
    if len(head) < _PREAMBLE_BYTES + _GROUP_LENGTH.size:
        raise _unreadable()
    *_, length = _GROUP_LENGTH.unpack_from(head, _PREAMBLE_BYTES)
    return len(head) + int(length)


def stored_transfer_syntax(file: BinaryIO) -> str:
    """The Transfer Syntax UID in the header of one of our files."""
    file.seek(_PREAMBLE_BYTES + _GROUP_LENGTH.size)
    head = file.read(MAX_SYNTAX_BYTES)
    position = _LONG_ELEMENT.size + 2  # FileMetaInformationVersion
    while position + _SHORT_ELEMENT.size <= len(head):
        group, number, _, length = _SHORT_ELEMENT.unpack_from(head, position)
        position += _SHORT_ELEMENT.size
        if (group, number) == (2, 0x0010):
            return head[position : position + length].decode("ascii", "replace").rstrip(" \0")
        position += length
    raise _unreadable()


def _unreadable() -> Rejected:
    return Rejected(
        "The header of the stored image was damaged on disk; send it again",
        code="unreadable_dataset",
    )


def split_header(head: bytes, *, source: str, is_all: bool) -> tuple[StoreRequest, bytes] | None:
    """The request that a Part 10 file makes, and the first bytes of its dataset; None while more
    is needed.

    The preamble, or the whole header, may be missing: some STOW-RS clients send a bare dataset.
    Then the request is read from the dataset, of implicit or explicit VR little endian (PS3.5 A.4).
    `is_all` says that nothing more will come. Raises Rejected `not_dicom`.
    """
    if len(head) < MAX_HEADER_BYTES and not is_all and not _has_whole_header(head):
        return None
    start = _PREAMBLE_BYTES if head[128:132] == b"DICM" else 0
    try:
        if head[start : start + 2] == b"\x02\0":
            return _request_of_header(head, start, source)
        return _request_of_dataset(head, source), head
    except Exception as err:
        raise Rejected("Neither a DICOM file nor a dataset", code="not_dicom") from err


def _has_whole_header(head: bytes) -> bool:
    if len(head) < _PREAMBLE_BYTES + _GROUP_LENGTH.size or head[128:132] != b"DICM":
        return False
    *_, length = _GROUP_LENGTH.unpack_from(head, _PREAMBLE_BYTES)
    return len(head) >= _PREAMBLE_BYTES + _GROUP_LENGTH.size + int(length)


def _request_of_header(head: bytes, start: int, source: str) -> tuple[StoreRequest, bytes]:
    """Parses the File Meta Information alone: the dataset after it may be deflated, or torn."""
    *_, length = _GROUP_LENGTH.unpack_from(head, start)
    end = start + _GROUP_LENGTH.size + int(length)
    group = head[start:end]
    if len(group) < end - start:
        raise ValueError("the File Meta Information breaks off")
    meta = read_dataset(io.BytesIO(group), False, True)
    request = StoreRequest(
        sop_class_uid=str(meta.MediaStorageSOPClassUID),
        sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
        transfer_syntax_uid=str(meta.TransferSyntaxUID),
        source=source,
    )
    return request, head[end:]


_SOP_INSTANCE = Tag("SOPInstanceUID")


def _request_of_dataset(head: bytes, source: str) -> StoreRequest:
    is_implicit = not head[4:6].isalpha()
    dataset = _leading_elements(head, is_implicit=is_implicit)
    syntax = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
    return StoreRequest(
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        transfer_syntax_uid=str(syntax),
        source=source,
    )


def _leading_elements(head: bytes, *, is_implicit: bool) -> Dataset:
    return read_dataset(
        io.BytesIO(head),
        is_implicit,
        True,
        stop_when=lambda tag, vr, length: tag > _SOP_INSTANCE,
    )

"""Reads DICOM files (PS3.10) that a person named: whole images only, inflated within bounds."""

from __future__ import annotations

import zlib
from pathlib import Path
from struct import Struct

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from listener.storage.dataset_scan import walk
from pipeline.decoding.frames import ImageLimits
from pipeline.errors import Rejected

NAMES_OF_IMAGE = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_PREAMBLE_BYTES = 128
_GROUP_LENGTH = Struct("<4s2sHL")
"""(0002,0000) with VR UL: how many bytes of File Meta Information follow (PS3.10 7.1)."""
_GROUP_LENGTH_TAG = b"\x02\0\0\0"
_LONGEST_META_BYTES = 64 * 1024
_PIECE_BYTES = 1 << 20
_OTHER_BYTES = 64 * 1024 * 1024
_ELEMENT_HEADER_BYTES = 8
_BYTES_PER_PIXEL = 6
"""Of RGB with 16 bits."""


def is_dicom(path: Path) -> bool:
    """Whether the file begins as Part 10 says (PS3.10 7.1)."""
    with path.open("rb") as file:
        return file.read(_PREAMBLE_BYTES + 4)[_PREAMBLE_BYTES:] == b"DICM"


def read_dicom(path: Path, limits: ImageLimits) -> FileDataset:
    """Read a whole DICOM image.

    Raises Rejected `not_an_image` or `too_large`; the message continues a sentence that begins
    with the file's name.
    """
    _check_inflated_size(path, limits)
    try:
        dataset = dcmread(path)
        named = {word: dataset.get(word) for word in NAMES_OF_IMAGE}
        has_pixels = any(word in dataset for word in _PIXELS)
        syntax = dataset.file_meta.get("TransferSyntaxUID")
    # pydicom raises what it likes on damaged bytes: KeyError, TypeError, struct.error, …
    except Exception as err:
        raise Rejected("is DICOM, but damaged: copy it again", code="not_an_image") from err
    if syntax:
        _check_whole(path, syntax)
    named["TransferSyntaxUID"] = syntax
    lacking = [word for word, name in named.items() if not name]
    if lacking:
        raise Rejected(
            f"lacks {', '.join(lacking)}: it cannot be sent (PS3.3 C.12.1, C.7)",
            code="not_an_image",
        )
    if not has_pixels:
        raise Rejected("is DICOM, but no image", code="not_an_image")
    return dataset


def _check_whole(path: Path, syntax: UID) -> None:
    """Raise Rejected where the file ends inside an element, which pydicom reads without a word.

    Other faults of the structure are the receiver's to judge, and bytes behind the last element
    that are too few for another are padding.
    """
    if syntax in (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian):
        return  # the first is checked as it is inflated, the second is refused
    size, end = path.stat().st_size, 0
    with path.open("rb") as file:
        try:
            start = _end_of_meta(file.read(_LONGEST_META_BYTES))
            is_implicit = syntax == ImplicitVRLittleEndian
            for element in walk(file, start=start, end=size, is_implicit=is_implicit):
                end = element.offset + element.length
        except Rejected as err:
            if err.code == "truncated_dataset" and not end <= size < end + _ELEMENT_HEADER_BYTES:
                raise Rejected("breaks off: copy it again", code="not_an_image") from err


def _check_inflated_size(path: Path, limits: ImageLimits) -> None:
    """Inflate a deflated dataset in pieces, without keeping it: pydicom would keep all of it."""
    most = limits.max_megapixels * 1e6 * _BYTES_PER_PIXEL * limits.max_frames + _OTHER_BYTES
    with path.open("rb") as file:
        head = file.read(_LONGEST_META_BYTES)
        if DeflatedExplicitVRLittleEndian.encode() not in head[: _end_of_meta(head)]:
            return
        file.seek(_end_of_meta(head))
        machine = zlib.decompressobj(-zlib.MAX_WBITS)
        length = 0
        while (packed := machine.unconsumed_tail or file.read(_PIECE_BYTES)) and not machine.eof:
            try:
                length += len(machine.decompress(packed, _PIECE_BYTES))
            except zlib.error:
                return  # pydicom will say so
            if length > most:
                raise Rejected(
                    f"inflates to more than {most / 1e6:.0f} MB (image.max_megapixels and "
                    "image.max_frames)",
                    code="too_large",
                )


def _end_of_meta(head: bytes) -> int:
    """Where the File Meta Information ends; at once where its length is not given."""
    at = _PREAMBLE_BYTES + 4
    if len(head) < at + _GROUP_LENGTH.size or head[at : at + 4] != _GROUP_LENGTH_TAG:
        return at
    *_, length = _GROUP_LENGTH.unpack_from(head, at)
    return at + _GROUP_LENGTH.size + int(length)

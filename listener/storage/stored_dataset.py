"""Reads a stored image as a dataset, and says beforehand how many bytes that takes.

pydicom inflates the whole of a deflated dataset (PS3.5 A.5) even where only its header is asked
for; here the header of one is inflated up to its pixels.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset, FileDataset, dcmread
from pydicom.filereader import read_dataset, read_file_meta_info

from listener.storage.dataset_scan import (
    InflatedStream,
    inflated_length,
    is_deflated,
    name_unknown_vrs,
    pixel_data_offset,
)
from listener.storage.part10 import StoredInstance, dataset_start, stored_transfer_syntax

COPIES_OF_PLAIN = 1
"""How often the bytes of a dataset are in memory while it is read: as the values."""
COPIES_OF_INFLATED = 3
"""As inflated bytes, some of them with room to grow, and as the values."""


def bytes_to_read(path: Path) -> int:
    """How much memory reading the whole image takes, its pixels as they are stored."""
    with path.open("rb") as file:
        start = dataset_start(file)
        if is_deflated(stored_transfer_syntax(file)):
            return COPIES_OF_INFLATED * inflated_length(file, start=start)
    return COPIES_OF_PLAIN * (path.stat().st_size - start)


def read_stored(image: StoredInstance, *, stop_before_pixels: bool) -> Dataset:
    """The image as a dataset, with the VRs that its sender did not know named."""
    with image.path.open("rb") as file:
        start = dataset_start(file)
        deflated = is_deflated(stored_transfer_syntax(file))
        has_unknown_vrs = "unknown_vr" in image.deviations
        if deflated:
            plain = _inflated(file, start, stop_before_pixels=stop_before_pixels)
            return _parsed(image.path, plain, has_unknown_vrs=has_unknown_vrs)
    if has_unknown_vrs:
        data = bytearray(image.path.read_bytes())
        name_unknown_vrs(data, start=start)
        return dcmread(io.BytesIO(data), stop_before_pixels=stop_before_pixels)
    return dcmread(image.path, stop_before_pixels=stop_before_pixels)


def _inflated(file: BinaryIO, start: int, *, stop_before_pixels: bool) -> io.BytesIO:
    """The plain bytes of a deflated dataset, or those before its pixels."""
    length = inflated_length(file, start=start)
    if stop_before_pixels:
        length = pixel_data_offset(InflatedStream(file, start=start), length=length)
    plain, stream = io.BytesIO(), InflatedStream(file, start=start)
    while piece := stream.read_some(length - plain.tell()):
        plain.write(piece)
    plain.seek(0)
    return plain


def _parsed(path: Path, plain: io.BytesIO, *, has_unknown_vrs: bool) -> Dataset:
    if has_unknown_vrs:
        named = bytearray(plain.getbuffer())
        name_unknown_vrs(named, start=0)
        plain = io.BytesIO(named)
    dataset = read_dataset(plain, False, True)
    read = FileDataset(
        str(path),
        dataset,
        preamble=bytes(128),
        file_meta=read_file_meta_info(path),
        is_implicit_VR=False,
        is_little_endian=True,
    )
    read.set_original_encoding(False, True, read._character_set)
    return read

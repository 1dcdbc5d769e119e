"""The few attributes of an image that are asked for again and again, read from its file once.

Its analysis, and each report of its smear, want to know how large its frames are and where it
stands in the smear; parsing the file for that costs as much as half of its reception.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from pydicom import Dataset

from listener.storage.inbox import Inbox
from pipeline.errors import RetryLater

MOST_KEPT = 4096
"""Of the images that were asked for last; some 2 KB each."""

_KEPT = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "InstanceNumber")

_FileVersion = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShortHeader:
    """Size of the frames and place in the smear, as the header says; shared, so read it only."""

    attributes: Dataset
    """Rows, Columns, Samples per Pixel, Bits Allocated, Instance Number, where they are there."""
    received_at: datetime


def short_header(inbox: Inbox, sop_instance_uid: str) -> ShortHeader:
    """Of an image in the inbox; raises as `Inbox.read_header` does.

    A file that was replaced (a copy damaged on disk, sent again) is read again.
    """
    try:
        stat = inbox.path_of(sop_instance_uid).stat()
    except OSError as err:
        raise RetryLater("The image cannot be read now", code="inbox_unreadable") from err
    return _read(inbox, sop_instance_uid, (stat.st_ino, stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=MOST_KEPT)
def _read(inbox: Inbox, sop_instance_uid: str, _version: _FileVersion) -> ShortHeader:
    header = inbox.read_header(sop_instance_uid)
    attributes = Dataset()
    for keyword in _KEPT:
        if keyword in header:
            attributes[keyword] = header.get_item(keyword)
    return ShortHeader(attributes=attributes, received_at=inbox.facts(sop_instance_uid).received_at)

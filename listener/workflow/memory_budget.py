"""Lets large images wait for each other, so that the memory they need together stays bounded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom import Dataset

MEBIBYTE = 2**20
BYTES_PER_PIXEL_BYTE = 8
"""What the analysis or the report of a frame needs at its peak, as a multiple of its pixels."""


class MemoryBudget:
    """Bytes that may be in use for pixels at once; what needs more than all of them runs alone."""

    def __init__(self, total_bytes: int) -> None:
        self._total = self._free = total_bytes
        self._changed = threading.Condition()

    @contextmanager
    def reserved(self, wanted_bytes: int) -> Iterator[None]:
        """Hold so many bytes, or all of them; waits until they are free. Do not nest."""
        wanted = min(wanted_bytes, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._free += wanted
                self._changed.notify_all()


def bytes_needed(header: Dataset) -> int:
    """What working on one frame of an image takes, by its header; 0 where that cannot be told."""
    try:
        pixels = int(header.Rows) * int(header.Columns) * int(header.get("SamplesPerPixel") or 1)
        return pixels * max(1, int(header.get("BitsAllocated") or 8) // 8) * BYTES_PER_PIXEL_BYTE
    except (AttributeError, TypeError, ValueError):
        return 0

"""Lets large images wait for each other, so that the memory they need together stays bounded."""

from __future__ import annotations

from pydicom import Dataset

from listener.workflow.fair_budget import FairBudget

MEBIBYTE = 2**20
BYTES_PER_PIXEL_BYTE = 8
"""What the analysis or the report of a frame needs at its peak, as a multiple of its pixels."""
MOST_SHARED_BYTES = 256 * MEBIBYTE
"""A report of images that need more is built by one process: two would need twice as much."""


class MemoryBudget(FairBudget):
    """Bytes that may be in use for pixels at once."""


def bytes_needed(header: Dataset, *, to_read: int = 0) -> int:
    """What working on one frame of an image takes at its peak: the bytes `to_read` it, and what
    its header says of the frame; 0 for the frame where that cannot be told.
    """
    try:
        pixels = int(header.Rows) * int(header.Columns) * int(header.get("SamplesPerPixel") or 1)
        sample_bytes = max(1, int(header.get("BitsAllocated") or 8) // 8)
    except (AttributeError, TypeError, ValueError):
        return to_read
    return to_read + pixels * sample_bytes * BYTES_PER_PIXEL_BYTE

"""Lets large images wait for each other, so that the memory they need together stays bounded."""

from __future__ import annotations

from pydicom import Dataset

from listener.workflow.fair_budget import FairBudget

MEBIBYTE = 2**20
BYTES_PER_PIXEL_BYTE = 8
"""What the analysis or the report of a frame needs at its peak, as a multiple of its pixels."""


class MemoryBudget(FairBudget):
    """Bytes that may be in use for pixels at once."""


def bytes_needed(header: Dataset) -> int:
    """What working on one frame of an image takes, by its header; 0 where that cannot be told."""
    try:
        pixels = int(header.Rows) * int(header.Columns) * int(header.get("SamplesPerPixel") or 1)
        return pixels * max(1, int(header.get("BitsAllocated") or 8) // 8) * BYTES_PER_PIXEL_BYTE
    except (AttributeError, TypeError, ValueError):
        return 0

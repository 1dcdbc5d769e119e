"""Deletes drafts in a destination's folder whose process was killed while it wrote them."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

ABANDONED_AFTER_S = 3600.0
"""No file takes so long to write."""
LOOK_EVERY_S = 3600.0
"""A share with many files is slow to list."""
_DRAFT = re.compile(r"\..{1,200}\.[0-9a-f]{32}\.part")


def draft_of(folder: Path, name: str) -> Path:
    """A name for the draft of a file: hidden, and free."""
    return folder / f".{name}.{uuid4().hex}.part"


class AbandonedDrafts:
    """Looks through one folder, at most once per hour. Safe to share between threads."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._looks_again_at = float("-inf")

    def sweep(self, folder: Path, *, now_s: float) -> int:
        """Delete what is abandoned; how many drafts. `now_s` is by the clock of the folder's disk.

        Raises OSError when the folder does not let itself be listed or changed.
        """
        with self._lock:
            if self._monotonic() < self._looks_again_at:
                return 0
            self._looks_again_at = self._monotonic() + LOOK_EVERY_S
        count = 0
        with os.scandir(folder) as entries:
            for entry in entries:
                if _DRAFT.fullmatch(entry.name) and _age_s(entry, now_s) > ABANDONED_AFTER_S:
                    Path(entry.path).unlink(missing_ok=True)
                    count += 1
        return count


def _age_s(entry: os.DirEntry[str], now_s: float) -> float:
    try:
        return now_s - entry.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:  # another worker swept it, or its file is complete
        return 0.0

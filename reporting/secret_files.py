"""Makes a secret of the site once, in a private file of its own, and leaves no copy elsewhere."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from reporting.durable_files import make_folder, sync_folder, write_synced

_DRAFT_NAME = re.compile(r"[0-9a-f]{32}|[0-9]{1,7}(\.[0-9a-f]{8})?")
"""What follows the key's own name. Drafts once had the number of their process, seven digits at
most; a copy that a person made is none of them."""


def make_key_file(path: Path, make: Callable[[], bytes]) -> None:
    """Have a key under its final name, readable by its owner only; of several processes one wins.

    The key that is there on return would survive a power cut: what is signed with it soon does.

    What a killed process left of making one is cleared once the key is there. A process that is
    making one at that moment has lost already, and finds the winner's key without its draft.
    """
    if not path.exists():
        _make(path, make())
        # Also when another process won: it may not have come as far as this.
        sync_folder(path.parent)
    clear_drafts(path)


def draft_of(path: Path) -> Path:
    """A name beside a file for what is to become it; `clear_drafts` knows it again."""
    return path.with_name(f".{path.name}.{secrets.token_hex(16)}")


def clear_drafts(path: Path) -> None:
    """Remove what never became `path`, now that `path` is there; a read-only folder keeps it."""
    prefix = f".{path.name}."
    with contextlib.suppress(OSError):
        for found in list(path.parent.iterdir()):
            if found.name.startswith(prefix) and _DRAFT_NAME.fullmatch(found.name[len(prefix) :]):
                found.unlink(missing_ok=True)


def _make(path: Path, content: bytes) -> None:
    make_folder(path.parent)
    draft = draft_of(path)
    try:
        write_synced(draft, content)
        # FileNotFoundError: another process made the key and cleared this draft.
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)

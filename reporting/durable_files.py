"""Files that are whole or absent, and still there after a power cut."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder would survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file and return when its bytes would survive a power cut."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def publish_file(path: Path, content: bytes, *, tmp: Path) -> None:
    """Put a whole file under its name, over an earlier one if there is one.

    `tmp` lies on the same file system; what a killed process leaves there is swept later.
    """
    draft = tmp / uuid4().hex
    try:
        write_synced(draft, content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder that is still there after a power cut, parents included."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)

"""What the inbox asks of a file system, small enough to record, to order and to break in tests."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Protocol

from reporting.durable_files import sync_folder

MAX_WRITE_BYTES = 512 * 1024
"""One write of 9 MB ran at 300 MB/s, the same bytes in writes of 128 to 512 KB at 2.7 GB/s."""


class Disk(Protocol):
    """The inbox's own wish list; every call may raise OSError."""

    def create(self, path: Path) -> int:
        """Make a new file that is locked for as long as its descriptor is open."""

    def write(self, descriptor: int, data: memoryview) -> None:
        """Append all of `data`."""

    def overwrite(self, descriptor: int, data: bytes, offset: int) -> None:
        """Replace bytes that are there already."""

    def sync(self, descriptor: int) -> None:
        """Return when the file's bytes would survive a power cut."""

    def publish(self, source: Path, target: Path) -> None:
        """Give the file its final name; FileExistsError when the name is taken."""

    def sync_folder(self, folder: Path) -> None:
        """Return when the folder's names would survive a power cut."""

    def free_bytes(self, folder: Path) -> int:
        """Room left for an ordinary user."""


class LocalDisk:
    """A POSIX file system with hard links: any local one, and NFS."""

    def create(self, path: Path) -> int:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor

    def write(self, descriptor: int, data: memoryview) -> None:
        position = 0
        while position < len(data):
            position += os.write(descriptor, data[position : position + MAX_WRITE_BYTES])

    def overwrite(self, descriptor: int, data: bytes, offset: int) -> None:
        written = os.pwrite(descriptor, data, offset)
        if written != len(data):
            raise OSError(f"wrote {written} of {len(data)} bytes")

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def publish(self, source: Path, target: Path) -> None:
        os.link(source, target)

    def sync_folder(self, folder: Path) -> None:
        sync_folder(folder)

    def free_bytes(self, folder: Path) -> int:
        return shutil.disk_usage(folder).free


def is_abandoned(path: Path) -> bool:
    """True when no living process writes the file: its lock died with its writer."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True

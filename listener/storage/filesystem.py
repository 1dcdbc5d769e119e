"""The file system calls of the inbox; tests subclass it to record calls and to inject faults."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import cast

from reporting.durable_files import sync_folder

MAX_WRITE_BYTES = 512 * 1024
"""One write of 9 MB ran at 300 MB/s, the same bytes in writes of 128 to 512 KB at 2.7 GB/s."""


_SYNC_FILE_RANGE_WRITE = 2


def _find_sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """Linux's sync_file_range(2), which Python has no function for."""
    try:
        function = ctypes.CDLL(None).sync_file_range
    except (AttributeError, OSError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return cast("Callable[[int, int, int, int], int]", function)


_sync_file_range = _find_sync_file_range()


class LocalDisk:
    """A POSIX file system with hard links: any local one, and NFS. Every call may raise OSError."""

    def create(self, path: Path) -> int:
        """Makes a new file that is locked for as long as its descriptor is open."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor

    def write(self, descriptor: int, data: memoryview) -> None:
        """Appends all of `data`."""
        position = 0
        while position < len(data):
            position += os.write(descriptor, data[position : position + MAX_WRITE_BYTES])

    def begin_writeback(self, descriptor: int, offset: int, count: int) -> None:
        """Has the disk begin to write these bytes, so that a later sync waits for fewer; only a
        hint, that says nothing about what is durable.
        """
        if _sync_file_range is not None:
            _sync_file_range(descriptor, offset, count, _SYNC_FILE_RANGE_WRITE)

    def overwrite(self, descriptor: int, data: bytes, offset: int) -> None:
        """Replaces bytes that are there already."""
        written = os.pwrite(descriptor, data, offset)
        if written != len(data):
            raise OSError(f"wrote {written} of {len(data)} bytes")

    def sync(self, descriptor: int) -> None:
        """Returns when the file's bytes would survive a power cut."""
        os.fsync(descriptor)

    def publish(self, source: Path, target: Path) -> None:
        """Gives the file its final name; FileExistsError when the name is taken."""
        os.link(source, target)

    def replace(self, source: Path, target: Path) -> None:
        """Gives the file a name that another file has, which is gone afterwards."""
        source.replace(target)

    def sync_folder(self, folder: Path) -> None:
        """Returns when the folder's names would survive a power cut."""
        sync_folder(folder)

    def free_bytes(self, folder: Path) -> int:
        """Room left for an ordinary user."""
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

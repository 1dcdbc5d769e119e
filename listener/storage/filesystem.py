"""The file system calls of the inbox; tests subclass it to record calls and to inject faults."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import time
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

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_CANNOT_KEEP = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""What kernels and file systems such as NFS answer that cannot rename without overwriting."""


def _find_renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    """Linux's renameat2(2), which Python has no function for."""
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return None
    function.argtypes = (
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    )
    return cast("Callable[[int, bytes, int, bytes, int], int]", function)


_renameat2 = _find_renameat2()


def _rename_unless_taken(source: Path, target: Path) -> bool:
    """Renames a file; False where the system cannot do that without overwriting."""
    if _renameat2 is None:
        return False
    names = os.fsencode(source), os.fsencode(target)
    if _renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT_KEEP:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))


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
        if not _rename_unless_taken(source, target):
            os.link(source, target)
            source.unlink()

    def replace(self, source: Path, target: Path) -> None:
        """Gives the file a name that another file has, which is gone afterwards."""
        source.replace(target)

    def sync_folder(self, folder: Path) -> None:
        """Returns when the folder's names would survive a power cut."""
        sync_folder(folder)

    def free_bytes(self, folder: Path) -> int:
        """Room left for an ordinary user."""
        status = os.statvfs(folder)
        return status.f_bavail * status.f_frsize


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


RACY_S = 2.0
"""A folder that changed so short before it was read may have changed again within one tick of its
time stamp."""
FINE_RACY_S = 0.1
"""The same where time stamps are finer than a millisecond: they tick with the kernel's clock, a
hundred times a second or more."""


class FolderNames:
    """The names in a folder, read again when the folder has changed."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = folder, clock
        self._read_at: tuple[int, int] | None = None
        """Time stamp and link count that the folder had when it was read; None when the next
        look reads it again."""
        self._names: tuple[str, ...] = ()

    def __call__(self) -> tuple[str, ...]:
        """The names, in no order."""
        status = self._folder.stat()
        now = (status.st_mtime_ns, status.st_nlink)
        if self._read_at == now:
            return self._names
        names = tuple(path.name for path in self._folder.iterdir())
        racy_s = FINE_RACY_S if status.st_mtime_ns % 1_000_000 else RACY_S
        is_settled = abs(self._clock() - status.st_mtime) > racy_s
        self._names, self._read_at = names, now if is_settled else None
        return names

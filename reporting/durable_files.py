"""Durable files and locks: complete or absent, proof against a power cut, private by default.

What is made here can be read by its owner alone, whatever the umask, unless the caller says
otherwise. What was there before keeps its mode.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
WRITE_BYTES = 512 * 1024
"""Larger writes are several times slower on some kernels."""


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder would survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, content: bytes, *, mode: int = PRIVATE_FILE) -> None:
    """Write a new file and return when its bytes would survive a power cut.

    Raises FileExistsError for a name that is taken, by a symbolic link too: none is followed.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, PRIVATE_FILE)
    try:
        if mode != PRIVATE_FILE:
            os.fchmod(descriptor, mode)
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view[:WRITE_BYTES]) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_file(path: Path, content: bytes, *, tmp: Path, mode: int = PRIVATE_FILE) -> None:
    """Put a complete file under its name, over an earlier one if there is one.

    `tmp` is on the same file system; what a killed process leaves there is swept later.
    """
    draft = tmp / uuid4().hex
    try:
        write_synced(draft, content, mode=mode)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def make_folder(folder: Path, *, mode: int = PRIVATE_FOLDER) -> None:
    """Make a folder that survives a power cut, parents included; one that exists keeps its mode."""
    if folder.is_dir():
        return
    make_folder(folder.parent, mode=mode)
    try:
        folder.mkdir(mode=PRIVATE_FOLDER)
    except FileExistsError as err:
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from err
    else:
        if mode != PRIVATE_FOLDER:
            folder.chmod(mode)
    sync_folder(folder.parent)


def private_opener(path: str | os.PathLike[str], flags: int) -> int:
    """For `open(…, opener=private_opener)`: a file that it makes is private."""
    return os.open(path, flags | os.O_CLOEXEC, PRIVATE_FILE)


def take_lock(path: Path, *, is_blocking: bool = True) -> int:
    """Lock a file, made if absent, among all processes; the descriptor, whose end releases it.

    A killed process releases it too. Raises BlockingIOError when it is taken and not waited for.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if is_blocking else fcntl.LOCK_NB))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def locked(path: Path, *, is_blocking: bool = True) -> Iterator[None]:
    """Hold the lock of a file within the block; raises as `take_lock` does."""
    descriptor = take_lock(path, is_blocking=is_blocking)
    try:
        yield
    finally:
        os.close(descriptor)

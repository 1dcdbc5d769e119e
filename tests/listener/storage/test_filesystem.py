"""The real disk of the inbox: whole writes, names that never overwrite, locks that die."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from listener.storage.filesystem import MAX_WRITE_BYTES, LocalDisk, is_abandoned


def test_a_name_that_is_taken_is_never_overwritten(tmp_path: Path) -> None:
    disk, taken = LocalDisk(), tmp_path / "taken"
    taken.write_bytes(b"first")
    os.close(disk.create(tmp_path / "new"))

    with pytest.raises(FileExistsError):
        disk.publish(tmp_path / "new", taken)
    with pytest.raises(FileExistsError):
        disk.create(taken)

    assert taken.read_bytes() == b"first"


def test_large_and_short_writes_end_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, content = LocalDisk(), os.urandom(2 * MAX_WRITE_BYTES + 17)
    write = os.write
    monkeypatch.setattr(os, "write", lambda to, data: write(to, data[: len(data) // 2 + 1]))

    descriptor = disk.create(tmp_path / "file")
    disk.write(descriptor, memoryview(content))
    disk.overwrite(descriptor, b"begin", 0)
    os.close(descriptor)

    assert (tmp_path / "file").read_bytes() == b"begin" + content[5:]


def test_an_overwrite_that_falls_short_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = LocalDisk().create(tmp_path / "file")
    monkeypatch.setattr(os, "pwrite", lambda *_: 1)

    with pytest.raises(OSError, match="wrote 1 of 2"):
        LocalDisk().overwrite(descriptor, b"ab", 0)

    os.close(descriptor)


def test_a_file_is_abandoned_when_its_writer_is_gone_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "part"
    descriptor = LocalDisk().create(path)

    assert not is_abandoned(path)
    os.close(descriptor)
    assert is_abandoned(path)
    path.unlink()
    assert not is_abandoned(path), "somebody else swept it"


def test_room_is_what_an_ordinary_user_has_left(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)

    free = LocalDisk().free_bytes(tmp_path)

    assert free == pytest.approx(found.f_bavail * found.f_frsize, rel=0.1)

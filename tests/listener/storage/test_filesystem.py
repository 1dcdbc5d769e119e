"""The real disk of the inbox: whole writes, names that never overwrite, locks that die."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from listener.storage import filesystem
from listener.storage.filesystem import (
    FINE_RACY_S,
    MAX_WRITE_BYTES,
    RACY_S,
    FolderNames,
    LocalDisk,
    is_abandoned,
)


def _no_such_rename(*_: object) -> int:
    """renameat2(2) as NFS answers it."""
    ctypes.set_errno(errno.EINVAL)
    return -1


@pytest.fixture(params=["as it is", "without renameat2", "on NFS"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LocalDisk:
    """Names are given by a rename, or by a link where there is no such rename."""
    if request.param == "without renameat2":
        monkeypatch.setattr(filesystem, "_renameat2", None)
    elif request.param == "on NFS":
        monkeypatch.setattr(filesystem, "_renameat2", _no_such_rename)
    return LocalDisk()


def test_a_name_that_is_taken_is_never_overwritten(disk: LocalDisk, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_bytes(b"first")
    os.close(disk.create(tmp_path / "new"))

    with pytest.raises(FileExistsError):
        disk.publish(tmp_path / "new", taken)
    with pytest.raises(FileExistsError):
        disk.create(taken)

    assert taken.read_bytes() == b"first"
    assert (tmp_path / "new").exists()


def test_a_published_file_has_its_name_and_its_bytes(disk: LocalDisk, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"whole")

    disk.publish(tmp_path / "new", tmp_path / "final")

    assert [path.name for path in tmp_path.iterdir()] == ["final"]
    assert (tmp_path / "final").read_bytes() == b"whole"


def test_a_file_that_cannot_be_published_says_why(disk: LocalDisk, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        disk.publish(tmp_path / "absent", tmp_path / "final")


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


class TestFolderNames:
    def test_each_new_name_is_seen(self, tmp_path: Path) -> None:
        """Also one that is given within the same tick of the file system's clock."""
        names = FolderNames(tmp_path)
        for number in range(50):
            (tmp_path / str(number)).mkdir()
            assert set(names()) == {str(known) for known in range(number + 1)}

    def test_a_folder_that_rests_is_not_read_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "code").mkdir()
        later = tmp_path.stat().st_mtime + RACY_S + 1
        names = FolderNames(tmp_path, clock=lambda: later)
        first = names()
        monkeypatch.setattr(Path, "iterdir", lambda _: pytest.fail("read again"))

        assert names() == first == ("code",)

    @pytest.mark.parametrize(
        ("stamp_ns", "settled_after_s"),
        [(10**18 + 123_456, FINE_RACY_S), (10**18, RACY_S)],
    )
    def test_a_folder_rests_later_where_time_stamps_are_coarse(
        self, tmp_path: Path, stamp_ns: int, settled_after_s: float
    ) -> None:
        now = [stamp_ns / 1e9]
        names = FolderNames(tmp_path, clock=lambda: now[0])
        os.utime(tmp_path, ns=(stamp_ns, stamp_ns))
        names()
        now[0] += settled_after_s / 2
        _make_unnoticed(tmp_path / "first", stamp_ns)
        seen_while_racy = names()
        now[0] += settled_after_s
        names()
        _make_unnoticed(tmp_path / "second", stamp_ns)

        assert seen_while_racy == ("first",)
        assert names() == ("first",)

    def test_a_change_after_a_rest_is_seen(self, tmp_path: Path) -> None:
        now = tmp_path.stat().st_mtime
        names = FolderNames(tmp_path, clock=lambda: now + RACY_S + 1)
        assert names() == ()
        (tmp_path / "code").mkdir()
        os.utime(tmp_path, (now + 60, now + 60))

        assert names() == ("code",)


def _make_unnoticed(path: Path, stamp_ns: int) -> None:
    """A file, of which the time stamp and the link count of its folder tell nothing."""
    path.touch()
    os.utime(path.parent, ns=(stamp_ns, stamp_ns))

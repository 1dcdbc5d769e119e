"""A published file is whole, and its name and bytes are synced in the right order."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reporting.durable_files import (
    WRITE_BYTES,
    locked,
    make_folder,
    private_opener,
    publish_file,
    take_lock,
    write_synced,
)


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of the disk, in order, each call after it was done."""
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def traced_fsync(descriptor: int) -> None:
        fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        calls.append(f"sync {'folder' if path.is_dir() else 'file'}")

    def traced_replace(source: Path, target: Path) -> None:
        replace(source, target)
        calls.append("rename")

    monkeypatch.setattr(os, "fsync", traced_fsync)
    monkeypatch.setattr(os, "replace", traced_replace)
    return calls


def test_bytes_are_synced_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, trace: list[str]
) -> None:
    publish_file(tmp_path / "report.json", b"whole", tmp=tmp_path)

    assert trace == ["sync file", "rename", "sync folder"]
    assert (tmp_path / "report.json").read_bytes() == b"whole"


def test_a_disk_that_gives_out_leaves_the_earlier_file_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_file(tmp_path / "report.json", b"earlier", tmp=tmp_path)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        publish_file(tmp_path / "report.json", b"later", tmp=tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert (tmp_path / "report.json").read_bytes() == b"earlier"


@pytest.fixture
def generous_umask() -> Iterator[None]:
    before = os.umask(0o000)
    yield
    os.umask(before)


@pytest.mark.usefixtures("generous_umask")
class TestPrivacy:
    """Whatever the umask says, only the owner may read what is made."""

    def test_files_and_folders_are_private(self, tmp_path: Path) -> None:
        make_folder(tmp_path / "a" / "b")
        write_synced(tmp_path / "a" / "b" / "one", b"1")
        publish_file(tmp_path / "a" / "two", b"2", tmp=tmp_path / "a")
        os.close(take_lock(tmp_path / "a" / "three.lock"))
        with open(tmp_path / "a" / "four", "x", opener=private_opener):
            pass

        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
        assert modes == {
            **dict.fromkeys(("a", "b"), 0o700),
            **dict.fromkeys(("one", "two", "three.lock", "four"), 0o600),
        }

    def test_what_was_there_keeps_its_mode(self, tmp_path: Path) -> None:
        (tmp_path / "open").mkdir(mode=0o755)

        make_folder(tmp_path / "open")

        assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o755

    @pytest.mark.parametrize("mode", [0o640, 0o644, 0o660])
    def test_another_mode_is_given_exactly(self, tmp_path: Path, mode: int) -> None:
        os.umask(0o077)

        write_synced(tmp_path / "one", b"1", mode=mode)
        make_folder(tmp_path / "a" / "b", mode=mode | 0o111)

        assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == mode
        for name in ("a", "a/b"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode | 0o111


@pytest.mark.parametrize("write", [write_synced, lambda p, c: publish_file(p, c, tmp=p.parent)])
def test_a_symbolic_link_is_never_followed(
    tmp_path: Path, write: Callable[[Path, bytes], None]
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "one").symlink_to(victim)

    with contextlib.suppress(FileExistsError):
        write(tmp_path / "one", b"other")

    assert victim.read_bytes() == b"precious"


def test_a_dangling_link_is_no_free_name(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(FileExistsError):
        write_synced(tmp_path / "one", b"other")

    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("size", [0, 1, WRITE_BYTES, WRITE_BYTES + 1, 3 * WRITE_BYTES])
def test_every_byte_is_written(tmp_path: Path, size: int) -> None:
    content = bytes(index % 251 for index in range(size))

    write_synced(tmp_path / "one", content)

    assert (tmp_path / "one").read_bytes() == content


def test_a_lock_keeps_others_out_until_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "one.lock"
    with locked(path), pytest.raises(BlockingIOError):
        take_lock(path, is_blocking=False)

    os.close(take_lock(path, is_blocking=False))


def test_a_file_in_the_way_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")

    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(NotADirectoryError):
            make_folder(path)


def test_a_new_file_never_overwrites(tmp_path: Path) -> None:
    write_synced(tmp_path / "one", b"first")

    with pytest.raises(FileExistsError):
        write_synced(tmp_path / "one", b"second")


def test_every_new_folder_is_synced_into_its_parent(tmp_path: Path, trace: list[str]) -> None:
    make_folder(tmp_path / "a" / "b" / "c")
    make_folder(tmp_path / "a" / "b" / "c")

    assert (tmp_path / "a" / "b" / "c").is_dir()
    assert trace == ["sync folder"] * 3

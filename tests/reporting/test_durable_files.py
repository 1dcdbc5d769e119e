"""A published file is whole, and its name and bytes are synced in the right order."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from reporting.durable_files import make_folder, publish_file, write_synced


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


def test_a_new_file_never_overwrites(tmp_path: Path) -> None:
    write_synced(tmp_path / "one", b"first")

    with pytest.raises(FileExistsError):
        write_synced(tmp_path / "one", b"second")


def test_every_new_folder_is_synced_into_its_parent(tmp_path: Path, trace: list[str]) -> None:
    make_folder(tmp_path / "a" / "b" / "c")
    make_folder(tmp_path / "a" / "b" / "c")

    assert (tmp_path / "a" / "b" / "c").is_dir()
    assert trace == ["sync folder"] * 3

"""A secret is made once, and no copy of it is left beside, whenever a process was killed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reporting.audit.signing_key import load_or_make_key, public_path
from reporting.dicom.deidentification import read_site_key
from reporting.durable_files import write_synced
from reporting.secret_files import draft_of, make_key_file


class Killed(BaseException):
    """Nothing after it runs, as after kill -9."""


def _die(*_: object, **__: object) -> None:
    raise Killed


def _make_and_die_at(step: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave what a process leaves that is killed just before a step of making a key."""
    with monkeypatch.context() as dying, pytest.raises(Killed):
        dying.setattr(os, step, _die)
        dying.setattr(Path, "unlink", _die)
        make_key_file(path, lambda: b"secret of the dead")


def test_a_key_is_safe_from_a_power_cut_before_anybody_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name too: what was signed with a lost key could never be verified."""
    trace: list[str] = []
    fsync, link = os.fsync, os.link

    def traced_fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        trace.append("fsync folder" if is_folder else "fsync file")
        fsync(descriptor)

    def traced_link(*arguments: Any, **named: Any) -> None:
        trace.append("link")
        link(*arguments, **named)

    monkeypatch.setattr(os, "fsync", traced_fsync)
    monkeypatch.setattr(os, "link", traced_link)

    make_key_file(tmp_path / "site.key", lambda: b"secret")

    assert trace == ["fsync file", "link", "fsync folder"]


@pytest.mark.parametrize("step", ["fsync", "link", "unlink"])
def test_what_a_killed_process_left_goes_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "site.key"
    _make_and_die_at(step, path, monkeypatch)
    assert _hidden(tmp_path), "the kill left nothing"

    make_key_file(path, lambda: b"secret of the living")

    assert path.read_bytes().startswith(b"secret of the")
    assert [found.name for found in tmp_path.iterdir()] == ["site.key"]


@pytest.mark.parametrize("start", [load_or_make_key, read_site_key])
def test_so_does_what_earlier_versions_left(
    tmp_path: Path, start: Callable[[Path], object]
) -> None:
    """They named it by the number of their process, the pseudonym key with eight more digits."""
    path = tmp_path / "site.key"
    start(path)
    kept = {found.name for found in tmp_path.iterdir()}
    for name in (".site.key.4711", ".site.key.4194304.0123abcd"):
        (tmp_path / name).write_text("secret")

    start(path)

    assert {found.name for found in tmp_path.iterdir()} == kept


def test_a_half_made_public_half_goes_too(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    load_or_make_key(path)
    public_path(path).unlink()
    write_synced(draft_of(public_path(path)), b"half", mode=0o644)

    load_or_make_key(path)

    assert {found.name for found in tmp_path.iterdir()} == {"audit.key", "audit.key.pub"}


def test_copies_that_a_person_made_stay(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    load_or_make_key(path)
    copies = [".audit.key.bak", ".audit.key.20261126", ".audit.key.old.1", ".other.key.4711"]
    for name in copies:
        (tmp_path / name).write_text("a copy")

    load_or_make_key(path)

    assert _hidden(tmp_path) == sorted(copies)


def test_one_that_makes_the_key_while_another_clears_ends_with_the_others_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "site.key"
    link = os.link

    def overtaken(*arguments: object) -> None:
        monkeypatch.setattr(os, "link", link)
        make_key_file(path, lambda: b"the other's")
        assert _hidden(tmp_path) == [], "the draft of the one that lost is still there"
        link(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", overtaken)

    make_key_file(path, lambda: b"ours")

    assert path.read_bytes() == b"the other's"
    assert [found.name for found in tmp_path.iterdir()] == ["site.key"]


def test_a_folder_that_cannot_be_listed_or_changed_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "site.key"
    make_key_file(path, lambda: b"secret")

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "iterdir", forbidden)

    make_key_file(path, lambda: b"another")

    assert path.read_bytes() == b"secret"


def _hidden(folder: Path) -> list[str]:
    return sorted(found.name for found in folder.iterdir() if found.name.startswith("."))

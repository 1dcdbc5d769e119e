"""The real service on a disk that is full, and on one that became read-only.

The same without the right to mount: test_inbox.py, test_dicom.py and test_workflow_lives.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.killing import Running, status_of_store, trial, until
from tests.acceptance.small_disk import small_disk
from tests.builders import build_image

OUT_OF_RESOURCES = 0xA700

pytestmark = pytest.mark.chaos


def test_a_full_disk_refuses_and_takes_up_again_when_there_is_room(tmp_path: Path) -> None:
    """The inbox on 4 MB of which 1 MB is to be kept free."""
    inbox = tmp_path / "data" / "inbox"
    with small_disk(inbox, size_mb=4), trial(tmp_path) as killing:
        ballast = inbox / "ballast"
        running = killing.start(min_free_disk_mb=1)
        assert running.is_up()
        ballast.write_bytes(b"\0" * 3_500_000)

        refused = status_of_store(build_image(number=1), running.port or 0)
        partial = list((inbox / "tmp").iterdir())
        ballast.unlink()
        taken = killing.send(running.port)
        until(lambda: killing.lost() == 0 and (running.ask("status") or (False,))[0])
        running.stop()

        assert (refused, taken) == (OUT_OF_RESOURCES, True)
        assert partial == []
        assert killing.verdict().duplicated == 0


def test_a_results_folder_that_becomes_read_only_is_waited_for(tmp_path: Path) -> None:
    with small_disk(tmp_path / "data" / "results", size_mb=64) as disk, trial(tmp_path) as killing:
        running = killing.start()
        assert running.is_up()
        disk.remount(read_only=True)

        assert killing.send(running.port), "the inbox needs no results folder"
        until(lambda: _has_begun(running))
        is_idle, parked = running.ask("status")
        disk.remount(read_only=False)
        until(lambda: killing.lost() == 0 and (running.ask("status") or (False,))[0])
        running.stop()

        assert (is_idle, parked) == (False, [])
        assert (killing.verdict().lost, killing.verdict().duplicated) == (0, 0)
        assert killing.leftovers() == []


def _has_begun(running: Running) -> bool:
    return running.ask("status")[0] is False

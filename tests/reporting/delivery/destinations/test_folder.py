"""Files in a folder: whole, once, and never outside it."""

from __future__ import annotations

import errno
import os
import stat
import time
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import cv2
import numpy as np
import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit

from pipeline.errors import Defect, RetryLater
from reporting.delivery import DeliveryPostponed, Receipt
from reporting.delivery.destinations import folder as folder_room
from reporting.delivery.destinations.abandoned_drafts import (
    ABANDONED_AFTER_S,
    LOOK_EVERY_S,
    AbandonedDrafts,
)
from reporting.delivery.destinations.folder import FolderDestination
from reporting.results import ResultKind
from tests.reporting.delivery.labelled import make_bundle, make_picture, picture_pixels


class TestThingsThatGoWrong:
    @pytest.mark.parametrize(
        "name", ["../x.dcm", "a/b.dcm", "..", "", ".hidden", "a\x00b", "é.dcm"]
    )
    def test_a_name_that_is_not_plain_is_our_defect(self, tmp_path: Path, name: str) -> None:
        inside = tmp_path / "inside"

        with pytest.raises(Defect):
            FolderDestination(name="files", path=inside).deliver(
                [replace(make_bundle(), name=name)]
            )

        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    @pytest.mark.parametrize(
        ("number", "code"),
        [
            (errno.ENOSPC, "disk_full"),
            (errno.EDQUOT, "disk_full"),
            (errno.EROFS, "folder_not_writable"),
            (errno.EACCES, "folder_not_writable"),
            (errno.EIO, "folder_unusable"),
        ],
    )
    def test_a_disk_in_trouble_is_tried_later_and_leaves_nothing_half(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
    ) -> None:
        def fails(_descriptor: int) -> None:
            raise OSError(number, "no")

        monkeypatch.setattr(os, "fsync", fails)

        with pytest.raises(RetryLater) as told:
            FolderDestination(name="files", path=tmp_path).deliver([make_bundle()])

        assert told.value.code == code
        assert list(tmp_path.iterdir()) == []

    def test_a_file_where_the_folder_should_be_is_tried_later(self, tmp_path: Path) -> None:
        (tmp_path / "taken").write_text("a file")

        with pytest.raises(RetryLater):
            FolderDestination(name="files", path=tmp_path / "taken").deliver([make_bundle()])

    def test_what_was_written_before_the_trouble_is_in_the_receipt(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = make_bundle("first"), make_bundle("second")
        written = folder_room.write_durably

        def fails_on_second(folder: Path, name: str, content: bytes, *, mode: int) -> bool:
            if name == second.name:
                raise OSError(errno.ENOSPC, "full")
            return written(folder, name, content, mode=mode)

        monkeypatch.setattr(folder_room, "write_durably", fails_on_second)

        with pytest.raises(DeliveryPostponed) as told:
            FolderDestination(name="files", path=tmp_path).deliver([first, second])

        assert told.value.receipt == Receipt(accepted=(first.uid,))


class TestWhatIsWritten:
    def test_each_result_under_its_name(self, tmp_path: Path) -> None:
        results = [make_picture(), make_bundle()]

        receipt = FolderDestination(name="files", path=tmp_path / "new", png=False).deliver(results)

        assert receipt.accepted == tuple(one.uid for one in results)
        for one in results:
            assert (tmp_path / "new" / one.name).read_bytes() == one.content

    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGBaseline8Bit])
    def test_pictures_get_a_png_in_the_right_colours(self, tmp_path: Path, syntax: UID) -> None:
        picture = make_picture(syntax=syntax)

        FolderDestination(name="files", path=tmp_path).deliver([picture])

        shown = cv2.imread(str(tmp_path / f"{picture.uid}.png"))
        assert shown is not None
        difference = cv2.cvtColor(shown, cv2.COLOR_BGR2RGB).astype(int) - picture_pixels()
        assert np.abs(difference).max() <= (12 if syntax == JPEGBaseline8Bit else 0)

    def test_other_objects_get_no_png(self, tmp_path: Path) -> None:
        other = make_picture(kind=ResultKind.SEGMENTATION)

        FolderDestination(name="files", path=tmp_path).deliver([other])

        assert [path.name for path in tmp_path.iterdir()] == [other.name]

    def test_a_replay_leaves_the_same_files_untouched(self, tmp_path: Path) -> None:
        destination = FolderDestination(name="files", path=tmp_path)

        destination.deliver([make_bundle()])
        before = {path: path.stat().st_ino for path in tmp_path.iterdir()}
        destination.deliver([make_bundle()])

        assert {path: path.stat().st_ino for path in tmp_path.iterdir()} == before

    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
    def test_files_are_private_whatever_the_umask(self, tmp_path: Path, umask: int) -> None:
        before = os.umask(umask)
        try:
            FolderDestination(name="files", path=tmp_path / "a" / "b").deliver([make_picture()])
        finally:
            os.umask(before)

        assert {_mode(path) for path in (tmp_path / "a" / "b").iterdir()} == {0o600}
        assert _mode(tmp_path / "a") == _mode(tmp_path / "a" / "b") == 0o700

    @pytest.mark.parametrize(
        ("mode", "folder"), [(0o600, 0o700), (0o640, 0o750), (0o644, 0o755), (0o660, 0o770)]
    )
    def test_a_site_may_say_otherwise(self, tmp_path: Path, mode: int, folder: int) -> None:
        FolderDestination(name="files", path=tmp_path / "out", file_mode=mode).deliver(
            [make_bundle()]
        )

        assert [_mode(path) for path in (tmp_path / "out").iterdir()] == [mode]
        assert _mode(tmp_path / "out") == folder

    @pytest.mark.parametrize("name", ["target", "draft"])
    def test_a_symbolic_link_in_the_folder_is_not_followed(self, tmp_path: Path, name: str) -> None:
        """Whoever may write there must not choose what smearlink overwrites elsewhere."""
        out, victim, bundle = tmp_path / "out", tmp_path / "victim", make_bundle()
        out.mkdir()
        victim.write_bytes(bundle.content)
        links = {"target": bundle.name, "draft": f".{bundle.name}.{os.getpid()}.part"}
        (out / links[name]).symlink_to(victim)
        amended = replace(make_bundle(ids=("o3",)), name=bundle.name)

        FolderDestination(name="files", path=out).deliver([bundle])
        FolderDestination(name="files", path=out).deliver([amended])

        assert victim.read_bytes() == bundle.content
        assert not (out / bundle.name).is_symlink()
        assert (out / bundle.name).read_bytes() == amended.content

    def test_a_pipe_in_the_place_of_a_result_is_replaced(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / make_bundle().name)

        FolderDestination(name="files", path=tmp_path).deliver([make_bundle()])

        assert (tmp_path / make_bundle().name).read_bytes() == make_bundle().content

    def test_new_content_replaces_the_old(self, tmp_path: Path) -> None:
        destination = FolderDestination(name="files", path=tmp_path)
        amended = replace(make_bundle(ids=("o3",)), name=make_bundle().name)

        destination.deliver([make_bundle()])
        destination.deliver([amended])

        assert [path.read_bytes() for path in tmp_path.iterdir()] == [amended.content]

    def test_bytes_are_synced_before_the_name_is_given(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps: list[str] = []
        real_sync, real_replace = os.fsync, Path.replace

        def sync(descriptor: int) -> None:
            steps.append("fsync")
            real_sync(descriptor)

        def rename(source: Path, target: Path) -> Path:
            steps.append("rename")
            return real_replace(source, target)

        monkeypatch.setattr(os, "fsync", sync)
        monkeypatch.setattr(Path, "replace", rename)

        FolderDestination(name="files", path=tmp_path).deliver([make_bundle()])

        assert steps == ["fsync", "rename", "fsync"]


class TestAbandonedDrafts:
    """What a process left that was killed while it wrote."""

    def left(self, folder: Path, name: str, *, age_s: float) -> Path:
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.write_bytes(b"half")
        now_s = time.time()
        os.utime(path, (now_s - age_s, now_s - age_s))
        return path

    def test_are_deleted_by_a_later_delivery(self, tmp_path: Path) -> None:
        self.left(tmp_path, f".1.2.3.dcm.{uuid4().hex}.part", age_s=2 * ABANDONED_AFTER_S)

        FolderDestination(name="files", path=tmp_path).deliver([make_bundle()])

        assert [path.name for path in tmp_path.iterdir()] == [make_bundle().name]

    @pytest.mark.parametrize(
        ("name", "age_s"),
        [
            (f".1.2.3.dcm.{'0f' * 16}.part", 60.0),
            (".1.2.3.dcm.part", 1e6),
            (f"1.2.3.dcm.{'0f' * 16}.part", 1e6),
            (".hidden", 1e6),
        ],
        ids=["young", "another program's", "visible", "hidden"],
    )
    def test_nothing_else_is_touched(self, tmp_path: Path, name: str, age_s: float) -> None:
        left = self.left(tmp_path, name, age_s=age_s)

        FolderDestination(name="files", path=tmp_path).deliver([make_bundle()])

        assert left.read_bytes() == b"half"

    def test_are_looked_for_once_per_hour(self, tmp_path: Path) -> None:
        ticks = [0.0]
        drafts = AbandonedDrafts(monotonic=lambda: ticks[0])
        now_s, counts = time.time(), []
        for moment in (0.0, LOOK_EVERY_S / 2, LOOK_EVERY_S):
            self.left(tmp_path, f".a.{uuid4().hex}.part", age_s=2 * ABANDONED_AFTER_S)
            ticks[0] = moment
            counts.append(drafts.sweep(tmp_path, now_s=now_s))

        assert counts == [1, 0, 2]

    def test_that_cannot_be_deleted_take_nothing_from_the_delivery(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(_folder: Path) -> None:
            raise OSError(errno.EIO, "no")

        monkeypatch.setattr(os, "scandir", fails)

        receipt = FolderDestination(name="files", path=tmp_path).deliver([make_bundle()])

        assert receipt.accepted == (make_bundle().uid,)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestCheck:
    def test_a_folder_that_can_be_made_is_made(self, tmp_path: Path) -> None:
        destination = FolderDestination(name="files", path=tmp_path / "a" / "b")

        assert "can be written" in destination.check()

    def test_a_file_in_its_place_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "taken").write_text("a file")

        with pytest.raises(RetryLater):
            FolderDestination(name="files", path=tmp_path / "taken").check()

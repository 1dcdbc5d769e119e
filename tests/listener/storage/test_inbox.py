"""The inbox keeps its promise through power cuts, full disks and rivals; bad input stays out."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from listener.storage.filesystem import LocalDisk
from listener.storage.inbox import (
    BUFFER_BYTES,
    ROOMY_BYTES,
    ROOMY_S,
    SMALL_BYTES,
    WRITEBACK_BYTES,
    Inbox,
    InboxLimits,
    StoredInstance,
    StoreRequest,
)
from listener.storage.part10 import check_digest
from pipeline.errors import Rejected, RetryLater
from tests.builders import build_image, dataset_bytes, file_bytes
from tests.listener.peers import dataset_of

MOMENT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def offer(image: Dataset, **changed: str) -> StoreRequest:
    named = {
        "sop_class_uid": str(image.SOPClassUID),
        "sop_instance_uid": str(image.SOPInstanceUID),
        "transfer_syntax_uid": str(image.file_meta.TransferSyntaxUID),
        "source": "DEVICE",
    }
    return StoreRequest(**{**named, **changed})


def take(inbox: Inbox, image: Dataset, *, piece: int = 4096, **changed: str) -> StoredInstance:
    content = dataset_bytes(image)
    with inbox.receive(offer(image, **changed)) as incoming:
        for start in range(0, len(content), piece):
            incoming.write(content[start : start + piece])
        return incoming.commit()


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


# --- a disk that remembers what a power cut would leave


@dataclass
class PowerCutDisk(LocalDisk):
    """Keeps beside the real disk what would be left of it, in the worst case, after each call.

    Bytes live from their file's sync on, names from their folder's.
    """

    calls: list[str] = field(default_factory=list)
    left: list[dict[str, bytes]] = field(default_factory=list)
    """Names in `new/` and what they hold, after each call."""
    _paths: dict[int, Path] = field(default_factory=dict)
    _synced: dict[int, bytes] = field(default_factory=dict)
    """Bytes by inode."""
    _names: dict[str, int] = field(default_factory=dict)

    def create(self, path: Path) -> int:
        descriptor = super().create(path)
        self._paths[descriptor] = path
        return self._note("create", descriptor)

    def write(self, descriptor: int, data: memoryview) -> None:
        super().write(descriptor, data)
        self._note("write")

    def overwrite(self, descriptor: int, data: bytes, offset: int) -> None:
        super().overwrite(descriptor, data, offset)
        self._note("overwrite")

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        path = self._paths[descriptor]
        self._synced[path.stat().st_ino] = path.read_bytes()
        self._note("sync")

    def publish(self, source: Path, target: Path) -> None:
        super().publish(source, target)
        # A journal may keep a name before it is told to: the worst case for half-written files.
        self._names[target.name] = target.stat().st_ino
        self._note("publish")

    def sync_folder(self, folder: Path) -> None:
        super().sync_folder(folder)
        self._note(f"sync {folder.name}")

    def _note(self, call: str, value: int = 0) -> int:
        self.calls.append(call)
        self.left.append(
            {name: self._synced.get(inode, b"") for name, inode in self._names.items()}
        )
        return value


def test_no_success_precedes_the_sync_of_file_and_folder(tmp_path: Path) -> None:
    disk = PowerCutDisk()

    take(Inbox(tmp_path, disk=disk), build_image())

    last = {call: len(disk.calls) - 1 - disk.calls[::-1].index(call) for call in disk.calls}
    assert last["write"] < last["overwrite"] < last["sync"] < last["publish"] < last["sync new"]
    assert last["sync new"] == len(disk.calls) - 1


def test_a_long_image_is_on_its_way_to_the_disk_before_it_is_whole(tmp_path: Path) -> None:
    @dataclass
    class Noting(LocalDisk):
        begun: list[tuple[int, int]] = field(default_factory=list)

        def begin_writeback(self, descriptor: int, offset: int, count: int) -> None:
            super().begin_writeback(descriptor, offset, count)
            self.begun.append((offset, offset + count))
            assert os.fstat(descriptor).st_size == offset + count

    disk, image = Noting(), build_image(pixels=np.zeros((1024, 1024, 3), np.uint8))

    stored = take(Inbox(tmp_path, disk=disk), image, piece=100_000)

    content = stored.path.read_bytes()
    begin = content.index(dataset_bytes(image))
    assert disk.begun[0][0] == begin
    assert [start for start, _ in disk.begun[1:]] == [end for _, end in disk.begun[:-1]]
    assert len(content) - disk.begun[-1][1] < WRITEBACK_BYTES


@pytest.mark.parametrize("piece", [1000, SMALL_BYTES - 1, SMALL_BYTES, 200_000])
def test_pieces_of_any_length_make_the_same_file_in_few_writes(tmp_path: Path, piece: int) -> None:
    disk, image = PowerCutDisk(), build_image(pixels=np.zeros((400, 500, 3), np.uint8))

    stored = take(Inbox(tmp_path, disk=disk), image, piece=piece)

    content = dataset_bytes(image)
    assert stored.path.read_bytes().endswith(content)
    assert stored.sha256 == hashlib.sha256(content).hexdigest()
    assert disk.calls.count("write") <= 2 + len(content) // SMALL_BYTES


@given(st.lists(st.integers(1, 90_000), min_size=1, max_size=30))
@example([BUFFER_BYTES + 1, 1, BUFFER_BYTES])
@example([200_000, 190_000, 100, 390_000])
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pieces_of_many_lengths_keep_their_order(tmp_path: Path, lengths: list[int]) -> None:
    image = build_image(pixels=np.arange(400 * 500 * 3, dtype=np.uint8).reshape(400, 500, 3))
    content, position = dataset_bytes(image), 0
    inbox = Inbox(tmp_path)

    with inbox.receive(offer(image)) as incoming:
        for length in itertools.cycle(lengths):
            incoming.write(memoryview(content)[position : position + length])
            position += length
            if position >= len(content):
                break
        stored = incoming.commit()

    assert stored.path.read_bytes().endswith(content)


def test_images_that_arrive_at_once_or_in_turn_share_no_bytes(tmp_path: Path) -> None:
    """Their buffers are used again."""
    inbox = Inbox(tmp_path)
    long, short, last = (
        build_image(number=number, pixels=np.full((rows, 50, 3), number, np.uint8))
        for number, rows in enumerate((500, 300, 20), start=1)
    )

    with inbox.receive(offer(long)) as first, inbox.receive(offer(short)) as second:
        first.write(dataset_bytes(long))
        second.write(dataset_bytes(short))
        stored = [first.commit(), second.commit()]
    stored.append(take(inbox, last))

    for image, kept in zip((long, short, last), stored, strict=True):
        content = dataset_bytes(image)
        assert kept.path.read_bytes().endswith(content)
        assert kept.sha256 == hashlib.sha256(content).hexdigest()
        check_digest(kept)


def test_a_power_cut_at_any_moment_leaves_whole_images_or_none(tmp_path: Path) -> None:
    disk, image = PowerCutDisk(), build_image()
    inbox = Inbox(tmp_path, disk=disk)

    take(inbox, image)

    whole = inbox.path_of(image.SOPInstanceUID).read_bytes()
    assert disk.left[0] == {}
    assert disk.left[-1] == {f"{image.SOPInstanceUID}.dcm": whole}
    assert all(content == whole for names in disk.left for content in names.values())


def test_a_duplicate_syncs_the_folder_too(tmp_path: Path) -> None:
    """Whoever named the first one may have died before its sync."""
    take(Inbox(tmp_path), build_image())
    disk = PowerCutDisk()

    again = take(Inbox(tmp_path, disk=disk), build_image())

    assert again.is_duplicate
    assert disk.calls[-1] == "sync new"


# --- a disk that gives out


@dataclass
class BrokenDisk(LocalDisk):
    """Fails from its n-th call on, until it is mended."""

    fails_from: int
    errno: int = errno.ENOSPC
    count: int = 0

    def _next(self) -> None:
        self.count += 1
        if self.count >= self.fails_from:
            raise OSError(self.errno, "broken")

    def create(self, path: Path) -> int:
        self._next()
        return super().create(path)

    def write(self, descriptor: int, data: memoryview) -> None:
        self._next()
        super().write(descriptor, data[: len(data) // 2])
        self._next()
        super().write(descriptor, data[len(data) // 2 :])

    def sync(self, descriptor: int) -> None:
        self._next()
        super().sync(descriptor)

    def publish(self, source: Path, target: Path) -> None:
        self._next()
        super().publish(source, target)


@pytest.mark.parametrize("piece", [10_000, 500_000], ids=["gathered", "written as it comes"])
@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "disk_full"), (errno.EDQUOT, "disk_full"), (errno.EROFS, "inbox_unwritable")],
)
def test_a_disk_that_gives_out_anywhere_keeps_nothing_and_is_tried_again(
    tmp_path: Path, number: int, code: str, piece: int
) -> None:
    disk = BrokenDisk(fails_from=1, errno=number)
    inbox = Inbox(tmp_path, disk=disk)
    image = build_image(pixels=np.zeros((700, 700, 3), np.uint8))
    refused = 0
    while refused < 50:
        try:
            take(inbox, image, piece=piece)
        except RetryLater as err:
            refused += 1
            assert err.code == code
            assert files(tmp_path) == []
            disk.fails_from, disk.count = disk.fails_from + 1, 0
        else:
            break

    assert refused > 5
    assert len(files(tmp_path)) == 1


def test_the_watermark_keeps_images_out_before_the_disk_is_full(tmp_path: Path) -> None:
    @dataclass
    class Small(LocalDisk):
        free: int = 0

        def free_bytes(self, folder: Path) -> int:
            return self.free

    disk = Small(free=999)
    inbox = Inbox(tmp_path, disk=disk, limits=InboxLimits(min_free_bytes=1000))
    with pytest.raises(RetryLater) as caught:
        take(inbox, build_image())
    disk.free = 1000

    take(inbox, build_image())

    assert caught.value.code == "disk_full"
    assert len(files(tmp_path)) == 1


def test_a_disk_with_much_room_is_not_asked_for_each_image(tmp_path: Path) -> None:
    @dataclass
    class Counted(LocalDisk):
        free: int
        looks: int = 0

        def free_bytes(self, folder: Path) -> int:
            self.looks += 1
            return self.free

    now, disk = [100.0], Counted(free=1000 + ROOMY_BYTES)
    inbox = Inbox(
        tmp_path,
        disk=disk,
        limits=InboxLimits(min_free_bytes=1000),
        monotonic=lambda: now[0],
    )
    for number in range(3):
        take(inbox, build_image(number=number))
    looks_at_once = disk.looks
    disk.free = 999
    now[0] += ROOMY_S

    with pytest.raises(RetryLater, match="No room"):
        take(inbox, build_image(number=4))

    assert looks_at_once == 1


# --- bad input


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"sop_instance_uid": "../../etc/passwd"}, "invalid_uid"),
        ({"sop_instance_uid": ""}, "invalid_uid"),
        ({"sop_instance_uid": "1." + "2" * 64}, "invalid_uid"),
        ({"sop_class_uid": "x"}, "invalid_uid"),
        ({"transfer_syntax_uid": "1..2"}, "invalid_uid"),
        ({"sop_instance_uid": "1.2.3"}, "uid_mismatch"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.77.1.2"}, "sop_class_mismatch"),
    ],
)
def test_what_the_command_says_must_be_true(
    tmp_path: Path, changed: dict[str, Any], code: str
) -> None:
    with pytest.raises(Rejected) as caught:
        take(Inbox(tmp_path), build_image(), **changed)

    assert caught.value.code == code
    assert files(tmp_path) == []


def test_too_large_is_refused_as_soon_as_it_is_known(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, limits=InboxLimits(max_object_bytes=1000))

    with pytest.raises(Rejected) as caught, inbox.receive(offer(build_image())) as incoming:
        incoming.write(b"\0" * 1000)
        incoming.write(b"\0")

    assert caught.value.code == "object_too_large"
    assert files(tmp_path) == []


@given(end=st.integers(min_value=0, max_value=3000))
def test_what_breaks_off_is_not_kept(tmp_path_factory: pytest.TempPathFactory, end: int) -> None:
    root = tmp_path_factory.mktemp("inbox")
    image = build_image()
    content = dataset_bytes(image)

    with pytest.raises(Rejected), Inbox(root).receive(offer(image)) as incoming:
        incoming.write(content[: min(end, len(content) - 1)])
        incoming.commit()

    assert files(root) == []


def test_the_same_uid_with_other_content_is_refused_and_the_first_stays(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    first = take(inbox, build_image())
    other = build_image()
    other.PatientComments = "changed"

    with pytest.raises(Rejected) as caught:
        take(inbox, other)

    assert caught.value.code == "conflicting_duplicate"
    assert inbox.facts(first.sop_instance_uid).sha256 == first.sha256


def test_an_image_that_is_nowhere_is_said(tmp_path: Path) -> None:
    for call in (Inbox(tmp_path).path_of, Inbox(tmp_path).read, Inbox(tmp_path).facts):
        with pytest.raises(Rejected) as caught:
            call("1.2.3")
        assert caught.value.code == "image_absent"


# --- what it is for


@given(piece=st.integers(min_value=1, max_value=5000))
def test_bytes_are_kept_as_they_came_in_whatever_pieces(
    tmp_path_factory: pytest.TempPathFactory, piece: int
) -> None:
    inbox, image = Inbox(tmp_path_factory.mktemp("inbox")), build_image()

    received = take(inbox, image, piece=piece)

    content = inbox.path_of(received.sop_instance_uid).read_bytes()
    assert content[128:132] == b"DICM"
    assert content.endswith(dataset_bytes(image))


def test_what_is_known_of_the_reception_is_found_again(tmp_path: Path) -> None:
    image = build_image()
    received = take(Inbox(tmp_path, clock=lambda: MOMENT), image)

    found = Inbox(tmp_path).facts(image.SOPInstanceUID)

    assert found == received
    assert (found.source, found.received_at) == ("DEVICE", MOMENT)
    assert found.series_uid == image.SeriesInstanceUID


def test_the_same_image_again_is_one_image(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    first, second = (take(inbox, build_image()) for _ in range(2))

    assert (first.is_duplicate, second.is_duplicate) == (False, True)
    assert len(files(tmp_path)) == 1


def test_a_parked_image_is_found_not_waited_for_and_taken_up_again(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    uid = take(inbox, build_image()).sop_instance_uid

    inbox.park(uid, "decode_failed")
    inbox.park(uid, "defect")

    assert list(inbox.parked()) == [(uid, "defect")]
    assert not inbox.is_waiting(uid)
    assert take(inbox, build_image()).is_duplicate, "sent again, it is still the parked one"
    inbox.unpark(uid)
    assert list(inbox.waiting()) == [uid]


def test_removing_twice_is_removing_once(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    uid = take(inbox, build_image()).sop_instance_uid

    inbox.remove(uid)
    inbox.remove(uid)

    assert files(tmp_path) == []


def test_only_what_dead_receivers_left_is_swept(tmp_path: Path) -> None:
    inbox, image = Inbox(tmp_path), build_image()
    (tmp_path / "tmp" / "dead.part").write_bytes(b"half")

    with inbox.receive(offer(image)) as incoming:
        swept = inbox.delete_partial_files()
        incoming.write(dataset_bytes(image))
        incoming.commit()

    assert swept == 1
    assert list(inbox.waiting()) == [image.SOPInstanceUID]


def test_a_file_that_was_damaged_later_is_named(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    uid = take(inbox, build_image()).sop_instance_uid
    inbox.path_of(uid).write_bytes(b"\0" * 40)

    for call in (inbox.read, inbox.read_header):
        named: Callable[[str], object] = call
        with pytest.raises(Rejected) as caught:
            named(uid)
        assert caught.value.code == "unreadable_dataset"


def test_pixels_that_were_damaged_later_are_noticed_when_they_are_read(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    uid = take(inbox, build_image()).sop_instance_uid
    damage(inbox.path_of(uid))

    with pytest.raises(Rejected) as caught:
        inbox.read(uid)

    assert caught.value.code == "damaged_on_disk"
    assert inbox.read_header(uid).SOPInstanceUID == uid


class TestMending:
    @pytest.mark.parametrize("part", [b"", b'{"received_at"', b'"sha256":"', b"DICM"])
    def test_an_image_that_was_damaged_is_mended_by_sending_it_again(
        self, tmp_path: Path, part: bytes
    ) -> None:
        inbox, image = Inbox(tmp_path), build_image()
        uid = take(inbox, image).sop_instance_uid
        path = inbox.path_of(uid)
        damage(path, at=path.read_bytes().index(part) + len(part) if part else -100)

        again = take(inbox, image)

        assert again.is_mended
        assert not again.is_duplicate
        assert inbox.read(uid).PixelData == image.PixelData
        assert take(inbox, image).is_duplicate

    def test_one_that_was_parked_for_it_is_mended_where_it_lies(self, tmp_path: Path) -> None:
        inbox, image = Inbox(tmp_path), build_image()
        uid = take(inbox, image).sop_instance_uid
        damage(inbox.path_of(uid))
        inbox.park(uid, "damaged_on_disk")

        assert take(inbox, image).is_mended
        assert list(inbox.parked()) == [(uid, "damaged_on_disk")]
        assert inbox.read(uid).PixelData == image.PixelData

    def test_a_whole_image_is_never_replaced(self, tmp_path: Path) -> None:
        inbox, image = Inbox(tmp_path), build_image()
        take(inbox, image)
        other = build_image()
        other.PatientComments = "changed"

        with pytest.raises(Rejected, match="other content"):
            take(inbox, other)


def test_what_is_made_is_for_its_owner_alone(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        inbox = Inbox(tmp_path / "data" / "inbox")
        uid = take(inbox, build_image()).sop_instance_uid
        inbox.park(uid, "too_small")
    finally:
        os.umask(umask)

    made = list(tmp_path.rglob("*"))
    assert {path.stat().st_mode & 0o777 for path in made if path.is_dir()} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in made if path.is_file()} == {0o600}


def test_a_deflated_image_costs_no_room_beside_its_own(tmp_path: Path) -> None:
    """Its plain bytes are measured and read, and never written."""
    image = build_image(transfer_syntax=DeflatedExplicitVRLittleEndian)
    inbox = Inbox(tmp_path)

    with inbox.receive(offer(image)) as incoming:
        incoming.write(dataset_of(file_bytes(image)))
        beside = files(tmp_path)
        received = incoming.commit()

    assert len(beside) == 1
    assert inbox.read(received.sop_instance_uid).PixelData == image.PixelData


def damage(path: Path, *, at: int = -100) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)

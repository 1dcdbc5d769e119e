"""The durable inbox: a sender is told Success when, and only when, its image lies here.

Maildir style. An image grows in `tmp/`, is fsynced, gets its final name
`new/<SOP Instance UID>.dcm` by a rename that never overwrites, and the folder is fsynced; then
the sender is told Success. The dataset's bytes are kept as received. What is known of the
reception itself stands in the file's own header (`listener.storage.part10`): one file, one fsync,
nothing beside it that could get lost or disagree.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from pydicom import Dataset

from listener.storage.dataset_scan import (
    DatasetIdentifiers,
    InflatedStream,
    Inflation,
    is_deflated,
    is_uid,
    scan_dataset,
)
from listener.storage.filesystem import RACY_S, FolderNames, LocalDisk, is_abandoned
from listener.storage.part10 import (
    FACTS_BYTES,
    StoredInstance,
    StoreRequest,
    check_digest,
    encode_facts,
    encode_header,
    read_received,
)
from listener.storage.shared_sync import SharedSync
from listener.storage.stored_dataset import bytes_to_read, read_stored
from pipeline.domain import SeriesUID, SOPInstanceUID, StudyUID
from pipeline.errors import Rejected, RetryLater
from reporting.durable_files import make_folder

__all__ = ["Inbox", "InboxLimits", "IncomingImage", "StoreRequest", "StoredInstance"]

Bytes = bytes | bytearray | memoryview

HEAD_BYTES = 16 * 1024
"""Of a dataset, kept until its structure is checked: usually all elements but the pixels."""
SMALL_BYTES = 64 * 1024
"""Shorter pieces are gathered: a peer that sends 16 KB per PDU would cost a write for each."""
GATHERED_BYTES = 256 * 1024
BUFFER_BYTES = GATHERED_BYTES + 128 * 1024
"""Of a buffer to gather in: it takes the piece that fills it up."""
MOST_BUFFERS = 8
"""Kept for the next images; allocating one for each costs as much as filling it."""
GATHERED_HEAD_BYTES = 1024 * 1024
"""So much of an image is gathered whatever the length of its pieces: with several associations,
each call of the system passes the interpreter's lock on, which costs more than the copy."""
WRITEBACK_BYTES = 1024 * 1024
"""After so many bytes the disk begins to write them while the next ones arrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxLimits:
    """Limits for one image."""

    max_object_bytes: int = 512 * 2**20
    """Of the dataset, inflated if it was deflated."""
    min_free_bytes: int = 0
    """With less free space nothing is received, so that results still fit on the disk."""


ROOMY_BYTES = 2**30
ROOMY_S = 0.1
"""With so much more free than the site wants, free space is not looked at again for so long:
images cannot fill it in that time."""


def _now() -> datetime:
    return datetime.now(UTC)


class Inbox:
    """Stores received images, finds them again, and parks those that a person must see.

    Several processes may share one inbox; it needs a file system with hard links, or one that can
    rename without overwriting.
    """

    def __init__(
        self,
        root: Path,
        *,
        limits: InboxLimits | None = None,
        disk: LocalDisk | None = None,
        clock: Callable[[], datetime] = _now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root = root
        self._tmp, self._new, self._parked = root / "tmp", root / "new", root / "parked"
        self._limits = limits or InboxLimits()
        self._disk = disk or LocalDisk()
        self._clock, self._monotonic = clock, monotonic
        self._is_roomy_until = monotonic()
        self._buffers: list[memoryview] = []
        self._draft_prefix, self._draft_numbers = f"{uuid4().hex}-", itertools.count()
        self._parked_codes = FolderNames(self._parked)
        self._sync_new = SharedSync(lambda: self._disk.sync_folder(self._new))
        for folder in (self._tmp, self._new, self._parked):
            make_folder(folder)

    @contextmanager
    def receive(self, request: StoreRequest) -> Iterator[IncomingImage]:
        """Receives an image piece by piece; nothing of it stays without `commit`.

        Raises Rejected `invalid_uid`, RetryLater `disk_full` or `inbox_unwritable`.
        """
        _check_uids(request)
        path = self._tmp / f"{self._draft_prefix}{next(self._draft_numbers)}.part"
        with _disk_trouble():
            if self._monotonic() >= self._is_roomy_until:
                self.check_free_space()
            descriptor = self._disk.create(path)
        has_moved = False
        try:
            with self._buffer() as buffer:
                incoming = IncomingImage(
                    request,
                    path=path,
                    descriptor=descriptor,
                    buffer=buffer,
                    limits=self._limits,
                    disk=self._disk,
                    clock=self._clock,
                    publish=self._publish,
                )
                yield incoming
            has_moved = incoming.has_moved
        finally:
            if not has_moved:
                path.unlink(missing_ok=True)
            os.close(descriptor)

    @contextmanager
    def _buffer(self) -> Iterator[memoryview]:
        try:
            buffer = self._buffers.pop()
        except IndexError:
            buffer = memoryview(bytearray(BUFFER_BYTES))
        try:
            yield buffer
        finally:
            if len(self._buffers) < MOST_BUFFERS:
                self._buffers.append(buffer)

    def path_of(self, sop_instance_uid: str) -> Path:
        """Path of an image, parked ones included; raises Rejected `image_absent`."""
        found = self._find(sop_instance_uid)
        if found is None:
            raise Rejected("No such image in the inbox", code="image_absent")
        return found

    def read(self, sop_instance_uid: str) -> Dataset:
        """The whole image as a dataset."""
        return self._read(sop_instance_uid, stop_before_pixels=False)

    def read_header(self, sop_instance_uid: str) -> Dataset:
        """The image's dataset without its pixels."""
        return self._read(sop_instance_uid, stop_before_pixels=True)

    def bytes_to_read(self, sop_instance_uid: str) -> int:
        """How much memory `read` takes, its pixels as they are stored."""
        try:
            return bytes_to_read(self.path_of(sop_instance_uid))
        except OSError as err:
            raise RetryLater("The image cannot be read now", code="inbox_unreadable") from err

    def facts(self, sop_instance_uid: str) -> StoredInstance:
        """What was noted when the image was received."""
        return read_received(self.path_of(sop_instance_uid))

    def waiting(self) -> Iterator[SOPInstanceUID]:
        """Every image that is neither parked nor removed, in no order."""
        with os.scandir(self._new) as entries:
            for entry in entries:
                if entry.name.endswith(".dcm"):
                    yield SOPInstanceUID(entry.name.removesuffix(".dcm"))

    def changed_at(self) -> float | None:
        """When an image last came to wait or ceased to; None where that is so short ago that
        another one may have come since at the same time of the file system's clock.
        """
        changed_at = self._new.stat().st_mtime
        return changed_at if abs(time.time() - changed_at) > RACY_S else None

    def is_waiting(self, sop_instance_uid: str) -> bool:
        """True when an image is here and neither parked nor removed."""
        return is_uid(sop_instance_uid) and (self._new / f"{sop_instance_uid}.dcm").exists()

    def parked(self) -> Iterator[tuple[SOPInstanceUID, str]]:
        """Every parked image, with the code that says why."""
        for path in self._parked.glob("*/*.dcm"):
            yield SOPInstanceUID(path.stem), path.parent.name

    def park(self, sop_instance_uid: str, code: str) -> None:
        """Parks an image under a code; parking it again changes the code."""
        folder = self._parked / code
        make_folder(folder)
        self._disk.sync_folder(self._parked)
        self._move(self.path_of(sop_instance_uid), folder)

    def unpark(self, sop_instance_uid: str) -> None:
        """Makes a parked image wait again."""
        self._move(self.path_of(sop_instance_uid), self._new)

    def remove(self, sop_instance_uid: str) -> None:
        """Deletes an image; does nothing when there is none."""
        found = self._find(sop_instance_uid)
        if found is not None:
            found.unlink(missing_ok=True)
            self._disk.sync_folder(found.parent)

    def delete_partial_files(self) -> int:
        """Deletes the partial files of receivers that died; returns how many there were.

        A file that a living process writes is locked by it and stays.
        """
        abandoned = [path for path in self._tmp.iterdir() if is_abandoned(path)]
        for path in abandoned:
            path.unlink(missing_ok=True)
        return len(abandoned)

    def check_free_space(self) -> None:
        """Raises RetryLater `disk_full` when there is less free space than the site wants."""
        spare = self._disk.free_bytes(self._tmp) - self._limits.min_free_bytes
        if spare < 0:
            raise _disk_full()
        if spare >= ROOMY_BYTES:
            self._is_roomy_until = self._monotonic() + ROOMY_S

    def _publish(self, finished: Path, image: StoredInstance) -> StoredInstance:
        """Gives the finished file its final name.

        The same bytes under that name are a duplicate, other bytes a conflict; a copy that was
        damaged on disk is replaced.
        """
        name = f"{image.sop_instance_uid}.dcm"
        parked = self._find_parked(name)
        target = parked or self._new / name
        published = replace(image, path=target)
        if parked is None:
            try:
                self._disk.publish(finished, target)
            except FileExistsError:
                published = self._settle(finished, target, image)
        else:
            published = self._settle(finished, target, image)
        # For a duplicate too: whoever named the first one may have died before this line.
        if target.parent == self._new:
            self._sync_new()
        else:
            self._disk.sync_folder(target.parent)
        return published

    def _settle(self, finished: Path, target: Path, image: StoredInstance) -> StoredInstance:
        """Compares the finished file with the one that has its name already."""
        try:
            stored = read_received(target)
            check_digest(stored)
        except Rejected:
            self._disk.replace(finished, target)
            return replace(image, path=target, is_mended=True)
        if stored.sha256 != image.sha256:
            raise Rejected(
                "This SOP Instance UID is stored with other content", code="conflicting_duplicate"
            )
        return replace(stored, is_duplicate=True)

    def _find(self, sop_instance_uid: str) -> Path | None:
        if not is_uid(sop_instance_uid):
            raise _invalid_uid("SOP Instance UID")
        name = f"{sop_instance_uid}.dcm"
        if (path := self._new / name).exists():
            return path
        return self._find_parked(name)

    def _find_parked(self, name: str) -> Path | None:
        for code in self._parked_codes():
            if (path := self._parked / code / name).exists():
                return path
        return None

    def _move(self, path: Path, folder: Path) -> None:
        path.replace(folder / path.name)
        self._disk.sync_folder(folder)
        self._disk.sync_folder(path.parent)

    def _read(self, sop_instance_uid: str, *, stop_before_pixels: bool) -> Dataset:
        path = self.path_of(sop_instance_uid)
        try:
            image = read_received(path)
            if not stop_before_pixels:
                check_digest(image)
            return read_stored(image, stop_before_pixels=stop_before_pixels)
        except Rejected:
            raise
        except OSError as err:
            raise RetryLater("The image cannot be read now", code="inbox_unreadable") from err
        except Exception as err:
            raise Rejected("The image cannot be parsed", code="unreadable_dataset") from err


class IncomingImage:
    """One image that is being received; made by `Inbox.receive`."""

    def __init__(
        self,
        request: StoreRequest,
        *,
        path: Path,
        descriptor: int,
        buffer: memoryview,
        limits: InboxLimits,
        disk: LocalDisk,
        clock: Callable[[], datetime],
        publish: Callable[[Path, StoredInstance], StoredInstance],
    ) -> None:
        self._request = request
        self._path = path
        self._descriptor = descriptor
        self._limits = limits
        self._disk = disk
        self._clock = clock
        self._publish = publish
        self._digest = hashlib.sha256()
        self._length = 0
        self._head = bytearray()
        self._written_bytes = 0
        self._begun_bytes = 0
        """Of those written, on their way from memory to the disk."""
        self._inflation: Inflation | None = None
        if is_deflated(request.transfer_syntax_uid):
            self._inflation = Inflation(max_bytes=limits.max_object_bytes)
        header = encode_header(request)
        self._buffer = buffer
        self._gathered_bytes = self._start = self._header_bytes = len(header)
        """Of the buffer, not written yet: the file's header at first, then small pieces;
        `_header_bytes` of them are no part of the dataset."""
        buffer[: self._start] = header
        self.has_moved = False
        """Whether the file lies under its final name."""

    def write(self, data: Bytes) -> None:
        """Appends a piece of the dataset, unchanged.

        Raises Rejected `object_too_large`, RetryLater `disk_full` or `inbox_unwritable`.
        """
        self._length += len(data)
        if self._length > self._limits.max_object_bytes:
            raise Rejected(
                f"Longer than {self._limits.max_object_bytes} bytes", code="object_too_large"
            )
        if self._inflation is not None:
            self._inflation.feed(data)
        is_gathered = len(data) < SMALL_BYTES or self._length <= GATHERED_HEAD_BYTES
        begin, end = self._gathered_bytes, self._gathered_bytes + len(data)
        if is_gathered and end <= BUFFER_BYTES:
            self._buffer[begin:end] = data
            self._gathered_bytes = end
            if end >= GATHERED_BYTES:
                self._write_gathered()
        else:
            self._write_gathered()
            self._write(memoryview(data), header_bytes=0)

    def _write_gathered(self) -> None:
        if self._gathered_bytes:
            gathered, self._gathered_bytes = self._buffer[: self._gathered_bytes], 0
            header_bytes, self._header_bytes = self._header_bytes, 0
            self._write(gathered, header_bytes=header_bytes)

    def _write(self, data: memoryview, *, header_bytes: int) -> None:
        dataset = data[header_bytes:]
        if len(self._head) < HEAD_BYTES:
            self._head += dataset[: HEAD_BYTES - len(self._head)]
        self._digest.update(dataset)
        with _disk_trouble():
            self._disk.write(self._descriptor, data)
        self._written_bytes += len(dataset)
        resting_bytes = self._written_bytes - self._begun_bytes
        if resting_bytes >= WRITEBACK_BYTES:
            begin = self._start + self._begun_bytes
            self._disk.begin_writeback(self._descriptor, begin, resting_bytes)
            self._begun_bytes = self._written_bytes

    def commit(self) -> StoredInstance:
        """Checks the dataset, makes it durable, gives it its name; then Success may be sent.

        Raises Rejected (`truncated_dataset`, `unreadable_dataset`, `missing_uid`, `uid_mismatch`,
        `sop_class_mismatch`, `object_too_large`, `conflicting_duplicate`) or RetryLater.
        """
        self._write_gathered()
        identifiers = self._scan()
        _check_same(identifiers, self._request)
        image = StoredInstance(
            sop_instance_uid=SOPInstanceUID(identifiers.sop_instance_uid),
            path=self._path,
            sha256=self._digest.hexdigest(),
            study_uid=StudyUID(identifiers.study_uid),
            series_uid=SeriesUID(identifiers.series_uid),
            specimen_key=identifiers.specimen_key,
            source=self._request.source,
            received_at=self._clock(),
            deviations=identifiers.deviations,
        )
        with _disk_trouble():
            self._disk.overwrite(self._descriptor, encode_facts(image), self._start - FACTS_BYTES)
            self._disk.sync(self._descriptor)
            published = self._publish(self._path, image)
        self.has_moved = not published.is_duplicate
        return published

    def _scan(self) -> DatasetIdentifiers:
        syntax = self._request.transfer_syntax_uid
        if self._inflation is None:
            received = _ReceivedBytes(bytes(self._head), self._descriptor, start=self._start)
            with _disk_trouble():
                return scan_dataset(
                    received, start=0, length=self._length, transfer_syntax_uid=syntax
                )
        length = self._inflation.finish()
        with _disk_trouble(), self._path.open("rb") as stored:
            plain = InflatedStream(stored, start=self._start)
            return scan_dataset(plain, start=0, length=length, transfer_syntax_uid=syntax)


class _ReceivedBytes:
    """A dataset that was received: its head from memory, what follows from the file."""

    def __init__(self, head: bytes, descriptor: int, *, start: int) -> None:
        self._head = head
        self._descriptor = descriptor
        self._start = start
        self._position = 0

    def seek(self, position: int) -> None:
        """Goes to a position of the dataset."""
        self._position = position

    def read(self, count: int) -> bytes:
        """The next bytes, fewer at the end."""
        begin = self._position
        self._position = end = begin + count
        if end <= len(self._head):
            return self._head[begin:end]
        return os.pread(self._descriptor, count, self._start + begin)


def _check_uids(request: StoreRequest) -> None:
    if not is_uid(request.sop_instance_uid):
        raise _invalid_uid("SOP Instance UID")
    if not is_uid(request.sop_class_uid):
        raise _invalid_uid("SOP Class UID")
    if not is_uid(request.transfer_syntax_uid):
        raise _invalid_uid("Transfer Syntax UID")


def _check_same(header: DatasetIdentifiers, request: StoreRequest) -> None:
    """The dataset must be what the command said (PS3.4 B.2.3, statuses A9xx)."""
    if header.sop_class_uid != request.sop_class_uid:
        raise Rejected("The dataset is of another SOP class", code="sop_class_mismatch")
    if header.sop_instance_uid != request.sop_instance_uid:
        raise Rejected("The dataset has another SOP Instance UID", code="uid_mismatch")


def _invalid_uid(name: str) -> Rejected:
    return Rejected(f"Invalid {name} (PS3.5 9.1)", code="invalid_uid")


def _disk_full() -> RetryLater:
    return RetryLater("No room on the disk; send again later", code="disk_full")


@contextmanager
def _disk_trouble() -> Iterator[None]:
    """Translates errors of the disk."""
    try:
        yield
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full() from err
        raise RetryLater("The inbox cannot be written now", code="inbox_unwritable") from err

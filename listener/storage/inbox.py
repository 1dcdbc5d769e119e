"""The durable spool: an image is promised to its sender when, and only when, it lies here.

Maildir style. An image grows in `tmp/`, is fsynced, gets its final name
`new/<SOP Instance UID>.dcm` by a hard link that never overwrites, and the folder is fsynced; then
the sender is told Success. The dataset's bytes are kept as received. What is known of the
reception itself stands in the file's own header (`listener.storage.part10`): one file, one fsync,
nothing beside it that could get lost or disagree.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast
from uuid import uuid4

from pydicom import Dataset, dcmread

from listener.storage.dataset_scan import (
    DatasetIdentifiers,
    inflate,
    is_deflated,
    is_uid,
    scan_dataset,
)
from listener.storage.filesystem import Disk, LocalDisk, is_abandoned
from listener.storage.part10 import (
    FACTS_BYTES,
    Facts,
    ReceivedImage,
    StoreRequest,
    encode_facts,
    encode_header,
    read_received,
    received_image,
    split_header,
)
from pipeline.domain import SOPInstanceUID
from pipeline.errors import Rejected, RetryLater

__all__ = ["Inbox", "InboxLimits", "IncomingFile", "IncomingImage", "ReceivedImage", "StoreRequest"]

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxLimits:
    """What one image may cost."""

    max_object_bytes: int = 512 * 2**20
    """Of the dataset, inflated if it was deflated."""
    min_free_bytes: int = 0
    """Below this room nothing is taken in, so that results still fit on the disk."""


def _now() -> datetime:
    return datetime.now(UTC)


class Inbox:
    """Takes images in, finds them again, sets aside those that a person must see.

    Several processes may share one inbox; it needs a file system with hard links.
    """

    def __init__(
        self,
        root: Path,
        *,
        limits: InboxLimits | None = None,
        disk: Disk | None = None,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._tmp, self._new, self._parked = root / "tmp", root / "new", root / "parked"
        self._limits = limits or InboxLimits()
        self._disk = disk or LocalDisk()
        self._clock = clock
        for folder in (self._tmp, self._new, self._parked):
            folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def receive(self, offer: StoreRequest) -> Iterator[IncomingImage]:
        """Take an image in, piece by piece; without `commit` nothing of it stays.

        Raises Rejected `invalid_uid`, RetryLater `disk_full` or `inbox_unwritable`.
        """
        _check_uids(offer)
        path = self._tmp / f"{uuid4().hex}.part"
        with _disk_trouble():
            self.check_free_space()
            descriptor = self._disk.create(path)
        try:
            incoming = IncomingImage(
                offer,
                path=path,
                descriptor=descriptor,
                limits=self._limits,
                disk=self._disk,
                clock=self._clock,
                publish=self._publish,
            )
            yield incoming
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    @contextmanager
    def receive_file(self, *, source: str) -> Iterator[IncomingFile]:
        """Take in a whole Part 10 file, piece by piece, as `receive` does a dataset."""
        with ExitStack() as stack:
            yield IncomingFile(self, stack, source=source)

    def path_of(self, sop_instance_uid: str) -> Path:
        """Where the image lies, parked ones included; Rejected `image_absent` when nowhere."""
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

    def facts(self, sop_instance_uid: str) -> ReceivedImage:
        """What was noted when the image came in."""
        return read_received(self.path_of(sop_instance_uid), is_duplicate=False)

    def waiting(self) -> Iterator[SOPInstanceUID]:
        """Every image that is neither parked nor removed, in no order."""
        with os.scandir(self._new) as entries:
            for entry in entries:
                if entry.name.endswith(".dcm"):
                    yield SOPInstanceUID(entry.name.removesuffix(".dcm"))

    def is_waiting(self, sop_instance_uid: str) -> bool:
        """True when an image is here and neither parked nor removed."""
        return is_uid(sop_instance_uid) and (self._new / f"{sop_instance_uid}.dcm").exists()

    def parked(self) -> Iterator[tuple[SOPInstanceUID, str]]:
        """Every image that was set aside, with the code that says why."""
        for path in self._parked.glob("*/*.dcm"):
            yield SOPInstanceUID(path.stem), path.parent.name

    def park(self, sop_instance_uid: str, code: str) -> None:
        """Set an image aside under a stable word; parking it again changes the word."""
        folder = self._parked / code
        folder.mkdir(exist_ok=True)
        self._disk.sync_folder(self._parked)
        self._move(self.path_of(sop_instance_uid), folder)

    def unpark(self, sop_instance_uid: str) -> None:
        """Put a parked image back among the waiting."""
        self._move(self.path_of(sop_instance_uid), self._new)

    def remove(self, sop_instance_uid: str) -> None:
        """Forget an image for good; nothing happens when it is gone already."""
        found = self._find(sop_instance_uid)
        if found is not None:
            found.unlink(missing_ok=True)
            self._disk.sync_folder(found.parent)

    def delete_partial_files(self) -> int:
        """Remove what dead receivers left half-written, and say how many files that was.

        A file that a living process writes is locked by it and stays.
        """
        abandoned = [path for path in self._tmp.iterdir() if is_abandoned(path)]
        for path in abandoned:
            path.unlink(missing_ok=True)
        return len(abandoned)

    def check_free_space(self) -> None:
        """Raise RetryLater `disk_full` when there is less room than the site keeps free."""
        if self._disk.free_bytes(self._tmp) < self._limits.min_free_bytes:
            raise _disk_full()

    def _publish(self, finished: Path, sop_instance_uid: str) -> tuple[Path, bool]:
        """Link the finished file to its final name: the path, and whether it was there before."""
        earlier = self._find(sop_instance_uid)
        target = earlier or self._new / f"{sop_instance_uid}.dcm"
        is_duplicate = earlier is not None
        if not is_duplicate:
            try:
                self._disk.publish(finished, target)
            except FileExistsError:
                is_duplicate = True
        # For a duplicate too: whoever linked the first one may have died before this line.
        self._disk.sync_folder(target.parent)
        return target, is_duplicate

    def _find(self, sop_instance_uid: str) -> Path | None:
        if not is_uid(sop_instance_uid):
            raise _invalid_uid("SOP Instance UID")
        name = f"{sop_instance_uid}.dcm"
        if (path := self._new / name).exists():
            return path
        return next(self._parked.glob(f"*/{name}"), None)

    def _move(self, path: Path, folder: Path) -> None:
        path.replace(folder / path.name)
        self._disk.sync_folder(folder)
        self._disk.sync_folder(path.parent)

    def _read(self, sop_instance_uid: str, *, stop_before_pixels: bool) -> Dataset:
        path = self.path_of(sop_instance_uid)
        try:
            return dcmread(path, stop_before_pixels=stop_before_pixels)
        except OSError as err:
            raise RetryLater("The image cannot be read now", code="inbox_unreadable") from err
        except Exception as err:
            raise Rejected("The image cannot be parsed", code="unreadable_dataset") from err


class IncomingImage:
    """One image on its way in; made by `Inbox.receive`."""

    def __init__(
        self,
        offer: StoreRequest,
        *,
        path: Path,
        descriptor: int,
        limits: InboxLimits,
        disk: Disk,
        clock: Callable[[], datetime],
        publish: Callable[[Path, str], tuple[Path, bool]],
    ) -> None:
        self._offer = offer
        self._path = path
        self._descriptor = descriptor
        self._limits = limits
        self._disk = disk
        self._clock = clock
        self._publish = publish
        self._digest = hashlib.sha256()
        self._length = 0
        header = encode_header(offer)
        self._start = len(header)
        with _disk_trouble():
            disk.write(descriptor, memoryview(header))

    def write(self, data: Bytes) -> None:
        """Append a piece of the dataset, as it came.

        Raises Rejected `object_too_large`, RetryLater `disk_full` or `inbox_unwritable`.
        """
        self._length += len(data)
        if self._length > self._limits.max_object_bytes:
            raise Rejected(
                f"Longer than {self._limits.max_object_bytes} bytes", code="object_too_large"
            )
        self._digest.update(data)
        with _disk_trouble():
            self._disk.write(self._descriptor, memoryview(data))

    def commit(self) -> ReceivedImage:
        """Check the dataset, make it durable, give it its name; afterwards Success may be said.

        Raises Rejected (`truncated_dataset`, `unreadable_dataset`, `missing_uid`, `uid_mismatch`,
        `sop_class_mismatch`, `object_too_large`, `conflicting_duplicate`) or RetryLater.
        """
        header = self._peek()
        _check_same(header, self._offer)
        facts = Facts(
            received_at=self._clock().isoformat(),
            source=self._offer.source,
            sha256=self._digest.hexdigest(),
            study_uid=header.study_uid,
            series_uid=header.series_uid,
            specimen_key=header.specimen_key,
        )
        with _disk_trouble():
            self._disk.overwrite(self._descriptor, encode_facts(facts), self._start - FACTS_BYTES)
            self._disk.sync(self._descriptor)
            path, is_duplicate = self._publish(self._path, header.sop_instance_uid)
            if is_duplicate:
                return _settled(path, facts.sha256)
        return received_image(facts, path, is_duplicate=False)

    def _peek(self) -> DatasetIdentifiers:
        syntax = self._offer.transfer_syntax_uid
        with _disk_trouble(), self._path.open("rb") as stored:
            if not is_deflated(syntax):
                return scan_dataset(
                    stored, start=self._start, length=self._length, transfer_syntax_uid=syntax
                )
            stored.seek(self._start)
            with tempfile.TemporaryFile(dir=self._path.parent) as file:
                plain = cast(BinaryIO, file)
                length = inflate(stored, plain, max_bytes=self._limits.max_object_bytes)
                return scan_dataset(plain, start=0, length=length, transfer_syntax_uid=syntax)


class IncomingFile:
    """One Part 10 file on its way in; made by `Inbox.receive_file`."""

    def __init__(self, inbox: Inbox, stack: ExitStack, *, source: str) -> None:
        self._inbox = inbox
        self._stack = stack
        self._source = source
        self._head = b""
        self._image: IncomingImage | None = None

    def write(self, data: Bytes) -> None:
        """Append a piece of the file; raises what `Inbox.receive` and `IncomingImage` do."""
        if self._image is None:
            self._head += data
            self._image = self._begin(is_all=False)
        else:
            self._image.write(data)

    def commit(self) -> ReceivedImage:
        """As `IncomingImage.commit`, besides Rejected `not_dicom`."""
        image = self._image or self._begin(is_all=True)
        if image is None:
            raise Rejected("Not a DICOM file", code="not_dicom")
        return image.commit()

    def _begin(self, *, is_all: bool) -> IncomingImage | None:
        """Open the inbox as soon as the file's header is whole."""
        split = split_header(self._head, source=self._source, is_all=is_all)
        if split is None:
            return None
        offer, rest = split
        image = self._stack.enter_context(self._inbox.receive(offer))
        image.write(rest)
        return image


def _check_uids(offer: StoreRequest) -> None:
    if not is_uid(offer.sop_instance_uid):
        raise _invalid_uid("SOP Instance UID")
    if not is_uid(offer.sop_class_uid):
        raise _invalid_uid("SOP Class UID")
    if not is_uid(offer.transfer_syntax_uid):
        raise _invalid_uid("Transfer Syntax UID")


def _check_same(header: DatasetIdentifiers, offer: StoreRequest) -> None:
    """The dataset must be what the command said (PS3.4 B.2.3, statuses A9xx)."""
    if header.sop_class_uid != offer.sop_class_uid:
        raise Rejected("The dataset is of another SOP class", code="sop_class_mismatch")
    if header.sop_instance_uid != offer.sop_instance_uid:
        raise Rejected("The dataset has another SOP Instance UID", code="uid_mismatch")


def _settled(path: Path, sha256: str) -> ReceivedImage:
    """The image that was here before, when it has the same bytes."""
    earlier = read_received(path, is_duplicate=True)
    if earlier.sha256 != sha256:
        raise Rejected(
            "This SOP Instance UID is stored with other content", code="conflicting_duplicate"
        )
    return earlier


def _invalid_uid(name: str) -> Rejected:
    return Rejected(f"The {name} is no UID (PS3.5 9.1)", code="invalid_uid")


def _disk_full() -> RetryLater:
    return RetryLater("No room on the disk; send again later", code="disk_full")


@contextmanager
def _disk_trouble() -> Iterator[None]:
    """Name what the disk said for what happens next."""
    try:
        yield
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full() from err
        raise RetryLater("The inbox cannot be written now", code="inbox_unwritable") from err

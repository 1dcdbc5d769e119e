"""Writes results as files in a folder: fsynced under a draft's name, then renamed.

A reader sees a file complete or not at all. Files are private unless the site gives them another
mode, and no symbolic link in the folder is followed.
"""

from __future__ import annotations

import errno
import io
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from pydicom import dcmread

from pipeline.decoding.frames import ImageLimits, read_frames
from pipeline.domain import RGB
from pipeline.errors import Defect
from reporting.delivery import DeliveryPostponed, Receipt
from reporting.delivery.destinations.abandoned_drafts import AbandonedDrafts, draft_of
from reporting.delivery.outcome import deliver_each
from reporting.durable_files import PRIVATE_FILE, make_folder, sync_folder, write_synced
from reporting.research_label import check_labels
from reporting.results import Result, ResultKind

PICTURES = frozenset({ResultKind.ANNOTATED_FIELD, ResultKind.GALLERY})
"""Kinds that people look at; a PNG is written with each."""
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,199}")

OUR_PICTURES = ImageLimits(max_megapixels=math.inf, min_side_px=1)
"""What we drew is read back whatever its size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderDestination:
    """A folder on a disk or a share."""

    name: str
    path: Path
    png: bool = True
    file_mode: int = PRIVATE_FILE
    kinds: frozenset[ResultKind] = frozenset(ResultKind)
    drafts: AbandonedDrafts = field(default_factory=AbandonedDrafts, compare=False, repr=False)

    def deliver(self, results: Sequence[Result]) -> Receipt:
        """Write each under its own name; a file that already has the same bytes is left alone."""
        return deliver_each(check_labels(results, self.kinds), self._write)

    def check(self) -> str:
        """Whether the folder exists or can be made, and can be written."""
        try:
            make_folder(self.path, mode=folder_mode_of(self.file_mode))
            if not os.access(self.path, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "not writable")
        except OSError as err:
            raise folder_problem(self.name, err) from err
        return "the folder can be written"

    def _write(self, result: Result) -> str:
        files = _files_of(result, with_png=self.png)
        write_all(self.name, self.path, files, drafts=self.drafts, mode=self.file_mode)
        return ""


def write_all(
    name: str,
    folder: Path,
    files: Iterable[tuple[str, bytes]],
    *,
    drafts: AbandonedDrafts,
    mode: int = PRIVATE_FILE,
) -> None:
    """Write each file durably; raises DeliveryPostponed when the folder does not take it.

    Then deletes what killed processes left half-written there.
    """
    try:
        make_folder(folder, mode=folder_mode_of(mode))
        written = [
            file_name
            for file_name, content in files
            if write_durably(folder, file_name, content, mode=mode)
        ]
    except OSError as err:
        raise folder_problem(name, err) from err
    with suppress(OSError):  # the results are there; another delivery looks again
        if written:
            drafts.sweep(folder, now_s=(folder / written[-1]).lstat().st_mtime)


def write_durably(folder: Path, name: str, content: bytes, *, mode: int = PRIVATE_FILE) -> bool:
    """Put `content` there so that any reader sees all of it or nothing, also after a crash.

    False where the file had this content already. The name must be plain: anything that could
    leave the folder is a Defect of whoever named it.
    """
    if not PLAIN_NAME.fullmatch(name):
        raise Defect("A result's name is not a plain file name.", code="unsafe_name")
    target = folder / name
    if _holds(target, content):
        return False
    draft = draft_of(folder, name)
    try:
        write_synced(draft, content, mode=mode)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(folder)
    return True


def folder_mode_of(file_mode: int) -> int:
    """Whoever may read the files may enter the folder."""
    readers = (file_mode & 0o444) >> 2
    return file_mode | readers


def folder_problem(name: str, err: OSError) -> DeliveryPostponed:
    """Every disk may have room and rights again later; the code says what to look at."""
    code, what = {
        errno.ENOSPC: ("disk_full", "the disk is full"),
        errno.EDQUOT: ("disk_full", "the quota is used up"),
        errno.EACCES: ("folder_not_writable", "it may not be written: check owner and mode"),
        errno.EPERM: ("folder_not_writable", "it may not be written: check owner and mode"),
        errno.EROFS: ("folder_not_writable", "the file system is read-only"),
    }.get(
        err.errno or 0,
        ("folder_unusable", f"it cannot be used ({err.strerror}): check that it is there"),
    )
    return DeliveryPostponed(f"The folder of {name}: {what}.", code=code)


def picture_of(content: bytes) -> RGB:
    """The pixels of one of our pictures as RGB, whatever its transfer syntax."""
    return next(read_frames(dcmread(io.BytesIO(content)), limits=OUR_PICTURES)).pixels


def png_of(content: bytes) -> bytes:
    """One of our pictures as a PNG file, for people without a DICOM viewer."""
    return _png(picture_of(content))


def _files_of(result: Result, *, with_png: bool) -> Iterator[tuple[str, bytes]]:
    yield result.name, result.content
    if with_png and result.kind in PICTURES:
        yield f"{Path(result.name).stem}.png", png_of(result.content)


def _png(pixels: RGB) -> bytes:
    is_written, encoded = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    if not is_written:
        raise Defect("A picture could not be written as PNG.", code="png_failed")
    return np.asarray(encoded).tobytes()


def _holds(target: Path, content: bytes) -> bool:
    """Whether the file itself, no link to another, has this content."""
    try:
        descriptor = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as err:
        if err.errno in (errno.ENOENT, errno.ELOOP):
            return False
        raise
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        is_candidate = stat.S_ISREG(found.st_mode) and found.st_size == len(content)
        return is_candidate and file.read() == content

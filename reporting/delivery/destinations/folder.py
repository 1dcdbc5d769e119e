"""Files in a folder: written beside, fsynced, renamed; never half there, never there twice."""

from __future__ import annotations

import errno
import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pydicom import dcmread

from pipeline.decoding.frames import ImageLimits, read_frames
from pipeline.domain import RGB
from pipeline.errors import Defect
from reporting.delivery import DeliveryPostponed, Receipt
from reporting.delivery.outcome import deliver_each
from reporting.durable_files import sync_folder
from reporting.research_label import check_labels
from reporting.results import Result, ResultKind

PICTURES = frozenset({ResultKind.ANNOTATED_FIELD, ResultKind.GALLERY})
"""The kinds that people look at; they get a PNG beside them."""
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,199}")
WRITE_BYTES = 512 * 1024
"""Larger writes are several times slower on some kernels."""

OUR_PICTURES = ImageLimits(max_megapixels=math.inf, min_side_px=1)
"""What we drew is read back whatever its size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderDestination:
    """A folder on a disk or a share."""

    name: str
    path: Path
    png: bool = True
    kinds: frozenset[ResultKind] = frozenset(ResultKind)

    def deliver(self, results: Sequence[Result]) -> Receipt:
        """Write each under its own name; what is there already with the same bytes stays."""
        return deliver_each(check_labels(results, self.kinds), self._write)

    def check(self) -> str:
        """Whether the folder is there, or can be made, and can be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not os.access(self.path, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "not writable")
        except OSError as err:
            raise folder_problem(self.name, err) from err
        return "the folder can be written"

    def _write(self, result: Result) -> str:
        write_all(self.name, self.path, _files_of(result, with_png=self.png))
        return ""


def write_all(name: str, folder: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write each file durably; raises DeliveryPostponed when the folder does not take it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file_name, content in files:
            write_durably(folder, file_name, content)
    except OSError as err:
        raise folder_problem(name, err) from err


def write_durably(folder: Path, name: str, content: bytes) -> None:
    """Put `content` there so that any reader sees all of it or nothing, also after a crash.

    The name must be plain: anything that could leave the folder is a Defect of whoever named it.
    """
    if not PLAIN_NAME.fullmatch(name):
        raise Defect("A result's name is not a plain file name.", code="unsafe_name")
    target = folder / name
    if _holds(target, content):
        return
    partial = folder / f".{name}.{os.getpid()}.part"
    try:
        _write_and_sync(partial, content)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(folder)


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
    try:
        return target.stat().st_size == len(content) and target.read_bytes() == content
    except FileNotFoundError:
        return False


def _write_and_sync(path: Path, content: bytes) -> None:
    with path.open("wb", buffering=0) as file:
        view = memoryview(content)
        while view:
            view = view[file.write(view[:WRITE_BYTES]) :]
        os.fsync(file.fileno())

"""Which files a user means who names files and folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.errors import Rejected

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".dcm", ""})
"""Of files in a folder; DICOM files often have none. A file that is named is always taken."""


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those below the folders named; Rejected when there is none."""
    found = [file for path in paths for file in _files_below(path)]
    if not found:
        raise Rejected(
            "There is no image: name JPG, PNG, BMP, TIFF or DICOM files, or folders of them",
            code="no_images",
        )
    return found


def _files_below(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise Rejected(f"There is no {path}", code="no_such_file")
    if path.is_file():
        yield path
        return
    for file in sorted(path.rglob("*")):
        is_hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if file.is_file() and not is_hidden and file.suffix.lower() in IMAGE_SUFFIXES:
            yield file

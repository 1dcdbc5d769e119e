"""Finds the image files below the files and folders that a user names; loses none silently."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.decoding.photographs.reader import looks_like_image
from pipeline.errors import Rejected

IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff"),
        *(".gif", ".webp", ".avif", ".dcm", ".dicom", ".ima"),
    }
)
"""Files in a folder that are read whatever they hold, so that damage is reported."""
CONTAINER_SUFFIXES = frozenset(
    {
        *(".zip", ".7z", ".rar", ".tar", ".gz", ".tgz", ".pdf", ".heic", ".heif", ".jp2", ".j2k"),
        *(".jxl", ".psd", ".svs", ".ndpi", ".mrxs", ".scn", ".czi", ".vsi", ".nd2", ".lif"),
        *(".dng", ".nef", ".cr2", ".cr3", ".arw", ".raf", ".orf", ".rw2", ".raw"),
    }
)
"""Files that hold pictures and cannot be read: taken too, so that each is refused by name."""
_NOT_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, and bytes of a name that are not UTF-8 as Python holds them (PEP 383)."""
_HEAD_BYTES = 512
_NAMED_AT_MOST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFiles:
    """What a user named."""

    images: tuple[Path, ...]
    skipped: tuple[Path, ...] = ()
    """Files in the folders that are no images: notes, tables, thumbnails' databases."""

    def skipped_lines(self) -> Iterator[str]:
        """What was skipped, one line per kind of file."""
        counts = Counter(path.suffix.lower() for path in self.skipped)
        for suffix, count in sorted(counts.items()):
            names = [shown(path.name) for path in self.skipped if path.suffix.lower() == suffix]
            more = ", …" if count > _NAMED_AT_MOST else ""
            listed = ", ".join(names[:_NAMED_AT_MOST]) + more
            kind = shown(suffix) or "files without a suffix"
            yield f"skipped {count} {kind}, not an image: {listed}"


def find_images(paths: Sequence[Path]) -> FoundFiles:
    """The files named, and those below the folders named; each once.

    Raises Rejected `no_such_file` for a path that does not exist, and `no_images` when there is
    no image.
    """
    images: dict[Path, None] = {}
    skipped: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise Rejected(f"There is no {shown(path)}: check its name", code="no_such_file")
        if path.is_file():
            images[path] = None
            continue
        for file in _files_below(path):
            (images if _is_meant(file) else skipped)[file] = None
    found = FoundFiles(images=tuple(images), skipped=tuple(skipped))
    if not images:
        raise Rejected(
            "\n  ".join(
                [
                    "There is no image: name JPEG, PNG, TIFF, BMP, GIF, WebP, AVIF or DICOM "
                    "files, or folders of them",
                    *found.skipped_lines(),
                ]
            ),
            code="no_images",
        )
    return found


def shown(path: Path | str) -> str:
    """A path or name for people: what is no text, or steers a terminal, becomes U+FFFD."""
    return _NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", str(path))


def _files_below(folder: Path) -> Iterator[Path]:
    """Every file that is not hidden, links and folders that cannot be opened among them.

    What is neither file nor folder is left out. Linked folders are entered once.
    """
    unopened: list[Path] = []
    found: list[Path] = []
    entered: set[tuple[int, int]] = set()
    for name, folders, files in os.walk(
        folder, onerror=lambda err: unopened.append(Path(err.filename)), followlinks=True
    ):
        here = Path(name)
        folders[:] = [one for one in folders if not one.startswith(".")]
        facts = here.stat()
        if (facts.st_dev, facts.st_ino) in entered:
            folders.clear()
            continue
        entered.add((facts.st_dev, facts.st_ino))
        found += [here / one for one in files if not one.startswith(".")]
    yield from sorted([*(file for file in found if file.is_file() or file.is_symlink()), *unopened])


def _is_meant(file: Path) -> bool:
    """By its suffix, else by its first bytes: DICOM files often have none, or a number."""
    if file.suffix.lower() in IMAGE_SUFFIXES | CONTAINER_SUFFIXES:
        return True
    try:
        with file.open("rb") as stream:
            return looks_like_image(stream.read(_HEAD_BYTES))
    except OSError:
        return True  # reading it will say why not

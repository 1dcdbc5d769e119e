"""Folders and files as people really have them, devised from public bug reports and from trying.

Nothing vanishes without a word, nothing stops a folder, and each message names the file and says
what to do.
"""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from listener.modality.find_files import FoundFiles, find_images, shown
from listener.modality.secondary_capture import read_files
from tests.builders import build_image, file_bytes
from tests.pipeline.decoding.photographs.files import pillow, tiff

JPEG = pillow("JPEG")
DICOM = file_bytes(build_image())


def put(folder: Path, name: str | bytes, content: bytes = JPEG) -> Path:
    path = folder / os.fsdecode(name)
    path.write_bytes(content)
    return path


# --- messages


def without(keyword: str) -> bytes:
    image = build_image()
    delattr(image, keyword)
    return file_bytes(image)


def boxes(kind: bytes) -> bytes:
    return struct.pack(">L", 24) + b"ftyp" + kind + bytes(12) + bytes(100)


MESSAGES: Mapping[str, tuple[str, Callable[[], bytes], str]] = {
    "empty": ("a.jpg", lambda: b"", "is empty: copy it again"),
    "text-called-jpg": ("a.jpg", lambda: b"see the other folder", "neither DICOM nor a photograph"),
    "three-bytes": ("a.jpg", lambda: JPEG[:3], ": export it"),
    "zeros": ("a.tif", lambda: bytes(4096), "neither DICOM nor a photograph"),
    "zip": ("a.zip", lambda: b"PK\x03\x04" + bytes(40), "unpack it first"),
    "gzip": ("a.tgz", lambda: b"\x1f\x8b" + bytes(40), "unpack it first"),
    "rar": ("a.rar", lambda: b"Rar!\x1a\x07" + bytes(40), "unpack it first"),
    "pdf": ("a.pdf", lambda: b"%PDF-1.7" + bytes(40), "export its pictures"),
    "heic-of-a-telephone": ("a.heic", lambda: boxes(b"heic"), "export it as JPEG or PNG"),
    "heic-called-jpg": ("a.jpg", lambda: boxes(b"heic"), "export it as JPEG or PNG"),
    "jpeg-xl": ("a.jxl", lambda: b"\xff\x0a" + bytes(40), "export it as JPEG or PNG"),
    "photoshop": ("a.psd", lambda: b"8BPS" + bytes(40), "export it as TIFF or PNG"),
    "raw-of-a-camera": (
        "a.nef",
        lambda: tiff(strips=[bytes(9)], t259=34713, t262=32803),
        "export it",
    ),
    "mask-of-32-bits": ("a.tif", lambda: tiff(t258=(32, 32, 32)), "export it with 8"),
    "jpeg-cut": ("a.jpg", lambda: JPEG[:-200], "copy or export it again"),
    "dicom-cut-in-its-header": ("a.dcm", lambda: DICOM[:366], "breaks off: copy it again"),
    "dicom-cut-in-its-pixels": ("a.dcm", lambda: DICOM[:-500], "breaks off: copy it again"),
    "dicom-without-instance": ("a.dcm", lambda: without("SOPInstanceUID"), "lacks SOPInstanceUID"),
    "dicom-without-series": ("a.dcm", lambda: without("SeriesInstanceUID"), "lacks SeriesInst"),
    "dicom-without-pixels": ("a.dcm", lambda: without("PixelData"), "is DICOM, but no image"),
    "dicom-preamble-only": ("a.dcm", lambda: bytes(128) + b"DICM", "a.dcm "),
}


@pytest.mark.invented(kind=25)
@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_names_the_file_and_what_to_do(name: str, tmp_path: Path) -> None:
    file, build, advice = MESSAGES[name]
    path = put(tmp_path, file, build())
    put(tmp_path, "whole.png", pillow("PNG"))

    read = {one.path.name: one for one in read_files(find_images([tmp_path]).images)}

    problem = read[file].problem
    assert problem is not None
    assert problem.message.startswith(str(path))
    assert advice in problem.message
    assert read["whole.png"].image is not None


CUT: Mapping[str, UID] = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "jpeg": JPEGBaseline8Bit,
    "jpeg-2000": JPEG2000Lossless,
    "rle": RLELossless,
}


@pytest.mark.invented(kind=7)
@pytest.mark.parametrize("missing", [9, 100, 1000])
@pytest.mark.parametrize("name", CUT)
def test_a_dicom_file_that_breaks_off_is_not_sent(name: str, missing: int, tmp_path: Path) -> None:
    content = file_bytes(build_image(transfer_syntax=CUT[name]))
    path = put(tmp_path, "a.dcm", content[:-missing])

    (read,) = read_files([path])

    assert read.problem is not None
    assert "copy it again" in read.problem.message


@pytest.mark.invented(kind=15)
@pytest.mark.parametrize("padding", [b"\0", b"\n", bytes(4), b"\r\n"])
def test_a_dicom_file_with_padding_behind_it_is_sent(padding: bytes, tmp_path: Path) -> None:
    path = put(tmp_path, "a.dcm", DICOM + padding)

    (read,) = read_files([path])

    assert read.image is not None


# --- names


NAMES: Mapping[str, tuple[bytes, str]] = {
    "umlauts-and-ideographs": ("Ünï 照片.jpg".encode(), "Ünï 照片.jpg"),
    "decomposed-umlauts": ("U\u0308.jpg".encode(), "U\u0308.jpg"),
    "latin-1-on-a-utf-8-system": (b"M\xfcller.jpg", "M\ufffdller.jpg"),
    "not-a-character": (b"\xff\xfe.jpg", "\ufffd\ufffd.jpg"),
    "line-end": (b"new\nline.jpg", "new\ufffdline.jpg"),
    "terminal-colors": (b"\x1b[31mred.jpg", "\ufffd[31mred.jpg"),
    "brackets": (b"[bold]a.jpg", "[bold]a.jpg"),
    "a-leading-dash": (b"-a.jpg", "-a.jpg"),
    "a-backslash": (b"a\\b.jpg", "a\\b.jpg"),
    "quotes": (b"a'b\"c.jpg", "a'b\"c.jpg"),
    "blanks-around": (b" a .jpg", " a .jpg"),
    "a-formula": (b"=1+1.jpg", "=1+1.jpg"),
    "200-letters": (b"x" * 200 + b".jpg", "x" * 200 + ".jpg"),
    "two-suffixes": (b"a.tif.jpg", "a.tif.jpg"),
    "suffix-in-capitals": (b"A.JPG", "A.JPG"),
}


@pytest.mark.invented(kind=25)
@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_is_read_and_can_be_written_about(name: str, tmp_path: Path) -> None:
    stored, wanted = NAMES[name]
    path = put(tmp_path, stored)

    (read,) = read_files(find_images([tmp_path]).images)

    assert shown(path.name) == wanted
    assert json.loads(json.dumps(shown(path.name)).encode()) == wanted
    assert shown(path.name).encode("utf-8")
    assert read.image is not None
    assert read.image.ImageComments == f"File: {wanted}"
    read.image.save_as(io.BytesIO(), enforce_file_format=True)


# --- folders


def broken_link(folder: Path) -> None:
    (folder / "lost.jpg").symlink_to(folder / "nowhere.jpg")


def linked_file(folder: Path) -> None:
    (folder / "linked.jpg").symlink_to(put(folder.parent, "elsewhere.jpg"))


def linked_folder(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    put(outside, "far.jpg")
    (folder / "today").symlink_to(outside)


def circle(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    put(inner, "near.jpg")
    (inner / "up").symlink_to(folder)


def folder_called_jpg(folder: Path) -> None:
    (folder / "album.jpg").mkdir()
    put(folder / "album.jpg", "inside.png", pillow("PNG"))


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")


def hidden(folder: Path) -> None:
    put(folder, ".thumbnail.jpg")
    (folder / ".git").mkdir()
    put(folder / ".git", "x.jpg")


def dicom_without_suffix(folder: Path) -> None:
    put(folder, "IM000001", DICOM)


def dicom_directory(folder: Path) -> None:
    put(folder, "DICOMDIR", bytes(128) + b"DICM" + bytes(40))


def notes(folder: Path) -> None:
    for name in ("readme.txt", "Thumbs.db", "results.xlsx"):
        put(folder, name, b"x")


def deep(folder: Path) -> None:
    below = folder.joinpath(*"abcdefgh")
    below.mkdir(parents=True)
    put(below, "deep.jpg")


FOLDERS: Mapping[str, tuple[Callable[[Path], None], set[str], set[str]]] = {
    "broken-link": (broken_link, {"lost.jpg"}, set()),
    "linked-file": (linked_file, {"linked.jpg"}, set()),
    "linked-folder": (linked_folder, {"far.jpg"}, set()),
    "links-in-a-circle": (circle, {"near.jpg"}, set()),
    "folder-called-jpg": (folder_called_jpg, {"inside.png"}, set()),
    "pipe": (pipe, set(), set()),
    "hidden": (hidden, set(), set()),
    "dicom-without-suffix": (dicom_without_suffix, {"IM000001"}, set()),
    "dicom-directory": (dicom_directory, {"DICOMDIR"}, set()),
    "notes": (notes, set(), {"readme.txt", "Thumbs.db", "results.xlsx"}),
    "deep": (deep, {"deep.jpg"}, set()),
}


@pytest.mark.invented(kind=25)
@pytest.mark.parametrize("name", FOLDERS)
def test_nothing_in_a_folder_vanishes(name: str, tmp_path: Path) -> None:
    build, images, skipped = FOLDERS[name]
    folder = tmp_path / "folder"
    folder.mkdir()
    put(folder, "first.jpg")
    build(folder)

    found = find_images([folder])

    assert {path.name for path in found.images} == {"first.jpg", *images}
    assert {path.name for path in found.skipped} == skipped
    assert len(list(read_files(found.images))) == len(found.images)


@pytest.mark.invented(kind=25)
def test_a_broken_link_says_that_it_cannot_be_read(tmp_path: Path) -> None:
    broken_link(tmp_path)

    (read,) = read_files(find_images([tmp_path]).images)

    assert read.problem is not None
    assert "lost.jpg cannot be read (No such file or directory)" in read.problem.message


@pytest.mark.invented(kind=25)
def test_a_folder_that_cannot_be_opened_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    put(tmp_path, "first.jpg")
    scan = os.scandir

    def refusing(path: str) -> Iterator[os.DirEntry[str]]:
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)

    assert find_images([tmp_path]).images == (tmp_path / "first.jpg", locked)


@pytest.mark.invented(kind=25)
@pytest.mark.parametrize("count", [1, 3, 4, 1000])
def test_what_was_skipped_is_one_line_that_fits(count: int) -> None:
    names = [Path("folder") / f"note {number}.txt" for number in range(count)]

    (line,) = FoundFiles(images=(), skipped=tuple(names)).skipped_lines()

    assert len(line) <= 80
    assert str(count) in line

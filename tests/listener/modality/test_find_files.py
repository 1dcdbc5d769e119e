"""Which files a user means who names files and folders: every picture, and none lost silently."""

from __future__ import annotations

from pathlib import Path

import pytest

from listener.modality.find_files import find_images
from listener.modality.secondary_capture import read_files
from pipeline.errors import Rejected
from tests.builders import build_image, file_bytes
from tests.pipeline.decoding.photographs.files import pillow


def test_a_path_that_is_not_there_is_named() -> None:
    with pytest.raises(Rejected, match=r"There is no nowhere\.png") as refusal:
        find_images([Path("nowhere.png")])

    assert refusal.value.code == "no_such_file"


def test_a_folder_without_images_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not an image")

    with pytest.raises(Rejected, match=r"(?s)JPEG, PNG.*notes\.txt"):
        find_images([tmp_path])


def test_a_folder_gives_its_images_by_name_and_says_what_it_skips(tmp_path: Path) -> None:
    wanted = ["a.JPG", "b/c.png", "d.bmp", "e.tiff", "f.tif", "g.dcm", "h.webp", "i.avif", "j.gif"]
    for name in [*wanted, "truth.json", ".hidden.png", ".git/x.png", "Thumbs.db"]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")

    found = find_images([tmp_path])

    assert [str(path.relative_to(tmp_path)) for path in found.images] == wanted
    assert list(found.skipped_lines()) == [
        "skipped 1 .db, not an image: Thumbs.db",
        "skipped 1 .json, not an image: truth.json",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("IMAGE.0001", file_bytes(build_image())),
        ("noending", file_bytes(build_image())),
        ("1.2.840.113619", file_bytes(build_image())),
        ("photo.jpg_large", pillow("JPEG")),
        ("photo", pillow("PNG")),
        ("scan.export", pillow("TIFF")),
        ("scan.tmp", pillow("BMP")),
        ("a.bin", pillow("GIF")),
        ("b.bin", pillow("WEBP")),
        ("c.bin", pillow("AVIF")),
        ("d.bin", b"PK\x03\x04" + bytes(40)),
    ],
)
def test_an_image_of_any_name_is_taken_for_its_content(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)

    assert find_images([tmp_path]).images == (tmp_path / name,)


@pytest.mark.parametrize(
    "name",
    [
        *("smears.zip", "smears.7z", "smears.tar.gz", "report.pdf", "phone.heic", "slide.svs"),
        *("slide.ndpi", "raw.nef", "raw.dng", "layers.psd", "field.jp2", "field.jxl", "empty.png"),
    ],
)
def test_what_holds_pictures_and_cannot_be_read_is_refused_by_name(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"")

    (read,) = read_files(find_images([tmp_path]).images)

    assert read.problem is not None
    assert read.problem.message.startswith(str(tmp_path / name))


def test_a_hidden_folder_that_was_named_is_looked_into(tmp_path: Path) -> None:
    path = tmp_path / ".cache" / "x.png"
    path.parent.mkdir()
    path.write_bytes(b"x")

    assert find_images([path.parent]).images == (path,)


def test_a_file_that_was_named_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"x")

    assert find_images([path]).images == (path,)


def test_a_file_that_was_named_twice_is_taken_once(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"x")

    assert find_images([path, tmp_path, path]).images == (path,)


def test_many_skipped_files_take_one_line(tmp_path: Path) -> None:
    for number in range(500):
        (tmp_path / f"{number:03}.json").write_text("{}")
    (tmp_path / "a.png").write_bytes(b"x")

    lines = list(find_images([tmp_path]).skipped_lines())

    assert lines == ["skipped 500 .json, not an image: 000.json, 001.json, 002.json, …"]

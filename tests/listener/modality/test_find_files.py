"""Which files a user means who names files and folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from listener.modality.find_files import image_files
from pipeline.errors import Rejected


def test_a_path_that_is_not_there_is_named() -> None:
    with pytest.raises(Rejected, match=r"There is no nowhere\.png") as refusal:
        image_files([Path("nowhere.png")])

    assert refusal.value.code == "no_such_file"


def test_a_folder_without_images_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not an image")

    with pytest.raises(Rejected, match="JPG, PNG, BMP, TIFF or DICOM"):
        image_files([tmp_path])


def test_a_folder_gives_its_images_by_name_and_nothing_else(tmp_path: Path) -> None:
    wanted = ["a.JPG", "b/c.png", "d.bmp", "e.tiff", "f.tif", "g.dcm", "noending"]
    for name in [*wanted, "truth.json", ".hidden.png", ".git/x.png", "Thumbs.db"]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")

    found = image_files([tmp_path])

    assert [str(path.relative_to(tmp_path)) for path in found] == wanted


def test_a_hidden_folder_that_was_named_is_looked_into(tmp_path: Path) -> None:
    path = tmp_path / ".cache" / "x.png"
    path.parent.mkdir()
    path.write_bytes(b"x")

    assert image_files([path.parent]) == [path]


def test_a_file_that_was_named_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    path = tmp_path / "IMAGE.0001"
    path.write_bytes(b"x")

    assert image_files([path]) == [path]

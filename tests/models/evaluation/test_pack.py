"""A pack is read as its manifest says, or refused before anything is judged."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from models.evaluation.pack import PictureKind, read_pack
from pipeline.domain import CellType
from pipeline.errors import Rejected

HEADER = "file,source,kind,label,cell_type,subtype,subject,split,masked,width,height,sha256\n"
GOOD = "a/1.png,a,cell,leukemic,lymphoblast,,a:1,train,true,40,32,0\n"


def write_manifest(folder: Path, text: str) -> Path:
    (folder / "manifest.csv").write_text(text, encoding="utf-8")
    return folder


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=r"manifest\.csv") as refusal:
        read_pack(tmp_path, None)

    assert refusal.value.code == "pack_manifest"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("file,source\n", "columns"),
        (HEADER + GOOD.replace("a/1.png", "../1.png"), "outside"),
        (HEADER + GOOD.replace("a/1.png", "/1.png"), "outside"),
        (HEADER + GOOD.replace(",cell,", ",slide,"), "kind"),
        (HEADER + GOOD.replace("leukemic", "sick"), "label"),
        (HEADER + GOOD.replace("lymphoblast", "cat"), "cell_type"),
    ],
)
def test_a_bad_manifest_is_refused_with_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    write_manifest(tmp_path, text)

    with pytest.raises(Rejected, match=reason):
        read_pack(tmp_path, None)


def test_every_type_of_a_pack_has_a_counterpart_or_is_known_to_have_none(tmp_path: Path) -> None:
    names = {"blast": CellType.BLAST, "myelocyte": CellType.IMMATURE_GRANULOCYTE, "artefact": None}
    lines = [GOOD.replace("lymphoblast", name) for name in names]

    rows = read_pack(write_manifest(tmp_path, HEADER + "".join(lines)), None)

    assert [row.known_type for row in rows] == list(names.values())


def test_a_missing_or_broken_picture_is_refused(tmp_path: Path) -> None:
    (row,) = read_pack(write_manifest(tmp_path, HEADER + GOOD), None)

    with pytest.raises(Rejected, match=r"a/1\.png"):
        row.read_pixels()
    row.path.parent.mkdir()
    row.path.write_bytes(b"no picture")
    with pytest.raises(Rejected, match=r"a/1\.png"):
        row.read_pixels()


def test_a_split_keeps_its_rows_and_those_without_one(tmp_path: Path) -> None:
    lines = [GOOD, GOOD.replace("train", "val").replace("1.png", "2.png")]
    lines.append(GOOD.replace("train", "").replace("1.png", "3.png"))
    write_manifest(tmp_path, HEADER + "".join(lines))

    assert [row.file for row in read_pack(tmp_path, "val")] == ["a/2.png", "a/3.png"]
    assert len(read_pack(tmp_path, None)) == 3


def test_pixels_come_as_rgb(tmp_path: Path) -> None:
    (row,) = read_pack(write_manifest(tmp_path, HEADER + GOOD), None)
    row.path.parent.mkdir()
    red = np.zeros((32, 40, 3), np.uint8)
    red[..., 0] = 200
    cv2.imwrite(str(row.path), cv2.cvtColor(red, cv2.COLOR_RGB2BGR))

    assert np.array_equal(row.read_pixels(), red)
    assert row.read_image().width == 40
    assert (row.kind, row.is_masked) == (PictureKind.CELL, True)

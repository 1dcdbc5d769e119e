"""Files analysed without any network."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import pytest
from PIL import Image

from config.settings import make_settings
from listener.cli.analyse import PictureNames, analyse_files
from listener.demo.phantom import Recipe, draw_field
from pipeline.errors import Rejected
from tests.builders import build_image, file_bytes
from tests.pipeline.decoding.photographs.files import ICC_PROFILE, pillow

RECIPE = Recipe(width=480, height=360, um_per_px=0.15)


def test_a_file_that_is_no_image_is_told_and_stops_no_other(
    tmp_path: Path, tiny_model: Path
) -> None:
    source = tmp_path / "in"
    draw_picture(source / "field.png")
    (source / "broken.png").write_bytes(b"no picture")

    failed, told = _analyse(source, tmp_path / "out", tiny_model)

    assert failed == 1
    refused = next(one for one in told if "error" in one)
    assert refused["code"] == "not_an_image"
    assert refused["file"].endswith("broken.png")
    assert (tmp_path / "out" / "field_annotated.png").is_file()


def test_a_fault_of_our_own_stops_no_other_file(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ValueError("Doe^Jane")

    monkeypatch.setattr("listener.cli.analyse.analyse_field", fails)
    for name in ("a", "b"):
        draw_picture(tmp_path / "in" / f"{name}.png")

    failed, told = _analyse(tmp_path / "in", tmp_path / "out", tiny_model)

    assert failed == 2
    assert [one["code"] for one in told] == ["defect", "defect"]
    assert "Doe" not in repr(told)


def test_each_frame_is_one_labelled_value_and_one_picture(tmp_path: Path, tiny_model: Path) -> None:
    draw_picture(tmp_path / "in" / "field.png")

    failed, (told,) = _analyse(tmp_path / "in", tmp_path / "out", tiny_model)

    assert failed == 0
    assert "RESEARCH USE ONLY" in told["label"]
    assert told["cells"]
    assert json.loads(json.dumps(told)) == told
    picture = cv2.imread(str(tmp_path / "out" / "field_annotated.png"))
    assert picture.shape[1] >= 1024


def test_stages_are_drawn_for_who_asks(tmp_path: Path, tiny_model: Path) -> None:
    draw_picture(tmp_path / "in" / "field.png")

    _analyse(tmp_path / "in", tmp_path / "out", tiny_model, with_stages=True)

    assert cv2.imread(str(tmp_path / "out" / "field_stages.png")) is not None


def test_pictures_of_the_same_name_keep_apart(tmp_path: Path, tiny_model: Path) -> None:
    places = ("a/field.png", "b/field.png", "b/field.bmp", "b/field_2.png", "b/deep/field.png")
    for place in places:
        draw_picture(tmp_path / "in" / place)

    failed, told = _analyse(tmp_path / "in", tmp_path / "out", tiny_model)

    assert failed == 0
    shown = {one["file"]: tmp_path / "out" / one["annotated_image"] for one in told}
    assert len(set(shown.values())) == len(places)
    assert all(path.is_file() for path in shown.values())
    assert shown[str(tmp_path / "in" / "a/field.png")] == tmp_path / "out/a/field_annotated.png"


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (["in/a.png"], ["a"]),
        (["in/a.png", "in/a.jpg"], ["a.png", "a.jpg"]),
        (["in/a.png", "in/A.png"], ["a", "A-2"]),
        (["in/x/a.png", "in/y/a.png"], ["x/a", "y/a"]),
        (["x/a.png", "y/a.png"], ["a.png", "a.png-2"]),
        (["in/1.2.3", "in/1.2.4"], ["1.2.3", "1.2.4"]),
        (["in/a.png", "in/a.png.png"], ["a", "a.png"]),
        (["in/a.jpg", "in/a.png", "in/a.jpg.png"], ["a.jpg", "a.png", "a.jpg-2"]),
        (["in/a/b.png", "in/a_b.png"], ["a/b", "a_b"]),
        (["in/ü.png", "in/Ü.png"], ["ü", "Ü-2"]),
    ],
)
def test_names_of_pictures_never_meet(files: list[str], wanted: list[str]) -> None:
    paths = [Path(file) for file in files]
    names = PictureNames([Path("in")], paths)

    assert [str(names.of(path, 1)) for path in paths] == wanted


def test_a_second_frame_never_takes_the_name_of_a_file() -> None:
    paths = [Path("in/a.dcm"), Path("in/a_2.png")]
    names = PictureNames([Path("in")], paths)

    assert {str(names.of(paths[0], 2)), str(names.of(paths[1], 1))} == {"a_2-2", "a_2"}


def test_every_cell_is_in_the_table_with_its_file_and_its_order(
    tmp_path: Path, tiny_model: Path
) -> None:
    image = build_image(pixels=draw_field(7, RECIPE).pixels)
    image.AccessionNumber, image.PatientID = "A-7", r"HOSP\0815"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "field.dcm").write_bytes(file_bytes(image))

    _, (told,) = _analyse(tmp_path / "in", tmp_path / "out", tiny_model)

    with (tmp_path / "out" / "cells.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(told["cells"]) > 0
    assert {row["file"] for row in rows} == {told["file"]} == {str(tmp_path / "in" / "field.dcm")}
    assert {row["accession"] for row in rows} == {told["accession"]} == {"A-7"}
    assert {row["patient_id"] for row in rows} == {told["patient_id"]} == {r"HOSP\0815"}
    assert all("RESEARCH USE ONLY" in row["research_use_only"] for row in rows)


def test_no_identifier_of_the_table_opens_as_a_formula(tmp_path: Path, tiny_model: Path) -> None:
    image = build_image(pixels=draw_field(7, RECIPE).pixels)
    image.AccessionNumber, image.PatientID = "-1+1", "=HYPERLINK(1)"
    (tmp_path / "in.dcm").write_bytes(file_bytes(image))

    _, (told,) = _analyse(tmp_path / "in.dcm", tmp_path / "out", tiny_model)

    with (tmp_path / "out" / "cells.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["accession"], row["patient_id"]) for row in rows} == {("'-1+1", "'=HYPERLINK(1)")}
    assert (told["accession"], told["patient_id"]) == ("-1+1", "=HYPERLINK(1)")


def test_the_profile_of_a_photograph_stays_with_its_picture(
    tmp_path: Path, tiny_model: Path
) -> None:
    (tmp_path / "in").mkdir()
    photograph = tmp_path / "in" / "field.png"
    photograph.write_bytes(pillow("PNG", draw_field(7, RECIPE).pixels, icc_profile=ICC_PROFILE))

    _analyse(tmp_path / "in", tmp_path / "out", tiny_model)

    with Image.open(tmp_path / "out" / "field_annotated.png") as picture:
        assert picture.info["icc_profile"] == ICC_PROFILE


def test_pictures_of_an_earlier_run_are_no_input(tmp_path: Path, tiny_model: Path) -> None:
    draw_picture(tmp_path / "in" / "field.png")

    for _ in range(2):
        _, told = _analyse(tmp_path / "in", tmp_path / "in" / "out", tiny_model)

    assert len(told) == 1


def test_a_folder_that_cannot_be_written_is_named_with_what_to_do(
    tmp_path: Path, tiny_model: Path
) -> None:
    draw_picture(tmp_path / "in" / "field.png")
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(Rejected, match=r"file.* cannot be written .*--out"):
        _analyse(tmp_path / "in", tmp_path / "file" / "out", tiny_model)


def test_what_is_skipped_and_how_far_it_is_goes_to_standard_error(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_picture(tmp_path / "in" / "field.png")
    (tmp_path / "in" / "smears.zip").write_bytes(b"PK\x03\x04")
    (tmp_path / "in" / "notes.txt").write_text("notes")

    failed, told = _analyse(tmp_path / "in", tmp_path / "out", tiny_model)

    assert failed == 1
    said = capsys.readouterr().err
    assert "skipped 1 .txt, not an image: notes.txt" in said
    assert f"[1/2] {tmp_path / 'in' / 'field.png'}: " in said
    archive = tmp_path / "in" / "smears.zip"
    assert f"[2/2] not analysed: {archive} is a zip archive: unpack it first" in said
    assert {one.get("code") for one in told} == {None, "not_an_image"}


def draw_picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = draw_field(7, RECIPE)
    cv2.imwrite(str(path), drawn.pixels[..., ::-1])


def _analyse(
    source: Path, out: Path, model: Path, *, with_stages: bool = False
) -> tuple[int, list[Any]]:
    told: list[Any] = []
    settings = make_settings({"model": {"folder": str(model)}})
    failed = analyse_files(
        [source], out, settings=settings, with_stages=with_stages, write=told.append
    )
    return failed, told

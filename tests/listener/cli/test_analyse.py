"""Files analysed without any network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import pytest

from config.settings import make_settings
from listener.cli.analyse import analyse_files
from listener.demo.phantom import Recipe, draw_field

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


def draw_picture(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
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

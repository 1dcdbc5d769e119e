"""`smearlink demo` as a new user runs it, from the command to everything that it leaves behind."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from pydicom import dcmread

from pipeline.domain import RESEARCH_USE_ONLY
from tests.builders import build_image, file_bytes, picture
from tests.listener.cli.test_analyse import draw_picture
from tests.tiny_model import write_tiny_model

OLDER_COLUMNS = [
    "timestamp",
    "source",
    "annotated_image",
    "cell_index",
    "x",
    "y",
    "width",
    "height",
    "label",
    "probability_leukemic",
    "probability_normal",
]
"""Of the tool that this one replaces, in its order."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory, model: Path) -> tuple[Path, str]:
    """A demonstration with two fields, one of each smear: its folder, and what it said."""
    out = tmp_path_factory.mktemp("demo") / "demo-output"
    done = _smearlink("demo", "--out", out, "--fields", 2, "--model", model)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_data_without_an_image_ends_in_a_message(tmp_path: Path, model: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8 no")

    done = _smearlink("demo", "--out", tmp_path / "o", "--data", tmp_path / "in", "--model", model)

    assert done.returncode == 2
    assert "broken.jpg" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mixed_folder_gives_a_table_and_a_reason_for_each_that_is_not_in_it(
    tmp_path: Path, model: Path
) -> None:
    data = tmp_path / "in"
    draw_picture(data / "field.png")
    cv2.imwrite(str(data / "small.bmp"), picture(8, 8))
    cv2.imwrite(str(data / "photo.jpg"), picture(400, 300))
    (data / "field.dcm").write_bytes(file_bytes(build_image(pixels=picture(300, 200))))
    odd = build_image(number=2)
    odd.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.99"
    (data / "odd.dcm").write_bytes(file_bytes(odd))
    (data / "report.tif").write_bytes(b"no picture")

    done = _smearlink("demo", "--out", tmp_path / "o", "--data", data, "--model", model)

    assert done.returncode == 0, done.stderr
    table, told = done.stdout.split("3 not analysed:")
    rows = [line.split() for line in table.splitlines() if "_annotated.png" in line]
    assert sorted(row[1] for row in rows) == ["field", "field", "photo"]
    for name, reason in (
        ("odd.dcm", "0x0122"),
        ("report.tif", "neither DICOM nor a photograph"),
        ("small.bmp", "image.min_side_px"),
    ):
        assert any(name in line and reason in line for line in told.splitlines())
    assert "Traceback" not in done.stderr


def test_the_table_has_a_row_a_field_and_says_what_it_is_for(phantom: tuple[Path, str]) -> None:
    _, told = phantom

    rows = [line.split() for line in told.splitlines() if "_annotated.png" in line]
    assert [row[:2] for row in rows] == [["1", "field_1"], ["2", "field_1"]]
    assert all(int(row[2]) > 0 for row in rows)
    assert RESEARCH_USE_ONLY in told
    assert "The audit trail is whole." in told


def test_each_annotated_field_is_there_as_dicom_and_as_a_picture(phantom: tuple[Path, str]) -> None:
    out, _ = phantom

    for path in (
        out / "results" / "smear_1" / "field_1_annotated",
        out / "results" / "smear_2" / "field_1_annotated",
    ):
        dataset = dcmread(path.with_suffix(".dcm"))
        shown = cv2.imread(str(path.with_suffix(".png")))
        assert (dataset.Rows, dataset.Columns) == shown.shape[:2]
        assert dataset.BurnedInAnnotation == "YES"
        assert "RESEARCH USE ONLY" in dataset.SeriesDescription


def test_the_table_of_cells_has_the_older_tools_columns_first(phantom: tuple[Path, str]) -> None:
    out, _ = phantom

    with (out / "results" / "smear_1" / "table.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))

    assert list(rows[0])[: len(OLDER_COLUMNS)] == OLDER_COLUMNS
    total = float(rows[0]["probability_leukemic"]) + float(rows[0]["probability_normal"])
    assert total == pytest.approx(1.0, abs=0.001)


def test_the_pacs_and_the_ehr_hold_what_was_reported(phantom: tuple[Path, str]) -> None:
    out, told = phantom
    bundle = json.loads((out / "results" / "smear_1" / "fhir_bundle.json").read_text())

    assert bundle["type"] == "transaction"
    kept = {path.stem for path in (out / "ehr").glob("*.json")}
    assert {one["request"]["url"].replace("/", "_") for one in bundle["entry"]} <= kept
    in_pacs = {dcmread(path).SOPInstanceUID for path in (out / "pacs").glob("*.dcm")}
    annotated = dcmread(out / "results" / "smear_1" / "field_1_annotated.dcm").SOPInstanceUID
    assert annotated in in_pacs
    assert f"{len(in_pacs)} DICOM objects" in told


def test_the_trail_that_it_left_can_be_verified_by_command(phantom: tuple[Path, str]) -> None:
    out, _ = phantom
    key = out / "service" / "audit.key.pub"

    whole = _smearlink("audit", "verify", out / "audit", "--key", key)
    trail = next((out / "audit").glob("audit-*.jsonl"))
    before = trail.read_text()
    trail.write_text(before.replace("image_received", "image_analysed", 1))
    changed = _smearlink("audit", "verify", out / "audit", "--key", key)
    trail.write_text(before)

    assert (whole.returncode, changed.returncode) == (0, 1)


def _smearlink(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("SMEARLINK_")
    }
    return subprocess.run(
        [sys.executable, "-m", "listener", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )

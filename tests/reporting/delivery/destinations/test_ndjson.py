"""NDJSON for research databases: one resource a line, the same files on a replay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import RetryLater
from reporting.delivery.destinations.ndjson import NdjsonDestination
from tests.reporting.delivery.labelled import make_bundle


def test_a_folder_that_cannot_be_made_is_tried_later(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")

    with pytest.raises(RetryLater):
        NdjsonDestination(name="research", folder=tmp_path / "taken").deliver([make_bundle()])


def test_each_line_is_one_resource_of_the_type_in_the_name(tmp_path: Path) -> None:
    bundle = make_bundle(ids=("a", "b"))

    receipt = NdjsonDestination(name="research", folder=tmp_path).deliver([bundle])

    (file,) = tmp_path.iterdir()
    assert file.name == f"Observation.{bundle.uid}.ndjson"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [one["id"] for one in lines] == ["a", "b"]
    assert receipt.accepted == (bundle.uid,)


def test_a_replay_writes_the_same_files(tmp_path: Path) -> None:
    destination = NdjsonDestination(name="research", folder=tmp_path)

    destination.deliver([make_bundle()])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    destination.deliver([make_bundle()])

    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_check_makes_the_folder(tmp_path: Path) -> None:
    assert "written" in NdjsonDestination(name="research", folder=tmp_path / "new").check()

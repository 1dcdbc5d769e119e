"""`smearlink check` looks at everything and sends nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from config.model import Settings
from config.settings import make_settings
from listener.cli.check import check_all, explain_route
from listener.demo.mock_servers import MockPacs, StandInFhir
from models.segmenter import OnnxSegmenter
from pipeline.errors import Rejected
from tests.acceptance.standins import closed_port
from tests.builders import build_image, file_bytes


def test_a_file_that_is_no_dicom_has_no_route(tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello")

    with pytest.raises(Rejected, match="not a DICOM file"):
        explain_route(_settings(tmp_path, tiny_model), path, calling_ae="")


def test_a_missing_model_is_a_failed_check_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    checks = check_all(_settings(tmp_path, tmp_path / "empty"))

    by_name = {one.name: one for one in checks}
    assert not by_name["model"].is_good
    assert by_name["data folder"].is_good


def test_a_pacs_that_is_not_there_fails_alone(tmp_path: Path, tiny_model: Path) -> None:
    with MockPacs(tmp_path / "pacs") as pacs:
        places = [_pacs("here", pacs.port), _pacs("gone", closed_port())]
        checks = check_all(_settings(tmp_path, tiny_model, destination=places))

    by_name = {one.name: one for one in checks}
    assert by_name["destination here"].is_good
    assert not by_name["destination gone"].is_good
    assert by_name["destination gone"].said


def test_each_destination_that_fails_says_what_to_look_at(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    places = [
        {"name": "ehr", "type": "fhir", "url": f"http://127.0.0.1:{closed_port()}/fhir"},
        {"name": "web", "type": "stow", "url": "http://no.invalid/dicom-web"},
        {"name": "lis", "type": "hl7", "host": "127.0.0.1", "port": closed_port()},
        {"name": "disk", "type": "folder", "path": str(tmp_path / "file" / "out")},
    ]

    checks = check_all(_settings(tmp_path, tiny_model, destination=places))

    said = {one.name.removeprefix("destination "): one.said for one in checks}
    assert "nothing listens at its port" in said["ehr"]
    assert "its host has no address" in said["web"]
    assert "nothing listens at its port" in said["lis"]
    assert "Not a directory" in said["disk"]
    assert not any("Error)" in one for one in said.values())


def test_a_check_before_the_first_start_leaves_no_queue(tmp_path: Path, tiny_model: Path) -> None:
    settings = _settings(tmp_path, tiny_model)

    checks = {one.name: one for one in check_all(settings)}

    assert checks["queue"].said == "SQLite, made at the first start"
    assert not (settings.data_dir / "state.sqlite").exists()


def test_everything_in_order_is_said_with_what_was_seen(tmp_path: Path, tiny_model: Path) -> None:
    with MockPacs(tmp_path / "pacs") as pacs, StandInFhir() as ehr:
        places = [
            _pacs("pacs", pacs.port),
            {"name": "ehr", "type": "fhir", "url": ehr.url},
            {"name": "disk", "type": "folder", "path": str(tmp_path / "out")},
        ]
        checks = check_all(_settings(tmp_path, tiny_model, destination=places))

        assert [one.said for one in checks if not one.is_good] == []
        assert pacs.stored == ()
        assert ehr.versions == {}
    by_name = {one.name: one.said for one in checks}
    assert "CPUExecutionProvider" in by_name["model"]
    assert OnnxSegmenter.load().sha256 in by_name["cell finder"]


@pytest.mark.parametrize(
    ("when", "certain", "possible"),
    [
        ('calling_ae == "CAM1"', ("a",), ()),
        ('calling_ae == "CAM2"', (), ()),
        ("any_leukemic", (), ("a",)),
        ("", ("a",), ()),
    ],
)
def test_a_route_is_explained_before_anything_is_analysed(
    tmp_path: Path,
    tiny_model: Path,
    when: str,
    certain: tuple[str, ...],
    possible: tuple[str, ...],
) -> None:
    file = tmp_path / "x.dcm"
    file.write_bytes(file_bytes(build_image()))
    places = [{"name": name, "type": "folder", "path": str(tmp_path / name)} for name in ("a", "b")]
    settings = _settings(
        tmp_path, tiny_model, destination=places, route=[{"name": "r", "when": when, "to": ["a"]}]
    )

    explained = explain_route(settings, file, calling_ae="CAM1")

    assert (explained.certain, explained.possible) == (certain, possible)


def _settings(root: Path, model: Path, **more: Any) -> Settings:
    return make_settings(
        {
            "service": {"data_dir": str(root / "data")},
            "model": {"folder": str(model)},
            "retention": {"min_free_disk_mb": 1},
            **more,
        }
    )


def _pacs(name: str, port: int) -> dict[str, Any]:
    return {
        "name": name,
        "type": "dicom",
        "ae_title": "STANDIN",
        "host": "127.0.0.1",
        "port": port,
        "timeout_s": 5.0,
    }

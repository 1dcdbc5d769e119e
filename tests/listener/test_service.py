"""The whole service in this process: what goes in comes out, and what cannot start says why."""

from __future__ import annotations

import hashlib
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config.model import Settings
from config.settings import make_settings
from listener.demo.mock_servers import MockPacs
from listener.modality.secondary_capture import Order, to_dicom
from listener.modality.store_scu import PeerAddress, send_images
from listener.service import Service, open_trail, report_processes, running
from models.site_calibration_file import as_toml
from pipeline.domain import SmearId
from pipeline.errors import Defect, Rejected
from reporting.audit.trail import (
    Event,
    EventFilter,
    load_or_make_key,
    public_path,
    read_events,
    read_public_key,
    verify_trail,
)
from reporting.results import ResultKind
from tests.listener.cli.test_analyse import draw_picture
from tests.listener.house import until
from tests.models.site_calibrations import make_calibration

CALIBRATION = make_calibration(model_name="tiny", model_version="1.0.0")

# --- what cannot start


def test_a_damaged_model_stops_the_start(tmp_path: Path, tiny_model: Path) -> None:
    (tiny_model / "tiny.onnx").write_bytes(b"damaged")

    with pytest.raises(Defect, match="Restore") as refusal, running(_settings(tmp_path)):
        pass

    assert refusal.value.code == "model_damaged"


@pytest.mark.parametrize("key", ["dicom", "web"])
def test_a_port_that_is_taken_stops_the_start_and_names_its_key(
    tmp_path: Path, tiny_model: Path, key: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = _settings(tmp_path, **{key: {"port": taken.getsockname()[1]}})

        with pytest.raises(Rejected, match=rf"{key}\.port") as refusal, running(settings):
            pass

    assert refusal.value.code == "port_unusable"


def test_a_route_that_cannot_be_read_stops_the_start(tmp_path: Path, tiny_model: Path) -> None:
    settings = _settings(
        tmp_path,
        destination=[_folder(tmp_path)],
        route=[{"name": "r", "when": "leukemic >", "to": ["disk"]}],
    )

    with pytest.raises(Rejected, match="Route r"), running(settings):
        pass


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (as_toml(replace(CALIBRATION, model_version="0.9")), "calibration_other_model"),
        (as_toml(replace(CALIBRATION, slope=9.0)), "calibration_out_of_range"),
        ("slope = 1.0", "calibration_unreadable"),
    ],
)
def test_a_calibration_that_cannot_be_used_stops_the_start(
    tmp_path: Path, tiny_model: Path, content: str, code: str
) -> None:
    path = tmp_path / "site-calibration.toml"
    path.write_text(content)
    settings = _settings(tmp_path, model={"folder": str(tiny_model), "site_calibration": str(path)})

    with pytest.raises(Rejected) as refusal, running(settings):
        pass

    assert refusal.value.code == code


def test_a_calibration_that_is_not_there_is_a_fault_of_the_settings(
    tmp_path: Path, tiny_model: Path
) -> None:
    missing = str(tmp_path / "none.toml")

    with pytest.raises(Rejected, match=r"model\.site_calibration: there is no file"):
        _settings(tmp_path, model={"folder": str(tiny_model), "site_calibration": missing})


# --- what runs


def test_a_calibrated_service_says_so_in_every_event(tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "site-calibration.toml"
    path.write_text(as_toml(CALIBRATION))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    settings = _settings(tmp_path, model={"folder": str(tiny_model), "site_calibration": str(path)})

    with running(settings) as service:
        identity = service.classifier.identity

    assert identity.calibration is not None
    assert identity.calibration.sha256 == digest
    started = next(read_events(settings.audit_dir, EventFilter(event=Event.SERVICE_STARTED)))
    assert started["calibration_sha256"] == digest


def test_a_field_goes_in_by_dicom_and_every_result_comes_out(
    tmp_path: Path, tiny_model: Path
) -> None:
    with MockPacs(tmp_path / "pacs") as pacs:
        place = {
            "name": "pacs",
            "type": "dicom",
            "ae_title": pacs.ae_title,
            "host": "127.0.0.1",
            "port": pacs.port,
        }
        settings = _settings(tmp_path, destination=[place, _folder(tmp_path)])
        with running(settings) as service:
            _send_field(service, tmp_path)
            until(lambda: service.status().is_idle and _reports(service))
            (smear_id,) = _reports(service)
            index = service.store.results.smear(smear_id).latest()

    assert index is not None
    assert {one.kind for one in index.results} >= {
        ResultKind.ANNOTATED_FIELD,
        ResultKind.GALLERY,
        ResultKind.FHIR_BUNDLE,
        ResultKind.TABLE,
    }
    assert len(pacs.stored) > 2
    assert list((tmp_path / "out").rglob("*.csv"))
    assert list((tmp_path / "out").rglob("*.png"))
    events = [one["event"] for one in read_events(settings.audit_dir, EventFilter())]
    assert events.index("image_received") < events.index("image_analysed")
    assert events.count("report_delivered") == 2
    assert events[-2:] == ["service_stopped", "checkpoint_signed"]
    assert verify_trail(
        settings.audit_dir, read_public_key(public_path(settings.audit_key_file))
    ).is_whole


def test_a_worker_listens_to_nobody(tmp_path: Path, tiny_model: Path) -> None:
    with running(_settings(tmp_path), listens=False) as service:
        assert service.dicom_port is None
        assert service.web_port is not None


def test_new_destinations_are_taken_while_running_and_bad_ones_are_not(
    tmp_path: Path, tiny_model: Path
) -> None:
    def bad() -> Settings:
        raise Rejected("no", code="settings_unusable")

    more = _settings(tmp_path, destination=[_folder(tmp_path)])
    with running(_settings(tmp_path)) as service:
        assert not service.reload(bad)
        assert service.reload(lambda: more)
        _send_field(service, tmp_path)
        until(lambda: list((tmp_path / "out").rglob("*.csv")))

    events = [one["event"] for one in read_events(more.audit_dir, EventFilter())]
    assert "settings_refused" in events
    assert "settings_reloaded" in events


def test_an_audit_trail_of_its_own_names_no_model(tmp_path: Path, tiny_model: Path) -> None:
    settings = _settings(tmp_path)

    with open_trail(settings):
        pass

    (first, *_) = read_events(settings.audit_dir, EventFilter())
    assert "model_sha256" not in first
    load_or_make_key(settings.audit_key_file)


def _settings(root: Path, **more: Any) -> Settings:
    table: dict[str, Any] = {
        "service": {"data_dir": str(root / "data"), "worker_id": "w1", "stop_grace_s": 10.0},
        "dicom": {"port": 0},
        "web": {"port": 0},
        "model": {"folder": str(root / "model")},
        "smear": {"quiet_s": 0.1},
        "retention": {"min_free_disk_mb": 1},
    }
    return make_settings({**table, **more})


def _folder(root: Path) -> dict[str, Any]:
    return {"name": "disk", "type": "folder", "path": str(root / "out")}


def _send_field(service: Service, root: Path) -> None:
    path = root / "in" / "field.png"
    draw_picture(path)
    peer = PeerAddress(ae_title="SMEARLINK", host="127.0.0.1", port=service.dicom_port or 0)
    (sent,) = send_images(to_dicom([path], Order(spacing_um=0.15)), peer)
    assert sent.is_stored


def _reports(service: Service) -> list[SmearId]:
    results = service.store.results
    return [one for one in results.smears() if results.smear(one).latest() is not None]


@pytest.mark.parametrize(
    ("asked", "cores", "processes"), [(1, 1, 0), (1, 2, 1), (0, 8, 0), (4, 2, 1), (4, 8, 4)]
)
def test_each_process_for_reports_has_a_core_beside_the_service_s(
    asked: int, cores: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(cores)))

    assert report_processes(make_settings({"queue": {"report_processes": asked}})) == processes

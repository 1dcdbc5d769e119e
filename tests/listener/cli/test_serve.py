"""The running process: it stops when told to, and reads its destinations anew when told to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reporting.audit.trail import Event
from tests.listener.house import until
from tests.tiny_model import write_tiny_model

SETTINGS = """
[service]
data_dir = "data"
worker_id = "w1"
stop_grace_s = 5.0
log_format = "json"
[dicom]
port = 0
[web]
port = 0
[model]
folder = "model"
[retention]
min_free_disk_mb = 1
"""
DISK = '[[destination]]\nname = "disk"\ntype = "folder"\npath = "out"\n'


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_service_in_good_order(
    tmp_path: Path, tiny_model: Path, number: signal.Signals
) -> None:
    with _serving(tmp_path) as service:
        service.process.send_signal(number)

        assert service.process.wait(600) == 0

    assert service.events()[-2:] == ["service_stopped", "checkpoint_signed"]
    assert "Traceback" not in service.log.read_text()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Service]:
    """One service for all hang-ups: none of them may end it."""
    root = tmp_path_factory.mktemp("site")
    write_tiny_model(root / "model")
    with _serving(root) as service:
        yield service
        assert service.process.poll() is None


def test_a_hangup_with_bad_settings_changes_nothing_and_says_why(serving: _Service) -> None:
    serving.hang_up(SETTINGS.replace("worker_id", "wroker_id"), Event.SETTINGS_REFUSED)

    assert "Did you mean worker_id?" in serving.log.read_text()
    assert serving.process.poll() is None


def test_a_hangup_cannot_change_what_needs_a_restart(serving: _Service) -> None:
    other = SETTINGS.replace("[dicom]", '[dicom]\nae_title = "OTHER"')
    serving.hang_up(other, Event.SETTINGS_REFUSED)

    assert "dicom: was changed, which needs a restart" in serving.log.read_text()


def test_a_hangup_reads_destinations_anew(serving: _Service) -> None:
    serving.hang_up(SETTINGS + DISK, Event.SETTINGS_RELOADED)

    assert serving.process.poll() is None


def test_a_start_that_fails_ends_with_one_clear_message(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "site.toml").write_text(SETTINGS.replace("port = 0", "port = 70000", 1))

    done = subprocess.run(
        [sys.executable, "-m", "listener", "serve", "--settings", str(tmp_path / "site.toml")],
        capture_output=True,
        text=True,
        env=_environment(),
        check=False,
    )

    assert done.returncode == 2
    assert "dicom.port" in done.stderr
    assert "Traceback" not in done.stderr


class _Service:
    def __init__(self, root: Path, process: subprocess.Popen[bytes]) -> None:
        self.root, self.process = root, process
        self.settings, self.log = root / "site.toml", root / "log"

    def hang_up(self, settings: str, event: Event) -> None:
        """Have it read these settings, and come back when it has recorded `event` once more."""
        before = self.events().count(event)
        self.settings.write_text(settings)
        self.process.send_signal(signal.SIGHUP)
        until(lambda: self.events().count(event) == before + 1)

    def events(self) -> list[str]:
        return [one["event"] for one in self._lines()]

    def _lines(self) -> Iterator[dict[str, Any]]:
        for path in sorted((self.root / "data" / "audit").glob("audit-*.jsonl")):
            for line in path.read_text().splitlines(keepends=True):
                if line.endswith("\n"):  # the last one may still be being written
                    yield json.loads(line)

    def is_listening(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return '"model_loaded"' in self.log.read_text()


@contextmanager
def _serving(root: Path) -> Iterator[_Service]:
    settings = root / "site.toml"
    settings.write_text(SETTINGS)
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "listener", "serve", "--settings", str(settings)],
            stdout=log,
            stderr=log,
            env=_environment(),
        )
        service = _Service(root, process)
        try:
            until(service.is_listening)
            yield service
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SMEARLINK_")}

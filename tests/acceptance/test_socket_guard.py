"""The whole service looks up and connects to nothing but what its settings name."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.standins import closed_port, free_ports
from tests.builders import build_image
from tests.listener.house import until
from tests.listener.peers import store
from tests.tiny_model import write_tiny_model

SETTINGS = """
[service]
data_dir = "data"
[dicom]
port = {dicom}
[web]
port = {web}
[model]
folder = "model"
threads = 1
[smear]
quiet_s = 0.0
[retention]
min_free_disk_mb = 0
[[destination]]
name = "lis"
type = "hl7"
host = "127.0.0.1"
port = {lis}
"""
SERVE = (sys.executable, "-m", "listener", "serve", "--settings")
CALLS = "trace=connect,sendto,sendmsg,sendmmsg"
_PORT = re.compile(r"sin6?_port=htons\((\d+)\)")


def test_only_the_destination_is_connected_to(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    write_tiny_model(tmp_path / "model")
    (dicom, web), lis = free_ports(2), closed_port()
    settings = tmp_path / "smearlink.toml"
    settings.write_text(SETTINGS.format(dicom=dicom, web=web, lis=lis))
    environment = {**os.environ, "HOME": str(tmp_path / "home")}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    calls = tmp_path / "calls"

    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [strace, "-f", "-qq", "-e", CALLS, "-o", str(calls), *SERVE, str(settings)],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            until(lambda: _listens(dicom) or process.poll() is not None)
            assert store(dicom, build_image())[0].Status == 0
            until(lambda: f"htons({lis})" in calls.read_text())
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(600)

    outward = [line for line in calls.read_text().splitlines() if "AF_INET" in line]
    ports = {int(found.group(1)) for line in outward if (found := _PORT.search(line))}
    assert [line for line in outward if "127.0.0.1" not in line] == []
    assert ports <= {lis, 0}
    assert not (tmp_path / "home" / ".cache" / "Microsoft").exists()


def _listens(port: int) -> bool:
    text = Path("/proc/net/tcp").read_text()
    return f":{port:04X} 00000000:0000 0A" in text

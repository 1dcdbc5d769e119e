"""ONNX Runtime tells nobody that it runs: no device id, no event store, no look-up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TINY = Path(__file__).with_name("tiny.onnx")
RUN = f"""
import models.classifier
import onnxruntime
onnxruntime.InferenceSession({str(TINY)!r}, providers=["CPUExecutionProvider"])
"""

TRACED = "{strace} -f -qq -e trace=connect,sendto,sendmmsg -o {log}"


def environment(home: Path) -> dict[str, str]:
    """The user's environment without the switch, and with a home of its own."""
    kept = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    return {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}


def test_no_device_id_is_written(tmp_path: Path) -> None:
    """The package alone writes ~/.cache/Microsoft/DeveloperTools/.onnxruntime/deviceid."""
    subprocess.run([sys.executable, "-c", RUN], check=True, env=environment(tmp_path))

    assert [path for path in tmp_path.rglob("*") if "nnxruntime" in path.name] == []
    assert not (tmp_path / ".cache" / "Microsoft").exists()


def test_nothing_is_looked_up_or_connected_to(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    log = tmp_path / "calls"

    subprocess.run(
        [*TRACED.format(strace=strace, log=log).split(), sys.executable, "-c", RUN],
        check=True,
        env=environment(tmp_path),
    )

    assert [line for line in log.read_text().splitlines() if "AF_INET" in line] == []


@pytest.mark.parametrize("file", ["Containerfile", "docs/smearlink.service"])
def test_the_container_and_the_unit_switch_it_off_too(file: str) -> None:
    text = (Path(__file__).parents[2] / file).read_text(encoding="utf-8")

    assert "ORT_DISABLE_TELEMETRY=1" in text

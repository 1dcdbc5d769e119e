"""The real R4 server and validator of `tests/acceptance/fhir_server`, for tests."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

HERE = Path(__file__).parent / "fhir_server"

NEEDS_FHIR = [
    pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed"),
    pytest.mark.skipif(
        not (HERE / "node_modules").is_dir(),
        reason="npm packages are absent: npm ci --prefix tests/acceptance/fhir_server",
    ),
]


@contextmanager
def fhir_server() -> Iterator[httpx.Client]:
    """The server on a port of its own; it ends when its standard input closes."""
    with subprocess.Popen(
        ["node", "server.mjs"], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        port = json.loads(process.stdout.readline())["port"]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
        process.stdin.close()


def errors_of(server: httpx.Client, content: bytes) -> list[dict[str, Any]]:
    """What the validator finds wrong with a resource."""
    verdict = server.post("/validate", content=content).json()
    return [one for one in verdict["messages"] if one["severity"] in ("error", "fatal")]

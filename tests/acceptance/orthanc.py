"""A real Orthanc in a folder of its own, on free ports of loopback, for the tests of a PACS."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.acceptance.standins import free_ports

LOOPBACK = "127.0.0.1"
AE_TITLE = "ORTHANC"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
EXECUTABLE = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
ABSENT = EXECUTABLE is None or not PLUGIN.exists()
REASON = "Orthanc or its DICOMweb plugin is not installed: bash tests/install_peers.sh"
STARTS_WITHIN = 600
"""Tries to reach it, each of which waits for a connection that is refused at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orthanc:
    """Where it listens, and its REST API."""

    dicom_port: int
    http_port: int
    rest: httpx.Client
    process_id: int

    @property
    def dicomweb_url(self) -> str:
        return f"http://{LOOPBACK}:{self.http_port}/dicom-web"

    def get(self, path: str) -> Any:
        """The JSON at a path of the REST API."""
        answer = self.rest.get(path)
        answer.raise_for_status()
        return answer.json()

    def orthanc_id(self, sop_instance_uid: str) -> str:
        """Orthanc's own name for an instance, which it must have exactly once."""
        [found] = self.rest.post("/tools/lookup", content=sop_instance_uid).json()
        return str(found["ID"])

    def preview(self, sop_instance_uid: str, frame: int = 0) -> bytes:
        """What its pages show of a frame (from 0), as PNG; fails where it cannot draw it."""
        answer = self.rest.get(
            f"/instances/{self.orthanc_id(sop_instance_uid)}/frames/{frame}/preview",
            headers={"Accept": "image/png"},
        )
        answer.raise_for_status()
        return answer.content

    def file(self, sop_instance_uid: str) -> bytes:
        """The Part 10 file as it gives it out."""
        answer = self.rest.get(f"/instances/{self.orthanc_id(sop_instance_uid)}/file")
        answer.raise_for_status()
        return answer.content

    def delete(self, sop_instance_uid: str) -> None:
        """Lose an instance, as a PACS that was told to."""
        self.rest.delete(f"/instances/{self.orthanc_id(sop_instance_uid)}").raise_for_status()


@contextmanager
def running_orthanc(
    folder: Path,
    *,
    modalities: Mapping[str, tuple[str, str, int]] | None = None,
    **settings: Any,
) -> Iterator[Orthanc]:
    """Orthanc as long as the `with` lasts; `modalities`: AE title, host and port by name."""
    folder.mkdir(parents=True, exist_ok=True)
    dicom_port, http_port = free_ports(2)
    file = folder / "orthanc.json"
    file.write_text(json.dumps(_settings(folder, dicom_port, http_port, modalities) | settings))
    with (folder / "orthanc.log").open("wb") as log:
        assert EXECUTABLE is not None
        process = subprocess.Popen(
            [EXECUTABLE, str(file)],
            stdout=log,
            stderr=log,
            env={**os.environ, "TCP_NODELAY": "1"},
        )
    try:
        with httpx.Client(
            base_url=f"http://{LOOPBACK}:{http_port}",
            timeout=60,
            transport=httpx.HTTPTransport(retries=8),
        ) as rest:
            _wait_until_up(rest, process, folder)
            yield Orthanc(
                dicom_port=dicom_port, http_port=http_port, rest=rest, process_id=process.pid
            )
    finally:
        process.terminate()
        process.wait()


def _settings(
    folder: Path,
    dicom_port: int,
    http_port: int,
    modalities: Mapping[str, tuple[str, str, int]] | None,
) -> dict[str, Any]:
    return {
        "Name": "smearlink-tests",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "HttpPort": http_port,
        "DicomPort": dicom_port,
        "DicomAet": AE_TITLE,
        "DicomCheckCalledAet": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomModalities": {name: list(peer) for name, peer in (modalities or {}).items()},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": True},
        "OverwriteInstances": True,
        "StableAge": 1,
        "SaveJobs": False,
    }


def _wait_until_up(rest: httpx.Client, process: subprocess.Popen[bytes], folder: Path) -> None:
    for _ in range(STARTS_WITHIN):
        try:
            rest.get("/system").raise_for_status()
        except httpx.TransportError:
            if process.poll() is not None:
                break
        else:
            return
    raise AssertionError(f"Orthanc did not start:\n{(folder / 'orthanc.log').read_text()}")

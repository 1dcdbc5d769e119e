"""A real service process under tight limits, what a real peer sees of it, and its attackers."""

from __future__ import annotations

import http.client
import json
import os
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import FileDataset
from pydicom.uid import SecondaryCaptureImageStorage

from tests.acceptance.standins import free_ports
from tests.builders import build_image, dataset_bytes
from tests.listener.house import until
from tests.listener.peers import RawPeer, association_request
from tests.tiny_model import write_tiny_model

WITHIN_S = 5.0
"""A real peer stores, and a probe of /healthz is answered, within this time."""
DESCRIPTORS = 256
TASKS = 512
MEMORY_MB = 2048
MOST_THREADS = 160
"""Of 512 tasks: associations, uploads, workers and libraries."""
NOBODY = 65534
SERVE = (sys.executable, "-m", "listener", "serve", "--settings")
REQUEST = association_request(SecondaryCaptureImageStorage, calling="HOLDER")

SETTINGS = """
[service]
data_dir = "{root}/data"
log_format = "json"
[dicom]
port = {dicom_port}
{dicom}
[web]
port = {web_port}
{web}
[model]
folder = "{root}/model"
threads = 1
[results]
kinds = {kinds}
[smear]
quiet_s = {quiet_s}
[retention]
min_free_disk_mb = {min_free_mb}
"""


@dataclass
class Besieged:
    """The service process and where it listens."""

    process: subprocess.Popen[bytes]
    root: Path
    dicom_port: int
    web_port: int
    tls: ssl.SSLContext | None = None
    _number: int = 0

    def store(self) -> int:
        """One image by a device on an association of its own: its status; raises OSError."""
        self._number += 1
        return self.send(build_image(number=self._number))

    def send(self, image: FileDataset) -> int:
        """One image by C-STORE: its status; raises OSError."""
        syntax = image.file_meta.TransferSyntaxUID
        with RawPeer(self.dicom_port) as peer:
            if self.tls is not None:
                peer.sock = self.tls.wrap_socket(peer.sock, server_hostname="127.0.0.1")
            peer.say(association_request(SecondaryCaptureImageStorage, syntax, calling="DEVICE"))
            kind, _ = peer.hear()
            if kind != 2:
                raise ConnectionRefusedError(f"answered by PDU {kind}")
            peer.store(image, data=dataset_bytes(image))
            status = peer.hear_status()
        if status == 0:
            stored = self.root / "data" / "inbox" / "new" / f"{image.SOPInstanceUID}.dcm"
            assert stored.exists(), "Success without durable bytes"
        return status

    def health(self) -> int:
        """The status of /healthz on a connection of its own; raises OSError."""
        connection = http.client.HTTPConnection("127.0.0.1", self.web_port, timeout=WITHIN_S)
        if self.tls is not None:
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.web_port, timeout=WITHIN_S, context=self.tls
            )
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status
        finally:
            connection.close()

    def threads(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/task").iterdir())

    def descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def memory_mb(self, name: str = "VmRSS") -> int:
        """VmRSS, or VmHWM for the peak."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) // 1024
        raise RuntimeError(f"no {name}")

    def log_bytes(self) -> int:
        """Of the log and the audit trail together."""
        trail = (self.root / "data" / "audit").rglob("*.jsonl")
        return sum(path.stat().st_size for path in (self.root / "log", *trail))


@dataclass
class Seen:
    """What the real peer and the probe saw during an attack."""

    stores: list[float] = field(default_factory=list)
    probes: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    most_threads: int = 0

    @property
    def worst_s(self) -> float:
        return max([*self.stores, *self.probes])

    def __str__(self) -> str:
        return (
            f"{len(self.stores)} stores, worst {max(self.stores):.2f} s; "
            f"{len(self.probes)} probes, worst {max(self.probes):.2f} s; "
            f"at most {self.most_threads} threads; {self.faults}"
        )


@contextmanager
def besieged(
    root: Path,
    *,
    dicom: str = "",
    web: str = "",
    min_free_mb: int = 0,
    tls: Any = None,
    kinds: Sequence[str] = ("table",),
    quiet_s: float = 3600.0,
) -> Iterator[Besieged]:
    """`smearlink serve` with 256 descriptors, 2 GB of data and, run by root, 512 tasks of a user
    of its own."""
    write_tiny_model(root / "model")
    (root / "data").mkdir(exist_ok=True)
    dicom_port, web_port = free_ports(2)
    settings = SETTINGS.format(
        root=root,
        dicom=dicom,
        web=web,
        min_free_mb=min_free_mb,
        kinds=json.dumps(kinds),
        quiet_s=quiet_s,
        dicom_port=dicom_port,
        web_port=web_port,
    )
    (root / "smearlink.toml").write_text(settings)
    prefix: list[str] = []
    setpriv = shutil.which("setpriv")
    if os.getuid() == 0 and setpriv is not None:
        for path in [root, *root.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
        # Files of the checkout stay readable, and the number of tasks counts.
        rights = "+dac_override,+dac_read_search"
        prefix = [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        prefix += [f"--inh-caps={rights}", f"--ambient-caps={rights}"]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        resource.setrlimit(resource.RLIMIT_NPROC, (TASKS, TASKS))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_MB * 2**20, MEMORY_MB * 2**20))

    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [*prefix, *SERVE, str(root / "smearlink.toml")],
            stdout=log,
            stderr=log,
            preexec_fn=limit,
        )
        try:
            service = Besieged(process, root, dicom_port, web_port, tls=tls)
            until(lambda: _answers(service))
            yield service
        finally:
            process.terminate()
            process.wait(60)


def watched(service: Besieged, attack: Callable[[], object], *, seconds: float) -> Seen:
    """Stores and probes twice per second while `attack` goes on, and for `seconds` after it has
    been set up. Each is tried again until it succeeds: what counts is how long that took."""
    seen, done = Seen(), threading.Event()
    watchers = [
        threading.Thread(target=_watch, args=(done, seen.stores, seen.faults, service.store, 0)),
        threading.Thread(target=_watch, args=(done, seen.probes, seen.faults, service.health, 200)),
    ]
    for watcher in watchers:
        watcher.start()
    try:
        attack()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            seen.most_threads = max(seen.most_threads, service.threads())
            done.wait(0.2)
    finally:
        done.set()
        for watcher in watchers:
            watcher.join()
    return seen


def _watch(
    done: threading.Event,
    took: list[float],
    faults: list[str],
    call: Callable[[], int],
    wanted: int,
) -> None:
    while not done.wait(0.5) or not took:
        began = time.monotonic()
        while True:
            try:
                answer = call()
            except (OSError, http.client.HTTPException) as err:
                fault = type(err).__name__
            except AssertionError as err:
                faults.append(str(err))
                return
            else:
                if answer == wanted:
                    break
                fault = f"{answer}"
            if time.monotonic() - began > 4 * WITHIN_S:
                faults.append(fault)
                break
            pause(0.1)
        took.append(time.monotonic() - began)


def silent(port: int, number: int, said: bytes = b"") -> list[socket.socket]:
    """Connections that say no more than `said`."""
    open_ones = []
    for _ in range(number):
        with suppress(OSError):
            one = socket.create_connection(("127.0.0.1", port), timeout=5)
            open_ones.append(one)
            if said:
                one.sendall(said)
    return open_ones


def drip(sockets: list[socket.socket], data: bytes, *, seconds: float, every_s: float) -> None:
    """One byte of `data` to each of them, again and again."""
    end = time.monotonic() + seconds
    position = 0
    while time.monotonic() < end:
        for one in sockets:
            with suppress(OSError):
                one.send(data[position % len(data) : position % len(data) + 1])
        position += 1
        pause(every_s)


def pause(seconds: float) -> None:
    """What a slow attacker does."""
    time.sleep(seconds)


def _answers(service: Besieged) -> bool:
    assert service.process.poll() is None, (service.root / "log").read_text()
    try:
        return service.health() == 200
    except (OSError, http.client.HTTPException):
        return False

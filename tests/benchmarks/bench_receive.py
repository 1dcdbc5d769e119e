"""Images received per second, beside Orthanc, DCMTK's storescp and plain pynetdicom in one run.

    python -m tests.benchmarks.bench_receive [--quick] [--share 1] [--rounds 3] [--loads 0.6MB]
        [--beside Orthanc storescp]

Every receiver runs in a process of its own and receives the same files from DCMTK's storescu (or
from pynetdicom where that is not installed), all with TCP_NODELAY=1, over one association and over
four at once. smearlink checks each dataset, and answers Success after an fsync of the file and of
its folder; Orthanc (as Debian installs it) and pynetdicom after an fsync of the file;
`storescp --fork` after a write. In each round they take turns; a ratio is the median of the
rounds'. CPU time is the receiver's process's own (storescp's children are not counted).
What was received is emptied at once and deleted at the end: ext4 searches past each inode that was
deleted in the last minutes whenever it makes a file, which costs each receiver half a millisecond
per image after a thousand.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGBaseline8Bit, SecondaryCaptureImageStorage
from pynetdicom import AE, evt

from config.sections import DicomSettings
from listener.dicom.negotiation import TRANSFER_SYNTAXES
from listener.dicom.server import DicomListener
from listener.service import SWITCH_INTERVAL_S
from listener.storage.inbox import Inbox
from tests.acceptance import orthanc
from tests.acceptance.standins import free_ports
from tests.builders import build_image, file_bytes
from tests.fakes import RecordingAudit

SEED = 7
HOST = "127.0.0.1"
NO_DELAY = {**os.environ, "TCP_NODELAY": "1"}
STARTS_WITHIN_S = 60.0
MANY = 200
"""The fewest small images: four storescu take 0.05 s to start, as long as ten images each."""
OURS = "smearlink"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Images of one size."""

    name: str
    count: int
    image: FileDataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """A running receiver."""

    port: int
    process_id: int


Receiving = Callable[[Path], AbstractContextManager[Receiver]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Of one receiver in one round."""

    images_per_s: float
    cpu_ms: float
    """Per image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one load over so many associations came to."""

    load: str
    associations: int
    images_per_s: dict[str, float]
    """Of each receiver: the median of the rounds."""
    ratios: dict[str, float]
    """smearlink against each other receiver: the median of the rounds' ratios."""
    cpu_ms: dict[str, float]
    """CPU time of each receiver per image."""


def loads(share: float) -> list[Load]:
    """9.4 MB and 0.6 MB native, 0.5 MB of JPEG; noise, so that no size is a lucky one."""
    noise = np.random.default_rng(SEED)
    large = noise.integers(0, 256, (1536, 2048, 3), dtype=np.uint8)
    small = noise.integers(0, 256, (400, 500, 3), dtype=np.uint8)
    return [
        Load(name="9.4MB", count=max(8, int(100 * share)), image=build_image(pixels=large)),
        Load(name="0.6MB", count=max(MANY, int(400 * share)), image=build_image(pixels=small)),
        Load(name="JPEG", count=max(MANY, int(400 * share)), image=_jpeg(small)),
    ]


def _jpeg(pixels: np.ndarray) -> FileDataset:
    image = build_image(transfer_syntax=JPEGBaseline8Bit)
    wide = cv2.resize(pixels, (900, 560), interpolation=cv2.INTER_NEAREST)
    image.Rows, image.Columns = wide.shape[:2]
    _, coded = cv2.imencode(".jpg", wide, [cv2.IMWRITE_JPEG_QUALITY, 90])
    image.PixelData = encapsulate([coded.tobytes()])
    return image


# --- the receivers: each takes an empty folder and is there as long as the `with` lasts


def serve_ours(folder: Path, wire: Connection) -> None:
    """The product's listener on its inbox."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    settings = DicomSettings.model_validate({"port": 0})
    listener = DicomListener(settings, Inbox(folder), lambda _: None, RecordingAudit())
    listener.start()
    wire.send(listener.port)
    wire.recv()
    listener.stop(1.0)


def serve_pynetdicom(folder: Path, wire: Connection) -> None:
    """What its documentation shows, plus an fsync: encoded_dataset() straight to disk."""

    def keep(event: evt.Event) -> int:
        path = folder / f"{event.request.AffectedSOPInstanceUID}.dcm"
        with path.open("wb") as target:
            target.write(event.encoded_dataset())
            target.flush()
            os.fsync(target.fileno())
        return 0x0000

    entity = AE(ae_title="SMEARLINK")
    entity.add_supported_context(SecondaryCaptureImageStorage, [*TRANSFER_SYNTAXES])
    server = entity.start_server((HOST, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    assert server is not None
    wire.send(server.server_address[1])
    wire.recv()
    server.shutdown()


@contextmanager
def _python(serve: Callable[[Path, Connection], None], folder: Path) -> Iterator[Receiver]:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, there))
    process.start()
    try:
        assert process.pid is not None
        yield Receiver(port=here.recv(), process_id=process.pid)
        here.send("stop")
    finally:
        process.join()


@contextmanager
def _orthanc(folder: Path) -> Iterator[Receiver]:
    # What the tests need and a receiver does not is left out.
    with orthanc.running_orthanc(
        folder, Plugins=[], DicomCheckCalledAet=False, StableAge=60, OverwriteInstances=False
    ) as server:
        yield Receiver(port=server.dicom_port, process_id=server.process_id)


@contextmanager
def _storescp(folder: Path) -> Iterator[Receiver]:
    (port,) = free_ports(1)
    command = ["storescp", "--fork", "+xa", "-od", str(folder), str(port)]
    process = subprocess.Popen(
        command, env=NO_DELAY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_until_listening(port)
        yield Receiver(port=port, process_id=process.pid)
    finally:
        process.terminate()
        process.wait()


def _wait_until_listening(port: int) -> None:
    give_up = time.monotonic() + STARTS_WITHIN_S
    while True:
        with suppress(ConnectionRefusedError), socket.create_connection((HOST, port)):
            return
        assert time.monotonic() < give_up, "storescp does not come up"
        time.sleep(0.05)


def receivers() -> dict[str, Receiving]:
    """Those that are installed here, smearlink first."""
    found: dict[str, Receiving] = {
        OURS: lambda folder: _python(serve_ours, folder),
        "pynetdicom": lambda folder: _python(serve_pynetdicom, folder),
    }
    if orthanc.EXECUTABLE is not None:
        found["Orthanc"] = _orthanc
    if shutil.which("storescp"):
        found["storescp"] = _storescp
    return found


# --- the sender


def write_files(load: Load, folder: Path) -> list[Path]:
    """The load as files, each with a UID of its own; a patched copy costs no encoding.

    The first is for warming up.
    """
    whole, first = file_bytes(load.image), str(load.image.SOPInstanceUID)
    files = []
    for number in range(load.count + 1):
        uid = first[: -len(f"{number:06}")] + f"{number:06}"
        path = folder / f"{number:06}.dcm"
        path.write_bytes(whole.replace(first.encode(), uid.encode()))
        files.append(path)
    return files


def send(files: Sequence[Path], port: int, syntax: UID) -> None:
    """All files over one association."""
    if shutil.which("storescu"):
        subprocess.run(
            [
                *("storescu", "-R", "-xy" if syntax == JPEGBaseline8Bit else "-x="),
                *("-aec", "SMEARLINK", HOST, str(port), *map(str, files)),
            ],
            env=NO_DELAY,
            check=True,
            capture_output=True,
        )
        return
    entity = AE()
    entity.add_requested_context(SecondaryCaptureImageStorage, syntax)
    association = entity.associate(HOST, port, ae_title="SMEARLINK")
    for path in files:
        association.send_c_store(path)
    association.release()


def pace(receiving: Receiving, files: list[Path], associations: int, syntax: UID) -> Pace:
    """From the start of the senders to the end of the last one."""
    warm_up, *others = files
    shares = [others[start::associations] for start in range(associations)]
    folder = Path(tempfile.mkdtemp(dir=files[0].parent))
    with (
        ThreadPoolExecutor(associations) as devices,
        receiving(folder) as receiver,
    ):
        send([warm_up], receiver.port, syntax)
        cpu_s, started = _cpu_s(receiver.process_id), time.perf_counter()
        list(devices.map(lambda share: send(share, receiver.port, syntax), shares))
        elapsed_s = time.perf_counter() - started
        cpu_s = _cpu_s(receiver.process_id) - cpu_s
    for path in folder.rglob("*"):
        if path.is_file():
            os.truncate(path, 0)
    os.sync()  # the next receiver does not wait for what this one has left in memory
    return Pace(images_per_s=len(others) / elapsed_s, cpu_ms=1000 * cpu_s / len(others))


def _cpu_s(process_id: int) -> float:
    """What a process has used, as Linux counts it."""
    _, _, fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(") ")
    return sum(map(int, fields.split()[11:13])) / os.sysconf("SC_CLK_TCK")


def measure(
    load: Load, associations: int, files: list[Path], rounds: int, chosen: dict[str, Receiving]
) -> Row:
    """All receivers in turn, so many times."""
    syntax = UID(load.image.file_meta.TransferSyntaxUID)
    found = [
        {name: pace(receiving, files, associations, syntax) for name, receiving in chosen.items()}
        for _ in range(rounds)
    ]
    names = found[0].keys()
    return Row(
        load=load.name,
        associations=associations,
        images_per_s={
            name: round(statistics.median(paces[name].images_per_s for paces in found), 1)
            for name in names
        },
        ratios={
            name: round(
                statistics.median(
                    paces[OURS].images_per_s / paces[name].images_per_s for paces in found
                ),
                2,
            )
            for name in names
            if name != OURS
        },
        cpu_ms={
            name: round(statistics.median(paces[name].cpu_ms for paces in found), 2)
            for name in names
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a tenth of the large images, half of the small ones, one round",
    )
    parser.add_argument(
        "--share", type=float, default=1.0, help="of 100 large and 400 small images"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loads", nargs="*", help="only these: 9.4MB, 0.6MB, JPEG")
    parser.add_argument("--beside", nargs="*", help="only these: Orthanc, storescp, pynetdicom")
    parser.add_argument("--associations", nargs="*", type=int, default=[1, 4])
    asked = parser.parse_args()
    if asked.quick:
        asked.share, asked.rounds = 0.1, 1
    sender = "storescu" if shutil.which("storescu") else "pynetdicom"
    print(
        f"images per second (CPU per image); sender {sender}; load average {os.getloadavg()[0]:.1f}"
    )
    chosen = {
        name: receiving
        for name, receiving in receivers().items()
        if name == OURS or asked.beside is None or name in asked.beside
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for load in loads(asked.share):
            if asked.loads and load.name not in asked.loads:
                continue
            place = Path(folder) / load.name
            place.mkdir()
            files = write_files(load, place)
            for associations in asked.associations:
                rows.append(measure(load, associations, files, asked.rounds, chosen))
                print(_line(rows[-1]), flush=True)
    print(
        json.dumps(
            {"load_average": round(os.getloadavg()[0], 1), "rows": [asdict(row) for row in rows]}
        )
    )


def _line(row: Row) -> str:
    paces = ", ".join(
        f"{name} {images:.0f} ({row.cpu_ms[name]:.1f} ms)"
        for name, images in row.images_per_s.items()
    )
    ratios = ", ".join(f"{name} × {ratio:.2f}" for name, ratio in row.ratios.items())
    return f"{row.load:6} {row.associations} associations: {paces}; against {ratios}"


if __name__ == "__main__":
    main()

"""How many images a second come in, and how that compares with plain pynetdicom in the same run.

    python -m tests.benchmarks.bench_receive      # --quick for a tenth of the images

Both receivers run in a process of their own and answer Success only after an fsync of the file;
ours also checks the dataset and fsyncs the folder. The sender is DCMTK's storescu with
TCP_NODELAY=1 where it is installed, else pynetdicom. Ratios hold better than absolute figures.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGBaseline8Bit, SecondaryCaptureImageStorage
from pynetdicom import AE, evt

from config.sections import DicomSettings
from listener.dicom.negotiation import TRANSFER_SYNTAXES
from listener.dicom.server import DicomListener
from listener.storage.inbox import Inbox
from tests.builders import build_image, file_bytes
from tests.fakes import RecordingAudit

SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Images of one size."""

    name: str
    count: int
    image: FileDataset


def loads(share: float) -> list[Load]:
    """9.4 MB and 0.6 MB native, 0.5 MB of JPEG; noise, so that no size is a lucky one."""
    noise = np.random.default_rng(SEED)
    large = noise.integers(0, 256, (1536, 2048, 3), dtype=np.uint8)
    small = noise.integers(0, 256, (400, 500, 3), dtype=np.uint8)
    return [
        Load(name="9.4 MB", count=max(8, int(100 * share)), image=build_image(pixels=large)),
        Load(name="0.6 MB", count=max(40, int(400 * share)), image=build_image(pixels=small)),
        Load(name="0.5 MB JPEG", count=max(40, int(400 * share)), image=_jpeg(small)),
    ]


def _jpeg(pixels: np.ndarray) -> FileDataset:
    image = build_image(transfer_syntax=JPEGBaseline8Bit)
    wide = cv2.resize(pixels, (900, 560), interpolation=cv2.INTER_NEAREST)
    image.Rows, image.Columns = wide.shape[:2]
    _, coded = cv2.imencode(".jpg", wide, [cv2.IMWRITE_JPEG_QUALITY, 90])
    image.PixelData = encapsulate([coded.tobytes()])
    return image


def serve_ours(folder: Path, wire: Connection) -> None:
    """The product's listener on its inbox."""
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
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)]
    )
    assert server is not None
    wire.send(server.server_address[1])
    wire.recv()
    server.shutdown()


@contextmanager
def receiver(serve: Callable[[Path, Connection], None]) -> Iterator[int]:
    """A receiver in a process of its own, on an empty folder; its port."""
    here, there = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(Path(folder), there)
        )
        process.start()
        yield here.recv()
        here.send("stop")
        process.join()


def write_files(load: Load, folder: Path) -> list[Path]:
    """The load as files, each with a UID of its own; a patched copy costs no encoding."""
    whole, first = file_bytes(load.image), str(load.image.SOPInstanceUID)
    files = []
    for number in range(load.count):
        uid = first[: -len(f"{number:06}")] + f"{number:06}"
        path = folder / f"{number:06}.dcm"
        path.write_bytes(whole.replace(first.encode(), uid.encode()))
        files.append(path)
    return files


def send(files: list[Path], port: int) -> None:
    """All files over one association."""
    syntax = UID(dcmread(files[0], stop_before_pixels=True).file_meta.TransferSyntaxUID)
    if shutil.which("storescu"):
        subprocess.run(
            [
                *("storescu", "-R", "-xy" if syntax == JPEGBaseline8Bit else "-x="),
                *("-aec", "SMEARLINK", "127.0.0.1", str(port), *map(str, files)),
            ],
            env={**os.environ, "TCP_NODELAY": "1"},
            check=True,
            capture_output=True,
        )
        return
    entity = AE()
    entity.add_requested_context(SecondaryCaptureImageStorage, syntax)
    association = entity.associate("127.0.0.1", port, ae_title="SMEARLINK")
    for path in files:
        association.send_c_store(path)
    association.release()


def images_a_second(
    serve: Callable[[Path, Connection], None], files: list[Path], associations: int
) -> float:
    with receiver(serve) as port, ThreadPoolExecutor(associations) as devices:
        shares = [files[start::associations] for start in range(associations)]
        started = time.perf_counter()
        list(devices.map(lambda share: send(share, port), shares))
        return len(files) / (time.perf_counter() - started)


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--quick", action="store_true", help="a tenth of the images")
    quick = options.parse_args().quick
    sender = "storescu, TCP_NODELAY=1" if shutil.which("storescu") else "pynetdicom"
    print(f"images a second; sender {sender}; load average {os.getloadavg()[0]:.1f}")
    print(f"{'load':12} {'assoc':>5} {'smearlink':>10} {'pynetdicom':>10} {'ratio':>6}")
    for load in loads(0.1 if quick else 1.0):
        with tempfile.TemporaryDirectory() as folder:
            files = write_files(load, Path(folder))
            for associations in (1, 4):
                ours = images_a_second(serve_ours, files, associations)
                theirs = images_a_second(serve_pynetdicom, files, associations)
                row = f"{ours:10.0f} {theirs:10.0f} {ours / theirs:6.1f}"
                print(f"{load.name:12} {associations:5} {row}")
                sys.stdout.flush()


if __name__ == "__main__":
    main()

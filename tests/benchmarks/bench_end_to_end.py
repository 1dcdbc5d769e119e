"""The whole service beside the bare analysis, on the same fields in the same run.

    python -m tests.benchmarks.bench_end_to_end [--data FOLDER] [--images 64] [--per-smear 64 16]
                                                [--large 12]

The bare analysis reads, decodes and analyses each field in one process, one after the other. It
leaves the number of threads to ONNX Runtime, as a program does that sets nothing; its threads spin
while they wait. A second bare analysis has one thread. The service gets the same fields by C-STORE,
`--per-smear` of them in each series, makes all eleven kinds of results, and is done when a PACS has
every DICOM object. Sender and PACS are DCMTK's where it is installed; what they use is not counted,
though they use the same cores. The three are measured in turns, so that a busy machine spoils
ratios less than absolute figures.

The last line is JSON. For the first size of smears: `cpu_ratio` (CPU time per image, service over
bare), `throughput_ratio` (images per second of the service over cores ÷ bare CPU per image), both
once more as `…_one_thread` beside the bare analysis with one thread, `latency_s` (from the end of
the association to the result at the PACS for a smear of one field, less the bare analysis with one
thread), `peak_mb` (most memory of the service's process) and `peak_together_mb` (of all its
processes, what they share counted once). For the others `cpu_ratio_16` and so on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
from pydicom import dcmread
from pydicom.uid import JPEGBaseline8Bit, generate_uid

from listener.demo.mock_servers import MockPacs
from listener.demo.phantom import Recipe, draw_field
from listener.modality.secondary_capture import to_dicom
from listener.modality.store_scu import PeerAddress, send_images
from pipeline.domain import CellType

CORES = 2
ROUNDS = 3
LATENCY_TRIES = 5
PHANTOM_UM_PER_PX = 0.15
PACS = "MOCKPACS"
TICKS = os.sysconf("SC_CLK_TCK")
POLL_S = 0.005
RATIOS = ("cpu_ratio", "throughput_ratio", "cpu_ratio_one_thread", "throughput_ratio_one_thread")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What some images cost."""

    images: int
    cpu_s: float
    wall_s: float
    peak_mb: float

    @property
    def cpu_ms_per_image(self) -> float:
        return 1000 * self.cpu_s / self.images

    @property
    def images_per_s(self) -> float:
        return self.images / self.wall_s


# --- what is analysed


def draw_fields(folder: Path, count: int, *, width: int, height: int) -> list[Path]:
    """Phantom fields as PNG files."""
    folder.mkdir(parents=True)
    cells = (CellType.LYMPHOBLAST, CellType.NEUTROPHIL, CellType.LYMPHOCYTE)
    paths = []
    for number in range(count):
        recipe = Recipe(
            width=width,
            height=height,
            um_per_px=PHANTOM_UM_PER_PX,
            white_cells=cells[: 1 + number % 3],
        )
        path = folder / f"field_{number:03}.png"
        pixels = draw_field(3000 + number, recipe).pixels
        cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        paths.append(path)
    return paths


def wrap_in_smears(
    photographs: Sequence[Path], folder: Path, *, per_smear: int
) -> list[list[Path]]:
    """DICOM files of the photographs, so many in each series."""
    smears = []
    for first in range(0, len(photographs), per_smear):
        files = []
        place = folder / f"smear_{first:04}"
        place.mkdir(parents=True)
        for image in to_dicom(photographs[first : first + per_smear]):
            path = place / f"{image.SOPInstanceUID}.dcm"
            image.save_as(path, enforce_file_format=True)
            files.append(path)
        smears.append(files)
    return smears


def renamed(files: Sequence[Path], folder: Path) -> list[Path]:
    """The same fields as images that were never seen: other UIDs."""
    folder.mkdir(parents=True)
    study, series = generate_uid(), generate_uid()
    copies = []
    for file in files:
        image = dcmread(file)
        image.StudyInstanceUID, image.SeriesInstanceUID = study, series
        image.SOPInstanceUID = generate_uid()
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        path = folder / f"{image.SOPInstanceUID}.dcm"
        image.save_as(path, enforce_file_format=True)
        copies.append(path)
    return copies


# --- the bare analysis


def bare_cost(files: Sequence[Path], *, threads: int) -> Cost:
    """Finder and network in a process of their own, after a warm-up.

    `threads` are the network's; 0 leaves their number to ONNX Runtime.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_analyse_bare, args=(list(files), threads, theirs))
    process.start()
    theirs.close()
    cost: Cost = ours.recv()
    process.join()
    return cost


def _analyse_bare(
    files: list[Path], threads: int, answer: multiprocessing.connection.Connection
) -> None:
    from listener.workflow.image_analysis import ImageAnalysis
    from models.classifier import OnnxClassifier
    from models.segmenter import OnnxSegmenter
    from pipeline.decoding.frames import ImageLimits

    cv2.setNumThreads(1)
    limits = ImageLimits(max_megapixels=100, min_side_px=32, max_frames=64)
    classifier = OnnxClassifier.load(threads=threads)
    analysis = ImageAnalysis(classifier, OnnxSegmenter.load(), limits=limits)
    analysis(dcmread(files[0]))
    began, cpu_began = time.perf_counter(), time.process_time()
    for file in files:
        analysis(dcmread(file))
    answer.send(
        Cost(
            images=len(files),
            cpu_s=time.process_time() - cpu_began,
            wall_s=time.perf_counter() - began,
            peak_mb=_peak_mb(os.getpid()),
        )
    )


# --- the service


class Service:
    """`smearlink serve` in a process of its own, with a PACS as its only destination."""

    def __init__(self, folder: Path, pacs_port: int) -> None:
        self.port = _free_port()
        self._data = folder / "data"
        settings = folder / "settings.toml"
        settings.write_text(
            f"""
            [service]
            data_dir = "{self._data}"
            log_format = "json"
            [dicom]
            port = {self.port}
            [web]
            enabled = false
            [smear]
            close_on_release = true
            [retention]
            min_free_disk_mb = 0
            [[destination]]
            name = "pacs"
            type = "dicom"
            ae_title = "{PACS}"
            host = "127.0.0.1"
            port = {pacs_port}
            """
        )
        self._log = (folder / "service.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "listener", "serve", "--settings", str(settings)],
            stderr=self._log,
        )
        _wait_for_port(self.port)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        self._log.close()

    def cpu_s(self) -> float:
        """CPU time so far, all threads and all processes, those that have ended included."""
        return sum(map(_cpu_s, self._processes()))

    def peak_mb(self) -> float:
        return _peak_mb(self._process.pid)

    def together_mb(self) -> float:
        """What all processes of the service take now; what they share is counted once."""
        return sum(map(_proportional_mb, self._processes()))

    def _processes(self) -> list[int]:
        """The service's process and those that it started."""
        own = self._process.pid
        tasks = Path(f"/proc/{own}/task").glob("*/children")
        return [own, *(int(pid) for task in tasks for pid in _text_of(task).split())]

    def idle_share(self, watched_s: float = 10.0) -> float:
        """CPU of one core that the process uses with nothing to do."""
        before = self.cpu_s()
        time.sleep(watched_s)
        return (self.cpu_s() - before) / watched_s

    def send(self, smears: Sequence[Sequence[Path]]) -> None:
        """One association for each smear, one after the other."""
        for files in smears:
            send(files, self.port)

    def wait_until_delivered(self, smears: Sequence[Sequence[Path]], poll_s: float = 0.05) -> None:
        """Until the receipts of each smear name each of its results."""
        for series, count in [_series_of(files) for files in smears]:
            while not self._is_delivered(series, count):
                time.sleep(poll_s)

    def _is_delivered(self, series: str, images: int) -> bool:
        smear = self._data / "results" / series
        versions = sorted(smear.glob("v*/index.json"), key=lambda path: int(path.parent.name[1:]))
        receipts = smear / "receipts" / "pacs.jsonl"
        if not versions or not receipts.exists():
            return False
        index = json.loads(versions[-1].read_bytes())
        sent = {json.loads(line)["uid"] for line in receipts.read_bytes().splitlines() if line}
        dicom = {row["uid"] for row in index["results"] if row["media_type"] == "application/dicom"}
        return len(index["sources"]) == images and dicom <= sent


def service_cost(service: Service, smears: Sequence[Sequence[Path]]) -> Cost:
    """From the first byte sent to the last result delivered."""
    cpu_began, began = service.cpu_s(), time.perf_counter()
    service.send(smears)
    service.wait_until_delivered(smears)
    return Cost(
        images=sum(map(len, smears)),
        cpu_s=service.cpu_s() - cpu_began,
        wall_s=time.perf_counter() - began,
        peak_mb=service.peak_mb(),
    )


def together_peak_mb(service: Service, smears: Sequence[Sequence[Path]]) -> float:
    """The most memory of all processes, looked at ten times a second."""
    peak, is_done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_done.wait(0.1):
            peak = max(peak, service.together_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        service_cost(service, smears)
    finally:
        is_done.set()
        watcher.join()
    return peak


def latencies(service: Service, files: Sequence[Path], folder: Path) -> Iterator[float]:
    """From the end of each association of one field to its result at the PACS."""
    for number in range(LATENCY_TRIES):
        smear = [renamed(files[number : number + 1], folder / str(number))]
        service.send(smear)
        began = time.perf_counter()
        service.wait_until_delivered(smear, POLL_S)
        yield time.perf_counter() - began


# --- peers


def send(files: Sequence[Path], port: int) -> None:
    """C-STORE of all files in one association."""
    if storescu := shutil.which("storescu"):
        is_jpeg = dcmread(files[0]).file_meta.TransferSyntaxUID == JPEGBaseline8Bit
        proposed = ["-xy"] if is_jpeg else []
        subprocess.run(
            [storescu, *proposed, "-aec", "SMEARLINK", "127.0.0.1", str(port), *map(str, files)],
            env={**os.environ, "TCP_NODELAY": "1"},
            check=True,
        )
        return
    peer = PeerAddress(ae_title="SMEARLINK", host="127.0.0.1", port=port)
    answers = list(send_images((dcmread(file) for file in files), peer))
    assert all(answer.is_stored for answer in answers), answers


@contextmanager
def pacs(folder: Path) -> Iterator[int]:
    """A PACS in a process of its own; gives its port."""
    folder.mkdir()
    port = _free_port()
    if storescp := shutil.which("storescp"):
        command = [storescp, "-aet", PACS, "+xa", "-pm", "--ignore", str(port)]
        process = subprocess.Popen(command, cwd=folder, env={**os.environ, "TCP_NODELAY": "1"})
    else:
        process = subprocess.Popen([sys.executable, __file__, "--be-pacs", str(folder), str(port)])
    try:
        _wait_for_port(port)
        yield port
    finally:
        process.terminate()
        process.wait()


def _be_pacs(folder: Path, port: int) -> None:
    with MockPacs(folder, ae_title=PACS, port=port):
        signal.pause()


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int) -> None:
    while True:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)


def _series_of(files: Sequence[Path]) -> tuple[str, int]:
    return str(dcmread(files[0], specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID), len(files)


def _peak_mb(pid: int) -> float:
    return _kilobytes(_text_of(Path(f"/proc/{pid}/status")), "VmHWM:") / 1024


def _proportional_mb(pid: int) -> float:
    return _kilobytes(_text_of(Path(f"/proc/{pid}/smaps_rollup")), "Pss:") / 1024


def _kilobytes(text: str, name: str) -> int:
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(name))


def _cpu_s(pid: int) -> float:
    """Of a process and of those that it waited for; 0 for one that has ended."""
    fields = _text_of(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def _text_of(path: Path) -> str:
    """Of a file of /proc; nothing once the process has ended."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


# --- the run


def measure(
    photographs: Sequence[Path], folder: Path, *, per_smear: int, is_first: bool
) -> dict[str, float]:
    """Bare, service, bare, service … on the same fields; medians of the rounds.

    Latency, idle CPU and the memory of all processes for the first size only.
    """
    fields = wrap_in_smears(photographs, folder / "dicom", per_smear=per_smear)
    flat = [file for files in fields for file in files]

    def smears(name: str) -> list[list[Path]]:
        return [renamed(files, folder / name / str(n)) for n, files in enumerate(fields)]

    rounds: list[Round] = []
    others: dict[str, float] = {}
    with pacs(folder / "pacs") as pacs_port:
        service = Service(folder, pacs_port)
        try:
            # Smears before the count: networks, pools and caches are warm, as for the bare one.
            for name, warm in (("first", flat[:2]), ("second", flat)):
                first = [renamed(warm, folder / name)]
                service.send(first)
                service.wait_until_delivered(first)
            for number in range(ROUNDS):
                one = Round(
                    bare=bare_cost(flat, threads=0),
                    one_thread=bare_cost(flat, threads=1),
                    service=service_cost(service, smears(f"round_{number}")),
                )
                rounds.append(one)
                print(f"round {number + 1}: {one}", flush=True)
            if is_first:
                latency_s = statistics.median(latencies(service, flat, folder / "latency"))
                bare_s = statistics.median(one.one_thread.cpu_ms_per_image for one in rounds) / 1000
                others["latency_s"] = round(max(0.0, latency_s - bare_s), 3)
                others["idle_share"] = round(service.idle_share(), 4)
                together = together_peak_mb(service, smears("together"))
                others["peak_together_mb"] = round(together)
        finally:
            service.stop()
    return {"images": len(flat), "per_smear": per_smear, **_medians(rounds), **others}


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The bare analysis with ONNX Runtime's own threads and with one, and the service."""

    bare: Cost
    one_thread: Cost
    service: Cost

    def __str__(self) -> str:
        return (
            f"bare {self.bare.cpu_ms_per_image:.0f} ms of CPU per image, with one thread "
            f"{self.one_thread.cpu_ms_per_image:.0f} ms; service "
            f"{self.service.cpu_ms_per_image:.0f} ms, {self.service.images_per_s:.1f} images/s, "
            f"peak {self.service.peak_mb:.0f} MB"
        )


def _medians(rounds: Sequence[Round]) -> dict[str, float]:
    def median(of_round: Callable[[Round], float], digits: int) -> float:
        return round(statistics.median(map(of_round, rounds)), digits)

    return {
        "bare_cpu_ms": median(lambda one: one.bare.cpu_ms_per_image, 1),
        "bare_cpu_ms_one_thread": median(lambda one: one.one_thread.cpu_ms_per_image, 1),
        "service_cpu_ms": median(lambda one: one.service.cpu_ms_per_image, 1),
        "images_per_s": median(lambda one: one.service.images_per_s, 2),
        "cpu_ratio": median(lambda one: _cpu_ratio(one.service, one.bare), 2),
        "throughput_ratio": median(lambda one: _throughput_ratio(one.service, one.bare), 2),
        "cpu_ratio_one_thread": median(lambda one: _cpu_ratio(one.service, one.one_thread), 2),
        "throughput_ratio_one_thread": median(
            lambda one: _throughput_ratio(one.service, one.one_thread), 2
        ),
        "peak_mb": round(max(one.service.peak_mb for one in rounds)),
    }


def _cpu_ratio(service: Cost, bare: Cost) -> float:
    return service.cpu_ms_per_image / bare.cpu_ms_per_image


def _throughput_ratio(service: Cost, bare: Cost) -> float:
    return service.images_per_s * bare.cpu_ms_per_image / 1000 / CORES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="photographs of small fields to take instead")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--per-smear", type=int, nargs="*", default=[64, 16])
    parser.add_argument("--large", type=int, default=0, help="also so many fields of 5 megapixels")
    parser.add_argument("--be-pacs", nargs=2, metavar=("FOLDER", "PORT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.be_pacs:
        _be_pacs(Path(asked.be_pacs[0]), int(asked.be_pacs[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.data:
            photographs = sorted(path for path in asked.data.iterdir() if path.is_file())
            photographs = photographs[: asked.images]
        else:
            photographs = draw_fields(folder / "drawn", asked.images, width=640, height=480)
        measured: dict[str, float] = {}
        for per_smear in asked.per_smear:
            sized = measure(
                photographs,
                folder / f"by_{per_smear}",
                per_smear=per_smear,
                is_first=not measured,
            )
            print(f"{per_smear} fields a smear:", json.dumps(sized), flush=True)
            if measured:
                measured |= {f"{name}_{per_smear}": sized[name] for name in RATIOS}
            else:
                measured = sized
        if asked.large:
            drawn = draw_fields(folder / "large", asked.large, width=2592, height=1944)
            large = measure(drawn, folder / "big", per_smear=asked.large, is_first=False)
            print("large fields:", json.dumps(large), flush=True)
            measured |= {f"{name}_large": large[name] for name in ("peak_mb", *RATIOS)}
        print(json.dumps(measured))


if __name__ == "__main__":
    main()

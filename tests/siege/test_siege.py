"""A real peer stores and /healthz answers within five seconds, whoever else is at the doors.

`make siege` runs it small, so that it is safe beside other work; `make siege SOCKETS=4000` is the
whole of it. Each attack is followed by a look whether threads, descriptors and memory came back.
"""

from __future__ import annotations

import os
import resource
import shutil
import ssl
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import httpx
import numpy as np
import pytest
from pydicom import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from listener.demo.phantom import Recipe, draw_field
from tests.acceptance.small_disk import small_disk
from tests.builders import build_image
from tests.certificates import make_authority
from tests.listener.house import until
from tests.listener.peers import RawPeer, pdu, store_command
from tests.siege.besieged import (
    DESCRIPTORS,
    MEMORY_MB,
    MOST_THREADS,
    REQUEST,
    WITHIN_S,
    Besieged,
    Seen,
    besieged,
    drip,
    pause,
    silent,
    watched,
)

pytestmark = pytest.mark.siege

SOCKETS = int(os.environ.get("SIEGE_SOCKETS", "300"))
SECONDS = float(os.environ.get("SIEGE_SECONDS", "6"))
HEAD = b"POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n"
STOW = HEAD + (
    b'Content-Type: multipart/related; type="application/dicom"; boundary=b\r\n\r\n--b\r\n'
)
ECHO = bytes.fromhex(
    "00000000040000003800000000000200120000" + b"1.2.840.10008.1.1\0".hex() + "00000001020000003000"
    "000010010200000001000000000802000000" + "0101"
)


@pytest.fixture(scope="module")
def service() -> Iterator[Besieged]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with shared_folder() as root, besieged(root) as running:
        yield running


@contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder that the service's user can reach, which pytest's own is not."""
    with TemporaryDirectory(prefix="smearlink-siege-", ignore_cleanup_errors=True) as name:
        root = Path(name)
        root.chmod(0o755)
        yield root


class TestSilence:
    @pytest.mark.parametrize("said", [b"", REQUEST[:50]], ids=["silent", "half-request"])
    def test_on_the_dicom_port(self, service: Besieged, said: bytes) -> None:
        _endured(service, lambda: silent(service.dicom_port, SOCKETS, said))

    @pytest.mark.parametrize("said", [b"", HEAD], ids=["silent", "half-head"])
    def test_on_the_web_port(self, service: Besieged, said: bytes) -> None:
        _endured(service, lambda: silent(service.web_port, SOCKETS, said))

    def test_on_both_ports_under_tls(self) -> None:
        with shared_folder() as root:
            self._under_tls(root)

    def _under_tls(self, root: Path) -> None:
        authority = make_authority(root)
        files = authority.issue("smearlink")
        assert files.private_key is not None
        files.private_key.chmod(0o600)
        lines = (
            f'tls.enabled = true\ntls.certificate = "{files.certificate}"\n'
            f'tls.private_key = "{files.private_key}"\ntls.require_client_certificate = false\n'
        )
        context = ssl.create_default_context(cafile=str(authority.ca_certificates))
        hello = bytes.fromhex("16030100c8010000c40303")
        with besieged(root, dicom=lines, web=lines, tls=context) as service:
            _endured(
                service,
                lambda: [
                    silent(service.dicom_port, SOCKETS, hello),
                    silent(service.web_port, SOCKETS, hello),
                ],
            )


class TestSlowness:
    def test_requests_in_drips(self, service: Besieged) -> None:
        def attack() -> object:
            dicom = silent(service.dicom_port, SOCKETS // 4)
            web = silent(service.web_port, SOCKETS // 4)
            drip([*dicom, *web], REQUEST, seconds=SECONDS, every_s=0.5)
            return dicom, web

        _endured(service, attack)

    @pytest.mark.parametrize("fragment", [ECHO, b""], ids=["echo", "empty-command"])
    def test_associations_held_by_echoes_or_by_empty_fragments(
        self, service: Besieged, fragment: bytes
    ) -> None:
        def attack() -> object:
            held = silent(service.dicom_port, 40, REQUEST)
            said = pdu(fragment, is_command=True, is_last=bool(fragment))
            for _ in range(int(SECONDS)):
                for one in held:
                    _tell(one, said)
                pause(1.0)
            return held

        _endured(service, attack)

    def test_images_in_drips(self, service: Besieged) -> None:
        def attack() -> object:
            held = silent(service.dicom_port, 40, REQUEST)
            image = build_image(number=90_000)
            for one in held:
                _tell(one, pdu(store_command(image), is_command=True))
            said = pdu(b"x", is_last=False)
            for _ in range(int(SECONDS)):
                for one in held:
                    _tell(one, said)
                pause(1.0)
            return held

        _endured(service, attack)

    def test_bodies_in_drips(self, service: Besieged) -> None:
        def attack() -> object:
            held = silent(service.web_port, min(SOCKETS, 200), STOW)
            drip(held, b"x", seconds=SECONDS, every_s=0.5)
            return held

        _endured(service, attack)


class TestBombs:
    def test_deflated_images(self, service: Besieged) -> None:
        machine = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
        element = struct.pack("<HH2sHL", 0x0009, 0x1010, b"UN", 0, 200 * 2**20)
        bomb = machine.compress(element + bytes(200 * 2**20)) + machine.flush()
        before = _disk_mb(service)

        def attack() -> object:
            peers = [RawPeer(service.dicom_port) for _ in range(4)]
            image = build_image(number=90_001)
            for peer in peers:
                peer.associate(SecondaryCaptureImageStorage, DeflatedExplicitVRLittleEndian)
                peer.store(image, data=bomb)
            assert _disk_mb(service) - before < 50
            return [peer.hear_status() for peer in peers]

        _endured(service, attack)

    def test_commitment_reports_of_nothing(self, service: Besieged) -> None:
        items = b"\xfe\xff\x00\xe0\0\0\0\0" * 400_000
        report = struct.pack("<HHL", 8, 0x1199, len(items)) + items

        def attack() -> object:
            peers = [RawPeer(service.dicom_port) for _ in range(4)]
            for peer in peers:
                peer.associate(StorageCommitmentPushModel)
                peer.say(pdu(_report_command(), is_command=True))
                for start in range(0, len(report), 100_000):
                    is_last = start + 100_000 >= len(report)
                    peer.say(pdu(report[start : start + 100_000], is_last=is_last))
            return [peer.hear() for peer in peers]

        _endured(service, attack)

    def test_empty_parts(self, service: Besieged) -> None:
        body = b"--b\r\n\r\n\r\n" * 900 + b"--b--\r\n"
        kind = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
        before = service.log_bytes()

        def attack() -> object:
            with httpx.Client(timeout=60) as client:
                url = f"http://127.0.0.1:{service.web_port}/dicom-web/studies"
                return [client.post(url, content=body, headers=kind) for _ in range(5)]

        _endured(service, attack)
        assert service.log_bytes() - before < 400_000


def test_two_images_of_100_megapixels_in_a_row() -> None:
    """They wait for each other: both are reported, within the memory, and a probe is answered."""
    kinds = ("annotated_field", "gallery", "table")
    with shared_folder() as root, besieged(root, kinds=kinds, quiet_s=0.0) as service:
        images = [large_image(number) for number in (1, 2)]
        assert [service.send(image) for image in images] == [0, 0]

        series = {str(image.SeriesInstanceUID) for image in images}
        until(lambda: service.health() == 200 and series == reported(service))

        peak = service.memory_mb("VmHWM")
        print(f"\n  peak {peak} MB")
        assert peak < MEMORY_MB
        assert "defect_met" not in (root / "log").read_text()


def large_image(number: int) -> FileDataset:
    """10,000 × 10,000 pixels of phantom smear, as JPEG."""
    field = draw_field(7, Recipe(width=2000, height=2000)).pixels
    pixels = np.tile(field, (5, 5, 1))
    content = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()
    image = build_image(number=number, series=number, transfer_syntax=JPEGBaseline8Bit)
    image.Rows, image.Columns = pixels.shape[:2]
    image.PixelData = encapsulate([content])
    image["PixelData"].is_undefined_length = True
    return image


def reported(service: Besieged) -> set[str]:
    """Series with a report."""
    return {path.parent.parent.name for path in service.root.glob("data/results/*/v1/index.json")}


def test_a_disk_that_fills() -> None:
    """No Success without durable bytes: what is refused is told 0xA700, and taken later."""
    with (
        shared_folder() as root,
        small_disk(root / "data", size_mb=24),
        besieged(root, min_free_mb=4) as service,
    ):
        assert service.store() == 0
        ballast = root / "data" / "ballast"
        ballast.write_bytes(bytes(shutil.disk_usage(root / "data").free - 3 * 2**20))
        statuses = {service.store() for _ in range(10)}
        with suppress_full(), (root / "data" / "more").open("wb") as more:
            more.write(bytes(8 * 2**20))
        full = {service.store() for _ in range(10)}
        assert service.health() == 200
        ballast.unlink()
        (root / "data" / "more").unlink()

        assert statuses | full == {0xA700}
        until(lambda: service.store() == 0)


class suppress_full:  # noqa: N801 - reads as what it does
    """Goes on when the disk is full, which is what is wanted."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, OSError)


def _endured(service: Besieged, attack: Callable[[], object]) -> Seen:
    """The attack changed nothing for a real peer, and nothing is left of it."""
    memory = service.memory_mb()
    log = service.log_bytes()
    kept: list[object] = []
    seen = watched(service, lambda: kept.append(attack()), seconds=SECONDS)
    peak, most = service.memory_mb("VmHWM"), service.descriptors()
    _close(kept)

    print(f"\n  {seen}; peak {peak} MB, {most} descriptors, log {service.log_bytes() - log} bytes")
    assert seen.faults == []
    assert seen.worst_s <= WITHIN_S
    assert peak < MEMORY_MB
    assert most < DESCRIPTORS
    assert service.log_bytes() - log < 2_000_000
    assert seen.most_threads < MOST_THREADS
    assert service.memory_mb() <= memory + 150
    return seen


def _close(kept: object) -> None:
    if isinstance(kept, list | tuple):
        for one in kept:
            _close(one)
    elif hasattr(kept, "close"):
        kept.close()


def _tell(peer: object, said: bytes) -> None:
    try:
        peer.sendall(said)  # type: ignore[attr-defined]
    except OSError:
        """It was hung up on, which is what it is for."""


def _report_command() -> bytes:
    elements = [
        (0x0002, b"1.2.840.10008.1.20.1"),
        (0x0100, b"\0\1"),
        (0x0110, b"\1\0"),
        (0x0800, b"\0\0"),
        (0x1000, b"1.2.840.10008.1.20.1.1"),
        (0x1002, b"\1\0"),
    ]
    return b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in elements)


def _disk_mb(service: Besieged) -> int:
    folder = service.root / "data"
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) >> 20

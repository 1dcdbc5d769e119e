"""DCMTK, the other toolkit: its storescu sends to our listener, its storescp takes our results."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, FileDataset, dcmread
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    VLWholeSlideMicroscopyImageStorage,
)

from listener.demo.mock_servers import LOOPBACK
from listener.storage.inbox import Inbox, StoredInstance
from pipeline.errors import RetryLater
from reporting.delivery.destinations.dicom_store import DicomDestination
from reporting.results import DICOM_KINDS, Result, ResultKind
from tests.acceptance.phantom_sets import PhantomSet, make_phantom_set
from tests.acceptance.standins import free_ports
from tests.builders import SOP_CLASSES, build_image
from tests.certificates import Authority, make_authority
from tests.listener.house import until
from tests.listener.peers import listening

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(
        shutil.which("storescu") is None or shutil.which("storescp") is None,
        reason="DCMTK is not installed: bash tests/install_peers.sh",
    ),
]

ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}
"""Debian's DCMTK leaves Nagle's algorithm on otherwise: seconds where milliseconds do."""
PROPOSALS = {
    ImplicitVRLittleEndian: "-xi",
    ExplicitVRLittleEndian: "-xe",
    DeflatedExplicitVRLittleEndian: "-xd",
    JPEGBaseline8Bit: "-xy",
    JPEG2000Lossless: "-xv",
    JPEGLSLossless: "-xt",
    RLELossless: "-xr",
}
"""Options of storescu: offer this syntax and the plain ones."""


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path / "inbox")


@pytest.fixture(scope="module")
def smear() -> PhantomSet:
    return make_phantom_set("slide_coordinates", fields=1, width=960, height=720)


class TestStorescuSendsToUs:
    @pytest.mark.parametrize("syntax", PROPOSALS, ids=lambda one: one.name)
    def test_in_every_syntax(self, syntax: UID, inbox: Inbox, tmp_path: Path) -> None:
        image = build_image(transfer_syntax=syntax)

        [received] = sent_by_storescu(inbox, tmp_path, image, options=[PROPOSALS[syntax]])

        stored = dcmread(received.path)
        assert stored.file_meta.TransferSyntaxUID == syntax
        assert {one.tag: one.value for one in stored} == {one.tag: one.value for one in image}

    @pytest.mark.parametrize("sop_class", SOP_CLASSES, ids=lambda one: one.name)
    def test_every_class(self, sop_class: UID, inbox: Inbox, tmp_path: Path) -> None:
        image = build_image(sop_class=sop_class)

        [received] = sent_by_storescu(inbox, tmp_path, image)

        assert received.sop_instance_uid == image.SOPInstanceUID

    def test_many_in_one_association(self, inbox: Inbox, tmp_path: Path) -> None:
        images = [build_image(number=number) for number in range(1, 21)]

        received = sent_by_storescu(inbox, tmp_path, *images)

        assert [one.sop_instance_uid for one in received] == [one.SOPInstanceUID for one in images]

    def test_a_whole_slide_is_refused_in_words(self, inbox: Inbox, tmp_path: Path) -> None:
        slide = build_image(sop_class=VLWholeSlideMicroscopyImageStorage)

        with listening(inbox) as listener:
            said = storescu(tmp_path, listener.port, slide, options=["-v", "-R"])

        assert "0122" in said.stdout + said.stderr or "SOPClassNotSupported" in said.stderr

    def test_a_stranger_is_rejected(self, inbox: Inbox, tmp_path: Path) -> None:
        with listening(inbox, allowed_calling_aes=["SCOPE1"]) as listener:
            said = storescu(tmp_path, listener.port, build_image(), options=["-aet", "STRANGER"])

        assert said.returncode != 0
        assert "Calling AE Title Not Recognized" in said.stdout + said.stderr


class TestTls:
    def test_new_certificates_count_without_a_restart(self, inbox: Inbox, tmp_path: Path) -> None:
        """The old authority's sender is let in, then the files change, then only the new one's."""
        old, new = (make_authority(tmp_path / name, name) for name in ("old", "new"))
        shown = old.issue("listener")
        settings = {
            "enabled": True,
            "certificate": shown.certificate,
            "private_key": shown.private_key,
            "ca_certificates": shown.ca_certificates,
        }
        images = iter([build_image(number=number) for number in range(1, 5)])
        with listening(inbox, tls=settings) as listener:

            def is_taken_from(authority: Authority) -> bool:
                options = tls_options(authority)
                return (
                    storescu(tmp_path, listener.port, next(images), options=options).returncode == 0
                )

            before = [is_taken_from(old), is_taken_from(new)]
            renewed = new.issue("listener")
            for name in ("certificate", "private_key", "ca_certificates"):
                getattr(shown, name).write_bytes(getattr(renewed, name).read_bytes())
            after = [is_taken_from(old), is_taken_from(new)]

        assert before == [True, False]
        assert after == [False, True]


class TestStorescpTakesFromUs:
    @pytest.mark.parametrize("accepts", ["+xa", "+x=", "+xi"])
    def test_every_object(self, accepts: str, smear: PhantomSet, tmp_path: Path) -> None:
        """All syntaxes, uncompressed ones, and implicit little endian alone."""
        with storescp(tmp_path / "taken", accepts) as (port, folder):
            receipt = destination_at(port).deliver(smear.results)

        taken = {dcmread(file).SOPInstanceUID: file for file in folder.iterdir()}
        assert receipt.warnings == ()
        assert set(taken) == {one.uid for one in smear.results}
        assert {one.kind for one in smear.results} == DICOM_KINDS
        if accepts == "+xa":
            for result in smear.results:
                assert Dataset(dcmread(taken[result.uid])) == Dataset(_file(result))

    def test_a_lossless_syntax_keeps_every_pixel(self, tmp_path: Path) -> None:
        smear = make_phantom_set(fields=1, compress_images=False, width=960, height=720)
        pictures = [one for one in smear.results if one.kind is ResultKind.GALLERY]

        with storescp(tmp_path / "taken", "+xa") as (port, folder):
            destination_at(port, transfer_syntaxes=(RLELossless,)).deliver(pictures)

        [file] = folder.iterdir()
        back = dcmread(file)
        assert back.file_meta.TransferSyntaxUID == RLELossless
        np.testing.assert_array_equal(pixel_array(back), pixel_array(_file(pictures[0])))

    def test_the_report_reads_well(self, smear: PhantomSet, tmp_path: Path) -> None:
        """dsrdump checks the tree against the rules of the SR class while it prints it."""
        [report] = [one for one in smear.results if one.kind is ResultKind.STRUCTURED_REPORT]
        file = tmp_path / "report.dcm"
        file.write_bytes(report.content)

        said = subprocess.run(
            ["dsrdump", str(file)], capture_output=True, text=True, errors="replace", check=False
        )

        assert said.returncode == 0
        assert [line for line in said.stderr.splitlines() if "VR checker" not in line] == []
        assert "Imaging Measurement Report" in said.stdout
        assert "RESEARCH USE ONLY" in said.stdout
        assert "White cells counted" in said.stdout


def sent_by_storescu(
    inbox: Inbox, folder: Path, *images: Dataset, options: list[str] | None = None
) -> list[StoredInstance]:
    """What our listener received of the images."""
    received: list[StoredInstance] = []
    with listening(inbox, on_received=received.append) as listener:
        said = storescu(folder, listener.port, *images, options=options or [])
    assert said.returncode == 0, said.stderr
    return received


def storescu(
    folder: Path, port: int, *images: Dataset, options: list[str]
) -> subprocess.CompletedProcess[str]:
    files = []
    for number, image in enumerate(images):
        files.append(folder / f"{number:04}.dcm")
        image.save_as(files[-1], enforce_file_format=True)
    return subprocess.run(
        ["storescu", *options, "-aec", "SMEARLINK", LOOPBACK, str(port), *map(str, files)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )


def tls_options(authority: Authority) -> list[str]:
    """To show a certificate of the authority; whom storescu believes is not asked here."""
    own = authority.issue("storescu")
    return ["+tls", str(own.private_key), str(own.certificate), "-ic"]


@contextmanager
def storescp(folder: Path, accepts: str) -> Iterator[tuple[int, Path]]:
    """storescp on a free port; the folder where it puts what it takes."""
    folder.mkdir()
    (port,) = free_ports(1)
    process = subprocess.Popen(
        ["storescp", accepts, "-aet", "STORESCP", "-od", str(folder), str(port)], env=ENVIRONMENT
    )
    try:
        until(lambda: _is_up(process, port))
        yield port, folder
    finally:
        process.terminate()
        process.wait()


def _is_up(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, "storescp ended"
    try:
        DicomDestination(name="storescp", ae_title="STORESCP", host=LOOPBACK, port=port).check()
    except RetryLater:
        return False
    return True


def destination_at(port: int, **changed: Any) -> DicomDestination:
    return DicomDestination(
        name="storescp", ae_title="STORESCP", host=LOOPBACK, port=port, **changed
    )


def _file(result: Result) -> FileDataset:
    return dcmread(io.BytesIO(result.content))

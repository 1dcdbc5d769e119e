"""A stored image is read with no more in memory than was said beforehand."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless

from listener.dicom.reception import status_of
from listener.storage import dataset_scan
from listener.storage.inbox import Inbox, StoredInstance, StoreRequest
from pipeline.errors import Rejected
from tests.builders import build_image, dataset_bytes

PIXELS = np.zeros((1000, 2000, 3), np.uint8)
MEGABYTE = 2**20
SYNTAXES = [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]


def keep(inbox: Inbox, image: Dataset, content: bytes) -> StoredInstance:
    """The image with `content` for its plain dataset."""
    syntax = image.file_meta.TransferSyntaxUID
    request = StoreRequest(
        sop_class_uid=str(image.SOPClassUID),
        sop_instance_uid=str(image.SOPInstanceUID),
        transfer_syntax_uid=str(syntax),
        source="DEVICE",
    )
    if syntax == DeflatedExplicitVRLittleEndian:
        machine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        content = machine.compress(content) + machine.flush()
    with inbox.receive(request) as incoming:
        incoming.write(content)
        return incoming.commit()


@contextmanager
def peak() -> Iterator[list[int]]:
    """Of what Python allocated meanwhile."""
    found: list[int] = []
    tracemalloc.start()
    try:
        yield found
        found.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("syntax", SYNTAXES)
class TestLongPrivateElements:
    def test_too_much_beside_the_pixels_is_refused_as_too_large(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: UID
    ) -> None:
        monkeypatch.setattr(dataset_scan, "MAX_BYTES_BESIDE_PIXELS", MEGABYTE)
        image = build_image(transfer_syntax=syntax)
        image.private_block(0x0009, "CAMERA", create=True).add_new(1, "OB", bytes(MEGABYTE))
        inbox = Inbox(tmp_path)

        with pytest.raises(Rejected) as caught:
            keep(inbox, image, dataset_bytes(image))

        assert caught.value.code == "object_too_large"
        assert status_of(caught.value) == 0xC010
        assert list(inbox.waiting()) == []

    def test_it_does_not_help_to_hide_them_in_sequences_or_after_the_pixels(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: UID
    ) -> None:
        monkeypatch.setattr(dataset_scan, "MAX_BYTES_BESIDE_PIXELS", MEGABYTE)
        nested = build_image(transfer_syntax=syntax)
        inner = Dataset()
        inner.private_block(0x0009, "CAMERA", create=True).add_new(1, "OB", bytes(MEGABYTE))
        outer = Dataset()
        outer.private_block(0x0009, "CAMERA", create=True).add_new(1, "SQ", [inner])
        nested.private_block(0x0009, "CAMERA", create=True).add_new(1, "SQ", [outer])
        late = build_image(transfer_syntax=syntax)
        late.private_block(0x7FE1, "CAMERA", create=True).add_new(1, "OB", bytes(MEGABYTE))

        for image in (nested, late):
            with pytest.raises(Rejected) as caught:
                keep(Inbox(tmp_path), image, dataset_bytes(image))
            assert caught.value.code == "object_too_large"

    def test_pixels_are_not_counted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: UID
    ) -> None:
        monkeypatch.setattr(dataset_scan, "MAX_BYTES_BESIDE_PIXELS", MEGABYTE)
        image = build_image(pixels=PIXELS, transfer_syntax=syntax)

        keep(Inbox(tmp_path), image, dataset_bytes(image))

    def test_reading_takes_what_was_said(self, tmp_path: Path, syntax: UID) -> None:
        image = build_image(transfer_syntax=syntax)
        image.private_block(0x0009, "CAMERA", create=True).add_new(1, "OB", bytes(20 * MEGABYTE))
        inbox = Inbox(tmp_path)
        uid = keep(inbox, image, dataset_bytes(image)).sop_instance_uid

        with peak() as found:
            inbox.read(uid)

        assert 20 * MEGABYTE < found[0] < inbox.bytes_to_read(uid) + 2 * MEGABYTE


def test_compressed_pixels_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_scan, "MAX_BYTES_BESIDE_PIXELS", 4096)
    noise = np.random.default_rng(1).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    image = build_image(pixels=noise, transfer_syntax=RLELossless)

    keep(Inbox(tmp_path), image, dataset_bytes(image))


class TestDeflated:
    def test_the_header_is_read_without_inflating_the_pixels_into_memory(
        self, tmp_path: Path
    ) -> None:
        image = build_image(pixels=PIXELS, transfer_syntax=DeflatedExplicitVRLittleEndian)
        inbox = Inbox(tmp_path)
        uid = keep(inbox, image, dataset_bytes(image)).sop_instance_uid

        with peak() as found:
            header = inbox.read_header(uid)

        assert (header.Rows, header.Columns) == (1000, 2000)
        assert "PixelData" not in header
        assert found[0] < MEGABYTE

    def test_it_reads_as_pydicom_reads_it(self, tmp_path: Path) -> None:
        image = build_image(transfer_syntax=DeflatedExplicitVRLittleEndian)
        inbox = Inbox(tmp_path)
        stored = keep(inbox, image, dataset_bytes(image))

        found, expected = inbox.read(stored.sop_instance_uid), dcmread(stored.path)

        assert found == expected
        assert found.file_meta == expected.file_meta
        assert found.original_encoding == expected.original_encoding
        assert found.original_character_set == expected.original_character_set
        header = inbox.read_header(stored.sop_instance_uid)
        assert header == dcmread(stored.path, stop_before_pixels=True)

    def test_a_vr_that_its_sender_did_not_know_is_named(self, tmp_path: Path) -> None:
        image = build_image(transfer_syntax=DeflatedExplicitVRLittleEndian)
        content = dataset_bytes(image)
        at = content.index(b"\x28\0\x02\0")
        odd = content[:at] + b"\x27\0\x10\0??\x04\0abcd" + content[at:]
        inbox = Inbox(tmp_path)
        stored = keep(inbox, image, odd)

        assert stored.deviations == ("unknown_vr",)
        assert inbox.read(stored.sop_instance_uid).Rows == image.Rows
        assert inbox.read_header(stored.sop_instance_uid).Rows == image.Rows

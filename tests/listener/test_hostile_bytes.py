"""Changed bytes in anything that a peer says never stop the listener and leave no file behind."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, SecondaryCaptureImageStorage

from listener.dicom.server import DicomListener
from listener.storage.inbox import Inbox
from reporting.audit.trail import Event
from tests.builders import build_image, dataset_bytes
from tests.fakes import RecordingAudit
from tests.listener.peers import (
    RawPeer,
    association_request,
    listening,
    pdu,
    store_command,
    stored_bytes,
)

IMAGE = build_image(transfer_syntax=JPEGBaseline8Bit)
DATA = dataset_bytes(IMAGE)
SOUND = build_image(number=2)
CHANGES = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4
)
"""Where, as a share of the whole, and the new byte."""


class Door:
    """A listener, its inbox and its trail."""

    def __init__(self, listener: DicomListener, root: Path, audit: RecordingAudit) -> None:
        self.port, self.root, self.audit = listener.port, root, audit
        self.inbox = Inbox(root)

    def hear_out(self, said: bytes) -> None:
        """Say all of it and no more, then hear what comes until the listener hangs up."""
        with RawPeer(self.port) as peer:
            try:
                peer.say(said)
                peer.say_no_more()
                while peer.hear()[0]:
                    pass
            except ConnectionError:
                """It had heard enough."""

    def is_sound(self) -> bool:
        """The next honest image is taken whole; nothing half-written lies about."""
        with RawPeer(self.port) as peer:
            peer.associate(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
            peer.store(SOUND, data=dataset_bytes(SOUND))
            is_taken = peer.hear_status() == 0x0000
        kept = stored_bytes(self.inbox, SOUND.SOPInstanceUID)
        return is_taken and kept == dataset_bytes(SOUND)


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    audit = RecordingAudit()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with listening(Inbox(root), audit) as listener:
            yield Door(listener, root, audit)
        # leaving `listening` has waited for every connection's thread
        assert list((root / "tmp").iterdir()) == []
        assert {path.parent.name for path in root.rglob("*.dcm")} <= {"new"}
        assert Event.DEFECT_MET not in audit.events


def changed(whole: bytes, changes: list[tuple[float, int]]) -> bytes:
    said = bytearray(whole)
    for share, byte in changes:
        said[int(share * len(said))] = byte
    return bytes(said)


class TestChangedBytes:
    @given(changes=CHANGES)
    @settings(max_examples=15)
    def test_in_an_association_request(self, door: Door, changes: list[tuple[float, int]]) -> None:
        door.hear_out(changed(association_request(SecondaryCaptureImageStorage), changes))

    @given(changes=CHANGES)
    @settings(max_examples=15)
    def test_in_the_pdus_of_a_store(self, door: Door, changes: list[tuple[float, int]]) -> None:
        message = pdu(store_command(IMAGE), is_command=True) + pdu(DATA)
        request = association_request(SecondaryCaptureImageStorage, JPEGBaseline8Bit)

        door.hear_out(request + changed(message, changes))

    @given(changes=CHANGES, kept=st.floats(0, 1))
    @settings(max_examples=15)
    def test_in_a_dataset_that_is_framed_well(
        self, door: Door, changes: list[tuple[float, int]], kept: float
    ) -> None:
        """It gets a status, and the association goes on to a release."""
        data = changed(DATA, changes)[: int(kept * len(DATA)) // 2 * 2]
        with RawPeer(door.port) as peer:
            peer.associate(SecondaryCaptureImageStorage, JPEGBaseline8Bit)
            peer.store(IMAGE, data=data)

            status = peer.hear_status()

            assert status in (0x0000, 0xA900, 0xC000, 0xC010, 0xC011)
            peer.say(b"\5\0\0\0\0\4\0\0\0\0")
            assert peer.hear()[0] == 6

    def test_and_the_next_honest_image_is_taken(self, door: Door) -> None:
        assert door.is_sound()

"""One connection served to its end: each wait has a deadline, and each message an answer.

The whole listener, and the bytes that peers may say to it, are in test_dicom.py.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from struct import Struct
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import UID, SecondaryCaptureImageStorage
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    Verification,
)

from listener.dicom import association
from listener.dicom.ae_title_access import AccessPolicy, Caller
from listener.dicom.association import (
    MAX_REPORT_BYTES,
    MAX_REPORT_ELEMENTS,
    ConnectionState,
    Deadlines,
    End,
    ScpPolicy,
    serve_association,
)
from listener.dicom.dimse import Command, Status
from listener.dicom.reception import Answer
from listener.dicom.upper_layer import AbortReason, abort, associate_length
from tests.builders import build_image, dataset_bytes
from tests.listener.peers import RawPeer, pdu, store_command

VERIFICATION = UID(Verification)
COMMITMENT = UID(StorageCommitmentPushModel)
SECONDARY_CAPTURE = SecondaryCaptureImageStorage
ABORT, RELEASE_RP = 7, 6
RELEASE_RQ = b"\x05\0\0\0\0\x04\0\0\0\0"
PATIENCE_S = 600.0
"""How long either side waits; only a failing test waits so long."""
MAX_MESSAGE_BYTES = 2**24
IMAGE = build_image()
_ELEMENT = Struct("<HHL")


class Recording:
    """Services that read everything and take it."""

    def __init__(self) -> None:
        self.stores: list[int] = []
        self.reports: list[Dataset] = []
        self.told = 0
        self.reads = True
        self.refusal: Answer | None = None
        self.on_store: Callable[[], None] = lambda: None

    def store(
        self, command: Command, transfer_syntax_uid: str, pieces: Iterator[memoryview]
    ) -> Answer:
        self.on_store()
        if not self.reads:
            return Answer(status=Status.OUT_OF_RESOURCES, comment="no room")
        self.stores.append(sum(len(piece) for piece in pieces))
        return Answer(status=Status.SUCCESS)

    def stored(self) -> None:
        self.told += 1

    def refuse_report(self, command: Command) -> Answer | None:
        return self.refusal

    def report_commitment(self, report: Dataset) -> Answer:
        self.reports.append(report)
        return Answer(status=Status.SUCCESS)


class Line(RawPeer):
    """A connection to `serve_association`, which runs on a thread of its own."""

    def __init__(
        self,
        services: Recording,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        **deadlines: float,
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.sock = socket.create_connection(server.getsockname(), timeout=PATIENCE_S)
            theirs, _ = server.accept()
        patience = {"acse_s": PATIENCE_S, "dimse_s": PATIENCE_S, "idle_s": PATIENCE_S}
        self._stopping = threading.Event()
        self.progress = ConnectionState(
            socket=theirs, caller=Caller(ae_title="", address="127.0.0.1", certificate_subject="")
        )
        house = ScpPolicy(
            access=AccessPolicy(),
            deadlines=Deadlines(**{**patience, **deadlines}),
            max_pdu_bytes=2**17,
            max_message_bytes=MAX_MESSAGE_BYTES,
            is_stopping=self._stopping.is_set,
            monotonic=monotonic,
        )
        self._ends: list[End] = []
        self._thread = threading.Thread(
            target=lambda: self._ends.append(
                serve_association(self.progress, house, services, read_request(theirs))
            )
        )
        self._thread.start()

    def stop(self) -> None:
        """Have the whole listener stop."""
        self._stopping.set()

    def hear_all(self) -> list[int]:
        """The types of all PDUs until the other side hangs up."""
        kinds = []
        while kind := self.hear()[0]:
            kinds.append(kind)
            if kind == ABORT:
                break
        return kinds

    def end(self) -> End:
        """Hang up; how the other side says that it ended."""
        self.sock.close()
        self._thread.join()
        self.progress.socket.close()
        return self._ends[0]


def read_request(sock: socket.socket) -> bytes:
    """A whole A-ASSOCIATE-RQ, as the acceptor hands it over."""
    received = b""
    while wanted := associate_length(received) - len(received):
        received += sock.recv(wanted)
    return received


Connect = Callable[..., Line]


@pytest.fixture
def services() -> Recording:
    return Recording()


@pytest.fixture
def connect(services: Recording) -> Iterator[Connect]:
    lines: list[Line] = []

    def connected(**options: Any) -> Line:
        lines.append(Line(services, **options))
        return lines[-1]

    yield connected
    for line in lines:
        line.end()


def command(field: int, *, has_dataset: bool = False, sop_class: str = VERIFICATION) -> bytes:
    """A request of any kind."""
    padded = sop_class.encode() + b"\0" * (len(sop_class) % 2)
    kind = b"\0\0" if has_dataset else b"\x01\x01"
    elements = [
        (0x0002, padded),
        (0x0100, field.to_bytes(2, "little")),
        (0x0110, b"\x07\0"),
        (0x0800, kind),
    ]
    body = b"".join(_ELEMENT.pack(0, tag, len(value)) + value for tag, value in elements)
    return _ELEMENT.pack(0, 0, 4) + len(body).to_bytes(4, "little") + body


class TestPatience:
    def test_with_a_peer_that_says_nothing_between_two_messages(self, connect: Connect) -> None:
        line = connect(idle_s=0.1)
        line.associate(VERIFICATION)

        assert line.hear_all() == [ABORT]
        assert line.end() is End.LOST
        assert line.progress.problem == "peer_silent"

    def test_with_a_peer_that_drips_an_image(
        self, connect: Connect, services: Recording, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each PDU comes in time, and all of them together would take for ever."""
        monkeypatch.setattr(association, "SLOWEST_BYTES_PER_S", 2**40)
        line = connect(monotonic=count(0.0, PATIENCE_S + 1).__next__)
        line.associate(SECONDARY_CAPTURE)
        line.say(pdu(store_command(IMAGE), is_command=True))
        line.say(pdu(dataset_bytes(IMAGE)[:100], is_last=False))

        assert line.hear_all() == [ABORT]
        assert line.end() is End.LOST
        assert line.progress.problem == "peer_slow"
        assert services.stores == []


class TestWhatIsNotServed:
    @pytest.mark.parametrize("field", [0x0020, 0x0021, 0x0140, 0x0150, 0x8001])
    def test_is_answered_as_an_operation_that_we_do_not_know(
        self, connect: Connect, field: int
    ) -> None:
        line = connect()
        line.associate(VERIFICATION)
        line.say(pdu(command(field), is_command=True))

        assert line.hear_status() == Status.UNRECOGNIZED_OPERATION
        assert ask_to_release(line) is End.RELEASED

    def test_a_store_in_the_context_of_an_echo(self, connect: Connect, services: Recording) -> None:
        line = connect()
        line.associate(VERIFICATION)
        line.store(IMAGE, data=dataset_bytes(IMAGE))

        assert line.hear_status() == Status.UNRECOGNIZED_OPERATION
        assert services.stores == []

    def test_a_report_in_the_context_of_an_image(
        self, connect: Connect, services: Recording
    ) -> None:
        line = connect()
        line.associate(SECONDARY_CAPTURE)
        line.say(pdu(command(0x0100, has_dataset=True), is_command=True))
        line.say(pdu(b"\0" * 20))

        assert line.hear_status() == Status.UNRECOGNIZED_OPERATION
        assert services.reports == []

    def test_a_cancel_has_no_answer_and_ends_nothing(self, connect: Connect) -> None:
        line = connect()
        line.associate(VERIFICATION)
        line.say(pdu(command(0x0FFF), is_command=True))
        line.say(pdu(command(0x0030), is_command=True))

        assert line.hear_status() == Status.SUCCESS
        assert ask_to_release(line) is End.RELEASED

    def test_a_command_that_never_ends(self, connect: Connect) -> None:
        """Each fragment comes in time; the deadline is over the whole command."""
        line = connect(dimse_s=0.1)
        line.associate(VERIFICATION)
        line.say(pdu(b"", is_command=True, is_last=False))

        assert line.hear_all() == [ABORT]
        assert line.progress.problem == "peer_silent"


class TestReports:
    def test_of_who_may_not_report_are_not_parsed(
        self, connect: Connect, services: Recording
    ) -> None:
        services.refusal = Answer(status=Status.NOT_AUTHORIZED)
        line = connect()
        line.associate(COMMITMENT)
        line.say(pdu(command(0x0100, has_dataset=True, sop_class=COMMITMENT), is_command=True))
        line.say(pdu(b"not a dataset", is_last=False))
        line.say(pdu(bytes(100_000)))

        assert line.hear_status() == Status.NOT_AUTHORIZED
        assert services.reports == []
        assert ask_to_release(line) is End.RELEASED

    def test_of_very_many_items_end_the_association(
        self, connect: Connect, services: Recording
    ) -> None:
        items = b"\xfe\xff\x00\xe0\0\0\0\0" * (MAX_REPORT_ELEMENTS + 1)
        said = b"\x08\0\x99\x11SQ\0\0" + len(items).to_bytes(4, "little") + items
        line = connect()
        line.associate(COMMITMENT)
        line.say(pdu(command(0x0100, has_dataset=True, sop_class=COMMITMENT), is_command=True))
        for start in range(0, len(said), 100_000):
            piece = said[start : start + 100_000]
            line.say(pdu(piece, is_last=start + 100_000 >= len(said)))

        assert line.hear_all() == [ABORT]
        assert services.reports == []

    @pytest.mark.parametrize(
        "said",
        [b"\x08\0\x99\x11SQ\0\0\xff\xff\xff\xff" + b"\1" * 16, bytes(MAX_REPORT_BYTES + 1)],
        ids=["a sequence of noise", "without end"],
    )
    def test_that_are_none_end_the_association(
        self, connect: Connect, services: Recording, said: bytes
    ) -> None:
        line = connect()
        line.associate(COMMITMENT)
        line.say(pdu(command(0x0100, has_dataset=True, sop_class=COMMITMENT), is_command=True))
        for start in range(0, len(said), 100_000):
            piece = said[start : start + 100_000]
            line.say(pdu(piece, is_last=start + 100_000 >= len(said)))

        assert line.hear_all() == [ABORT]
        assert line.end() is End.ABORTED_BY_US
        assert services.reports == []


class TestImages:
    def test_that_were_refused_are_read_to_their_end_before_the_answer(
        self, connect: Connect, services: Recording
    ) -> None:
        services.reads = False
        line = connect()
        line.associate(SECONDARY_CAPTURE)
        line.store(IMAGE, data=dataset_bytes(IMAGE))
        refused = line.hear_status()
        services.reads = True
        line.store(IMAGE, data=dataset_bytes(IMAGE))

        assert (refused, line.hear_status()) == (Status.OUT_OF_RESOURCES, Status.SUCCESS)
        assert services.stores == [len(dataset_bytes(IMAGE))]
        assert ask_to_release(line) is End.RELEASED
        assert services.told == 2

    def test_are_told_of_also_when_the_answer_finds_nobody(
        self, connect: Connect, services: Recording
    ) -> None:
        line = connect()
        line.associate(SECONDARY_CAPTURE)
        line.store(IMAGE, data=dataset_bytes(IMAGE))
        line.hear_status()

        assert line.end() is End.LOST
        assert services.told == 1


class TestEnds:
    def test_a_peer_that_aborts(self, connect: Connect) -> None:
        line = connect()
        line.associate(VERIFICATION)
        line.say(abort(AbortReason.NOT_SPECIFIED))

        assert line.end() is End.ABORTED_BY_PEER

    def test_a_release_within_a_message_is_none(self, connect: Connect) -> None:
        line = connect()
        line.associate(SECONDARY_CAPTURE)
        line.say(pdu(store_command(IMAGE), is_command=True))
        line.say(RELEASE_RQ)

        assert line.hear_all() == [ABORT]
        assert line.end() is End.ABORTED_BY_US

    def test_a_stop_lets_the_message_in_hand_be_answered(
        self, connect: Connect, services: Recording
    ) -> None:
        line = connect()
        services.on_store = line.stop
        line.associate(SECONDARY_CAPTURE)
        line.store(IMAGE, data=dataset_bytes(IMAGE))

        assert line.hear_status() == Status.SUCCESS
        assert line.hear_all() == [ABORT]
        assert line.end() is End.STOPPED
        assert line.progress.problem == "service_stopping"


def ask_to_release(line: Line) -> End:
    line.say(RELEASE_RQ)
    assert line.hear()[0] == RELEASE_RP
    return line.end()

"""PDUs from a socket that may say anything: whole ones come out, everything else is an end."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.dicom.upper_layer import (
    MAX_ASSOCIATE_BYTES,
    AbortReason,
    AssociationEnded,
    ConnectionLost,
    Fragment,
    Pdu,
    PduType,
    ProtocolViolation,
    UpperLayer,
    abort,
    command_pdu,
    fragments,
    reject,
    release_reply,
)

MAX_PDU = 4096
SOON_S = 60.0


class Clock:
    """Moves on by a step with every look."""

    def __init__(self, step_s: float) -> None:
        self._now, self._step_s = 0.0, step_s

    def __call__(self) -> float:
        self._now += self._step_s
        return self._now


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def wire_of(sock: socket.socket, *, step_s: float = 0.0) -> UpperLayer:
    return UpperLayer(sock, max_pdu_bytes=MAX_PDU, monotonic=Clock(step_s))


def read(wire: UpperLayer) -> Pdu:
    return wire.read_pdu(first_byte_s=SOON_S, rest_s=SOON_S)


def pdu(kind: int, body: bytes) -> bytes:
    return bytes([kind, 0]) + len(body).to_bytes(4, "big") + body


def value(data: bytes, *, context_id: int = 1, control: int = 3) -> bytes:
    return (len(data) + 2).to_bytes(4, "big") + bytes([context_id, control]) + data


class TestDataThatHasArrived:
    def test_whole_ones_need_no_read(self, pair: tuple[socket.socket, socket.socket]) -> None:
        wire = wire_of(pair[0])
        first, second = value(b"first"), value(b"second") + value(b"too")
        pair[1].sendall(pdu(PduType.DATA, first) + pdu(PduType.DATA, second))
        nothing_yet = wire.arrived_data()
        bodies = [bytes(read(wire).body)]
        while (arrived := wire.arrived_data()) is not None:
            bodies.append(bytes(arrived.body))

        assert nothing_yet is None
        assert bodies == [first, second]

    @pytest.mark.parametrize(
        "rest",
        [
            b"",
            pdu(PduType.DATA, bytes(9))[:5],
            pdu(PduType.DATA, bytes(9))[:-1],
            pdu(PduType.DATA, bytes(MAX_PDU + 1)),
            pdu(PduType.RELEASE_RQ, bytes(4)),
            pdu(0, bytes(4)),
        ],
    )
    def test_what_is_not_whole_or_no_data_is_left_to_be_read(
        self, pair: tuple[socket.socket, socket.socket], rest: bytes
    ) -> None:
        wire = wire_of(pair[0])
        pair[1].sendall(pdu(PduType.DATA, value(b"data")) + rest)
        read(wire)

        assert wire.arrived_data() is None


class TestWhatIsNoPdu:
    @pytest.mark.parametrize("kind", [0, 8, 0x47, 255])
    def test_an_unknown_type(self, pair: tuple[socket.socket, socket.socket], kind: int) -> None:
        pair[1].sendall(pdu(kind, b"1234"))

        with pytest.raises(ProtocolViolation) as caught:
            read(wire_of(pair[0]))

        assert caught.value.reason is AbortReason.UNRECOGNIZED_PDU

    @pytest.mark.parametrize(
        ("kind", "length"),
        [
            (PduType.DATA, MAX_PDU + 1),
            (PduType.DATA, 2**32 - 1),
            (PduType.ASSOCIATE_RQ, MAX_ASSOCIATE_BYTES + 1),
            (PduType.ASSOCIATE_RQ, 2**32 - 1),
            (PduType.RELEASE_RQ, 5),
            (PduType.ABORT, 2**32 - 1),
        ],
    )
    def test_a_length_over_what_was_agreed_is_refused_by_its_header(
        self, pair: tuple[socket.socket, socket.socket], kind: PduType, length: int
    ) -> None:
        pair[1].sendall(bytes([kind, 0]) + length.to_bytes(4, "big"))

        with pytest.raises(ProtocolViolation) as caught:
            read(wire_of(pair[0]))

        assert caught.value.reason is AbortReason.INVALID_PARAMETER

    @pytest.mark.parametrize("kept", range(12))
    def test_a_peer_that_leaves_within_a_pdu(
        self, pair: tuple[socket.socket, socket.socket], kept: int
    ) -> None:
        pair[1].sendall(pdu(PduType.DATA, b"123456")[:kept])
        pair[1].close()

        with pytest.raises(ConnectionLost) as caught:
            read(wire_of(pair[0]))

        assert caught.value.code == "peer_gone"

    def test_a_peer_that_drips_a_byte_at_a_time_runs_out_of_time(
        self, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        wire = wire_of(pair[0], step_s=1.0)
        pair[1].sendall(pdu(PduType.DATA, bytes(100))[:50])

        with pytest.raises(ConnectionLost) as caught:
            wire.read_pdu(first_byte_s=5.0, rest_s=1.0)

        assert caught.value.code == "peer_silent"

    @pytest.mark.parametrize(
        "body",
        [b"\0", b"\0\0\0\6\1", value(b"data")[:-1], b"\0\0\0\1\1\3", b"\xff\xff\xff\xff\1\3data"],
    )
    def test_a_value_that_does_not_fit_its_pdu(self, body: bytes) -> None:
        with pytest.raises(ProtocolViolation):
            list(fragments(Pdu(kind=PduType.DATA, body=memoryview(body))))

    @given(said=st.binary(max_size=300))
    def test_whatever_is_said_is_pdus_and_then_an_end(self, said: bytes) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(said)
            theirs.close()
            wire = wire_of(ours)
            with pytest.raises(AssociationEnded):
                while True:
                    received = read(wire)
                    if received.kind is PduType.DATA:
                        list(fragments(received))


class TestPdus:
    @given(
        bodies=st.lists(st.binary(max_size=MAX_PDU), min_size=1, max_size=12),
        cuts=st.lists(st.integers(1, 3000), min_size=1, max_size=5),
    )
    def test_come_out_as_they_went_in_however_they_were_cut(
        self, bodies: list[bytes], cuts: list[int]
    ) -> None:
        stream = b"".join(pdu(PduType.DATA, body) for body in bodies)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            wire, at, cut = wire_of(ours), 0, 0
            seen: list[bytes] = []
            while len(seen) < len(bodies):
                wanted = sum(len(body) + 6 for body in bodies[: len(seen) + 1])
                while at < wanted:
                    step = cuts[cut % len(cuts)]
                    theirs.sendall(stream[at : at + step])
                    at, cut = at + step, cut + 1
                seen.append(bytes(read(wire).body))

        assert seen == bodies

    def test_several_values_of_one_pdu(self) -> None:
        body = value(b"command", control=1) + value(b"", context_id=3, control=2)

        first, second = fragments(Pdu(kind=PduType.DATA, body=memoryview(body)))

        assert first == Fragment(
            context_id=1, is_command=True, is_last=False, data=memoryview(b"command")
        )
        assert second == Fragment(
            context_id=3, is_command=False, is_last=True, data=memoryview(b"")
        )

    def test_a_pdu_without_values_holds_none(self) -> None:
        assert list(fragments(Pdu(kind=PduType.DATA, body=memoryview(b"")))) == []

    def test_a_command_of_ours_can_be_read_back(
        self, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        pair[1].sendall(command_pdu(5, b"response"))

        (fragment,) = fragments(read(wire_of(pair[0])))

        assert (fragment.context_id, bytes(fragment.data)) == (5, b"response")
        assert fragment.is_command
        assert fragment.is_last

    def test_our_short_pdus_are_those_of_the_standard(self) -> None:
        """PS3.8 9.3.4, 9.3.7 and 9.3.8"""
        assert release_reply() == b"\6\0\0\0\0\4\0\0\0\0"
        assert abort(AbortReason.INVALID_PARAMETER) == b"\7\0\0\0\0\4\0\0\2\6"
        assert reject(1, 1, 7) == b"\3\0\0\0\0\4\0\1\1\7"

    def test_a_long_answer_reaches_a_peer_that_reads_slowly(
        self, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        answer, read_so_far = os.urandom(3_000_000), bytearray()

        def read_all() -> None:
            while len(read_so_far) < len(answer):
                read_so_far.extend(pair[1].recv(10_000))

        reader = threading.Thread(target=read_all)
        reader.start()
        wire_of(pair[0]).send(answer, within_s=SOON_S)
        reader.join()

        assert read_so_far == answer

    def test_a_peer_that_takes_no_answer_is_given_up(
        self, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        with pytest.raises(ConnectionLost) as caught:
            wire_of(pair[0]).send(bytes(3_000_000), within_s=0.01)

        assert caught.value.code == "peer_lost"

    def test_a_silent_peer_is_given_up(self, pair: tuple[socket.socket, socket.socket]) -> None:
        wire = wire_of(pair[0])

        with pytest.raises(ConnectionLost) as caught:
            wire.read_pdu(first_byte_s=0.01, rest_s=SOON_S)

        assert caught.value.code == "peer_silent"

    def test_a_peer_that_does_not_listen_ends_the_sending(
        self, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        pair[1].close()
        wire = wire_of(pair[0])

        with pytest.raises(ConnectionLost):
            for _ in range(100):
                wire.send(bytes(100_000), within_s=SOON_S)

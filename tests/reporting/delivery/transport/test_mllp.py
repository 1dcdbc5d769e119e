"""MLLP frames and acknowledgments as real receivers write them."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reporting.delivery.transport.mllp import (
    Acknowledgment,
    control_id_of,
    framed,
    read_acknowledgment,
    read_frame,
)

HEADER = b"MSH|^~\\&|LIS||SMEARLINK||20260102||ACK^R01^ACK|9|P|2.5.1"
PATIENCE_S = 60.0
MARK = "\ufeff".encode()


def ack(code: bytes = b"AA", *, end: bytes = b"\r") -> bytes:
    return end.join([HEADER, b"MSA|" + code + b"|42|text", b""])


def read_from(*chunks: bytes) -> bytes:
    """What `read_frame` makes of a peer that writes these chunks and closes."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            for chunk in chunks:
                theirs.sendall(chunk)
        return read_frame(ours, PATIENCE_S)


class TestThingsThatGoWrong:
    @pytest.mark.parametrize(
        "chunks", [(), (b"\x0b",), (b"\x0b" + HEADER,), (b"\x0b" + ack(),)], ids=len
    )
    def test_a_frame_without_its_end_block_is_not_complete(self, chunks: tuple[bytes, ...]) -> None:
        with pytest.raises(ConnectionError):
            read_from(*chunks)

    def test_an_open_connection_without_an_end_block_times_out(self) -> None:
        moments = iter([0.0, 0.0, 2.0])
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(b"\x0b" + ack())

            with pytest.raises(TimeoutError):
                read_frame(ours, 1.0, clock=lambda: next(moments))

    @pytest.mark.parametrize(
        "message",
        [b"", b"MSH", b"MSH|^~", b"MSA|AA|42\r", b"HTTP/1.1 200 OK\r\n", b"\0\0\0", MARK],
    )
    def test_what_does_not_begin_with_msh_is_no_acknowledgment(self, message: bytes) -> None:
        with pytest.raises(ValueError, match="MSH"):
            read_acknowledgment(message)

    def test_a_message_without_msa_acknowledges_nothing(self) -> None:
        assert read_acknowledgment(HEADER + b"\r") == Acknowledgment(code="", control_id="")

    @pytest.mark.parametrize("reason", ["\u0661\u0660\u0661", "one", "-1", "1.5"])
    def test_an_error_code_that_is_not_of_table_0357_is_not_repeated(self, reason: str) -> None:
        message = ack(b"AE") + f"ERR|||{reason}^x\r".encode()

        assert read_acknowledgment(message).error_code == ""


class TestLenientReading:
    @pytest.mark.parametrize(
        "frame",
        [
            pytest.param(b"\x0b" + ack() + b"\x1c\r", id="as the standard has it"),
            pytest.param(b"\x0b" + ack() + b"\x1c", id="end block without CR"),
            pytest.param(b"\x0b" + ack() + b"\x1c\n", id="end block with LF"),
            pytest.param(b"\x0b" + ack() + b"\x1c\r\n\0\0", id="padding behind the frame"),
            pytest.param(b"\x0b" + ack() + b"\0\0\x1c\r", id="NUL before the end block"),
            pytest.param(b"\x0b" + ack() + b"   \x1c\r", id="spaces before the end block"),
            pytest.param(b"\x0b" + ack(end=b"\r\n") + b"\x1c\r", id="CRLF"),
            pytest.param(b"\x0b" + ack(end=b"\n") + b"\x1c\r", id="LF"),
            pytest.param(b"\x0b" + ack(end=b"\r\r") + b"\x1c\r", id="empty segments"),
            pytest.param(b"\x0b" + MARK + ack() + b"\x1c\r", id="byte order mark"),
            pytest.param(MARK + b"\x0b" + ack() + b"\x1c\r", id="byte order mark before the block"),
            pytest.param(b"\r\n\x0b\r\n" + ack() + b"\x1c\r", id="empty lines first"),
            pytest.param(b"\x0b\x0b" + ack() + b"\x1c\r", id="start block twice"),
            pytest.param(b"\x0b" + ack(b"aa") + b"\x1c\r", id="code in lower case"),
            pytest.param(b"\x0b" + ack(b" AA ") + b"\x1c\r", id="code with padding"),
            pytest.param(
                b"\x0b" + ack().replace(b"|42|", b"|42  |") + b"\x1c\r", id="padded control id"
            ),
        ],
    )
    def test_an_acknowledgment_is_read_however_it_is_wrapped(self, frame: bytes) -> None:
        said = read_acknowledgment(read_from(frame))

        assert said == Acknowledgment(code="AA", control_id="42")

    def test_the_end_block_alone_ends_the_wait(self) -> None:
        """A receiver that keeps the connection open and never sends CR must not cost a timeout."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(b"\x0b" + ack() + b"\x1c")

            assert read_frame(ours, PATIENCE_S) == ack()

    @given(cut=st.integers(min_value=0, max_value=len(ack()) + 3))
    def test_a_frame_may_come_in_pieces(self, cut: int) -> None:
        frame = framed(ack())

        assert read_from(frame[:cut], frame[cut:]) == ack()

    @given(
        noise=st.binary(max_size=400), read=st.sampled_from([read_acknowledgment, control_id_of])
    )
    def test_any_bytes_give_an_acknowledgment_or_a_value_error(
        self, noise: bytes, read: Callable[[bytes], object]
    ) -> None:
        for message in (noise, HEADER + noise):
            try:
                read(message)
            except ValueError:
                continue

"""Commands are read strictly, and each gets the response that the standard asks for."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pynetdicom.dsutils import decode

from listener.dicom.dimse import Command, CommandField, Status, decode_command, encode_response
from listener.dicom.upper_layer import ProtocolViolation
from tests.builders import build_image
from tests.listener.peers import store_command


def response_to(command: Command, status: Status, comment: str = "") -> Dataset:
    """As pynetdicom reads our bytes."""
    return decode(io.BytesIO(encode_response(command, status, comment=comment)), True, True)


STORE = store_command(build_image())


class TestMalformed:
    @pytest.mark.parametrize("kept", [*range(1, 12), 30, len(STORE) - 1])
    def test_a_command_that_breaks_off(self, kept: int) -> None:
        with pytest.raises(ProtocolViolation):
            decode_command(STORE[:kept])

    def test_nothing_at_all(self) -> None:
        with pytest.raises(ProtocolViolation):
            decode_command(b"")

    def test_elements_of_another_group(self) -> None:
        with pytest.raises(ProtocolViolation):
            decode_command(b"\x08\0\x16\0\2\0\0\0\1\0" + STORE)

    def test_a_field_of_a_wrong_length(self) -> None:
        with pytest.raises(ProtocolViolation):
            decode_command(b"\0\0\0\1\4\0\0\0\1\0\0\0")

    @given(data=st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        with pytest.raises(ProtocolViolation):
            decode_command(b"\1" + data)

    @given(at=st.integers(0, len(STORE) - 1), byte=st.integers(0, 255))
    def test_a_changed_byte_is_a_command_or_an_end(self, at: int, byte: int) -> None:
        said = bytearray(STORE)
        said[at] = byte
        try:
            command = decode_command(said)
        except ProtocolViolation:
            return

        assert len(encode_response(command, Status.CANNOT_UNDERSTAND)) > 0


class TestResponses:
    def test_name_the_request_that_they_answer(self) -> None:
        command, image = decode_command(STORE), build_image()

        response = response_to(command, Status.SUCCESS)

        assert command.field == CommandField.C_STORE_RQ
        assert response.CommandField == 0x8001
        assert response.MessageIDBeingRespondedTo == 7
        assert response.AffectedSOPClassUID == image.SOPClassUID
        assert response.AffectedSOPInstanceUID == image.SOPInstanceUID
        assert response.CommandDataSetType == 0x0101
        assert response.Status == 0x0000

    def test_carry_a_comment_of_64_characters_at_most(self) -> None:
        response = response_to(decode_command(STORE), Status.CANNOT_UNDERSTAND, comment="x" * 99)

        assert response.ErrorComment == "x" * 64

    def test_never_repeat_a_uid_that_is_none(self) -> None:
        command = decode_command(store_command(build_image(), uid="../../x"))

        assert "AffectedSOPInstanceUID" not in response_to(command, Status.INVALID_SOP_INSTANCE)

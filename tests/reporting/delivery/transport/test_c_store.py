"""A request for C-STORE that is put together from bytes is the one that pynetdicom would send."""

from __future__ import annotations

from io import BytesIO

from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from reporting.delivery.transport.c_store import StoreRequest, data_set_of, fragments_of
from tests.reporting.delivery.labelled import make_picture

UIDS = st.from_regex(r"1(\.[1-9][0-9]{0,4}){1,8}", fullmatch=True)


@given(UIDS, st.integers(0, 65535), st.binary(min_size=1, max_size=999), st.integers(200, 1200))
def test_the_messages_are_those_of_pynetdicom(
    uid: str, message_id: int, data_set: bytes, max_pdu: int
) -> None:
    primitive = C_STORE()
    primitive.MessageID = message_id
    primitive.Priority = 2
    primitive.AffectedSOPClassUID = SecondaryCaptureImageStorage
    primitive.AffectedSOPInstanceUID = uid
    primitive.DataSet = BytesIO(data_set)
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    expected = [
        value
        for fragment in message.encode_msg(1, max_pdu)
        for _, value in fragment.presentation_data_value_list
    ]

    request = StoreRequest(
        message_id=message_id,
        sop_class_uid=SecondaryCaptureImageStorage,
        sop_instance_uid=uid,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        data_set=memoryview(data_set),
    )

    assert list(fragments_of(request, max_pdu)) == expected
    assert b"".join(one[1:] for one in list(fragments_of(request, 0))[1:]) == data_set


def test_the_data_set_begins_after_the_file_meta_information() -> None:
    content = make_picture().content

    assert bytes(data_set_of(content)) == encode(dcmread(BytesIO(content)), False, True)

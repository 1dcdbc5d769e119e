"""Sends C-STORE requests whose data set is encoded already (PS3.7 9.3.1).

pynetdicom's own call encodes the data set again and builds the command set attribute by attribute;
that took longer than anything else in a delivery.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from struct import pack
from typing import cast

from pydicom import Dataset
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import P_DATA

from reporting.delivery.transport.pynetdicom_fixes import one_message

_PAUSE_S = 0.0001
_LOW_PRIORITY = 2
_C_STORE_RQ = 0x0001
_HAS_DATA_SET = 0x0001
_COMMAND, _LAST = 0b01, 0b10
"""Message Control Header (PS3.8 E.2)."""
_FRAGMENT_HEAD = 6
"""Bytes of an item head that count as part of a PDU's length (PS3.8 D.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequest:
    """One data set to store, as its file holds it."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set: memoryview
    """Encoded in that syntax, without the File Meta Information."""


def data_set_of(part10: bytes) -> memoryview:
    """What follows the File Meta Information of a DICOM file (PS3.10 7.1)."""
    group_length = int.from_bytes(part10[140:144], "little")
    return memoryview(part10)[144 + group_length :]


def send_c_store(association: Association, request: StoreRequest) -> Dataset:
    """Send a request and wait for the response: its status, empty where none came.

    As pynetdicom's `send_c_store`: raises RuntimeError when the association has ended, ValueError
    when the peer accepted no such context.
    """
    if not association.is_established:
        raise RuntimeError("The association has ended")
    context = association._get_valid_context(
        request.sop_class_uid, request.transfer_syntax_uid, "scu", allow_conversion=False
    )
    association._reactor_checkpoint.clear()
    while not association._is_paused:
        time.sleep(_PAUSE_S)
    with one_message(association):
        for fragment in fragments_of(request, association.dimse.maximum_pdu_size):
            message = P_DATA()
            message.presentation_data_value_list.append((cast(int, context.context_id), fragment))
            association.dul.send_pdu(message)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    if response is None:
        association._handle_no_response()
        return Dataset()
    return association._check_received_status(response)


def fragments_of(request: StoreRequest, max_pdu: int) -> Iterator[bytes]:
    """Command and data set in pieces with their control header (PS3.8 annex E); 0 is no limit."""
    whole = request.data_set
    room = max_pdu - _FRAGMENT_HEAD if max_pdu else len(whole)
    yield bytes((_COMMAND | _LAST,)) + _command_set(request)
    for first in range(0, len(whole), room):
        control = _LAST if first + room >= len(whole) else 0
        yield b"".join((bytes((control,)), whole[first : first + room]))


def _command_set(request: StoreRequest) -> bytes:
    """C-STORE-RQ in Implicit VR Little Endian, by element number (PS3.7 Table 9.3-1)."""
    elements = b"".join(
        (
            _element(0x0002, _uid(request.sop_class_uid)),
            _element(0x0100, pack("<H", _C_STORE_RQ)),
            _element(0x0110, pack("<H", request.message_id)),
            _element(0x0700, pack("<H", _LOW_PRIORITY)),
            _element(0x0800, pack("<H", _HAS_DATA_SET)),
            _element(0x1000, _uid(request.sop_instance_uid)),
        )
    )
    return _element(0x0000, pack("<L", len(elements))) + elements


def _element(number: int, value: bytes) -> bytes:
    return pack("<HHL", 0, number, len(value)) + value


def _uid(uid: str) -> bytes:
    encoded = uid.encode("ascii")
    return encoded + b"\0" * (len(encoded) % 2)

"""Peers for the listener's tests: an honest one on pynetdicom, and one that says any bytes."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from struct import Struct
from types import TracebackType
from typing import Any, Self

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from config.sections import DicomSettings
from listener.dicom.server import DicomListener
from listener.storage.inbox import Inbox, StoredInstance
from reporting.delivery.transport.pynetdicom_fixes import fix_reactor_pause, recover_rejection
from tests.builders import dataset_bytes
from tests.fakes import RecordingAudit

PATIENCE_S = 60.0
"""How long a test waits for what must come at once; only a failing test waits."""

_HEADER = Struct(">BxL")
_VALUE = Struct(">LBB")
_ELEMENT = Struct("<HHL")


@contextmanager
def listening(
    inbox: Inbox,
    audit: RecordingAudit | None = None,
    *,
    on_received: Callable[[StoredInstance], None] = lambda _: None,
    **settings: Any,
) -> Iterator[DicomListener]:
    """A listener on a free port of loopback; callbacks and settings as in the real one."""
    callbacks = {
        key: settings.pop(key) for key in list(settings) if key.startswith(("on_", "may_"))
    }
    listener = DicomListener(
        DicomSettings.model_validate({"port": 0, **settings}),
        inbox,
        on_received,
        audit or RecordingAudit(),
        **callbacks,
    )
    listener.start()
    try:
        yield listener
    finally:
        listener.stop(0.0)


def ask(
    port: int,
    *contexts: tuple[UID, UID],
    calling: str = "DEVICE",
    called: str = "SMEARLINK",
    **options: Any,
) -> Association:
    """An association of pynetdicom's, whether established or not."""
    entity = AE(ae_title=calling)
    for sop_class, syntax in contexts or ((UID(Verification), ImplicitVRLittleEndian),):
        entity.add_requested_context(sop_class, syntax)
    association = entity.associate("127.0.0.1", port, ae_title=called, **options)
    recover_rejection(association)
    return association


def store(port: int, *images: Dataset, calling: str = "DEVICE") -> list[Dataset]:
    """Send images over one association, and the responses to them."""
    contexts = {(image.SOPClassUID, image.file_meta.TransferSyntaxUID) for image in images}
    association = ask(port, *contexts, calling=calling)
    assert association.is_established
    fix_reactor_pause(association)
    responses = [association.send_c_store(image) for image in images]
    association.release()
    return responses


def close_sending(sock: socket.socket) -> None:
    """Close one direction; ConnectionError where the other side has reset the connection.

    After a reset the system says "not connected" (ENOTCONN), a bare OSError.
    """
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError as err:
        if err.errno == errno.ENOTCONN:
            raise ConnectionResetError(err.errno, "the peer has reset the connection") from err
        raise


class RawPeer:
    """Says what it is told to, byte by byte."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.sock.close()

    def associate(
        self, sop_class: UID, syntax: UID = ExplicitVRLittleEndian, *, calling: str = "RAW"
    ) -> None:
        """Propose one context, number 1, and read the acceptance."""
        self.say(association_request(sop_class, syntax, calling=calling))
        kind, _ = self.hear()
        assert kind == 2

    def store(self, image: Dataset, *, command: bytes | None = None, data: bytes) -> None:
        """C-STORE-RQ and its dataset, in PDUs of 16 KB."""
        self.say(pdu(command or store_command(image), is_command=True))
        for start in range(0, max(1, len(data)), 16000):
            piece = data[start : start + 16000]
            self.say(pdu(piece, is_last=start + 16000 >= len(data)))

    def say(self, data: bytes) -> None:
        self.sock.sendall(data)

    def say_no_more(self) -> None:
        """Close the way out and keep listening."""
        close_sending(self.sock)

    def hear(self) -> tuple[int, bytes]:
        """Type and body of the next PDU; type 0 when the other side has hung up."""
        header = self._read(_HEADER.size)
        if len(header) < _HEADER.size:
            return 0, b""
        kind, length = _HEADER.unpack(header)
        return kind, self._read(length)

    def hear_status(self) -> int:
        """Status (0000,0900) of the response that comes next."""
        kind, body = self.hear()
        assert kind == 4
        at = body.index(_ELEMENT.pack(0, 0x0900, 2)) + _ELEMENT.size
        return int.from_bytes(body[at : at + 2], "little")

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                piece = self.sock.recv(count - len(data))
            except ConnectionResetError:
                return data
            if not piece:
                return data
            data += piece
        return data


def association_request(
    sop_class: UID, syntax: UID = ExplicitVRLittleEndian, *, calling: str = "RAW"
) -> bytes:
    """A-ASSOCIATE-RQ"""
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = calling, "SMEARLINK"
    context = build_context(sop_class, syntax)
    context.context_id = 1
    request.presentation_context_definition_list = [context]
    longest, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    longest.maximum_length_received = 16384
    implementation.implementation_class_uid = UID("1.2.3.4")
    request.user_information = [longest, implementation]
    return bytes(A_ASSOCIATE_RQ(request).encode())


def pdu(
    data: bytes, *, is_command: bool = False, is_last: bool = True, context_id: int = 1
) -> bytes:
    """One P-DATA-TF with one value."""
    control = is_command | is_last << 1
    value = _VALUE.pack(len(data) + 2, context_id, control) + data
    return _HEADER.pack(4, len(value)) + value


def store_command(image: Dataset, *, uid: str | None = None, sop_class: str | None = None) -> bytes:
    """C-STORE-RQ with whatever UIDs."""
    elements = [
        (0x0002, _even(sop_class or image.SOPClassUID)),
        (0x0100, b"\x01\0"),
        (0x0110, b"\x07\0"),
        (0x0700, b"\0\0"),
        (0x0800, b"\x01\0"),
        (0x1000, _even(uid or image.SOPInstanceUID)),
    ]
    body = b"".join(_ELEMENT.pack(0, tag, len(value)) + value for tag, value in elements)
    return _ELEMENT.pack(0, 0, 4) + len(body).to_bytes(4, "little") + body


def stored_bytes(inbox: Inbox, uid: str) -> bytes:
    """The dataset's bytes as they lie in the inbox."""
    return dataset_of(inbox.path_of(uid).read_bytes())


def dataset_of(file: bytes) -> bytes:
    """What follows preamble and header of a Part 10 file."""
    length = int.from_bytes(file[140:144], "little")
    return file[144 + length :]


def sent_bytes(image: Dataset) -> bytes:
    """The dataset as an honest peer sends it."""
    return dataset_bytes(image)


def _even(text: str) -> bytes:
    data = str(text).encode()
    return data + b"\0" * (len(data) % 2)

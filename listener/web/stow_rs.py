"""STOW-RS (PS3.18 section 10.5): a multipart request becomes instances in the inbox.

    pieces ─► multipart parser ─► one Part 10 file after another ─► the reception path of C-STORE

Nothing is held in memory but a piece. Each part has a status of its own, as C-STORE gives it; a
part that is refused does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from listener.dicom.dimse import Status
from listener.dicom.reception import Answer, Reception
from listener.storage.dataset_scan import is_uid
from listener.storage.inbox import Inbox, IncomingImage, StoredInstance, StoreRequest
from listener.storage.part10 import split_header
from pipeline.errors import Rejected
from reporting.audit.trail import Actor, AuditSink

SOURCE = "STOW-RS"
DICOM_TYPE = b"application/dicom"
MAX_PARTS = 1000
MAX_PART_HEADER_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class PartOutcome:
    """What became of one part."""

    status: Status
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    """Both empty when the part was no DICOM at all."""
    is_temporary: bool = False
    """Sending it again later may succeed."""


class StowReader:
    """Receives one request, piece by piece; a context manager that leaves nothing half-done."""

    def __init__(
        self,
        boundary: bytes,
        *,
        inbox: Inbox,
        on_received: Callable[[StoredInstance], None],
        audit: AuditSink,
        actor: Actor,
    ) -> None:
        self._reception = Reception(
            inbox, audit, actor=actor, on_received=on_received, protocol="stow_rs"
        )
        self._outcomes: list[PartOutcome] = []
        self._part: _Part | None = None
        self._is_complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._take_header_name,
                "on_header_value": self._take_header_value,
                "on_header_end": self._end_header,
                "on_part_data": self._take_data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def __enter__(self) -> StowReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._part is not None:
            self._part.close()

    def feed(self, piece: bytes) -> None:
        """Takes a piece of the body; Rejected `bad_multipart` when it is not multipart."""
        try:
            self._parser.write(piece)
        except FormParserError as err:
            raise _bad_multipart("The body is no multipart body with the stated boundary") from err

    def finish(self) -> Sequence[PartOutcome]:
        """What became of each part; Rejected `bad_multipart` when the body broke off."""
        if not self._is_complete:
            raise _bad_multipart("The body ends before its last boundary")
        return tuple(self._outcomes)

    def _begin_part(self) -> None:
        if len(self._outcomes) >= MAX_PARTS:
            raise _bad_multipart(f"More than {MAX_PARTS} parts; send several requests")
        self._part = _Part(self._reception)

    def _take_header_name(self, data: bytes, start: int, end: int) -> None:
        self._current.add_to_header(data[start:end], is_name=True)

    def _take_header_value(self, data: bytes, start: int, end: int) -> None:
        self._current.add_to_header(data[start:end], is_name=False)

    def _end_header(self) -> None:
        self._current.end_header()

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        self._current.write(memoryview(data)[start:end])

    def _end_part(self) -> None:
        part, self._part = self._current, None
        self._outcomes.append(self._settle(part))

    def _end(self) -> None:
        self._is_complete = True

    @property
    def _current(self) -> _Part:
        if self._part is None:
            raise _bad_multipart("Data stands outside of a part")
        return self._part

    def _settle(self, part: _Part) -> PartOutcome:
        """The boundary of a part: whatever went wrong in it becomes its status."""
        try:
            image = part.commit()
        except Exception as err:  # noqa: BLE001 - a boundary; recorded
            return _outcome(part.request, self._reception.refused(part.sop_instance_uid, err))
        finally:
            part.close()
        answer = self._reception.stored(image)
        self._reception.enqueue(image)
        return _outcome(part.request, answer)


@dataclass(slots=True)
class _Part:
    """One part as it arrives. After its first fault the rest of it is passed over."""

    reception: Reception
    request: StoreRequest | None = None
    fault: Exception | None = None
    _name: bytes = b""
    _value: bytes = b""
    _head: bytearray = field(default_factory=bytearray)
    _image: IncomingImage | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def sop_instance_uid(self) -> str:
        """As its file header states it; empty while it has stated none."""
        return self.request.sop_instance_uid if self.request is not None else ""

    def add_to_header(self, data: bytes, *, is_name: bool) -> None:
        """Adds to the name or the value of the part's current header line."""
        if is_name:
            self._name += data
        else:
            self._value += data
        if len(self._name) + len(self._value) > MAX_PART_HEADER_BYTES:
            raise _bad_multipart("The header of a part is too long")

    def end_header(self) -> None:
        """Reads the header line that is now whole."""
        name, value = self._name.lower(), self._value.lower()
        self._name = self._value = b""
        if name == b"content-type" and value.split(b";")[0].strip() != DICOM_TYPE:
            self.fault = Rejected("A part is not application/dicom", code="not_dicom")

    def write(self, data: memoryview) -> None:
        """Takes a piece of the part's file; a fault is kept for `commit`."""
        if self.fault is not None:
            return
        try:
            if self._image is not None:
                self._image.write(data)
            else:
                self._head += data
                self._image = self._begin(is_all=False)
        except Exception as err:  # noqa: BLE001 - kept, and raised by commit
            self.fault = err

    def commit(self) -> StoredInstance:
        """Makes the part's instance durable, or raises why it cannot be."""
        if self.fault is not None:
            raise self.fault
        image = self._image or self._begin(is_all=True)
        if image is None:
            raise Rejected("A part is not a DICOM file", code="not_dicom")
        return image.commit()

    def close(self) -> None:
        """Leaves nothing of an instance that was not committed."""
        self._stack.close()

    def _begin(self, *, is_all: bool) -> IncomingImage | None:
        """Opens the inbox as soon as the file's header is whole."""
        split = split_header(bytes(self._head), source=SOURCE, is_all=is_all)
        if split is None:
            return None
        self.request, rest = split
        image = self._stack.enter_context(self.reception.incoming(self.request))
        image.write(rest)
        self._head.clear()
        return image


def _outcome(request: StoreRequest | None, answer: Answer) -> PartOutcome:
    named = request
    if named is not None and not (is_uid(named.sop_instance_uid) and is_uid(named.sop_class_uid)):
        named = None
    return PartOutcome(
        status=answer.status,
        sop_class_uid=named.sop_class_uid if named is not None else "",
        sop_instance_uid=named.sop_instance_uid if named is not None else "",
        is_temporary=answer.is_temporary,
    )


def _bad_multipart(message: str) -> Rejected:
    return Rejected(message, code="bad_multipart")


def response_status(outcomes: Sequence[PartOutcome]) -> int:
    """The HTTP status of the whole (PS3.18 10.5.3.1): all, some or none stored."""
    failed = [outcome for outcome in outcomes if outcome.status is not Status.SUCCESS]
    if not outcomes:
        return 400
    if not failed:
        return 200
    if len(failed) < len(outcomes):
        return 202
    return 503 if all(outcome.is_temporary for outcome in failed) else 409


def response_dataset(outcomes: Sequence[PartOutcome]) -> dict[str, Any]:
    """The Store Instances Response Module (PS3.18 table I.1-1) in the DICOM JSON Model."""
    stored = [_referenced(each) for each in outcomes if each.status is Status.SUCCESS]
    failed = [each for each in outcomes if each.status is not Status.SUCCESS]
    named = [_referenced(each) | _reason(each) for each in failed if each.sop_instance_uid]
    others = [_reason(each) for each in failed if not each.sop_instance_uid]
    sequences = {_REFERENCED_SOP: stored, _FAILED_SOP: named, _OTHER_FAILURES: others}
    dataset: dict[str, Any] = {_RETRIEVE_URL: {"vr": "UR"}}
    return dataset | {tag: {"vr": "SQ", "Value": rows} for tag, rows in sequences.items() if rows}


_RETRIEVE_URL = "00081190"
_FAILED_SOP = "00081198"
_REFERENCED_SOP = "00081199"
_OTHER_FAILURES = "0008119A"


def _referenced(outcome: PartOutcome) -> dict[str, Any]:
    """ReferencedSOPClassUID and ReferencedSOPInstanceUID."""
    return {
        "00081150": {"vr": "UI", "Value": [outcome.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [outcome.sop_instance_uid]},
    }


def _reason(outcome: PartOutcome) -> dict[str, Any]:
    """FailureReason."""
    return {"00081197": {"vr": "US", "Value": [int(outcome.status)]}}

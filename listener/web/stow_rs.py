"""STOW-RS (PS3.18 section 10.5): a multipart request becomes images in the same inbox.

    pieces ─► multipart parser ─► one Part 10 file after another ─► inbox ─► audit ─► work queue

Nothing is held in memory but a piece. Each part is answered for itself, with the statuses that
C-STORE gives; a part that is refused does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from pydicom.uid import UID
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from listener.dicom.dimse import Status
from listener.dicom.negotiation import IMAGE_SOP_CLASSES, TRANSFER_SYNTAXES
from listener.dicom.store_scp import enqueue_received, status_of
from listener.storage.dataset_scan import is_uid
from listener.storage.inbox import Inbox, IncomingImage, ReceivedImage, StoreRequest
from listener.storage.part10 import split_header
from pipeline.errors import Rejected, RetryLater, SmearlinkError
from reporting.audit.trail import Actor, AuditSink, Event, Outcome

SOURCE = "STOW-RS"
DICOM_TYPE = b"application/dicom"
MAX_PARTS = 1000


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
    """Takes one request in, piece by piece; a context manager that leaves nothing half-done."""

    def __init__(
        self,
        boundary: bytes,
        *,
        inbox: Inbox,
        on_received: Callable[[ReceivedImage], None],
        audit: AuditSink,
        actor: Actor,
    ) -> None:
        self._inbox, self._on_received = inbox, on_received
        self._audit, self._actor = audit, actor
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
        """Take in a piece of the body; Rejected `bad_multipart` when it is none."""
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
        self._part = _Part(self._inbox)

    def _take_header_name(self, data: bytes, start: int, end: int) -> None:
        self._current.header_name += data[start:end]

    def _take_header_value(self, data: bytes, start: int, end: int) -> None:
        self._current.header_value += data[start:end]

    def _end_header(self) -> None:
        self._current.end_header()

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        self._current.write(memoryview(data)[start:end])

    def _end_part(self) -> None:
        part, self._part = self._current, None
        outcome = self._settle(part)
        self._outcomes.append(outcome)

    def _end(self) -> None:
        self._is_complete = True

    @property
    def _current(self) -> _Part:
        if self._part is None:
            raise _bad_multipart("Data stands outside of a part")
        return self._part

    def _settle(self, part: _Part) -> PartOutcome:
        """The boundary of a part: whatever went wrong in it becomes its status, and is recorded."""
        try:
            received = part.commit()
            self._record_received(received)
        except SmearlinkError as err:
            return self._refuse(part, status_of(err), err)
        except Exception as err:  # noqa: BLE001 - a boundary; recorded
            return self._refuse(part, Status.PROCESSING_FAILURE, err)
        finally:
            part.close()
        enqueue_received(received, to=self._on_received, audit=self._audit)
        return _outcome(part.offer, Status.SUCCESS)

    def _record_received(self, received: ReceivedImage) -> None:
        self._audit.record(
            Event.IMAGE_RECEIVED_AGAIN if received.is_duplicate else Event.IMAGE_RECEIVED,
            actor=self._actor,
            protocol="stow_rs",
            study_uid=received.study_uid,
            series_uid=received.series_uid,
            sop_instance_uid=received.sop_instance_uid,
            content_sha256=received.sha256,
            is_duplicate=received.is_duplicate,
        )

    def _refuse(self, part: _Part, status: Status, err: Exception) -> PartOutcome:
        offer = part.offer
        is_fault = status is Status.PROCESSING_FAILURE
        uids: dict[str, Any] = {}
        if offer is not None and is_uid(offer.sop_instance_uid):
            uids["sop_instance_uid"] = offer.sop_instance_uid
        self._audit.record(
            Event.IMAGE_REFUSED,
            actor=self._actor,
            outcome=Outcome.SERIOUS_FAILURE if is_fault else Outcome.MINOR_FAILURE,
            protocol="stow_rs",
            code=err.code if isinstance(err, SmearlinkError) else "defect",
            error_type=type(err).__name__,
            status=f"0x{status:04X}",
            **uids,
        )
        return _outcome(offer, status, is_temporary=isinstance(err, RetryLater))


@dataclass(slots=True)
class _Part:
    """One part on its way in. After its first fault the rest of it is passed over."""

    inbox: Inbox
    offer: StoreRequest | None = None
    header_name: bytes = b""
    header_value: bytes = b""
    fault: Exception | None = None
    _head: bytes = b""
    _image: IncomingImage | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    def end_header(self) -> None:
        name, value = self.header_name.lower(), self.header_value.lower()
        self.header_name = self.header_value = b""
        if name == b"content-type" and value.split(b";")[0].strip() != DICOM_TYPE:
            self.fault = Rejected("A part is not application/dicom", code="not_dicom")

    def write(self, data: memoryview) -> None:
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

    def commit(self) -> ReceivedImage:
        if self.fault is not None:
            raise self.fault
        image = self._image or self._begin(is_all=True)
        if image is None:
            raise Rejected("A part is not a DICOM file", code="not_dicom")
        return image.commit()

    def close(self) -> None:
        self._stack.close()

    def _begin(self, *, is_all: bool) -> IncomingImage | None:
        """Open the inbox as soon as the file's header is whole, with the checks of C-STORE."""
        split = split_header(self._head, source=SOURCE, is_all=is_all)
        if split is None:
            return None
        self.offer, rest = split
        _check_offer(self.offer)
        image = self._stack.enter_context(self.inbox.receive(self.offer))
        image.write(rest)
        self._head = b""
        return image


def _check_offer(offer: StoreRequest) -> None:
    """What DICOM peers agree on before they send."""
    if UID(offer.sop_class_uid) not in IMAGE_SOP_CLASSES:
        raise Rejected(
            "This SOP class is not analysed; send single smear fields",
            code="sop_class_not_supported",
        )
    if UID(offer.transfer_syntax_uid) not in TRANSFER_SYNTAXES:
        raise Rejected(
            "This transfer syntax is not taken; see the conformance statement",
            code="unsupported_transfer_syntax",
        )


def _outcome(
    offer: StoreRequest | None, status: Status, *, is_temporary: bool = False
) -> PartOutcome:
    is_named = offer is not None and is_uid(offer.sop_instance_uid) and is_uid(offer.sop_class_uid)
    return PartOutcome(
        status=status,
        sop_class_uid=offer.sop_class_uid if offer is not None and is_named else "",
        sop_instance_uid=offer.sop_instance_uid if offer is not None and is_named else "",
        is_temporary=is_temporary,
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

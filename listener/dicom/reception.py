"""Receives instances the same way by C-STORE and by STOW-RS: checks, inbox, status, audit, queue.

    check ─► Inbox.receive ─► commit ─► `stored` or `refused` (audit, status) ─► `enqueue`

Once an instance is durable its sender is told Success, whatever happens afterwards: an audit
trail or a queue that cannot be written takes nothing back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from listener.dicom.ae_title_access import Caller
from listener.dicom.dimse import Status
from listener.dicom.negotiation import IMAGE_SOP_CLASSES, TRANSFER_SYNTAXES
from listener.storage.dataset_scan import is_uid
from listener.storage.inbox import Inbox, IncomingImage, StoredInstance, StoreRequest
from pipeline.errors import Rejected, RetryLater, SmearlinkError
from reporting.audit.trail import Actor, AuditSink, Event, Outcome

_STATUSES: dict[str, Status] = {
    "invalid_uid": Status.INVALID_SOP_INSTANCE,
    "uid_mismatch": Status.DATASET_MISMATCH,
    "sop_class_mismatch": Status.DATASET_MISMATCH,
    "missing_uid": Status.DATASET_MISMATCH,
    "sop_class_not_supported": Status.SOP_CLASS_NOT_SUPPORTED,
    "object_too_large": Status.CANNOT_UNDERSTAND_TOO_LARGE,
    "conflicting_duplicate": Status.CANNOT_UNDERSTAND_CONFLICT,
}
"""For the codes of rejections; any other is a dataset that cannot be understood."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The response to a request."""

    status: Status
    comment: str = ""
    is_temporary: bool = False
    """Sending it again later may succeed."""


class Reception:
    """Receives the instances of one sender."""

    def __init__(
        self,
        inbox: Inbox,
        audit: AuditSink,
        *,
        actor: Actor,
        on_received: Callable[[StoredInstance], None],
        protocol: str = "",
    ) -> None:
        self._inbox = inbox
        self._audit = SafeAudit(audit)
        self._actor = actor
        self._on_received = on_received
        self._about = {"protocol": protocol} if protocol else {}
        self._sop_class_uid = ""
        """Of the instance that came in last."""

    @contextmanager
    def incoming(self, request: StoreRequest) -> Iterator[IncomingImage]:
        """The instance on its way into the inbox; its `commit` makes it durable.

        Raises Rejected for what is not taken, and what `Inbox.receive` raises.
        """
        if request.sop_class_uid not in IMAGE_SOP_CLASSES:
            raise Rejected(
                "This SOP class is not analysed; send single smear fields",
                code="sop_class_not_supported",
            )
        if request.transfer_syntax_uid not in TRANSFER_SYNTAXES:
            raise Rejected(
                "This transfer syntax is not supported; see the conformance statement",
                code="unsupported_transfer_syntax",
            )
        self._sop_class_uid = request.sop_class_uid
        with self._inbox.receive(request) as image:
            yield image

    def stored(self, image: StoredInstance) -> Answer:
        """Records an instance that is durable."""
        about: dict[str, Any] = {**self._about, "sop_class_uid": self._sop_class_uid}
        if image.deviations:
            about["reasons"] = list(image.deviations)
        self._audit.record(
            Event.IMAGE_RECEIVED_AGAIN if image.is_duplicate else Event.IMAGE_RECEIVED,
            actor=self._actor,
            study_uid=image.study_uid,
            series_uid=image.series_uid,
            sop_instance_uid=image.sop_instance_uid,
            content_sha256=image.sha256,
            is_duplicate=image.is_duplicate,
            **about,
        )
        return Answer(status=Status.SUCCESS)

    def refused(self, sop_instance_uid: str, err: Exception) -> Answer:
        """Records an instance that was not kept, whatever the reason, and words the response."""
        status = status_of(err)
        about: dict[str, Any] = dict(self._about)
        if is_uid(sop_instance_uid):
            about["sop_instance_uid"] = sop_instance_uid
        is_fault = status is Status.PROCESSING_FAILURE
        self._audit.record(
            Event.IMAGE_REFUSED,
            actor=self._actor,
            outcome=Outcome.SERIOUS_FAILURE if is_fault else Outcome.MINOR_FAILURE,
            code=err.code if isinstance(err, SmearlinkError) else "defect",
            error_type=type(err).__name__,
            status=f"0x{status:04X}",
            **about,
        )
        return Answer(
            status=status,
            comment=err.message
            if isinstance(err, SmearlinkError)
            else "Internal fault; send again",
            is_temporary=isinstance(err, RetryLater),
        )

    def enqueue(self, image: StoredInstance) -> None:
        """Tells the work queue; when that fails the queue finds the image in the inbox itself."""
        try:
            self._on_received(image)
        except Exception as err:  # noqa: BLE001 - a boundary; recorded
            self._audit.record(
                Event.DEFECT_MET,
                outcome=Outcome.MINOR_FAILURE,
                sop_instance_uid=image.sop_instance_uid,
                step="announce",
                error_type=type(err).__name__,
            )


class SafeAudit:
    """An audit sink whose events never stand in the way of a response.

    A trail that cannot be written is told of by whoever writes it; the peer gets its answer.
    """

    def __init__(self, sink: AuditSink) -> None:
        self._sink = sink

    def record(
        self,
        event: Event,
        *,
        actor: Actor | None = None,
        outcome: Outcome = Outcome.SUCCESS,
        **fields: Any,
    ) -> None:
        """Records the event, unless the disk does not take it."""
        with suppress(RetryLater, OSError):
            self._sink.record(event, actor=actor, outcome=outcome, **fields)


def actor_of(caller: Caller) -> Actor:
    """The caller in the words of the audit trail."""
    return Actor(ae_title=caller.ae_title or None, host=caller.address)


def status_of(err: Exception) -> Status:
    """The DIMSE status for what went wrong."""
    if isinstance(err, RetryLater):
        return Status.OUT_OF_RESOURCES
    if isinstance(err, Rejected):
        return _STATUSES.get(err.code, Status.CANNOT_UNDERSTAND)
    return Status.PROCESSING_FAILURE

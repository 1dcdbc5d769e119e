"""What one association's images and reports become: files, statuses, audit events, queued work."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pydicom import Dataset
from pydicom.uid import UID

from listener.dicom.association import Answer
from listener.dicom.dimse import Command, Status
from listener.dicom.negotiation import IMAGE_SOP_CLASSES, Caller
from listener.dicom.upper_layer import AssociationEnded
from listener.storage.dataset_scan import is_uid
from listener.storage.inbox import Inbox, ReceivedImage, StoreRequest
from pipeline.domain import SeriesUID
from pipeline.errors import Rejected, RetryLater, SmearlinkError
from reporting.audit.trail import Actor, AuditSink, Event, Outcome
from reporting.delivery import CommitmentReport
from reporting.delivery.destinations.storage_commitment import (
    EVENT_FAILURES_EXIST,
    EVENT_SUCCESSFUL,
    read_commitment_report,
)

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


class StoreScp:
    """The services of one association; remembers which smears came in it."""

    def __init__(
        self,
        inbox: Inbox,
        audit: AuditSink,
        *,
        on_received: Callable[[ReceivedImage], None],
        on_commitment: Callable[[CommitmentReport], None] | None,
        committing_aes: frozenset[str],
    ) -> None:
        self._inbox = inbox
        self._audit = audit
        self._on_received = on_received
        self._on_commitment = on_commitment
        self._committing_aes = committing_aes
        self._unannounced: ReceivedImage | None = None
        self.firsts: dict[tuple[SeriesUID, str], ReceivedImage] = {}
        """The first image of each series and specimen that came in."""

    def store(
        self,
        caller: Caller,
        command: Command,
        transfer_syntax_uid: str,
        pieces: Iterator[memoryview],
    ) -> Answer:
        """Keep one image; the boundary at which whatever goes wrong becomes a status."""
        try:
            received = self._keep(caller, command, transfer_syntax_uid, pieces)
        except AssociationEnded:
            raise
        except SmearlinkError as err:
            answer = Answer(status=status_of(err), comment=err.message)
            self._record_refusal(caller, command, answer, err)
            return answer
        except Exception as err:  # noqa: BLE001 - a boundary; recorded
            answer = Answer(status=Status.PROCESSING_FAILURE, comment="Internal fault; send again")
            self._record_refusal(caller, command, answer, err)
            return answer
        self._unannounced = received
        self.firsts.setdefault((received.series_uid, received.specimen_key), received)
        self._record_received(caller, received)
        return Answer(status=Status.SUCCESS)

    def stored(self) -> None:
        """Tell the queue, now that the sender need not wait for it."""
        received, self._unannounced = self._unannounced, None
        if received is not None:
            enqueue_received(received, to=self._on_received, audit=self._audit)

    def report_commitment(self, caller: Caller, command: Command, report: Dataset) -> Answer:
        """Pass a storage commitment report on (PS3.4 J.3.3)."""
        if self._on_commitment is None or not self._may_report(caller):
            return self._refuse_report(caller, Status.NOT_AUTHORIZED)
        if command.event_type_id not in (EVENT_SUCCESSFUL, EVENT_FAILURES_EXIST):
            return self._refuse_report(caller, Status.NO_SUCH_EVENT_TYPE)
        try:
            self._on_commitment(read_commitment_report(report))
        except Rejected:
            return self._refuse_report(caller, Status.INVALID_ARGUMENT)
        except Exception as err:  # noqa: BLE001 - a boundary; recorded
            return self._refuse_report(
                caller, Status.PROCESSING_FAILURE, error_type=type(err).__name__
            )
        return Answer(status=Status.SUCCESS)

    def _keep(
        self,
        caller: Caller,
        command: Command,
        transfer_syntax_uid: str,
        pieces: Iterator[memoryview],
    ) -> ReceivedImage:
        if UID(command.sop_class_uid) not in IMAGE_SOP_CLASSES:
            raise Rejected(
                "This SOP class is not analysed; send single smear fields",
                code="sop_class_not_supported",
            )
        offer = StoreRequest(
            sop_class_uid=command.sop_class_uid,
            sop_instance_uid=command.sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            source=caller.ae_title,
        )
        with self._inbox.receive(offer) as incoming:
            for piece in pieces:
                incoming.write(piece)
            return incoming.commit()

    def _may_report(self, caller: Caller) -> bool:
        return not self._committing_aes or caller.ae_title in self._committing_aes

    def _record_received(self, caller: Caller, received: ReceivedImage) -> None:
        self._audit.record(
            Event.IMAGE_RECEIVED_AGAIN if received.is_duplicate else Event.IMAGE_RECEIVED,
            actor=actor_of(caller),
            study_uid=received.study_uid,
            series_uid=received.series_uid,
            sop_instance_uid=received.sop_instance_uid,
            content_sha256=received.sha256,
            is_duplicate=received.is_duplicate,
        )

    def _record_refusal(
        self, caller: Caller, command: Command, answer: Answer, err: Exception
    ) -> None:
        uid = command.sop_instance_uid
        about = {"sop_instance_uid": uid} if is_uid(uid) else {}
        is_fault = answer.status is Status.PROCESSING_FAILURE
        self._audit.record(
            Event.IMAGE_REFUSED,
            actor=actor_of(caller),
            outcome=Outcome.SERIOUS_FAILURE if is_fault else Outcome.MINOR_FAILURE,
            code=err.code if isinstance(err, SmearlinkError) else "defect",
            error_type=type(err).__name__,
            status=f"0x{answer.status:04X}",
            **about,
        )

    def _refuse_report(self, caller: Caller, status: Status, **about: str) -> Answer:
        self._audit.record(
            Event.REQUEST_REFUSED,
            actor=actor_of(caller),
            outcome=Outcome.MINOR_FAILURE,
            protocol="storage_commitment",
            status=f"0x{status:04X}",
            **about,
        )
        return Answer(status=status)


def enqueue_received(
    received: ReceivedImage, *, to: Callable[[ReceivedImage], None], audit: AuditSink
) -> None:
    """Word to the work queue; when that fails the queue finds the image in the inbox by itself."""
    try:
        to(received)
    except Exception as err:  # noqa: BLE001 - a boundary; recorded
        audit.record(
            Event.DEFECT_MET,
            outcome=Outcome.MINOR_FAILURE,
            sop_instance_uid=received.sop_instance_uid,
            step="announce",
            error_type=type(err).__name__,
        )


def actor_of(caller: Caller) -> Actor:
    """The caller in the words of the audit trail."""
    return Actor(ae_title=caller.ae_title or None, host=caller.address)


def status_of(err: SmearlinkError) -> Status:
    if isinstance(err, RetryLater):
        return Status.OUT_OF_RESOURCES
    if isinstance(err, Rejected):
        return _STATUSES.get(err.code, Status.CANNOT_UNDERSTAND)
    return Status.PROCESSING_FAILURE

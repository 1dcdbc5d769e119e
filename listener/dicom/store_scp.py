"""The services of one association: C-STORE into the inbox, storage commitment reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pydicom import Dataset

from listener.dicom.ae_title_access import Caller
from listener.dicom.dimse import Command, Status
from listener.dicom.reception import Answer, Reception, SafeAudit, actor_of
from listener.dicom.upper_layer import AssociationEnded
from listener.storage.inbox import Inbox, StoredInstance, StoreRequest
from pipeline.domain import SeriesUID
from pipeline.errors import Rejected
from reporting.audit.trail import AuditSink, Event, Outcome
from reporting.delivery import CommitmentReport, Reporter
from reporting.delivery.destinations.storage_commitment import (
    EVENT_FAILURES_EXIST,
    EVENT_SUCCESSFUL,
    read_commitment_report,
)


class StoreScp:
    """Serves the messages of one association; remembers which smears came in it."""

    def __init__(
        self,
        inbox: Inbox,
        audit: AuditSink,
        *,
        caller: Caller,
        on_received: Callable[[StoredInstance], None],
        on_commitment: Callable[[Reporter, CommitmentReport], None] | None,
        may_report: Callable[[Reporter], bool] = lambda _: True,
        bound_aes: frozenset[str] = frozenset(),
    ) -> None:
        self._caller = caller
        self._reception = Reception(inbox, audit, actor=actor_of(caller), on_received=on_received)
        self._audit = SafeAudit(audit)
        self._on_commitment = on_commitment
        self._may_report = may_report
        self._reporter = Reporter(
            ae_title=caller.ae_title,
            address=caller.address,
            is_bound=caller.ae_title in bound_aes,
        )
        self._unannounced: StoredInstance | None = None
        self.firsts: dict[tuple[SeriesUID, str], StoredInstance] = {}
        """The first image of each series and specimen that came in."""

    def store(
        self, command: Command, transfer_syntax_uid: str, pieces: Iterator[memoryview]
    ) -> Answer:
        """Stores one image; the boundary at which whatever goes wrong becomes a status."""
        request = StoreRequest(
            sop_class_uid=command.sop_class_uid,
            sop_instance_uid=command.sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            source=self._caller.ae_title,
        )
        try:
            with self._reception.incoming(request) as incoming:
                for piece in pieces:
                    incoming.write(piece)
                image = incoming.commit()
        except AssociationEnded:
            raise
        except Exception as err:  # noqa: BLE001 - a boundary; recorded
            return self._reception.refused(command.sop_instance_uid, err)
        self._unannounced = image
        self.firsts.setdefault((image.series_uid, image.specimen_key), image)
        return self._reception.stored(image)

    def stored(self) -> None:
        """Tells the queue, now that the sender need not wait for it."""
        image, self._unannounced = self._unannounced, None
        if image is not None:
            self._reception.enqueue(image)

    def refuse_report(self, command: Command) -> Answer | None:
        """Why this caller may not send this report, before its dataset is read; None if it may."""
        if self._on_commitment is None or not self._may_report(self._reporter):
            return self._refuse_report(Status.NOT_AUTHORIZED)
        if command.event_type_id not in (EVENT_SUCCESSFUL, EVENT_FAILURES_EXIST):
            return self._refuse_report(Status.NO_SUCH_EVENT_TYPE)
        return None

    def report_commitment(self, report: Dataset) -> Answer:
        """Passes a storage commitment report on (PS3.4 J.3.3)."""
        if self._on_commitment is None:
            return self._refuse_report(Status.NOT_AUTHORIZED)
        try:
            self._on_commitment(self._reporter, read_commitment_report(report))
        except Rejected as err:
            is_stranger = err.code == "commitment_not_authorized"
            status = Status.NOT_AUTHORIZED if is_stranger else Status.INVALID_ARGUMENT
            return self._refuse_report(status, code=err.code)
        except Exception as err:  # noqa: BLE001 - a boundary; recorded
            return self._refuse_report(Status.PROCESSING_FAILURE, error_type=type(err).__name__)
        return Answer(status=Status.SUCCESS)

    def _refuse_report(self, status: Status, **about: str) -> Answer:
        self._audit.record(
            Event.REQUEST_REFUSED,
            actor=actor_of(self._caller),
            outcome=Outcome.MINOR_FAILURE,
            protocol="storage_commitment",
            status=f"0x{status:04X}",
            **about,
        )
        return Answer(status=status)

"""Storage Commitment Push Model, as SCU (PS3.4 Annex J): ask, and read the answer."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from pipeline.errors import Rejected
from reporting.delivery import CommitmentReport, Refusal
from reporting.delivery.dimse_status import (
    DUPLICATE_TRANSACTION,
    SUCCESS,
    describe_status,
    format_status,
)

REQUEST_COMMITMENT = 1
"""Action Type ID, PS3.4 Table J.3-1."""
EVENT_SUCCESSFUL = 1
EVENT_FAILURES_EXIST = 2
"""Event Type IDs, PS3.4 Table J.3-3."""
EVENT_STATUS_SUCCESS = 0x0000
EVENT_STATUS_INVALID_ARGUMENT = 0x0115
"""PS3.7 Annex C.5.9: the event information cannot be read."""

ANSWERED_WITHIN_S = 5.0
"""What our answer to a report may take; it is only put into pynetdicom's queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One stored instance, by class and UID (PS3.3 Table 10-11)."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(slots=True)
class SameAssociationReports:
    """Takes an N-EVENT-REPORT that comes while our association still stands (PS3.4 J.3.3)."""

    reports: list[CommitmentReport] = field(default_factory=list)
    _arrived: threading.Condition = field(default_factory=threading.Condition)
    _answering: list[threading.Thread] = field(default_factory=list)

    def handle(self, event: evt.Event) -> tuple[int, None]:
        """The handler of EVT_N_EVENT_REPORT; runs on a thread of its own, which answers then."""
        self._answering.append(threading.current_thread())
        try:
            report = read_commitment_report(event.event_information)
        except Rejected:
            return EVENT_STATUS_INVALID_ARGUMENT, None
        with self._arrived:
            self.reports.append(report)
            self._arrived.notify_all()
        return EVENT_STATUS_SUCCESS, None

    def wait_for(self, transaction_uid: str, timeout_s: float) -> CommitmentReport | None:
        """The report on that request, as soon as it is there; None when it takes longer.

        Comes back when reports are answered: a release must not overtake the answer.
        """
        with self._arrived:
            self._arrived.wait_for(lambda: self._find(transaction_uid) is not None, timeout_s)
        for thread in self._answering:
            thread.join(ANSWERED_WITHIN_S)
        return self._find(transaction_uid)

    def _find(self, transaction_uid: str) -> CommitmentReport | None:
        found = (one for one in self.reports if one.transaction_uid == transaction_uid)
        return next(found, None)


def send_request(
    association: Association, references: Sequence[Reference], transaction_uid: str
) -> int | None:
    """N-ACTION for the references; its status, None when there was no answer.

    A peer that says it is working on that transaction already has what we want: success.
    """
    action = Dataset()
    action.TransactionUID = transaction_uid
    action.ReferencedSOPSequence = DicomSequence(_reference_items(references))
    response, _ = association.send_n_action(
        action, REQUEST_COMMITMENT, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    if "Status" not in response:
        return None
    status = int(response.Status)
    return SUCCESS if status == DUPLICATE_TRANSACTION else status


def read_commitment_report(event_information: Dataset) -> CommitmentReport:
    """The report in an N-EVENT-REPORT's data set; raises Rejected when it names no transaction."""
    transaction_uid = str(event_information.get("TransactionUID", ""))
    if not transaction_uid:
        raise Rejected(
            "A commitment report names no transaction (PS3.4 Table J.3-3).",
            code="commitment_report_unreadable",
        )
    return CommitmentReport(
        transaction_uid=transaction_uid,
        committed=tuple(
            str(item.get("ReferencedSOPInstanceUID", ""))
            for item in event_information.get("ReferencedSOPSequence", ())
        ),
        failed=failures_in(event_information.get("FailedSOPSequence", ())),
    )


def failures_in(items: Iterable[Dataset]) -> tuple[Refusal, ...]:
    """The refusals of a Failed SOP Sequence (PS3.3 C.14)."""
    return tuple(_refusal(item) for item in items)


def _refusal(item: Dataset) -> Refusal:
    status = int(item.get("FailureReason", 0x0110))
    return Refusal(
        uid=str(item.get("ReferencedSOPInstanceUID", "")),
        status=format_status(status),
        reason=describe_status(status),
    )


def _reference_items(references: Sequence[Reference]) -> list[Dataset]:
    items = []
    for reference in references:
        item = Dataset()
        item.ReferencedSOPClassUID = reference.sop_class_uid
        item.ReferencedSOPInstanceUID = reference.sop_instance_uid
        items.append(item)
    return items

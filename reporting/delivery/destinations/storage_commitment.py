"""Storage Commitment Push Model, as SCU (PS3.4 Annex J): sends requests and reads reports."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from pipeline.errors import Rejected, SmearlinkError
from reporting.delivery import CommitmentLedger, CommitmentReport, Refusal
from reporting.delivery.commitment_transactions import new_transaction_uid, unknown_transaction
from reporting.delivery.dimse_status import (
    DUPLICATE_TRANSACTION,
    PROCESSING_FAILURE,
    SUCCESS,
    classify_status,
    describe_status,
    format_status,
    read_status,
)
from reporting.delivery.outcome import TAKEN

REQUEST_COMMITMENT = 1
"""Action Type ID, PS3.4 Table J.3-1."""
EVENT_SUCCESSFUL = 1
EVENT_FAILURES_EXIST = 2
"""Event Type IDs, PS3.4 Table J.3-3."""
EVENT_STATUS_SUCCESS = 0x0000
EVENT_STATUS_PROCESSING_FAILURE = 0x0110
"""PS3.7 C.5.14: it could not be kept; report again."""
EVENT_STATUS_NO_SUCH_EVENT = 0x0113
EVENT_STATUS_INVALID_ARGUMENT = 0x0115
"""PS3.7 C.5.6: the event information cannot be read, or names no request that is open. PS3.4
J.3.3.4 defines no status of its own for reports."""

ANSWERED_WITHIN_S = 5.0
"""What our answer to a report may take; it is only put into pynetdicom's queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One stored instance, by class and UID (PS3.3 Table 10-11)."""

    sop_class_uid: str
    sop_instance_uid: str


class UnrecordedRequests:
    """A ledger of nothing, for a destination that stands alone: no report comes later."""

    def open(self, destination: str) -> str:
        """A new Transaction UID."""
        return new_transaction_uid()

    def keep(self, report: CommitmentReport, *, destinations: Iterable[str]) -> None:
        """Rejected: nothing is remembered."""
        raise unknown_transaction()

    def close(self, transaction_uid: str) -> None:
        """Nothing to forget."""


@dataclass(slots=True, kw_only=True)
class SameAssociationReports:
    """Takes N-EVENT-REPORTs that arrive while our association is open (PS3.4 J.3.3).

    Reports on the request that is waited for stay here; all others go to the ledger.
    """

    destination: str = ""
    ledger: CommitmentLedger = field(default_factory=UnrecordedRequests)
    _expected: str = ""
    _reports: list[CommitmentReport] = field(default_factory=list)
    _arrived: threading.Condition = field(default_factory=threading.Condition)
    _answering: list[threading.Thread] = field(default_factory=list)

    def expect(self, transaction_uid: str) -> None:
        """Wait for reports on this transaction from now on; call before the request is sent."""
        with self._arrived:
            self._expected = transaction_uid

    def handle(self, event: evt.Event) -> tuple[int, None]:
        """The handler of EVT_N_EVENT_REPORT: the status to answer; runs on a thread of its own."""
        self._answering.append(threading.current_thread())
        if event.event_type not in (EVENT_SUCCESSFUL, EVENT_FAILURES_EXIST):
            return EVENT_STATUS_NO_SUCH_EVENT, None
        try:
            report = read_commitment_report(event.event_information)
            if not self._is_taken(report):
                self.ledger.keep(report, destinations=(self.destination,))
        except Rejected:
            return EVENT_STATUS_INVALID_ARGUMENT, None
        except SmearlinkError:
            return EVENT_STATUS_PROCESSING_FAILURE, None
        return EVENT_STATUS_SUCCESS, None

    def wait_for(
        self, transaction_uid: str, uids: Collection[str], timeout_s: float
    ) -> CommitmentReport | None:
        """What was reported on that request, as soon as all `uids` are named or time is up.

        Returns after every report is answered: a release must not overtake an answer. Reports
        that arrive later go to the ledger.
        """
        wanted = frozenset(uids)
        with self._arrived:
            self._arrived.wait_for(lambda: wanted <= self._named(), timeout_s)
            self._expected = ""
            found = CommitmentReport.joined(self._reports)
        for thread in self._answering:
            thread.join(ANSWERED_WITHIN_S)
        return found if found and found.transaction_uid == transaction_uid else None

    def _is_taken(self, report: CommitmentReport) -> bool:
        with self._arrived:
            is_ours = report.transaction_uid == self._expected
            if is_ours:
                self._reports.append(report)
                self._arrived.notify_all()
        return is_ours

    def _named(self) -> frozenset[str]:
        return frozenset().union(*(report.named for report in self._reports))


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
    """The report in an N-EVENT-REPORT's data set; raises Rejected when it cannot be one."""
    try:
        report = _report_in(event_information)
    except Exception as err:
        # pydicom decodes elements as they are asked for, and fails in many ways.
        raise _unreadable("it cannot be decoded") from err
    if not report.transaction_uid:
        raise _unreadable("it names no transaction (PS3.4 Table J.3-2)")
    return report


def _report_in(event_information: Dataset) -> CommitmentReport:
    committed = _items(event_information, "ReferencedSOPSequence")
    return CommitmentReport(
        transaction_uid=str(event_information.get("TransactionUID") or "").strip(" \0"),
        committed=tuple(uid for uid in map(_instance_uid, committed) if uid),
        failed=failures_in(_items(event_information, "FailedSOPSequence")),
    )


def _unreadable(why: str) -> Rejected:
    return Rejected(f"A commitment report: {why}.", code="commitment_report_unreadable")


def failures_in(items: Iterable[Dataset]) -> tuple[Refusal, ...]:
    """The refusals of a Failed SOP Sequence (PS3.3 C.14); items without an instance are none."""
    return tuple(refusal for refusal in map(_refusal, items) if refusal.uid)


def _items(dataset: Dataset, keyword: str) -> Iterable[Dataset]:
    found = dataset.get(keyword)
    return found if isinstance(found, DicomSequence) else ()


def _instance_uid(item: Dataset) -> str:
    return str(item.get("ReferencedSOPInstanceUID") or "").strip(" \0")


def _refusal(item: Dataset) -> Refusal:
    """One failure; without a reason that is a failure it is a processing failure (0110H)."""
    status = read_status(item.get("FailureReason"))
    if status is None or classify_status(status) in TAKEN:
        status = PROCESSING_FAILURE
    return Refusal(
        uid=_instance_uid(item), status=format_status(status), reason=describe_status(status)
    )


def _reference_items(references: Sequence[Reference]) -> list[Dataset]:
    items = []
    for reference in references:
        item = Dataset()
        item.ReferencedSOPClassUID = reference.sop_class_uid
        item.ReferencedSOPInstanceUID = reference.sop_instance_uid
        items.append(item)
    return items

"""One attempt to bring a report to one destination, and the wait for storage commitment."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from io import BytesIO
from typing import Any, cast

from pydicom import Dataset, dcmread

from listener.queue.jobs import CommitmentWait, DeliveryAttempt
from listener.storage.commitment_reports import CommitmentReports
from listener.storage.receipts import DeliveryState, ReceiptJournal, ReceiptLine, iso
from listener.storage.results import IndexedResult, ReportIndex, ResultsFolder, SmearFolder
from listener.workflow.destinations import DestinationQueue, Destinations
from listener.workflow.error_boundary import translate_errors
from pipeline.domain import SmearId
from pipeline.errors import NeedsReview
from reporting.audit.trail import AuditSink, Event, Outcome
from reporting.delivery import (
    CommitmentReport,
    CommitsStorage,
    DeliveryPostponed,
    DeliveryRefused,
    Receipt,
    RejectsReplaced,
)
from reporting.dicom.rejection_note import build_rejection_note
from reporting.results import DICOM_KINDS

BATCH_BYTES = 64 * 2**20
"""Results in memory at once while they are sent; a single larger one goes alone."""

DIMSE_STATUS = re.compile(r"0x[0-9A-F]{4}(?= )")

COMMITMENT_ROUNDS = 3
"""How often a destination is asked whether it keeps what it took, before a person is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What an attempt achieved."""

    sent: int
    """0 when everything had arrived before, or a newer version takes its place."""
    transactions: tuple[str, ...]
    """Storage commitment transactions whose reports are still to come."""


class CommitmentStanding(StrEnum):
    """How a wait for storage commitment stands."""

    SETTLED = "settled"
    WAITING = "waiting"
    ASKED_AGAIN = "asked_again"
    DISOWNED = "disowned"
    """The destination does not keep everything: the rest has to be sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentCheck:
    """The answer of one look at a transaction."""

    standing: CommitmentStanding
    transaction_uid: str
    """The one to wait for from now on."""
    disowned: tuple[str, ...] = ()
    """What has to be sent again."""


class Sender:
    """Sends what a destination has not confirmed yet, and writes down what it confirms."""

    def __init__(
        self,
        *,
        results: ResultsFolder,
        destinations: Destinations,
        commitments: CommitmentReports,
        audit: AuditSink,
        clock: Callable[[], datetime],
    ) -> None:
        self._results = results
        self._destinations = destinations
        self._commitments = commitments
        self._audit = audit
        self._clock = clock

    def deliver(self, go: DeliveryAttempt) -> Delivered:
        """Try once. Raises RetryLater or NeedsReview for the rest, after noting what arrived.

        A version that a newer one amends is not sent any more, so that it cannot overtake it.
        """
        with translate_errors():
            queue = self._destinations.get(go.destination)
            folder = self._results.smear(go.smear_id)
            journal = folder.receipts(go.destination)
            with journal.held():
                if _is_amended(folder, go.version):
                    return Delivered(sent=0, transactions=())
                index = folder.index(go.version)
                _refuse_without_pseudonyms(index, queue)
                missing = _unconfirmed(index, queue, journal)
                for number, batch in enumerate(_batches(missing)):
                    with _progress_noted(is_made=number > 0):
                        self._send(go, queue, folder, batch, journal)
                self._reject_replaced(go, queue, folder, index, journal)
                return Delivered(sent=len(missing), transactions=_open(index, queue, journal))

    def check_commitment(self, wait: CommitmentWait, *, is_overdue: bool) -> CommitmentCheck:
        """Look whether a destination keeps what it took; request again when that is overdue.

        A report settles what it names and leaves the rest open. Raises NeedsReview
        `commitment_overdue` after the last request, RetryLater when none can be sent now.
        """
        with translate_errors():
            queue = self._destinations.get(wait.destination)
            folder = self._results.smear(wait.smear_id)
            journal = folder.receipts(wait.destination)
            report = self._commitments.find(wait.transaction_uid)
            if report is not None:
                self._work_in(report, journal, wait)
            if not _awaiting(journal, wait.transaction_uid):
                self._commitments.close(wait.transaction_uid)
            elif is_overdue and not _disowned(journal, wait.transaction_uid):
                return self._ask_again(queue, folder, journal, wait)
            return _standing(journal, wait.transaction_uid)

    def _send(
        self,
        go: DeliveryAttempt,
        queue: DestinationQueue,
        folder: SmearFolder,
        batch: Sequence[IndexedResult],
        journal: ReceiptJournal,
    ) -> Receipt:
        results = [folder.read(go.version, indexed) for indexed in batch]
        try:
            receipt = queue.destination.deliver(results)
        except (DeliveryPostponed, DeliveryRefused) as err:
            self._note(go, err.receipt)
            journal.append(self._lines(err.receipt, batch, go.version))
            raise
        self._note(go, receipt)
        journal.append(self._lines(receipt, batch, go.version))
        return receipt

    def _reject_replaced(
        self,
        go: DeliveryAttempt,
        queue: DestinationQueue,
        folder: SmearFolder,
        index: ReportIndex,
        journal: ReceiptJournal,
    ) -> None:
        """Tell a destination that wants it which objects of earlier reports are replaced."""
        destination = queue.destination
        if not isinstance(destination, RejectsReplaced) or not destination.rejects_replaced:
            return
        current = {result.uid for result in _wanted(index, queue)}
        lines = [line for line in journal.latest().values() if _is_replaced(line, go, current)]
        by_study: dict[str, list[tuple[ReceiptLine, Dataset]]] = {}
        for line in lines:
            if (header := _header_of(folder, line)) is not None:
                by_study.setdefault(str(header.StudyInstanceUID), []).append((line, header))
        for replaced in by_study.values():
            note = build_rejection_note(
                [header for _, header in replaced], version=go.version, issued_at=index.issued_at
            )
            destination.reject([note])
            at = iso(self._clock())
            journal.append(
                replace(line, state=DeliveryState.REJECTED, warnings=(), at=at)
                for line, _ in replaced
            )

    def _note(self, go: DeliveryAttempt, receipt: Receipt) -> None:
        """Audit before the receipt is kept: a kill between sends, and says so, twice."""
        if receipt.accepted:
            self._audit.record(
                Event.REPORT_DELIVERED,
                smear_id=go.smear_id,
                version=go.version,
                destination=go.destination,
                attempt=go.attempt,
                count=len(receipt.accepted),
                **_warning_statuses(receipt),
            )
        self._audit_request(go.smear_id, go.version, go.destination, receipt)

    def _audit_request(
        self, smear_id: SmearId, version: int, destination: str, receipt: Receipt
    ) -> None:
        if receipt.transaction_uid:
            self._audit.record(
                Event.COMMITMENT_REQUESTED,
                smear_id=smear_id,
                version=version,
                destination=destination,
                transaction_uid=receipt.transaction_uid,
                count=len(receipt.awaiting),
            )

    def _lines(
        self, receipt: Receipt, batch: Sequence[IndexedResult], version: int
    ) -> list[ReceiptLine]:
        digests = {indexed.uid: indexed.sha256 for indexed in batch}
        awaiting = frozenset(receipt.awaiting)
        return [
            ReceiptLine(
                uid=uid,
                sha256=digests[uid],
                version=version,
                state=(
                    DeliveryState.AWAITING_COMMITMENT
                    if uid in awaiting
                    else DeliveryState.CONFIRMED
                ),
                transaction_uid=receipt.transaction_uid,
                warnings=receipt.warnings,
                at=iso(self._clock()),
            )
            for uid in receipt.accepted
        ]

    def _work_in(
        self, report: CommitmentReport, journal: ReceiptJournal, wait: CommitmentWait
    ) -> None:
        """Note what a report says about the results that wait for it."""
        states = dict.fromkeys(report.committed, DeliveryState.CONFIRMED)
        states |= {refusal.uid: DeliveryState.UNCOMMITTED for refusal in report.failed}
        awaited = _awaiting(journal, report.transaction_uid)
        answered = [
            replace(line, state=states[line.uid], warnings=(), at=iso(self._clock()))
            for line in awaited
            if line.uid in states
        ]
        if not answered:
            return
        journal.append(answered)
        is_disowned = any(line.state is DeliveryState.UNCOMMITTED for line in answered)
        self._audit.record(
            Event.COMMITMENT_RECEIVED,
            outcome=Outcome.SERIOUS_FAILURE if is_disowned else Outcome.SUCCESS,
            smear_id=wait.smear_id,
            version=wait.version,
            destination=wait.destination,
            transaction_uid=report.transaction_uid,
            count=len(answered),
        )

    def _ask_again(
        self,
        queue: DestinationQueue,
        folder: SmearFolder,
        journal: ReceiptJournal,
        wait: CommitmentWait,
    ) -> CommitmentCheck:
        if wait.asked >= COMMITMENT_ROUNDS:
            raise NeedsReview(
                f"{queue.name} took the results and never said whether it keeps them "
                "(PS3.4 annex J): look there, then retry",
                code="commitment_overdue",
            )
        uids = {line.uid for line in _awaiting(journal, wait.transaction_uid)}
        index = folder.index(wait.version)
        batch = [indexed for indexed in index.results if indexed.uid in uids]
        results = [folder.read(wait.version, indexed) for indexed in batch]
        destination = cast(CommitsStorage, queue.destination)
        try:
            receipt = destination.request_commitment(results)
        except (DeliveryPostponed, DeliveryRefused) as err:
            if not err.refused:
                raise
            receipt = err.receipt
            journal.append(self._refused_lines(err, batch, wait))
        self._audit_request(wait.smear_id, wait.version, wait.destination, receipt)
        journal.append(self._lines(receipt, batch, wait.version))
        self._commitments.close(wait.transaction_uid)
        check = _standing(journal, receipt.transaction_uid)
        if check.standing is CommitmentStanding.WAITING:
            return replace(check, standing=CommitmentStanding.ASKED_AGAIN)
        return check

    def _refused_lines(
        self,
        err: DeliveryPostponed | DeliveryRefused,
        batch: Sequence[IndexedResult],
        wait: CommitmentWait,
    ) -> list[ReceiptLine]:
        """Lines for what a destination, asked again, says that it does not keep."""
        refused = {refusal.uid for refusal in err.refused}
        return [
            ReceiptLine(
                uid=indexed.uid,
                sha256=indexed.sha256,
                version=wait.version,
                state=DeliveryState.UNCOMMITTED,
                transaction_uid=err.receipt.transaction_uid,
                warnings=(),
                at=iso(self._clock()),
            )
            for indexed in batch
            if indexed.uid in refused
        ]


@contextmanager
def _progress_noted(*, is_made: bool) -> Iterator[None]:
    """A postponement of this batch also tells whether an earlier one of the attempt arrived."""
    try:
        yield
    except DeliveryPostponed as err:
        err.made_progress = is_made or bool(err.receipt.accepted)
        raise


def _is_replaced(line: ReceiptLine, go: DeliveryAttempt, current: Collection[str]) -> bool:
    """Whether the destination holds an object of an earlier report that this one has not."""
    is_held = line.state in (DeliveryState.CONFIRMED, DeliveryState.AWAITING_COMMITMENT)
    return is_held and line.version < go.version and line.uid not in current


def _header_of(folder: SmearFolder, line: ReceiptLine) -> Dataset | None:
    """The header of a DICOM object of an earlier report; None for anything else."""
    for indexed in folder.index(line.version).results:
        if indexed.uid == line.uid and indexed.kind in DICOM_KINDS:
            content = folder.read(line.version, indexed).content
            return dcmread(BytesIO(content), stop_before_pixels=True)
    return None


def _warning_statuses(receipt: Receipt) -> dict[str, Any]:
    """The statuses of the warning family among the remarks (PS3.4 Table B.2-1), each once."""
    found = {match[0] for remark in receipt.warnings if (match := DIMSE_STATUS.match(remark))}
    return {"statuses": sorted(found)} if found else {}


def _standing(journal: ReceiptJournal, transaction_uid: str) -> CommitmentCheck:
    """How a transaction stands by the receipts alone, so that a repeated look says the same."""
    disowned = _disowned(journal, transaction_uid)
    if disowned:
        standing = CommitmentStanding.DISOWNED
    elif _awaiting(journal, transaction_uid):
        standing = CommitmentStanding.WAITING
    else:
        standing = CommitmentStanding.SETTLED
    return CommitmentCheck(standing=standing, transaction_uid=transaction_uid, disowned=disowned)


def _disowned(journal: ReceiptJournal, transaction_uid: str) -> tuple[str, ...]:
    lines = _lines_of(journal, transaction_uid, DeliveryState.UNCOMMITTED)
    return tuple(sorted(line.uid for line in lines))


def _open(index: ReportIndex, queue: DestinationQueue, journal: ReceiptJournal) -> tuple[str, ...]:
    """The transactions that results of a report wait for, also those of an earlier attempt."""
    known = journal.latest()
    lines = (known[result.uid] for result in _wanted(index, queue) if result.uid in known)
    waiting = (line for line in lines if line.state is DeliveryState.AWAITING_COMMITMENT)
    return tuple(dict.fromkeys(line.transaction_uid for line in waiting))


def _is_amended(folder: SmearFolder, version: int) -> bool:
    latest = folder.latest()
    return latest is not None and latest.version > version


def _unconfirmed(
    index: ReportIndex, queue: DestinationQueue, journal: ReceiptJournal
) -> list[IndexedResult]:
    known = journal.latest()
    return [
        result for result in _wanted(index, queue) if not _arrived(known.get(result.uid), result)
    ]


def _wanted(index: ReportIndex, queue: DestinationQueue) -> list[IndexedResult]:
    """What a destination is to get of a report; under pseudonyms all of it or nothing."""
    return [
        result
        for result in index.results
        if result.kind in queue.destination.kinds
        and result.is_pseudonymous == queue.is_pseudonymous
    ]


def _lacks_pseudonyms(index: ReportIndex, queue: DestinationQueue) -> bool:
    return queue.is_pseudonymous and not any(r.is_pseudonymous for r in index.results)


def _refuse_without_pseudonyms(index: ReportIndex, queue: DestinationQueue) -> None:
    """Patient data never goes where pseudonyms were asked for."""
    if _lacks_pseudonyms(index, queue):
        raise NeedsReview(
            f"{queue.name} gets results under pseudonyms alone, and this report has none: its "
            "images say that text is burned into them, the key could not be read, or the "
            "destination was changed afterwards. The audit trail says which; send the images "
            "again to have them made.",
            code="no_pseudonymous_results",
        )


def _arrived(line: ReceiptLine | None, result: IndexedResult) -> bool:
    return (
        line is not None
        and line.sha256 == result.sha256
        and line.state is not DeliveryState.UNCOMMITTED
    )


def is_confirmed(index: ReportIndex, queue: DestinationQueue, journal: ReceiptJournal) -> bool:
    """True when a destination stands behind everything that it was to get of a report."""
    known = journal.latest()
    return not _lacks_pseudonyms(index, queue) and all(
        _arrived(known.get(result.uid), result)
        and known[result.uid].state is DeliveryState.CONFIRMED
        for result in _wanted(index, queue)
    )


def _awaiting(journal: ReceiptJournal, transaction_uid: str) -> list[ReceiptLine]:
    return _lines_of(journal, transaction_uid, DeliveryState.AWAITING_COMMITMENT)


def _lines_of(
    journal: ReceiptJournal, transaction_uid: str, state: DeliveryState
) -> list[ReceiptLine]:
    return [
        line
        for line in journal.latest().values()
        if line.state is state and line.transaction_uid == transaction_uid
    ]


def _batches(results: Sequence[IndexedResult]) -> Iterator[list[IndexedResult]]:
    batch: list[IndexedResult] = []
    size = 0
    for result in results:
        if batch and size + result.size_bytes > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(result)
        size += result.size_bytes
    if batch:
        yield batch

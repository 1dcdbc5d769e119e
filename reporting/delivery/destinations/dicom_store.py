"""C-STORE to a PACS: one association per delivery, then Storage Commitment if the site wants it.

PS3.4 Annex B defines the statuses, Annex J storage commitment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    Verification,
)

from reporting.delivery import (
    CommitmentLedger,
    CommitmentReport,
    DeliveryPostponed,
    DeliveryRefused,
    Receipt,
    Reporter,
)
from reporting.delivery.destinations.storage_commitment import (
    Reference,
    SameAssociationReports,
    UnrecordedRequests,
    read_commitment_report,
    send_request,
)
from reporting.delivery.destinations.transfer_syntax import (
    BY_PREFERENCE,
    candidate_syntaxes,
    select_syntax,
    transcode,
)
from reporting.delivery.dimse_status import SUCCESS, Verdict, format_status
from reporting.delivery.outcome import Outcome, conclude, outcome_of, postponed
from reporting.delivery.transport.association import (
    Handler,
    LastResponse,
    Peer,
    allow_for,
    associated,
    context_for,
    is_address_of,
)
from reporting.delivery.transport.c_store import StoreRequest, data_set_of, send_c_store
from reporting.delivery.transport.tls import TlsFiles
from reporting.research_label import OutgoingInstance, check_instances
from reporting.results import DICOM_KINDS, Result, ResultKind

__all__ = ["DicomDestination", "read_commitment_report"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StorableObject:
    """One result, and in which syntaxes it can be sent."""

    instance: OutgoingInstance
    candidate_syntaxes: tuple[UID, ...]

    @property
    def uid(self) -> str:
        return self.instance.uid

    @property
    def sop_class_uid(self) -> str:
        return self.instance.sop_class_uid

    @property
    def reference(self) -> Reference:
        return Reference(sop_class_uid=self.sop_class_uid, sop_instance_uid=self.uid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """The state of a request: what was reported on each result, and which are still open."""

    transaction_uid: str
    outcomes: tuple[Outcome, ...]
    awaiting: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomDestination:
    """A PACS that takes our objects by C-STORE."""

    name: str
    ae_title: str
    host: str
    port: int
    calling_ae_title: str = "SMEARLINK"
    kinds: frozenset[ResultKind] = DICOM_KINDS
    transfer_syntaxes: tuple[UID, ...] = BY_PREFERENCE
    storage_commitment: bool = False
    commitment_linger_s: float = 2.0
    """How long to wait for the report on the same association, before it comes on another."""
    ledger: CommitmentLedger = field(default_factory=UnrecordedRequests)
    """Where requests stay open until they are reported in full."""
    rejects_replaced: bool = False
    """Send a Rejection Note (IHE IOCM) for objects that a newer report replaces."""
    timeout_s: float = 30.0
    """Of each phase: connect, negotiate, each answer, release."""
    tls: TlsFiles | None = None

    def deliver(self, results: Sequence[Result]) -> Receipt:
        """Store them all, then request commitment of what was taken if the site wants it.

        A request that fails leaves it open: it is sent again when overdue.
        """
        objects = self._objects(results)
        if not objects:
            return Receipt()
        reports = self._reports()
        commitment = None
        responses = LastResponse()
        with self._associated(objects, reports, responses.handler) as association:
            outcomes = [
                self._store(association, number, one, responses)
                for number, one in enumerate(objects, start=1)
            ]
            stored = [one for one, said in zip(objects, outcomes, strict=True) if said.is_taken]
            if self.storage_commitment and stored:
                commitment = self._commit(association, stored, reports)
        if commitment is None:
            return conclude(self.name, outcomes)
        final = _overlaid(outcomes, commitment.outcomes)
        return conclude(self.name, final, receipt=_open_receipt(commitment))

    def request_commitment(self, results: Sequence[Result]) -> Receipt:
        """Request commitment again for what was stored before, under a new transaction."""
        objects = self._objects(results)
        if not objects:
            return Receipt()
        reports = self._reports()
        with self._associated((), reports) as association:
            commitment = self._commit(association, objects, reports)
        if commitment.problem:
            self.ledger.close(commitment.transaction_uid)
            raise DeliveryPostponed(
                f"{self.name} did not take the commitment request: {commitment.problem}.",
                code="commitment_not_requested",
            )
        return conclude(self.name, commitment.outcomes, receipt=_open_receipt(commitment))

    def reject(self, notes: Sequence[Result]) -> Receipt:
        """Store Rejection Notes, whatever kinds the site sends here."""
        plain = replace(self, kinds=DICOM_KINDS, storage_commitment=False)
        return plain.deliver(notes)

    def is_reporter(self, reporter: Reporter) -> bool:
        """Whether a report comes from this PACS: its AE title, and its host or a bound peer."""
        return (
            self.storage_commitment
            and reporter.ae_title.strip() == self.ae_title.strip()
            and (reporter.is_bound or is_address_of(self.host, reporter.address))
        )

    def check(self) -> str:
        """C-ECHO (PS3.4 Annex A)."""
        contexts = [context_for(Verification, ImplicitVRLittleEndian)]
        with associated(self._peer, contexts) as association:
            response = association.send_c_echo()
        if "Status" not in response:
            raise DeliveryPostponed(f"{self._peer} does not answer C-ECHO.", code="no_answer")
        if response.Status != SUCCESS:
            raise DeliveryRefused(
                f"{self._peer} answers C-ECHO with {format_status(response.Status)}.",
                code="echo_refused",
            )
        return f"{self._peer} answers C-ECHO"

    @property
    def _peer(self) -> Peer:
        return Peer(
            ae_title=self.ae_title,
            host=self.host,
            port=self.port,
            calling_ae_title=self.calling_ae_title,
            timeout_s=self.timeout_s,
            tls=self.tls,
        )

    def _reports(self) -> SameAssociationReports:
        return SameAssociationReports(destination=self.name, ledger=self.ledger)

    def _objects(self, results: Sequence[Result]) -> list[StorableObject]:
        instances = check_instances(results, self.kinds)
        return [_storable(one, self.transfer_syntaxes) for one in instances]

    def _associated(
        self,
        objects: Sequence[StorableObject],
        reports: SameAssociationReports,
        *more_handlers: Handler,
    ) -> AbstractContextManager[Association]:
        contexts = contexts_for(objects)
        if self.storage_commitment:
            contexts.append(context_for(StorageCommitmentPushModel, ImplicitVRLittleEndian))
        handlers = [(evt.EVT_N_EVENT_REPORT, reports.handle), *more_handlers]
        return associated(self._peer, contexts, handlers=handlers)

    def _store(
        self,
        association: Association,
        number: int,
        one: StorableObject,
        responses: LastResponse,
    ) -> Outcome:
        uid = one.uid
        if not association.is_established:
            return postponed(uid, "the association ended before it was sent")
        syntax = select_syntax(
            one.candidate_syntaxes, _accepted_syntaxes(association, one.sop_class_uid)
        )
        if syntax is None:
            return Outcome(
                uid=uid, verdict=Verdict.REVIEW, status="0x0122", reason="context refused"
            )
        content = one.instance.result.content
        is_own = syntax == one.instance.dataset.file_meta.TransferSyntaxUID
        request = StoreRequest(
            message_id=number,
            sop_class_uid=one.sop_class_uid,
            sop_instance_uid=uid,
            transfer_syntax_uid=syntax,
            data_set=data_set_of(content if is_own else transcode(content, syntax)),
        )
        allow_for(association, self.timeout_s, len(content))
        try:
            response = send_c_store(association, request)
        except RuntimeError:
            # pynetdicom's word for an association that ended since we looked.
            return postponed(uid, "the association ended before it was sent")
        if "Status" not in response:
            return postponed(uid, "no answer")
        if not responses.answers(number):
            # Every later response may be out of step too.
            association.abort()
            return postponed(uid, "the response is to another message")
        return outcome_of(uid, int(response.Status))

    def _commit(
        self,
        association: Association,
        objects: Sequence[StorableObject],
        reports: SameAssociationReports,
    ) -> Commitment:
        transaction_uid = self.ledger.open(self.name)
        reports.expect(transaction_uid)
        problem = _request_problem(association, objects, transaction_uid)
        uids = [one.uid for one in objects]
        linger_s = 0.0 if problem else self.commitment_linger_s
        report = reports.wait_for(transaction_uid, uids, linger_s)
        named = report.named if report else frozenset()
        awaiting = tuple(uid for uid in uids if uid not in named)
        if not awaiting:
            self.ledger.close(transaction_uid)
        return Commitment(
            transaction_uid=transaction_uid,
            outcomes=tuple(_committed_outcomes(objects, report)),
            awaiting=awaiting,
            problem=problem,
        )


def contexts_for(objects: Iterable[StorableObject]) -> list[PresentationContext]:
    """One for each SOP class and syntax in which something is to be sent, preferred ones first."""
    pairs = ((one.sop_class_uid, syntax) for one in objects for syntax in one.candidate_syntaxes)
    return [context_for(sop_class, syntax) for sop_class, syntax in dict.fromkeys(pairs)]


def _storable(instance: OutgoingInstance, preference: Sequence[UID]) -> StorableObject:
    return StorableObject(
        instance=instance,
        candidate_syntaxes=candidate_syntaxes(
            instance.dataset.file_meta.TransferSyntaxUID,
            has_8_bit_pixels=instance.dataset.get("BitsAllocated") == 8,
            preference=preference,
        ),
    )


def _accepted_syntaxes(association: Association, sop_class_uid: str) -> set[str]:
    return {
        str(context.transfer_syntax[0])
        for context in association.accepted_contexts
        if context.abstract_syntax == sop_class_uid
    }


def _request_problem(
    association: Association, objects: Sequence[StorableObject], transaction_uid: str
) -> str:
    """Send the request; what stood against it, empty when it was taken."""
    accepted = {context.abstract_syntax for context in association.accepted_contexts}
    if StorageCommitmentPushModel not in accepted:
        return "it does not offer storage commitment"
    if not association.is_established:
        return "the association ended"
    status = send_request(association, [one.reference for one in objects], transaction_uid)
    if status is None:
        return "no answer"
    return "" if status == SUCCESS else f"status {format_status(status)}"


def _committed_outcomes(
    objects: Sequence[StorableObject], report: CommitmentReport | None
) -> Iterable[Outcome]:
    """Stored, unless a report says that it is not kept; `awaiting` tells which are committed."""
    failed = {one.uid: one.status for one in report.failed} if report else {}
    for one in objects:
        status = int(failed.get(one.uid, "0x0000"), 16)
        yield outcome_of(one.uid, status)


def _overlaid(stored: Sequence[Outcome], committed: Sequence[Outcome]) -> list[Outcome]:
    """What commitment refused counts as not taken; the remarks on storing stay."""
    refused = {one.uid: one for one in committed if not one.is_taken}
    return [refused.get(one.uid, one) for one in stored]


def _open_receipt(commitment: Commitment) -> Receipt:
    receipt = Receipt(awaiting=commitment.awaiting, transaction_uid=commitment.transaction_uid)
    if not commitment.problem:
        return receipt
    return replace(receipt, warnings=(f"commitment not requested: {commitment.problem}",))

"""Delivery of results: one Protocol, one file per destination type.

An attempt ends in one of three ways, and each says what was accepted:

deliver(results) -> Receipt          everything was taken
                 !! DeliveryPostponed   the rest may be taken later (RetryLater)
                 !! DeliveryRefused     a person must look at the rest (NeedsReview)

So only the rest is sent again. Wrong settings (a host name, a key file) end in the same three
ways; a result without the research-use label is a `Defect` and is never sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pipeline.errors import NeedsReview, RetryLater
from reporting.results import DICOM_KINDS, Result, ResultKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What one attempt achieved. `accepted` are UIDs of results, in the order sent."""

    accepted: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """What the other side remarked while accepting, without patient data: for the audit."""
    awaiting: tuple[str, ...] = ()
    """Those of `accepted` for which storage commitment is requested and not reported yet."""
    transaction_uid: str = ""
    """Of the storage commitment request (PS3.4 Annex J); empty without one."""

    @property
    def awaits_commitment(self) -> bool:
        """Whether a report on storage commitment is still to come."""
        return bool(self.awaiting)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One result that was not taken. Neither field ever carries patient data."""

    uid: str
    status: str
    """As its protocol writes it: `0xA700`, `422`, `AE 101`."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentReport:
    """What an N-EVENT-REPORT of Storage Commitment says (PS3.4 J.3.3).

    An instance that it does not name is neither committed nor failed.
    """

    transaction_uid: str
    committed: tuple[str, ...]
    failed: tuple[Refusal, ...] = ()

    @property
    def named(self) -> frozenset[str]:
        """The SOP Instance UIDs that it says anything about."""
        return frozenset((*self.committed, *(one.uid for one in self.failed)))

    @classmethod
    def joined(cls, reports: Iterable[CommitmentReport]) -> CommitmentReport | None:
        """Several reports on one transaction as one; None for none.

        An instance that failed in any of them has failed.
        """
        given = tuple(reports)
        if not given:
            return None
        failed = {refusal.uid: refusal for report in given for refusal in report.failed}
        committed = dict.fromkeys(uid for report in given for uid in report.committed)
        return cls(
            transaction_uid=given[0].transaction_uid,
            committed=tuple(uid for uid in committed if uid not in failed),
            failed=tuple(failed.values()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Who sends us a storage commitment report."""

    ae_title: str
    address: str
    """IP address of its end of the connection."""
    is_bound: bool = False
    """The settings tie its AE title to addresses or a certificate, and they were checked."""


class CommitmentLedger(Protocol):
    """The open storage commitment requests, shared with whoever takes the reports."""

    def open(self, destination: str) -> str:
        """A new Transaction UID that nobody can guess, on disk before the request is sent."""
        ...

    def keep(self, report: CommitmentReport, *, destinations: Iterable[str]) -> None:
        """Keep a report on an open request to one of `destinations`; durable on return.

        Raises Rejected `commitment_unknown` when there is none.
        """
        ...

    def close(self, transaction_uid: str) -> None:
        """Forget a request that is reported in full, and its reports."""
        ...


class DeliveryPostponed(RetryLater):
    """Not everything was taken, and another try may do better."""

    def __init__(
        self,
        message: str,
        *,
        code: str,
        after_s: float | None = None,
        receipt: Receipt | None = None,
        refused: tuple[Refusal, ...] = (),
        parked_as: str = "",
    ) -> None:
        """`parked_as` is the code for a person once all tries were postponed, if not `code`."""
        super().__init__(message, code=code, after_s=after_s)
        self.receipt = receipt or Receipt()
        self.refused = refused
        self.parked_as = parked_as or code
        self.made_progress = False
        """Some results of this attempt arrived, so that tries are counted from here on."""


class DeliveryRefused(NeedsReview):
    """Not everything was taken, and sending the same again would end the same."""

    def __init__(
        self,
        message: str,
        *,
        code: str,
        receipt: Receipt | None = None,
        refused: tuple[Refusal, ...] = (),
    ) -> None:
        super().__init__(message, code=code)
        self.receipt = receipt or Receipt()
        self.refused = refused


class Destination(Protocol):
    """Where results go. Implementations are frozen values: safe to share between threads."""

    @property
    def name(self) -> str:
        """As in the settings."""

    @property
    def kinds(self) -> frozenset[ResultKind]:
        """What it wants; `deliver` leaves everything else aside."""
        ...

    def deliver(self, results: Sequence[Result]) -> Receipt:
        """Deliver the results; raises DeliveryPostponed or DeliveryRefused."""

    def check(self) -> str:
        """One line for people about the other side, or the errors of `deliver`; sends nothing."""
        ...


@runtime_checkable
class CommitsStorage(Protocol):
    """A destination that says later whether it keeps what it took."""

    def request_commitment(self, results: Sequence[Result]) -> Receipt:
        """Request commitment again for what was delivered, under a new Transaction UID."""
        ...

    def is_reporter(self, reporter: Reporter) -> bool:
        """Whether this destination may be the sender of a report."""
        ...


@runtime_checkable
class RejectsReplaced(Protocol):
    """A destination that is told which objects a newer report replaces."""

    @property
    def rejects_replaced(self) -> bool:
        """Whether the site wants it."""
        ...

    def reject(self, notes: Sequence[Result]) -> Receipt:
        """Send Rejection Notes; storage commitment is not requested for them."""
        ...


SENSIBLE_KINDS: dict[str, frozenset[ResultKind]] = {
    "dicom": DICOM_KINDS,
    "stow": DICOM_KINDS,
    "fhir": frozenset({ResultKind.FHIR_BUNDLE}),
    "folder": frozenset(ResultKind),
    "hl7": frozenset({ResultKind.HL7_MESSAGE}),
}
"""What a destination of each type takes when its settings name no kinds."""

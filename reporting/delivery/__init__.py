"""One Protocol, one file a way: DICOM, STOW-RS, FHIR, HL7, folder.

An attempt ends in one of three ways, and each says what was accepted:

deliver(results) -> Receipt          everything was taken
                 !! DeliveryPostponed   the rest may be taken later (RetryLater)
                 !! DeliveryRefused     a person must look at the rest (NeedsReview)

So only the rest is sent again. What a person gave wrongly (a host name, a key file) ends in the
same three ways; a result without the research-use label is a `Defect` and is never sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import NeedsReview, RetryLater
from reporting.derived_uids import derived_uid
from reporting.results import DICOM_KINDS, Result, ResultKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What one attempt achieved. `accepted` are UIDs of results, in the order sent."""

    accepted: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """What the other side remarked while accepting, without patient data: for the audit."""
    awaits_commitment: bool = False
    """The other side took them, and will say later whether it keeps them (PS3.4 Annex J)."""
    transaction_uid: str = ""
    """Names the commitment request that is waited for; empty without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One result that was not taken. Neither field ever carries patient data."""

    uid: str
    status: str
    """As its protocol writes it: `0xA700`, `422`, `AE 101`."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentReport:
    """What an N-EVENT-REPORT of Storage Commitment says (PS3.4 J.3.3)."""

    transaction_uid: str
    committed: tuple[str, ...]
    failed: tuple[Refusal, ...] = ()


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
    ) -> None:
        super().__init__(message, code=code, after_s=after_s)
        self.receipt = receipt or Receipt()
        self.refused = refused


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
    def name(self) -> str: ...

    @property
    def kinds(self) -> frozenset[ResultKind]:
        """What it wants; `deliver` leaves everything else aside."""
        ...

    def deliver(self, results: Sequence[Result]) -> Receipt: ...

    def check(self) -> str:
        """One line for people about the other side, or the errors of `deliver`; sends nothing."""
        ...


class CommitsStorage(Protocol):
    """A destination that says later whether it keeps what it took."""

    def request_commitment(self, results: Sequence[Result], *, round: int) -> Receipt:
        """Ask (again) for what was delivered; `round` 0 is the request that `deliver` makes."""
        ...


SENSIBLE_KINDS: dict[str, frozenset[ResultKind]] = {
    "dicom": DICOM_KINDS,
    "stow": DICOM_KINDS,
    "fhir": frozenset({ResultKind.FHIR_BUNDLE}),
    "folder": frozenset(ResultKind),
    "hl7": frozenset({ResultKind.HL7_MESSAGE}),
}
"""What a destination of each type takes when its settings name no kinds."""


def commitment_uid(destination: str, uids: Iterable[str], round: int) -> str:
    """The Transaction UID of a request: the same for the same request, and new in each round.

    PS3.4 J.3.2.1.2 wants it unique; deriving it lets a report be matched after a restart.
    """
    return derived_uid("commitment", destination, *sorted(uids), str(round))

"""Aggregates per-result outcomes into a receipt, a postponement or a refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from reporting.delivery import DeliveryPostponed, DeliveryRefused, Receipt, Refusal
from reporting.delivery.dimse_status import Verdict, classify_status, describe_status, format_status
from reporting.results import Result

TAKEN = (Verdict.ACCEPTED, Verdict.ACCEPTED_WITH_NOTE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What happened to one result. No field carries patient data."""

    uid: str
    verdict: Verdict
    status: str = ""
    reason: str = ""

    @property
    def is_taken(self) -> bool:
        """Whether the destination has the result."""
        return self.verdict in TAKEN


def outcome_of(uid: str, status: int) -> Outcome:
    """The outcome of a result by its DICOM status or Failure Reason."""
    return Outcome(
        uid=uid,
        verdict=classify_status(status),
        status=format_status(status),
        reason=describe_status(status),
    )


def postponed(uid: str, reason: str) -> Outcome:
    """The result was not taken and may be later; no status says why."""
    return Outcome(uid=uid, verdict=Verdict.LATER, reason=reason)


def conclude(
    destination: str,
    outcomes: Sequence[Outcome],
    *,
    receipt: Receipt | None = None,
    after_s: float | None = None,
) -> Receipt:
    """The receipt when all were taken; else an error that carries it.

    While one result may be taken later the attempt is postponed: results that need a person are
    sent again with it, and parked when only they are left.
    """
    receipt = replace(
        receipt or Receipt(),
        accepted=tuple(one.uid for one in outcomes if one.is_taken),
        warnings=(*(receipt.warnings if receipt else ()), *_notes(outcomes)),
    )
    left = [one for one in outcomes if not one.is_taken]
    if not left:
        return receipt
    message = (
        f"{destination} took {len(receipt.accepted)} of {len(outcomes)} results; "
        f"the others: {_failure_summary(left)}."
    )
    refused = tuple(Refusal(uid=one.uid, status=one.status, reason=one.reason) for one in left)
    if any(one.verdict is Verdict.LATER for one in left):
        raise DeliveryPostponed(
            message, code="not_taken_yet", after_s=after_s, receipt=receipt, refused=refused
        )
    raise DeliveryRefused(message, code="results_refused", receipt=receipt, refused=refused)


def _notes(outcomes: Iterable[Outcome]) -> Iterable[str]:
    noted = (one for one in outcomes if one.verdict is Verdict.ACCEPTED_WITH_NOTE)
    return (f"{one.status} {one.reason} {one.uid}" for one in noted)


def _failure_summary(left: Iterable[Outcome]) -> str:
    """Each different answer once: `0xA700 out of resources`."""
    return ", ".join(sorted({f"{one.status} {one.reason}".strip() for one in left}))


def deliver_each(results: Iterable[Result], send: Callable[[Result], str]) -> Receipt:
    """Send each on its own; `send` gives a remark for the audit, or "".

    The first that is not taken ends the attempt, with the receipt of those before it.
    """
    accepted: list[str] = []
    warnings: list[str] = []
    for result in results:
        try:
            remark = send(result)
        except (DeliveryPostponed, DeliveryRefused) as err:
            err.receipt = Receipt(accepted=tuple(accepted), warnings=tuple(warnings))
            raise
        accepted.append(result.uid)
        warnings.extend([remark] if remark else [])
    return Receipt(accepted=tuple(accepted), warnings=tuple(warnings))

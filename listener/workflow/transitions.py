"""Job transitions: image analysis → smear report → deliveries.

No database here and no threads: the queue is a Protocol, so every order of events can be tried.
A function of Transitions may run twice; what it enqueues has the same id both times.
Errors that leave it (NeedsReview, Rejected, Defect) park the job where a person sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from listener.queue.backoff import next_delay_s
from listener.queue.jobs import (
    ClaimedImage,
    CommitmentWait,
    DeliveryAttempt,
    Job,
    close_job,
    commitment_job,
    delivery_job,
    image_job,
    reviewed_to,
)
from listener.workflow.delivery import CommitmentCheck, CommitmentStanding, Sender
from listener.workflow.destinations import DestinationQueue, Destinations
from listener.workflow.steps import ImageStep, ReportStatus, ReportStep
from pipeline.domain import SmearId, SOPInstanceUID
from pipeline.errors import Defect, NeedsReview, RetryLater, SmearlinkError
from reporting.audit.trail import AuditSink, Event, Outcome
from reporting.delivery import DeliveryPostponed
from reporting.derived_uids import derived_id

FIRST_STORAGE_DELAY_S = 2.0
LONGEST_STORAGE_DELAY_S = 60.0
"""A data folder that fails is tried again for ever: no image is to blame for it."""

FIRST_LOOK_S = 2.0
LONGEST_LOOK_S = 300.0
"""How often a storage commitment report is looked for; most come within seconds."""

NOT_THE_DESTINATION = frozenset({"delivery_in_hand", "storage_unavailable", "out_of_memory"})
"""Codes of delays that the destination is not to blame for: they use up no attempt."""


class WorkQueue(Protocol):
    """What the transitions need of the durable queue."""

    def enqueue(self, *jobs: Job) -> None:
        """Enqueue jobs, each once per id; durable on return."""
        ...

    def unfinished_images(self, smear_id: SmearId) -> Iterator[SOPInstanceUID]:
        """Images of a smear whose analysis is queued or in progress."""
        ...

    def drop_parked_deliveries(self, smear_id: SmearId, destination: str, *, below: int) -> None:
        """Delete parked deliveries of versions below one that has arrived."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Transitions:
    """What each job does, and which jobs follow it."""

    images: ImageStep
    reports: ReportStep
    sender: Sender
    destinations: Destinations
    queue: WorkQueue
    audit: AuditSink
    quiet_s: float
    jitter: Callable[[], float]

    def analyse_image(self, claimed: ClaimedImage) -> Job | None:
        """Analyse an image, or park it; the job that tries again when the data folder fails."""
        return self._or_again(claimed, lambda: self.images.analyse(claimed.image, claimed.smear_id))

    def park_crasher(self, claimed: ClaimedImage) -> Job | None:
        """Park an image that ended its worker again and again; as `analyse_image` else."""
        crash = Defect("This image ended its worker again and again", code="crashed_repeatedly")
        return self._or_again(claimed, lambda: self.images.park(claimed.image, crash))

    def close_after(self, claimed: Sequence[ClaimedImage], *, batch_id: str) -> list[Job]:
        """The jobs that report the smears of analysed images when they have been quiet."""
        jobs: list[Job] = []
        for smear_id in sorted({one.smear_id for one in claimed}):
            try:
                known = self.images.analysed_count(smear_id)
            except RetryLater as err:
                of_smear = (one for one in claimed if one.smear_id == smear_id)
                jobs.extend(self._image_again(one, err) for one in of_smear)
                continue
            jobs.append(
                close_job(smear_id, trigger=f"batch-{batch_id}", known=known, delay_s=self.quiet_s)
            )
        return jobs

    def close_smear(self, smear_id: SmearId, trigger: str, known: int | None, attempt: int) -> None:
        """Report a smear if it is due, then enqueue its deliveries."""
        try:
            closing = self.reports.close(
                smear_id,
                known=known,
                is_waiting=self._is_waiting(smear_id),
                reviewed_to=reviewed_to(trigger),
            )
        except RetryLater as err:
            delay_s = self._storage_delay_s(attempt, err)
            self._close_again(smear_id, trigger, known, attempt, delay_s)
            return
        except SmearlinkError as err:
            self._note_parked(Event.SMEAR_PARKED, err, smear_id)
            raise
        if closing.standing is ReportStatus.WAITING and known is None:
            self._close_again(smear_id, trigger, known, attempt, min(float(attempt), 10.0))
        deliveries = (
            DeliveryAttempt(smear_id=smear_id, version=closing.version, destination=destination)
            for destination in closing.destinations
        )
        self.queue.enqueue(*map(delivery_job, deliveries))

    def deliver(self, go: DeliveryAttempt) -> None:
        """Try once to deliver a report; enqueue the next attempt, or park it."""
        try:
            delivered = self.sender.deliver(go)
        except RetryLater as err:
            self._deliver_again(go, err)
            return
        except SmearlinkError as err:
            self._note_parked(Event.DELIVERY_PARKED, err, go.smear_id, go.destination)
            raise
        for transaction_uid in delivered.transactions:
            wait = CommitmentWait(
                smear_id=go.smear_id,
                version=go.version,
                destination=go.destination,
                series=go.series,
                transaction_uid=transaction_uid,
            )
            self.queue.enqueue(commitment_job(wait, delay_s=FIRST_LOOK_S))
        self.queue.drop_parked_deliveries(go.smear_id, go.destination, below=go.version)

    def check_commitment(self, wait: CommitmentWait) -> None:
        """Look for a storage commitment report; poll again, request again, or send again."""
        try:
            self._check_commitment(wait, self.destinations.get(wait.destination))
        except SmearlinkError as err:
            self._note_parked(Event.COMMITMENT_OVERDUE, err, wait.smear_id, wait.destination)
            raise

    def _check_commitment(self, wait: CommitmentWait, queue: DestinationQueue) -> None:
        is_overdue = wait.waited_s >= queue.commitment_timeout_s
        try:
            check = self.sender.check_commitment(wait, is_overdue=is_overdue)
        except RetryLater as err:
            self._request_later(wait, queue, err)
        else:
            self._after_check(wait, check, queue)

    def _after_check(
        self, wait: CommitmentWait, check: CommitmentCheck, queue: DestinationQueue
    ) -> None:
        if check.standing is CommitmentStanding.WAITING:
            delay_s = min(FIRST_LOOK_S * 2.0 ** min(wait.look, 20), LONGEST_LOOK_S)
            left_s = queue.commitment_timeout_s - wait.waited_s
            self._poll_again(wait, min(delay_s, max(left_s, 0.1)))
        elif check.standing is CommitmentStanding.ASKED_AGAIN:
            again = replace(
                wait,
                transaction_uid=check.transaction_uid,
                round=wait.round + 1,
                asked=wait.asked + 1,
                look=1,
                waited_s=0.0,
                failures=0,
            )
            self.queue.enqueue(commitment_job(again, delay_s=FIRST_LOOK_S))
        elif check.standing is CommitmentStanding.DISOWNED:
            self._resend_uncommitted(wait, check, queue)

    def _request_later(
        self, wait: CommitmentWait, queue: DestinationQueue, err: RetryLater
    ) -> None:
        """Request commitment again later; after `max_tries` failures in a row a person looks."""
        if err.code in NOT_THE_DESTINATION:
            self._poll_again(wait, self._storage_delay_s(wait.look, err), err)
            return
        failures = wait.failures + 1
        if failures >= queue.max_tries:
            raise NeedsReview(
                f"{queue.name} took the results and could not be asked whether it keeps them: "
                "see to it, then retry",
                code=err.code,
            ) from err
        delay_s = next_delay_s(
            attempt=failures,
            first_s=queue.first_delay_s,
            longest_s=queue.max_delay_s,
            asked_s=err.after_s,
            jitter=self.jitter,
        )
        self._poll_again(replace(wait, failures=failures), delay_s, err)

    def _poll_again(
        self, wait: CommitmentWait, delay_s: float, err: RetryLater | None = None
    ) -> None:
        later = replace(wait, look=wait.look + 1, waited_s=wait.waited_s + delay_s)
        self.queue.enqueue(
            commitment_job(later, delay_s=delay_s, delay_reason=_reason_of(err) if err else "")
        )

    def _resend_uncommitted(
        self, wait: CommitmentWait, check: CommitmentCheck, queue: DestinationQueue
    ) -> None:
        """Deliver again what was disowned; that delivery also waits for what is still open."""
        if wait.series + 1 >= queue.max_tries:
            raise NeedsReview(
                f"{queue.name} takes results and then disowns them (PS3.4 annex J): look there, "
                "then retry",
                code="commitment_refused",
            )
        go = DeliveryAttempt(
            smear_id=wait.smear_id,
            version=wait.version,
            destination=wait.destination,
            series=wait.series + 1,
            cause=derived_id("disowned", check.transaction_uid, *check.disowned)[:12],
        )
        self.queue.enqueue(delivery_job(go, delay_s=queue.first_delay_s))

    def _deliver_again(self, go: DeliveryAttempt, err: RetryLater) -> None:
        queue = self.destinations.get(go.destination)
        if isinstance(err, DeliveryPostponed) and err.made_progress:
            go = replace(go, tries=1)
        is_blamed = err.code not in NOT_THE_DESTINATION
        if is_blamed and go.tries >= queue.max_tries:
            parked = NeedsReview(
                f"{go.destination} did not take the results in {go.tries} tries: see to it, "
                f"then retry. The last answer: {err.message}",
                code=err.parked_as if isinstance(err, DeliveryPostponed) else err.code,
            )
            self._note_parked(Event.DELIVERY_PARKED, parked, go.smear_id, go.destination)
            raise parked from err
        delay_s = next_delay_s(
            attempt=go.tries,
            first_s=queue.first_delay_s,
            longest_s=queue.max_delay_s,
            asked_s=err.after_s,
            jitter=self.jitter,
        )
        self.audit.record(
            Event.DELIVERY_POSTPONED,
            outcome=Outcome.MINOR_FAILURE,
            smear_id=go.smear_id,
            version=go.version,
            destination=go.destination,
            attempt=go.attempt,
            code=err.code,
            delay_s=round(delay_s, 1),
        )
        again = replace(go, attempt=go.attempt + 1, tries=go.tries + int(is_blamed))
        self.queue.enqueue(delivery_job(again, delay_s=delay_s, delay_reason=_reason_of(err)))

    def _close_again(
        self, smear_id: SmearId, trigger: str, known: int | None, attempt: int, delay_s: float
    ) -> None:
        self.queue.enqueue(
            close_job(smear_id, trigger=trigger, known=known, attempt=attempt + 1, delay_s=delay_s)
        )

    def _or_again(self, claimed: ClaimedImage, action: Callable[[], object]) -> Job | None:
        try:
            action()
        except RetryLater as err:
            return self._image_again(claimed, err)
        return None

    def _image_again(self, claimed: ClaimedImage, err: RetryLater) -> Job:
        return image_job(
            claimed.image,
            claimed.smear_id,
            attempt=claimed.attempt + 1,
            delay_s=self._storage_delay_s(claimed.attempt, err),
        )

    def _is_waiting(self, smear_id: SmearId) -> bool:
        return any(
            not self.images.is_settled(image, smear_id)
            for image in self.queue.unfinished_images(smear_id)
        )

    def _storage_delay_s(self, attempt: int, err: RetryLater) -> float:
        return next_delay_s(
            attempt=attempt,
            first_s=FIRST_STORAGE_DELAY_S,
            longest_s=LONGEST_STORAGE_DELAY_S,
            asked_s=err.after_s,
            jitter=self.jitter,
        )

    def _note_parked(
        self, event: Event, err: SmearlinkError, smear_id: SmearId, destination: str | None = None
    ) -> None:
        fields: dict[str, Any] = {"destination": destination} if destination else {}
        self.audit.record(
            event,
            outcome=Outcome.SERIOUS_FAILURE,
            smear_id=smear_id,
            code=err.code,
            error_type=type(err.__cause__ or err).__name__,
            **fields,
        )


def _reason_of(err: RetryLater) -> str:
    """For `smearlink status`; messages of our errors never carry patient data."""
    return f"{err.code}: {err.message}"

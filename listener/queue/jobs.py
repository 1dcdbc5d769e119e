"""Durable jobs: what runs, on which queue, under which id, when.

The job id is the idempotency key, so it is derived from what the job is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum
from typing import Any, Self
from uuid import uuid4

from pipeline.domain import SmearId, SOPInstanceUID

IMAGES = "images"
SMEARS = "smears"

Argument = str | int | float | None


def delivery_queue(destination: str) -> str:
    """The queue of a destination: each has its own, so that none waits for another (law 6)."""
    return f"deliver-{destination}"


class JobKind(StrEnum):
    """The durable functions, by the names under which the database knows them.

    Names and argument lists are part of the stored format: work queued by one version of
    smearlink is run by the next. A change of arguments takes a new name beside the old one.
    """

    ANALYSE_IMAGE = "analyse_image"
    CLOSE_SMEAR = "close_smear"
    DELIVER = "deliver"
    CHECK_COMMITMENT = "check_commitment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job to enqueue."""

    kind: JobKind
    id: str
    queue: str
    smear_id: SmearId
    """Also the partition: of the smears queue, one job per smear runs at a time."""
    arguments: tuple[Argument, ...]
    delay_s: float = 0.0
    delay_reason: str = ""
    """Why it is tried again later, as `code: message`, for `smearlink status`; no patient data."""


def image_key(image: str) -> str:
    """The id of an image's analysis: one for ever."""
    return f"image:{image}"


def image_of(job_id: str) -> SOPInstanceUID:
    """The image that an analysis is about."""
    return SOPInstanceUID(job_id.split(":")[1])


def image_job(
    image: SOPInstanceUID, smear_id: SmearId, *, attempt: int = 1, delay_s: float = 0.0
) -> Job:
    """Analyse an image; a further attempt (after RetryLater) is a further piece of work."""
    key = image_key(image)
    return Job(
        kind=JobKind.ANALYSE_IMAGE,
        id=key if attempt == 1 else f"{key}:{attempt}",
        queue=IMAGES,
        smear_id=smear_id,
        arguments=(image, smear_id, attempt),
        delay_s=delay_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedImage:
    """An image that a worker has claimed, to be analysed."""

    job_id: str
    image: SOPInstanceUID
    smear_id: SmearId
    attempt: int
    starts: int
    """How often it was begun, this time included."""


def close_job(
    smear_id: SmearId, *, trigger: str, known: int | None, attempt: int = 1, delay_s: float = 0.0
) -> Job:
    """Report a smear. `trigger` is the batch of images, or the request of a person or device."""
    key = f"close:{smear_id}:{trigger}"
    return Job(
        kind=JobKind.CLOSE_SMEAR,
        id=key if attempt == 1 else f"{key}:{attempt}",
        queue=SMEARS,
        smear_id=smear_id,
        arguments=(smear_id, trigger, known, attempt),
        delay_s=delay_s,
    )


REVIEW_TRIGGER = "review-"


def review_job(smear_id: SmearId, revision: int, *, delay_s: float) -> Job:
    """Report a smear as it was reviewed up to `revision`."""
    return close_job(smear_id, trigger=f"{REVIEW_TRIGGER}{revision}", known=None, delay_s=delay_s)


def reviewed_to(trigger: str) -> int | None:
    """The revision of the review that asks for a close, or None when something else does."""
    return int(trigger.removeprefix(REVIEW_TRIGGER)) if trigger.startswith(REVIEW_TRIGGER) else None


def manual_request_id() -> str:
    """A trigger that no other request has."""
    return f"wish-{uuid4().hex}"


def manual_close_prefix(smear_id: SmearId) -> str:
    """How the ids of a smear's requested closes begin."""
    return f"close:{smear_id}:wish-"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryAttempt:
    """One attempt to deliver a report to one destination."""

    smear_id: SmearId
    version: int
    destination: str
    series: int = 0
    """A person's retry begins a new series of attempts."""
    attempt: int = 1
    """Counts all attempts of the series."""
    tries: int = 1
    """Counts those that the destination is to blame for."""
    cause: str = ""
    """What made a further delivery necessary, where a number alone would not be unique."""

    @classmethod
    def of(cls, arguments: Sequence[Any]) -> Self:
        """From the arguments that the queue kept."""
        return cls(**_named(cls.__slots__, arguments))


def delivery_job(go: DeliveryAttempt, *, delay_s: float = 0.0, delay_reason: str = "") -> Job:
    """Bring a report to a destination."""
    return Job(
        kind=JobKind.DELIVER,
        id=f"deliver:{go.destination}:{go.smear_id}:v{go.version}:{go.series}.{go.attempt}"
        + (f":{go.cause}" if go.cause else ""),
        queue=delivery_queue(go.destination),
        smear_id=go.smear_id,
        arguments=_stored(astuple(go), go.cause),
        delay_s=delay_s,
        delay_reason=delay_reason,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentWait:
    """A storage commitment request whose answer is waited for."""

    smear_id: SmearId
    version: int
    destination: str
    series: int
    """Of the delivery that it followed."""
    transaction_uid: str
    round: int = 0
    """Numbers the requests; part of the transaction UID."""
    asked: int = 0
    """How often it was asked again since a person last said so."""
    look: int = 1
    """Looks for the answer so far, this one included."""
    waited_s: float = 0.0
    failures: int = 0
    """Requests in a row that could not be sent."""

    @classmethod
    def of(cls, arguments: Sequence[Any]) -> Self:
        """From the arguments that the queue kept."""
        return cls(**_named(cls.__slots__, arguments))


def commitment_job(wait: CommitmentWait, *, delay_s: float, delay_reason: str = "") -> Job:
    """Look for the answer to a storage commitment request after a while."""
    return Job(
        kind=JobKind.CHECK_COMMITMENT,
        id=f"commitment:{wait.transaction_uid}:{wait.series}.{wait.look}",
        queue=delivery_queue(wait.destination),
        smear_id=wait.smear_id,
        arguments=_stored(astuple(wait), wait.failures),
        delay_s=delay_s,
        delay_reason=delay_reason,
    )


def _stored(arguments: tuple[Any, ...], last: object) -> tuple[Any, ...]:
    """Without the last argument where it is empty: rows that a version without it can run."""
    return arguments if last else arguments[:-1]


def _named(names: Sequence[str], arguments: Sequence[Any]) -> dict[str, Any]:
    """The arguments by name; raises ValueError for another length than `_stored` gives."""
    given = names if len(arguments) == len(names) else names[:-1]
    return dict(zip(given, arguments, strict=True))

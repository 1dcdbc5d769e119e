"""What is parked is shown under names that people know, and taken up as the work that it was."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from listener.queue.dbos_adapter import QueueRow
from listener.queue.jobs import (
    CommitmentWait,
    DeliveryAttempt,
    Job,
    close_job,
    commitment_job,
    delivery_job,
    image_job,
)
from listener.queue.parked import is_named, parked_image, parked_work, retry_job
from listener.queue.status import WorkKind
from pipeline.domain import SmearId, SOPInstanceUID
from pipeline.errors import NeedsReview

SMEAR, IMAGE = SmearId("1.2.3"), SOPInstanceUID("1.2.3.1")
GO = DeliveryAttempt(smear_id=SMEAR, version=2, destination="pacs", series=1, attempt=7, tries=5)
WAIT = CommitmentWait(
    smear_id=SMEAR, version=2, destination="pacs", series=1, transaction_uid="2.25.7",
    round=3, asked=2, look=9, waited_s=80.0,
)  # fmt: skip
IMAGE_WORK = image_job(IMAGE, SMEAR, attempt=2)
REPORT = close_job(SMEAR, trigger=IMAGE, known=3)
DELIVERY = delivery_job(GO)
COMMITMENT = commitment_job(WAIT, delay_s=1.0)
ALL = (IMAGE_WORK, REPORT, DELIVERY, COMMITMENT)
ENDED = datetime(2026, 11, 26, tzinfo=UTC)


def failed(job: Job, error: BaseException | None = None) -> QueueRow:
    return QueueRow(
        id=job.id,
        kind=job.kind,
        arguments=job.arguments,
        is_delayed=False,
        delay_s=0.0,
        delayed_until_ms=0,
        starts=0,
        queue=job.queue,
        smear_id=job.smear_id,
        error=error,
        ended_at=ENDED,
    )


@pytest.mark.parametrize(
    ("job", "kind", "image", "destination"),
    [
        (IMAGE_WORK, WorkKind.IMAGE, IMAGE, ""),
        (REPORT, WorkKind.REPORT, "", ""),
        (DELIVERY, WorkKind.DELIVERY, "", "pacs"),
        (COMMITMENT, WorkKind.COMMITMENT, "", "pacs"),
    ],
)
def test_each_kind_names_what_it_is_about(
    job: Job, kind: WorkKind, image: str, destination: str
) -> None:
    parked = parked_work(failed(job, NeedsReview("Look there, then retry", code="refused")))

    assert (parked.key, parked.kind, parked.since) == (job.id, kind, ENDED)
    assert (parked.code, parked.message) == ("refused", "Look there, then retry")
    assert (parked.smear_id, parked.sop_instance_uid, parked.destination) == (
        SMEAR,
        image,
        destination,
    )


def test_work_without_an_error_ended_its_workers() -> None:
    assert parked_work(failed(REPORT)).code == "crashed_repeatedly"


def test_an_error_of_no_kind_of_ours_is_a_defect() -> None:
    assert parked_work(failed(REPORT, ValueError("odd"))).code == "defect"


def test_a_parked_image_says_why_in_words() -> None:
    parked = parked_image(IMAGE, "decode_failed")

    assert (parked.kind, parked.code, parked.sop_instance_uid) == (
        WorkKind.IMAGE,
        "decode_failed",
        IMAGE,
    )
    assert parked.message


def test_it_goes_by_its_key_smear_image_and_destination_and_by_nothing_else() -> None:
    image, delivery = parked_work(failed(IMAGE_WORK)), parked_work(failed(DELIVERY))

    assert all(is_named(image, name) for name in (IMAGE_WORK.id, SMEAR, IMAGE))
    assert all(is_named(delivery, name) for name in (DELIVERY.id, SMEAR, "pacs"))
    assert not any(is_named(image, name) for name in ("", "pacs", "1.2", f"{IMAGE}0"))


@pytest.mark.parametrize("job", ALL, ids=lambda job: job.kind)
def test_a_retry_is_new_work_about_the_same(job: Job) -> None:
    """An id that was used would be the old, failed piece."""
    again = retry_job(failed(job))

    assert again.id != job.id
    assert (again.kind, again.smear_id, again.queue) == (job.kind, job.smear_id, job.queue)


def test_a_delivery_has_all_its_tries_again() -> None:
    again = DeliveryAttempt.of(retry_job(failed(DELIVERY)).arguments)

    assert (again.attempt, again.tries, again.series) == (1, 1, GO.series + 1)
    assert (again.version, again.destination) == (GO.version, GO.destination)


def test_a_report_is_made_of_whatever_is_there() -> None:
    smear, trigger, known, attempt = retry_job(failed(REPORT)).arguments

    assert (smear, known, attempt) == (SMEAR, None, 1)
    assert str(trigger).startswith("wish-")


def test_a_commitment_is_asked_for_again_at_once() -> None:
    again = retry_job(failed(COMMITMENT))

    assert again.delay_s == 0.0
    assert CommitmentWait.of(again.arguments).asked == 0
    assert CommitmentWait.of(again.arguments).transaction_uid == WAIT.transaction_uid

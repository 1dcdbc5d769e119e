"""Ids make asking twice asking once; names and arguments are a format that outlives a version."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from listener.queue.jobs import (
    CommitmentWait,
    DeliveryAttempt,
    Job,
    JobKind,
    close_job,
    commitment_job,
    delivery_job,
    image_job,
    image_of,
)
from pipeline.domain import SmearId, SOPInstanceUID

SMEAR, IMAGE = SmearId("1.2.3"), SOPInstanceUID("1.2.3.4")
GO = DeliveryAttempt(smear_id=SMEAR, version=2, destination="pacs", series=1, attempt=3, tries=2)
WAIT = CommitmentWait(
    smear_id=SMEAR,
    version=2,
    destination="pacs",
    series=1,
    transaction_uid="2.25.9",
    round=1,
    asked=1,
    look=4,
    waited_s=6.5,
)

WRITTEN_BY_0_1_0: list[tuple[Job, str, list[object]]] = [
    (image_job(IMAGE, SMEAR), "image:1.2.3.4", ["1.2.3.4", "1.2.3", 1]),
    (image_job(IMAGE, SMEAR, attempt=2), "image:1.2.3.4:2", ["1.2.3.4", "1.2.3", 2]),
    (
        close_job(SMEAR, trigger=IMAGE, known=3),
        "close:1.2.3:1.2.3.4",
        ["1.2.3", "1.2.3.4", 3, 1],
    ),
    (
        close_job(SMEAR, trigger="wish", known=None, attempt=2),
        "close:1.2.3:wish:2",
        ["1.2.3", "wish", None, 2],
    ),
    (delivery_job(GO), "deliver:pacs:1.2.3:v2:1.3", ["1.2.3", 2, "pacs", 1, 3, 2]),
    (
        commitment_job(WAIT, delay_s=2.0),
        "commitment:2.25.9:1.4",
        ["1.2.3", 2, "pacs", 1, "2.25.9", 1, 1, 4, 6.5],
    ),
]


@pytest.mark.parametrize(("job", "job_id", "arguments"), WRITTEN_BY_0_1_0)
def test_the_stored_format_never_changes(job: Job, job_id: str, arguments: list[object]) -> None:
    """If this fails, queues in the field hold rows that the new version cannot run."""
    assert job.id == job_id
    assert json.loads(json.dumps(job.arguments)) == arguments


def test_the_names_of_the_durable_functions_never_change() -> None:
    names = {"analyse_image", "close_smear", "deliver", "check_commitment"}

    assert {kind.value for kind in JobKind} >= names


def test_what_the_database_kept_is_read_back() -> None:
    assert DeliveryAttempt.of(json.loads(json.dumps(delivery_job(GO).arguments))) == GO
    assert CommitmentWait.of(json.loads(json.dumps(commitment_job(WAIT, delay_s=0).arguments))) == (
        WAIT
    )


def test_what_is_new_is_stored_only_where_it_says_something() -> None:
    go, wait = replace(GO, cause="0123abcd"), replace(WAIT, failures=2)

    assert delivery_job(go).id == f"{delivery_job(GO).id}:0123abcd"
    assert DeliveryAttempt.of(delivery_job(go).arguments) == go
    assert CommitmentWait.of(commitment_job(wait, delay_s=0).arguments) == wait


def test_arguments_of_another_length_are_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="shorter"):
        DeliveryAttempt.of(["1.2.3", 1])


def test_an_image_is_known_by_every_attempt_at_it() -> None:
    assert image_of(image_job(IMAGE, SMEAR).id) == IMAGE
    assert image_of(image_job(IMAGE, SMEAR, attempt=7).id) == IMAGE


def test_work_of_one_smear_is_one_partition() -> None:
    assert {job.smear_id for job, _, _ in WRITTEN_BY_0_1_0} == {SMEAR}

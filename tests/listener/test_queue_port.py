"""Work is put in once, seen as it was meant, and forgotten when told."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from listener.jobs import IMAGES, CommitmentWait, JobKind, close_job, commitment_job, image_job
from listener.queue_port import DurableQueue, make_queue, route_log
from pipeline.domain import SmearId, SOPInstanceUID
from pipeline.errors import RetryLater

SMEAR = SmearId("1.2.3")
IMAGE = image_job(SOPInstanceUID("1.2.3.1"), SMEAR)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[DurableQueue]:
    url = f"sqlite:///{tmp_path / 'state.sqlite'}"
    make_queue(url)
    opened = DurableQueue(url)
    yield opened
    opened.close()


def test_a_row_says_what_was_asked_for(queue: DurableQueue) -> None:
    queue.put(IMAGE)

    [row] = queue.left()

    assert (row.id, row.kind, row.queue) == (IMAGE.id, JobKind.ANALYSE_IMAGE, IMAGES)
    assert (row.smear_id, row.arguments) == (SMEAR, IMAGE.arguments)
    assert (row.is_delayed, row.delay_s, row.starts, row.error) == (False, 0.0, 0, None)


def test_every_argument_comes_back_as_it_went(queue: DurableQueue) -> None:
    wait = CommitmentWait(
        smear_id=SMEAR, version=2, destination="pacs", series=1, transaction_uid="2.25.7",
        waited_s=0.25,
    )  # fmt: skip
    jobs = [commitment_job(wait, delay_s=5.0), close_job(SMEAR, trigger="wish", known=None)]
    for job in jobs:
        queue.put(job)

    rows = {row.id: row for row in queue.left()}

    assert {job.id: job.arguments for job in jobs} == {key: r.arguments for key, r in rows.items()}
    assert CommitmentWait.of(rows[jobs[0].id].arguments) == wait
    assert (rows[jobs[0].id].is_delayed, rows[jobs[0].id].delay_s) == (True, 5.0)


def test_asking_twice_is_asking_once(queue: DurableQueue) -> None:
    queue.put(IMAGE)
    queue.note_start(IMAGE.id, 2)
    queue.put(IMAGE)

    assert [row.starts for row in queue.left()] == [2]


def test_a_row_can_be_looked_up_by_id_and_by_how_the_id_begins(queue: DurableQueue) -> None:
    second = image_job(SOPInstanceUID("1.2.3.1"), SMEAR, attempt=2)
    longer = image_job(SOPInstanceUID("1.2.3.10"), SMEAR)
    for job in (IMAGE, second, longer):
        queue.put(job)

    assert [row.id for row in queue.rows([IMAGE.id, "image:absent"])] == [IMAGE.id]
    assert [row.id for row in queue.rows_beginning(f"{IMAGE.id}:")] == [second.id]


def test_what_was_deleted_may_be_asked_for_again(queue: DurableQueue) -> None:
    queue.put(IMAGE)
    queue.note_start(IMAGE.id, 9)

    queue.delete([IMAGE.id, "image:absent"])
    left = queue.left()
    queue.put(IMAGE)

    assert left == []
    assert [row.starts for row in queue.left()] == [0]


def test_without_tables_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    queue = DurableQueue(f"sqlite:///{tmp_path / 'state.sqlite'}")

    with pytest.raises(RetryLater) as caught:
        queue.left()

    queue.close()
    assert caught.value.code == "database_unavailable"


def test_its_log_goes_where_all_logs_go() -> None:
    route_log()

    logger = logging.getLogger("dbos")
    assert logger.propagate
    assert not [one for one in logger.handlers if isinstance(one, logging.StreamHandler)]

"""Jobs are enqueued once, read as they were meant, run to their end, and deleted when told."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from listener.queue.client import QueueClient
from listener.queue.dbos_adapter import QueueLimits, QueueRunner, make_queue, route_log
from listener.queue.jobs import (
    IMAGES,
    SMEARS,
    CommitmentWait,
    JobKind,
    close_job,
    commitment_job,
    image_job,
)
from listener.storage.inbox import Inbox
from pipeline.domain import SmearId, SOPInstanceUID
from pipeline.errors import RetryLater

SMEAR = SmearId("1.2.3")
IMAGE = image_job(SOPInstanceUID("1.2.3.1"), SMEAR)
REPORT = close_job(SMEAR, trigger="one", known=1)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[QueueClient]:
    url = f"sqlite:///{tmp_path / 'state.sqlite'}"
    make_queue(url)
    opened = QueueClient(url, inbox=Inbox(tmp_path / "inbox"), gather_by="series")
    yield opened
    opened.close()


@pytest.fixture
def run(
    queue: QueueClient, tmp_path: Path
) -> Iterator[Callable[[Callable[..., None]], QueueRunner]]:
    """Starts the one runner of this process, which reports smears by what it is given."""
    runners: list[QueueRunner] = []

    def start(close_smear: Callable[..., None]) -> QueueRunner:
        runner = QueueRunner(
            database_url=f"sqlite:///{tmp_path / 'state.sqlite'}",
            worker_id="w1",
            count_in_progress=partial(queue.count_in_progress, "w1"),
        )
        runners.append(runner)
        queue.set_limits([QueueLimits(name=SMEARS, per_worker=1, per_partition=1)])
        runner.start({JobKind.CLOSE_SMEAR: close_smear}, recoveries={})
        runner.claim([SMEARS])
        return runner

    yield start
    for runner in runners:
        runner.stop(0.0)


def test_a_row_says_what_was_asked_for(queue: QueueClient) -> None:
    queue.enqueue(IMAGE)

    [row] = queue.left()

    assert (row.id, row.kind, row.queue) == (IMAGE.id, JobKind.ANALYSE_IMAGE, IMAGES)
    assert (row.smear_id, row.arguments) == (SMEAR, IMAGE.arguments)
    assert (row.is_delayed, row.delay_s, row.starts, row.error) == (False, 0.0, 0, None)


def test_every_argument_comes_back_as_it_went(queue: QueueClient) -> None:
    wait = CommitmentWait(
        smear_id=SMEAR, version=2, destination="pacs", series=1, transaction_uid="2.25.7",
        waited_s=0.25,
    )  # fmt: skip
    jobs = [commitment_job(wait, delay_s=5.0), close_job(SMEAR, trigger="wish", known=None)]
    for job in jobs:
        queue.enqueue(job)

    rows = {row.id: row for row in queue.left()}

    assert {job.id: job.arguments for job in jobs} == {key: r.arguments for key, r in rows.items()}
    assert CommitmentWait.of(rows[jobs[0].id].arguments) == wait
    assert (rows[jobs[0].id].is_delayed, rows[jobs[0].id].delay_s) == (True, 5.0)


def test_asking_twice_is_asking_once(queue: QueueClient) -> None:
    queue.enqueue(IMAGE)
    queue.note_starts(IMAGE.id, 2)
    queue.enqueue(IMAGE)

    assert [row.starts for row in queue.left()] == [2]


def test_a_row_can_be_looked_up_by_id_and_by_how_the_id_begins(queue: QueueClient) -> None:
    second = image_job(SOPInstanceUID("1.2.3.1"), SMEAR, attempt=2)
    longer = image_job(SOPInstanceUID("1.2.3.10"), SMEAR)
    for job in (IMAGE, second, longer):
        queue.enqueue(job)

    assert [row.id for row in queue.rows([IMAGE.id, "image:absent"])] == [IMAGE.id]
    assert [row.id for row in queue.rows_beginning(f"{IMAGE.id}:")] == [second.id]


def test_nothing_is_looked_up_when_nothing_is_named(queue: QueueClient) -> None:
    """DBOS takes an empty list for no condition: it then reads all that was ever done."""
    queue.enqueue(IMAGE)

    assert queue.rows([]) == []


def test_what_was_deleted_may_be_asked_for_again(queue: QueueClient) -> None:
    queue.enqueue(IMAGE)
    queue.note_starts(IMAGE.id, 9)

    queue._delete([IMAGE.id, "image:absent"])
    left = queue.left()
    queue.enqueue(IMAGE)

    assert left == []
    assert [row.starts for row in queue.left()] == [0]


def test_without_tables_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite").touch()

    with pytest.raises(RetryLater) as caught:
        QueueClient(
            f"sqlite:///{tmp_path / 'state.sqlite'}",
            inbox=Inbox(tmp_path / "inbox"),
            gather_by="series",
        )

    assert caught.value.code == "database_unavailable"


def test_its_log_goes_where_all_logs_go() -> None:
    route_log()

    logger = logging.getLogger("dbos")
    assert logger.propagate
    assert not [one for one in logger.handlers if isinstance(one, logging.StreamHandler)]


def test_a_stop_waits_for_the_work_in_hand(
    queue: QueueClient,
    run: Callable[[Callable[..., None]], QueueRunner],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go_on, looks = threading.Event(), threading.Event(), threading.Semaphore(0)
    ended: list[str] = []

    def close_smear(smear_id: str, *_: object) -> None:
        begun.set()
        go_on.wait()
        ended.append(smear_id)

    queue.enqueue(REPORT)
    runner = run(close_smear)
    begun.wait()
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: looks.release())
    monkeypatch.setattr("listener.queue.dbos_adapter.time", clock)
    stopping = threading.Thread(target=runner.stop, args=(600.0,))
    stopping.start()
    for _ in range(5):
        looks.acquire()
    is_still_waiting = stopping.is_alive()
    go_on.set()
    stopping.join()

    assert is_still_waiting
    assert ended == ["1.2.3"]
    assert queue.left() == []


def test_a_stop_leaves_what_takes_longer_than_its_grace(
    queue: QueueClient, run: Callable[[Callable[..., None]], QueueRunner]
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def close_smear(*_: object) -> None:
        begun.set()
        go_on.wait()

    queue.enqueue(REPORT)
    runner = run(close_smear)
    begun.wait()
    runner.stop(0.1)
    left = [row.id for row in queue.left()]
    go_on.set()

    assert left == [REPORT.id]


def test_no_more_jobs_run_at_once_than_the_queue_allows(
    queue: QueueClient, run: Callable[[Callable[..., None]], QueueRunner]
) -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()
    seen: list[str] = []

    def close_smear(smear_id: str, *_: object) -> None:
        seen.append(smear_id)
        begun.release()
        go_on.wait()

    for smear in ("1.2.3", "1.2.4"):
        queue.enqueue(close_job(SmearId(smear), trigger="one", known=1))
    runner = run(close_smear)
    begun.acquire()
    runner.claim([SMEARS])
    at_once = list(seen)
    go_on.set()
    while queue.in_progress("w1"):
        pass
    runner.claim([SMEARS])
    begun.acquire()

    assert len(at_once) == 1
    assert sorted(seen) == ["1.2.3", "1.2.4"]


def test_images_are_left_to_those_who_claim_them_in_batches(
    queue: QueueClient, run: Callable[[Callable[..., None]], QueueRunner]
) -> None:
    queue.enqueue(IMAGE)

    run(lambda *_: None).claim([IMAGES])

    assert queue.in_progress("w1") == set()
    assert queue.queues_with_work()[0] == {IMAGES}

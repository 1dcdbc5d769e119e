"""Work is put in once, seen as it was meant, run to its end, and forgotten when told."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from dbos import DBOS

from listener.queue.dbos_adapter import (
    DurableQueue,
    QueueLimits,
    QueueRunner,
    make_queue,
    route_log,
)
from listener.queue.jobs import (
    IMAGES,
    CommitmentWait,
    JobKind,
    close_job,
    commitment_job,
    image_job,
)
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


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[Callable[..., None]], QueueRunner]]:
    """Starts the one runner of this process, which analyses images by what it is given."""
    runners: list[QueueRunner] = []

    def start(analyse: Callable[..., None]) -> QueueRunner:
        runner = QueueRunner(database_url=f"sqlite:///{tmp_path / 'state.sqlite'}", worker_id="w1")
        runners.append(runner)
        limits = [QueueLimits(name=IMAGES, poll_s=0.02, per_worker=1)]
        runner.start({JobKind.ANALYSE_IMAGE: analyse}, recoveries={}, limits=limits)
        return runner

    yield start
    for runner in runners:
        runner.stop(0.0)


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


def test_nothing_is_looked_up_when_nothing_is_named(queue: DurableQueue) -> None:
    """DBOS takes an empty list for no condition: it then reads all that was ever done."""
    queue.put(IMAGE)

    assert queue.rows([]) == []


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


def test_a_stop_waits_for_the_work_in_hand(
    queue: DurableQueue,
    run: Callable[[Callable[..., None]], QueueRunner],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go_on, looks = threading.Event(), threading.Event(), threading.Semaphore(0)
    ended: list[str] = []

    def analyse(image: str, *_: object) -> None:
        begun.set()
        go_on.wait()
        ended.append(image)

    queue.put(IMAGE)
    runner = run(analyse)
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
    assert ended == ["1.2.3.1"]
    assert queue.left() == []


def test_a_stop_leaves_what_takes_longer_than_its_grace(
    queue: DurableQueue, run: Callable[[Callable[..., None]], QueueRunner]
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def analyse(*_: object) -> None:
        begun.set()
        go_on.wait()

    queue.put(IMAGE)
    runner = run(analyse)
    begun.wait()
    runner.stop(0.1)
    left = [row.id for row in queue.left()]
    go_on.set()

    assert left == [IMAGE.id]


def test_its_queues_are_there_before_it_begins(
    run: Callable[[Callable[..., None]], QueueRunner],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DBOS looks for new ones once a second: they would begin that much later."""
    seen: list[str] = []
    launch = DBOS.launch

    def look_and_launch() -> None:
        with closing(DurableQueue(f"sqlite:///{tmp_path / 'state.sqlite'}")) as queue:
            seen.extend(one.name for one in queue._client.list_queues())
        launch()

    monkeypatch.setattr(DBOS, "launch", look_and_launch)

    run(lambda *_: None)

    assert seen == [IMAGES]

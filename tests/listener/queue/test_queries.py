"""What the queue holds is counted truly, and no look at it reads the whole of it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from listener.queue.dbos_adapter import DurableQueue, make_queue
from listener.queue.jobs import IMAGES, SMEARS, Job, close_job, image_job
from listener.queue.queries import CLOCK_SLACK_MS, QueueCount, QueueTables
from pipeline.domain import SmearId, SOPInstanceUID
from pipeline.errors import RetryLater

ONE, OTHER = SmearId("1.2.3"), SmearId("1.2.4")


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'state.sqlite'}"
    make_queue(url)
    return url


@pytest.fixture
def tables(url: str) -> Iterator[QueueTables]:
    opened = QueueTables(url)
    yield opened
    opened.close()


@pytest.fixture
def queue(url: str) -> Iterator[DurableQueue]:
    opened = DurableQueue(url)
    yield opened
    opened.close()


def image(number: int, smear: SmearId = ONE, *, delay_s: float = 0.0) -> Job:
    return image_job(SOPInstanceUID(f"{smear}.{number}"), smear, delay_s=delay_s)


def change(url: str, job: Job, **columns: object) -> None:
    """As a worker that took the job would."""
    changes = ", ".join(f"{name} = ?" for name in columns)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(
            f"UPDATE workflow_status SET {changes} WHERE workflow_uuid = ?",  # noqa: S608
            (*columns.values(), job.id),
        )


def test_work_is_counted_by_queue_and_state_with_its_oldest(
    url: str, queue: DurableQueue, tables: QueueTables
) -> None:
    jobs = [image(1), image(2), image(3, delay_s=60.0), close_job(ONE, trigger="1", known=1)]
    for number, job in enumerate(jobs, start=1):
        queue.put(job)
        change(url, job, created_at=1000 * number)
    done = image(9)
    queue.put(done)
    change(url, done, status="SUCCESS")

    counts = sorted(tables.counts(), key=lambda one: (one.queue, one.status))

    assert counts == [
        QueueCount(queue=IMAGES, status="DELAYED", count=1, oldest_ms=3000),
        QueueCount(queue=IMAGES, status="ENQUEUED", count=2, oldest_ms=1000),
        QueueCount(queue=SMEARS, status="ENQUEUED", count=1, oldest_ms=4000),
    ]


def test_the_unfinished_work_of_a_smear_is_found_in_every_state(
    url: str, queue: DurableQueue, tables: QueueTables
) -> None:
    waiting, later, in_hand, done, others = (
        image(1),
        image(2, delay_s=60.0),
        image(3),
        image(4),
        image(5, OTHER),
    )
    for job in (waiting, later, in_hand, done, others):
        queue.put(job)
    change(url, in_hand, status="PENDING", executor_id="w2")
    change(url, done, status="SUCCESS")

    assert set(tables.unfinished(IMAGES, ONE)) == {waiting.id, later.id, in_hand.id}
    assert tables.executors() == ["w2"]
    assert tables.delayed(IMAGES) == [later.id]


def test_only_delays_from_beyond_the_slack_of_clocks_come_from_the_future(
    url: str, queue: DurableQueue, tables: QueueTables
) -> None:
    now_ms = 1_000_000
    jobs = {
        image(n, delay_s=60.0): now_ms + CLOCK_SLACK_MS + ahead for n, ahead in ((1, 0), (2, 1))
    }
    for job, created_at in jobs.items():
        queue.put(job)
        change(url, job, created_at=created_at)

    assert tables.delayed_from_the_future(now_ms) == [image(2).id]


def test_finished_work_comes_oldest_first_and_only_what_ended_well(
    url: str, queue: DurableQueue, tables: QueueTables
) -> None:
    states = ("SUCCESS", "ERROR", "SUCCESS", "ENQUEUED", "SUCCESS")
    for number, state in enumerate(states):
        queue.put(image(number))
        change(url, image(number), status=state, created_at=100 - number, updated_at=100 - number)

    assert tables.finished(before_ms=100, most=9) == [image(4).id, image(2).id]
    assert tables.finished(before_ms=100, most=1) == [image(4).id]


@pytest.mark.parametrize("name", ["counts", "unfinished"])
def test_work_that_moves_on_meanwhile_is_not_missed(
    url: str, queue: DurableQueue, tables: QueueTables, name: str
) -> None:
    """Its moment comes while the states are looked at: once it seemed to be in none of them."""
    job = image(1, delay_s=60.0)
    queue.put(job)
    asked: list[str] = []

    def move_on(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)
        if len(asked) == 2:
            change(url, job, status="ENQUEUED")

    sa.event.listen(tables._engine, "before_cursor_execute", move_on)

    assert LOOKS[name](tables)


LOOKS: dict[str, Callable[[QueueTables], object]] = {
    "unfinished": lambda tables: list(tables.unfinished(IMAGES, ONE)),
    "executors": lambda tables: tables.executors(),
    "delayed": lambda tables: tables.delayed(IMAGES),
    "delayed_from_the_future": lambda tables: tables.delayed_from_the_future(0),
    "finished": lambda tables: tables.finished(before_ms=int(time.time() * 1000), most=10),
    "counts": lambda tables: tables.counts(),
}


@pytest.mark.parametrize("name", LOOKS)
def test_no_look_reads_the_whole_table(tables: QueueTables, name: str) -> None:
    asked: list[tuple[str, tuple[object, ...]]] = []
    sa.event.listen(
        tables._engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, values, *_: asked.append((statement, values)),
    )

    LOOKS[name](tables)

    assert asked
    with tables._engine.connect() as connection:
        for statement, values in [*asked]:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            steps = [str(step[3]) for step in plan]
            assert not [step for step in steps if "SCAN" in step and "USING" not in step], steps


def test_a_database_that_is_gone_is_named(tmp_path: Path) -> None:
    tables = QueueTables(f"sqlite:///{tmp_path / 'absent' / 'state.sqlite'}")

    for look in (tables.check, tables.check_schema, tables.counts):
        with pytest.raises(RetryLater) as caught:
            look()
        assert caught.value.code == "database_unavailable"

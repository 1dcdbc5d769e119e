"""What the queue holds is counted truly, and no look at it reads the whole of it."""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from listener.queue import client, queries
from listener.queue.client import QueueClient
from listener.queue.dbos_adapter import make_queue
from listener.queue.jobs import IMAGES, SMEARS, Job, close_job, image_job, image_of
from listener.queue.queries import CLOCK_SLACK_MS
from listener.queue.status import QueueCount
from listener.storage.inbox import Inbox
from pipeline.domain import SmearId, SOPInstanceUID

ONE, OTHER = SmearId("1.2.3"), SmearId("1.2.4")


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'state.sqlite'}"
    make_queue(url)
    return url


@pytest.fixture
def queue(url: str, tmp_path: Path) -> Iterator[QueueClient]:
    opened = QueueClient(url, inbox=Inbox(tmp_path / "inbox"), gather_by="series")
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


def test_work_is_counted_by_queue_and_state_with_its_oldest(url: str, queue: QueueClient) -> None:
    jobs = [image(1), image(2), image(3, delay_s=60.0), close_job(ONE, trigger="1", known=1)]
    for number, job in enumerate(jobs, start=1):
        queue.enqueue(job)
        change(url, job, created_at=1000 * number)
    done = image(9)
    queue.enqueue(done)
    change(url, done, status="SUCCESS")

    counts = sorted(queue.counts(), key=lambda one: (one.queue, one.status))

    assert counts == [
        QueueCount(queue=IMAGES, status="DELAYED", count=1, oldest_ms=3000),
        QueueCount(queue=IMAGES, status="ENQUEUED", count=2, oldest_ms=1000),
        QueueCount(queue=SMEARS, status="ENQUEUED", count=1, oldest_ms=4000),
    ]


def test_a_long_queue_is_counted_seldom_and_its_status_says_as_of_when(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MANY_JOBS", 2)
    looks = itertools.count()  # each takes a second, so that counting takes one and the rest ten
    inbox = Inbox(tmp_path / "inbox")
    with closing(
        QueueClient(url, inbox=inbox, gather_by="series", monotonic=lambda: float(next(looks)))
    ) as queue:
        queue.enqueue(image(1), image(2))
        short = [queue.status()]
        queue.enqueue(image(3))
        counted = queue.status()
        queue.enqueue(image(4))
        shown = [queue.status() for _ in range(10)]

    assert [one.queues[0].waiting for one in (*short, counted)] == [2, 3]
    assert [one.queues[0].waiting for one in shown] == [3] * 9 + [4]
    assert {one.at for one in shown[:9]} == {counted.at}
    assert shown[9].at > counted.at


def test_the_unfinished_work_of_a_smear_is_found_in_every_state(
    url: str, queue: QueueClient
) -> None:
    waiting, later, in_hand, done, others = (
        image(1),
        image(2, delay_s=60.0),
        image(3),
        image(4),
        image(5, OTHER),
    )
    for job in (waiting, later, in_hand, done, others):
        queue.enqueue(job)
    change(url, in_hand, status="PENDING", executor_id="w2")
    change(url, done, status="SUCCESS")

    assert set(queue.unfinished_images(ONE)) == {
        image_of(job.id) for job in (waiting, later, in_hand)
    }
    assert queue.executors() == ["w2"]
    assert queue._column(queries.delayed(IMAGES)) == [later.id]


def test_only_delays_from_beyond_the_slack_of_clocks_come_from_the_future(
    url: str, queue: QueueClient
) -> None:
    now_ms = 1_000_000
    jobs = {
        image(n, delay_s=60.0): now_ms + CLOCK_SLACK_MS + ahead for n, ahead in ((1, 0), (2, 1))
    }
    for job, created_at in jobs.items():
        queue.enqueue(job)
        change(url, job, created_at=created_at)

    assert queue._column(queries.delayed_from_the_future(now_ms)) == [image(2).id]


def test_finished_work_comes_oldest_first_and_only_what_ended_well(
    url: str, queue: QueueClient
) -> None:
    states = ("SUCCESS", "ERROR", "SUCCESS", "ENQUEUED", "SUCCESS")
    for number, state in enumerate(states):
        queue.enqueue(image(number))
        change(url, image(number), status=state, created_at=100 - number, updated_at=100 - number)

    assert queue._column(queries.finished(before_ms=100, limit=9)) == [image(4).id, image(2).id]
    assert queue._column(queries.finished(before_ms=100, limit=1)) == [image(4).id]


@pytest.mark.parametrize("name", ["counts", "unfinished"])
def test_work_that_moves_on_meanwhile_is_not_missed(
    url: str, queue: QueueClient, name: str
) -> None:
    """Its moment comes while the states are looked at: once it seemed to be in none of them."""
    job = image(1, delay_s=60.0)
    queue.enqueue(job)
    asked: list[str] = []

    def move_on(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)
        if len(asked) == 2:
            change(url, job, status="ENQUEUED")

    sa.event.listen(queue._engine, "before_cursor_execute", move_on)

    assert queue._rows(LOOKS[name])


LOOKS: dict[str, queries.Look] = {
    "unfinished": queries.unfinished(IMAGES, ONE),
    "executors": queries.executors(),
    "in_progress": queries.in_progress("w1"),
    "count_in_progress": queries.count_in_progress("w1", IMAGES),
    "delayed": queries.delayed(IMAGES),
    "delayed_from_the_future": queries.delayed_from_the_future(0),
    "next_delay_end": queries.next_delay_end(),
    "queues_with_work": queries.queues_with_work(),
    "any_waiting": queries.any_waiting(IMAGES, priority=1),
    "finished": queries.finished(before_ms=int(time.time() * 1000), limit=10),
    "counts": queries.counts(),
    "known": queries.known(["image:1", "image:2"]),
}


@pytest.mark.parametrize("name", LOOKS)
def test_no_look_reads_the_whole_table(queue: QueueClient, name: str) -> None:
    assert _scans(queue, LOOKS[name]) == []


WRITES: dict[str, Any] = {
    "claim": queries.claim("sqlite", IMAGES, "w1", priority=0, limit=8, version="1", now_ms=1),
    "settle": queries.settle(["image:1"], "w1", now_ms=1),
    "hand_back": queries.hand_back("sqlite", ["image:1"], "w1", priority=1, now_ms=1),
    "end_delays": queries.end_delays("close:1.2.3:wish-", now_ms=1),
}


@pytest.mark.parametrize("name", WRITES)
def test_no_write_reads_the_whole_table(queue: QueueClient, name: str) -> None:
    assert _scans(queue, WRITES[name]) == []


def _scans(queue: QueueClient, statement: Any) -> list[str]:
    """The steps of its plan that go through a whole table."""
    asked: list[tuple[str, tuple[object, ...]]] = []
    sa.event.listen(
        queue._engine,
        "before_cursor_execute",
        lambda _c, _cursor, text, values, *_: asked.append((text, values)),
    )
    with queue._engine.begin() as connection:
        connection.execute(statement)
        assert asked
        steps = [
            str(step[3])
            for text, values in [*asked]
            for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)
        ]
    return [step for step in steps if "SCAN workflow" in step and "USING" not in step]

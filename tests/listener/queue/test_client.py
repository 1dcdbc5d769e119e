"""The queue as people and listeners see it: asked once, shown truly, clocks corrected."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from listener.queue.client import WorkClient
from listener.queue.dbos_adapter import make_queue
from listener.queue.jobs import SMEARS, close_job, image_job
from listener.storage.inbox import Inbox
from pipeline.domain import SmearId, SOPInstanceUID
from pipeline.errors import RetryLater
from tests.listener.house import receive

SMEAR = SmearId("1.2.3")
HOUR_MS = 3_600_000


@pytest.fixture
def client(tmp_path: Path) -> Iterator[WorkClient]:
    url = f"sqlite:///{tmp_path / 'state.sqlite'}"
    make_queue(url)
    opened = WorkClient(url, inbox=Inbox(tmp_path / "inbox"), gather_by="series")
    yield opened
    opened.destroy()


def set_clock_back_an_hour(root: Path) -> None:
    """To a clock that was set back, every row looks an hour younger."""
    with closing(sqlite3.connect(root / "state.sqlite")) as connection, connection:
        connection.execute(
            "UPDATE workflow_status SET created_at = created_at + ?, updated_at = updated_at + ?, "
            "delay_until_epoch_ms = delay_until_epoch_ms + ?",
            (HOUR_MS, HOUR_MS, HOUR_MS),
        )


def test_without_a_queue_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(RetryLater) as caught:
        WorkClient(
            f"sqlite:///{tmp_path / 'absent.sqlite'}",
            inbox=Inbox(tmp_path / "inbox"),
            gather_by="series",
        )

    assert caught.value.code == "no_queue_yet"


def test_a_clock_set_back_an_hour_lengthens_no_delay(tmp_path: Path, client: WorkClient) -> None:
    client.ask(close_job(SMEAR, trigger="one", known=1, delay_s=5.0))
    set_clock_back_an_hour(tmp_path)
    now = datetime.now(UTC)

    corrected = client.shorten_delays(now)

    (row,) = client._queue.left()
    assert corrected == 1
    assert row.delayed_until_ms <= (now + timedelta(seconds=60)).timestamp() * 1000
    assert client.shorten_delays(datetime.now(UTC)) == 0


def test_a_clock_that_runs_true_corrects_nothing(client: WorkClient) -> None:
    client.ask(close_job(SMEAR, trigger="one", known=1, delay_s=5.0))

    assert client.shorten_delays(datetime.now(UTC)) == 0


def test_asking_twice_is_asking_once(client: WorkClient) -> None:
    for _ in range(2):
        client.ask(image_job(SOPInstanceUID("1.2.3.1"), SMEAR))

    assert list(client.unfinished_images(SMEAR)) == ["1.2.3.1"]
    assert client.not_asked([SOPInstanceUID("1.2.3.1"), SOPInstanceUID("1.2.3.2")]) == ["1.2.3.2"]


def test_what_waits_is_counted_by_queue_with_its_age(client: WorkClient) -> None:
    client.ask(image_job(SOPInstanceUID("1.2.3.1"), SMEAR))
    client.ask(close_job(SMEAR, trigger="one", known=1, delay_s=3600.0))

    status = client.status()

    counted = {one.name: (one.waiting, one.delayed, one.in_work) for one in status.queues}
    assert counted == {"images": (1, 0, 0), "smears": (0, 1, 0)}
    assert all(one.oldest_age_s >= 0 for one in status.queues)
    assert not status.is_idle
    assert status.to_json()["research_use_only"] is True


def test_waking_runs_delayed_work_of_one_queue_now(client: WorkClient) -> None:
    client.ask(close_job(SMEAR, trigger="one", known=1, delay_s=3600.0))
    client.ask(close_job(SMEAR, trigger="two", known=1, delay_s=3600.0))

    client.wake(SMEARS, prefix="close:1.2.3:one")

    soon = datetime.now(UTC).timestamp() * 1000 + 60_000
    assert {row.id for row in client._queue.left() if row.delayed_until_ms < soon} == {
        "close:1.2.3:one"
    }


def test_a_parked_image_is_shown_and_a_retry_forgets_what_was_asked(
    tmp_path: Path, client: WorkClient
) -> None:
    inbox = Inbox(tmp_path / "inbox")
    image = receive(inbox, "1.2.3", 1)
    client.ask_for_image(image)
    client.note_start(image_job(image.sop_instance_uid, SMEAR).id, 10)
    inbox.park(image.sop_instance_uid, "crashed_repeatedly")
    assert [one.code for one in client.status().parked] == ["crashed_repeatedly"]

    assert client.retry(image.sop_instance_uid) == 1

    assert client.status().parked == ()
    assert client.starts(image_job(image.sop_instance_uid, SMEAR).id) == 0
    assert list(client.unfinished_images(SMEAR)) == [image.sop_instance_uid]


def test_nobody_is_called_by_an_empty_name(client: WorkClient) -> None:
    assert client.retry("") == 0

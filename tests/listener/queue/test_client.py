"""The queue as people and listeners see it: asked once, shown truly, clocks corrected."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from listener.queue.client import MAX_REASON_LENGTH, QueueClient
from listener.queue.dbos_adapter import make_queue
from listener.queue.jobs import (
    SMEARS,
    DeliveryAttempt,
    Job,
    close_job,
    delivery_job,
    image_job,
)
from listener.storage.inbox import Inbox
from pipeline.domain import SmearId, SOPInstanceUID
from pipeline.errors import RetryLater
from tests.listener.house import receive

SMEAR = SmearId("1.2.3")
HOUR_MS = 3_600_000


@pytest.fixture
def client(tmp_path: Path) -> Iterator[QueueClient]:
    url = f"sqlite:///{tmp_path / 'state.sqlite'}"
    make_queue(url)
    opened = QueueClient(url, inbox=Inbox(tmp_path / "inbox"), gather_by="series")
    yield opened
    opened.close()


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
        QueueClient(
            f"sqlite:///{tmp_path / 'absent.sqlite'}",
            inbox=Inbox(tmp_path / "inbox"),
            gather_by="series",
        )

    assert caught.value.code == "no_queue_yet"


def test_a_clock_set_back_an_hour_lengthens_no_delay(tmp_path: Path, client: QueueClient) -> None:
    client.enqueue(close_job(SMEAR, trigger="one", known=1, delay_s=5.0))
    set_clock_back_an_hour(tmp_path)
    now = datetime.now(UTC)

    corrected = client.shorten_delays(now)

    (row,) = client.left()
    assert corrected == 1
    assert row.delayed_until_ms <= (now + timedelta(seconds=60)).timestamp() * 1000
    assert client.shorten_delays(datetime.now(UTC)) == 0


def test_a_clock_that_runs_true_corrects_nothing(client: QueueClient) -> None:
    client.enqueue(close_job(SMEAR, trigger="one", known=1, delay_s=5.0))

    assert client.shorten_delays(datetime.now(UTC)) == 0


def test_asking_twice_is_asking_once(client: QueueClient) -> None:
    for _ in range(2):
        client.enqueue(image_job(SOPInstanceUID("1.2.3.1"), SMEAR))

    assert list(client.unfinished_images(SMEAR)) == ["1.2.3.1"]
    assert client.not_enqueued([SOPInstanceUID("1.2.3.1"), SOPInstanceUID("1.2.3.2")]) == [
        "1.2.3.2"
    ]


def test_what_waits_is_counted_by_queue_with_its_age(client: QueueClient) -> None:
    client.enqueue(image_job(SOPInstanceUID("1.2.3.1"), SMEAR))
    client.enqueue(close_job(SMEAR, trigger="one", known=1, delay_s=3600.0))

    status = client.status()

    counted = {one.name: (one.waiting, one.delayed, one.in_work) for one in status.queues}
    assert counted == {"images": (1, 0, 0), "smears": (0, 1, 0)}
    assert all(one.oldest_age_s >= 0 for one in status.queues)
    assert not status.is_idle
    assert status.to_json()["research_use_only"] is True


def test_waking_runs_delayed_work_of_one_queue_now(client: QueueClient) -> None:
    client.enqueue(close_job(SMEAR, trigger="one", known=1, delay_s=3600.0))
    client.enqueue(close_job(SMEAR, trigger="two", known=1, delay_s=3600.0))

    client.wake(SMEARS, prefix="close:1.2.3:one")

    soon = datetime.now(UTC).timestamp() * 1000 + 60_000
    assert {row.id for row in client.left() if row.delayed_until_ms < soon} == {"close:1.2.3:one"}


def test_a_parked_image_is_shown_and_a_retry_forgets_what_was_asked(
    tmp_path: Path, client: QueueClient
) -> None:
    inbox = Inbox(tmp_path / "inbox")
    image = receive(inbox, "1.2.3", 1)
    client.enqueue_image(image)
    client.note_starts(image_job(image.sop_instance_uid, SMEAR).id, 10)
    inbox.park(image.sop_instance_uid, "crashed_repeatedly")
    assert [one.code for one in client.status().parked] == ["crashed_repeatedly"]

    assert client.retry(image.sop_instance_uid) == 1

    assert client.status().parked == ()
    assert [row.starts for row in client.left()] == [0]
    assert list(client.unfinished_images(SMEAR)) == [image.sop_instance_uid]


def test_a_parked_image_that_was_mended_is_analysed_once_more(
    tmp_path: Path, client: QueueClient
) -> None:
    inbox = Inbox(tmp_path / "inbox")
    image = receive(inbox, "1.2.3", 1)
    client.enqueue_image(image)
    inbox.park(image.sop_instance_uid, "damaged_on_disk")

    client.enqueue_image(replace(image, is_mended=True))

    assert client.status().parked == ()
    assert list(inbox.waiting()) == [image.sop_instance_uid]
    assert list(client.unfinished_images(SMEAR)) == [image.sop_instance_uid]


def test_nobody_is_called_by_an_empty_name(client: QueueClient) -> None:
    assert client.retry("") == 0


# --- images in batches


def image(number: int, smear: SmearId = SMEAR) -> Job:
    return image_job(SOPInstanceUID(f"{smear}.{number}"), smear)


def test_images_are_claimed_once_the_oldest_first_and_counted_as_begun(
    client: QueueClient,
) -> None:
    for number in range(5):
        client.enqueue(image(number))

    first = client.claim_images("w1", 3, suspects=False)
    second = client.claim_images("w2", 3, suspects=False)

    assert {one.image for one in first} == {"1.2.3.0", "1.2.3.1", "1.2.3.2"}
    assert {one.image for one in second} == {"1.2.3.3", "1.2.3.4"}
    assert {one.starts for one in (*first, *second)} == {1}
    assert client.in_progress("w1") == {one.job_id for one in first}
    assert client.claim_images("w1", 3, suspects=False) == []


def test_a_batch_ends_together_with_what_follows(client: QueueClient) -> None:
    client.enqueue(image(1), image(2), image(3))
    batch = client.claim_images("w1", 3, suspects=False)
    follows = close_job(SMEAR, trigger="batch-1", known=2)

    client.settle_images("w1", done=batch[:2], not_begun=batch[2:], next_jobs=[follows])

    left = {row.id: row for row in client.left()}
    assert set(left) == {batch[2].job_id, follows.id}
    assert left[batch[2].job_id].starts == 0
    assert client.claim_images("w1", 3, suspects=False)[0].image == batch[2].image


def test_what_another_worker_took_over_is_not_ended(client: QueueClient, tmp_path: Path) -> None:
    client.enqueue(image(1))
    batch = client.claim_images("w1", 1, suspects=False)
    with closing(sqlite3.connect(tmp_path / "state.sqlite")) as connection, connection:
        connection.execute("UPDATE workflow_status SET executor_id = 'w2'")

    client.settle_images("w1", done=batch)

    assert client.in_progress("w2") == {batch[0].job_id}


def test_images_that_were_begun_before_are_claimed_apart(client: QueueClient) -> None:
    client.enqueue(image(1), image(2))
    batch = client.claim_images("w1", 2, suspects=False)
    assert not client.has_suspects()

    client.settle_images("w1", done=batch[:1], suspects=batch[1:])

    assert client.has_suspects()
    assert client.claim_images("w1", 2, suspects=False) == []
    assert [one.image for one in client.claim_images("w1", 2, suspects=True)] == [batch[1].image]


def test_a_requested_report_runs_as_soon_as_its_images_are_analysed(client: QueueClient) -> None:
    other = SmearId("1.2.4")
    client.enqueue(image(1))
    for smear in (SMEAR, other):
        client.enqueue(close_job(smear, trigger="wish-1", known=None, attempt=2, delay_s=60.0))
    client.enqueue(close_job(SMEAR, trigger="batch-1", known=1, delay_s=60.0))

    client.settle_images("w1", done=client.claim_images("w1", 1, suspects=False))

    due = [row.id for row in client.left() if not row.is_delayed]
    assert due == [f"close:{SMEAR}:wish-1:2"]


def test_a_smear_is_reported_after_its_last_image_alone(client: QueueClient) -> None:
    """Two batches of one smear: the first one enqueues no report and wakes none."""
    asked_for: list[list[SmearId]] = []

    def closes(finished: Collection[SmearId]) -> list[Job]:
        asked_for.append([*finished])
        return [close_job(one, trigger="batch", known=2, delay_s=60.0) for one in finished]

    wish = close_job(SMEAR, trigger="wish-1", known=None, attempt=2, delay_s=60.0)
    client.enqueue(image(1), image(2), wish)
    first, second = (client.claim_images("w1", 1, suspects=False) for _ in range(2))

    client.settle_images("w1", done=first, closes=closes)
    due_after_first = [row.id for row in client.left() if not row.is_delayed]
    client.settle_images("w1", done=second, closes=closes)

    assert due_after_first == [second[0].job_id]
    assert asked_for == [[], [SMEAR]]
    left = {row.id: row.is_delayed for row in client.left()}
    assert left == {wish.id: False, f"close:{SMEAR}:batch": True}


def test_an_image_that_is_tried_again_keeps_its_smear_open(client: QueueClient) -> None:
    client.enqueue(image(1))
    batch = client.claim_images("w1", 1, suspects=False)
    again = image_job(batch[0].image, SMEAR, attempt=2, delay_s=60.0)
    finished: list[SmearId] = []

    def closes(smears: Collection[SmearId]) -> list[Job]:
        finished.extend(smears)
        return []

    client.settle_images("w1", done=batch, next_jobs=[again], closes=closes)

    assert finished == []


def test_this_process_is_told_what_it_can_do(client: QueueClient) -> None:
    told: list[str] = []
    client.on_images = lambda: told.append("images")
    client.on_due = lambda after_s: told.append(f"due in {after_s:g}")

    client.enqueue(image(1))
    client.enqueue(close_job(SMEAR, trigger="one", known=1, delay_s=9.0))
    client.enqueue(image_job(SOPInstanceUID("1.9"), SMEAR, attempt=2, delay_s=3.0))
    client.settle_images("w1", not_begun=client.claim_images("w1", 1, suspects=False))

    assert told == ["images", "due in 9", "due in 3", "images"]


def _postponed(number: int, *, delay_s: float, reason: str = "") -> Job:
    attempt = DeliveryAttempt(smear_id=SMEAR, version=number, destination="pacs")
    return delivery_job(attempt, delay_s=delay_s, delay_reason=reason)


def test_status_says_why_and_when_the_next_delivery_is_tried(client: QueueClient) -> None:
    client.enqueue(
        _postponed(1, delay_s=9000.0, reason="no_answer: pacs does not answer"),
        _postponed(2, delay_s=3600.0, reason="peer_unreachable: PACS cannot be reached"),
        _postponed(3, delay_s=1800.0),
        close_job(SMEAR, trigger="one", known=1, delay_s=1.0),
    )

    queues = {queue.name: queue for queue in client.status().queues}

    pacs = queues["deliver-pacs"]
    assert pacs.delayed == 3
    assert pacs.delay_reason == "peer_unreachable: PACS cannot be reached"
    assert pacs.next_attempt_at is not None
    left_s = (pacs.next_attempt_at - datetime.now(UTC)).total_seconds()
    assert 1800 < left_s <= 3600
    assert queues[SMEARS].next_attempt_at is None


def test_a_long_reason_is_cut_off(client: QueueClient) -> None:
    client.enqueue(_postponed(1, delay_s=900.0, reason="no_answer: " + "x" * 2000))

    (queue,) = client.status().queues
    assert queue.delayed == 1
    assert queue.delay_reason.startswith("no_answer: xxx")
    assert len(queue.delay_reason) == MAX_REASON_LENGTH

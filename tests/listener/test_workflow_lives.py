"""What one life of a worker leaves to the next: lost and damaged databases, crashes, stops."""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOSClient, DBOSPortableJSONSerializer, EnqueueOptions
from dbos._sys_db import SystemDatabase
from sqlalchemy.exc import OperationalError

from listener.queue.client import QueueClient
from listener.queue.dbos_adapter import make_queue
from listener.queue.jobs import ClaimedImage, Job, JobKind, image_job
from listener.storage.results import SmearFolder
from listener.workflow.image_workers import MOST_STARTS
from listener.workflow.worker import UpkeepTimes
from pipeline.domain import SmearId
from pipeline.errors import NeedsReview, RetryLater
from reporting.audit.trail import Event
from tests.fakes import RecordingAudit
from tests.listener.house import Shelf, make_house, receive, until, working


def test_a_lost_database_is_refilled_and_nothing_is_sent_twice(tmp_path: Path) -> None:
    pacs = Shelf()
    house = make_house(tmp_path, audit=RecordingAudit(), destinations=[pacs])
    with working(tmp_path, house) as workflow:
        workflow.image_received(receive(house.inbox, "1.2.3.4", 1))
        until(lambda: len(pacs.arrived) == 3 and workflow.status().is_idle)
    for name in ("state.sqlite", "state.sqlite-wal", "state.sqlite-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    receive(house.inbox, "1.2.3.5", 1)  # answered with Success, then the power went

    with working(tmp_path, house) as workflow:
        until(lambda: len(pacs.arrived) == 6 and workflow.status().is_idle)

    assert {len(contents) for contents in pacs.arrived.values()} == {1}


def test_a_damaged_database_stops_the_start_and_says_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite").write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 64)
    house = make_house(tmp_path, audit=RecordingAudit())

    with pytest.raises(NeedsReview) as caught, working(tmp_path, house):
        pass

    assert caught.value.code == "database_damaged"
    assert "Move it away" in caught.value.message


def test_a_database_that_cannot_be_written_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite").mkdir()
    house = make_house(tmp_path, audit=RecordingAudit())

    with pytest.raises(RetryLater) as caught, working(tmp_path, house):
        pass

    assert caught.value.code == "database_unavailable"


def test_an_image_that_ends_every_worker_is_parked_and_its_smear_reported(tmp_path: Path) -> None:
    """What ten dead workers would have noted, noted by hand."""
    pacs, audit = Shelf(), RecordingAudit()
    house = make_house(tmp_path, audit=audit, destinations=[pacs])
    poison, good = (receive(house.inbox, "1.2.3.4", number) for number in (1, 2))
    url = f"sqlite:///{tmp_path / 'state.sqlite'}"
    make_queue(url)
    with closing(QueueClient(url, inbox=house.inbox, gather_by="series")) as queue:
        work = image_job(poison.sop_instance_uid, SmearId("1.2.3.4"))
        queue.enqueue(work)
        queue.note_starts(work.id, MOST_STARTS)

    with working(tmp_path, house) as workflow:
        workflow.image_received(poison)
        workflow.image_received(good)
        until(lambda: pacs.arrived and workflow.status().is_idle)

    assert list(house.inbox.parked()) == [(poison.sop_instance_uid, "crashed_repeatedly")]
    assert house.analysis.seen[poison.sop_instance_uid] == 0
    assert audit.of(Event.IMAGE_PARKED)


def test_work_in_hand_goes_on_when_a_lost_database_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue does not answer when the image is settled, nor when its deliveries are enqueued."""
    monkeypatch.setattr("listener.workflow.worker.DATABASE_PAUSE_S", 0.01)
    monkeypatch.setattr("listener.workflow.image_workers.DATABASE_PAUSE_S", 0.01)
    pacs = Shelf()
    house = make_house(tmp_path, audit=RecordingAudit(), destinations=[pacs])
    away, settling_away = iter([True] * 3), iter([True] * 3)
    with working(tmp_path, house) as workflow:
        enqueue, settle = workflow.client.enqueue, workflow.client.settle_images

        def away_at_first(*jobs: Job) -> None:
            if jobs[0].kind is not JobKind.ANALYSE_IMAGE and next(away, False):
                raise RetryLater("gone", code="database_unavailable")
            enqueue(*jobs)

        def unsettled_at_first(*arguments: Any, **named: Any) -> None:
            if next(settling_away, False):
                raise RetryLater("gone", code="database_unavailable")
            settle(*arguments, **named)

        monkeypatch.setattr(workflow.client, "enqueue", away_at_first)
        monkeypatch.setattr(workflow.client, "settle_images", unsettled_at_first)
        workflow.image_received(receive(house.inbox, "1.2.3.4", 1))
        until(lambda: len(pacs.arrived) == 3 and workflow.status().is_idle)

        assert next(away, None) is None
        assert next(settling_away, None) is None
        assert workflow.status().parked == ()
    assert set(house.analysis.seen.values()) == {1}
    assert {len(contents) for contents in pacs.arrived.values()} == {1}


def test_a_claim_whose_answer_is_lost_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database has noted the claim when the connection breaks: no thread begins the work.

    With one delivery at a time such a piece would keep all others from the destination for ever.
    """
    lost: set[str] = set()

    def answer_lost(original: Callable[..., Any]) -> Callable[..., Any]:
        def claim(*arguments: Any, **named: Any) -> Any:
            answer = original(*arguments, **named)
            rows = answer[0] if isinstance(answer, tuple) else answer
            claimed = {getattr(row, "job_id", row) for row in rows}
            if not claimed <= lost:
                lost.update(claimed)
                raise OperationalError("COMMIT", {}, ConnectionResetError("gone"))
            return answer

        return claim

    for name in ("start_queued_workflows", "start_queued_partitioned_workflows"):
        monkeypatch.setattr(SystemDatabase, name, answer_lost(getattr(SystemDatabase, name)))
    monkeypatch.setattr(QueueClient, "claim_images", answer_lost(QueueClient.claim_images))
    pacs = Shelf()
    house = make_house(tmp_path, audit=RecordingAudit(), destinations=[pacs])

    with working(tmp_path, house, upkeep=UpkeepTimes(takeover_s=0.05)) as workflow:
        workflow.image_received(receive(house.inbox, "1.2.3.4", 1))
        until(lambda: len(pacs.arrived) == 3 and workflow.status().is_idle)

    assert {key.split(":")[0] for key in lost} == {"image", "close", "deliver"}
    assert {len(contents) for contents in pacs.arrived.values()} == {1}


def test_a_stop_does_not_wait_for_a_lost_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pacs = Shelf()
    house = make_house(tmp_path, audit=RecordingAudit(), destinations=[pacs])
    asked = threading.Event()
    with working(tmp_path, house) as workflow:

        def away(*_arguments: Any, **_named: Any) -> None:
            asked.set()
            raise RetryLater("gone", code="database_unavailable")

        monkeypatch.setattr(workflow.client, "settle_images", away)
        workflow.image_received(receive(house.inbox, "1.2.3.4", 1))
        asked.wait()

    with working(tmp_path, house) as workflow:
        until(lambda: len(pacs.arrived) == 3 and workflow.status().is_idle)
    assert {len(contents) for contents in pacs.arrived.values()} == {1}


def test_a_locked_database_loses_nothing(tmp_path: Path) -> None:
    """Another program holds the file; images are taken in all the same, as files."""
    pacs = Shelf()
    house = make_house(tmp_path, audit=RecordingAudit(), destinations=[pacs])
    with working(tmp_path, house, upkeep=UpkeepTimes(reconcile_s=0.2)) as workflow:
        with closing(sqlite3.connect(tmp_path / "state.sqlite", timeout=60)) as rival:
            rival.execute("BEGIN EXCLUSIVE")
            image = receive(house.inbox, "1.2.3.4", 1)
            workflow.image_received(image)
            assert workflow.client.not_enqueued([image.sop_instance_uid])
            rival.rollback()

        until(lambda: len(pacs.arrived) == 3 and workflow.status().is_idle)
        assert workflow.status().parked == ()


def test_storage_that_gives_out_is_waited_for_and_nobody_is_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A results folder that became read-only: every write of it fails for a while."""
    monkeypatch.setattr("listener.workflow.transitions.FIRST_STORAGE_DELAY_S", 0.01)
    pacs, audit = Shelf(), RecordingAudit()
    house = make_house(tmp_path, audit=audit, destinations=[pacs])
    fails = iter([True] * 4)
    save = SmearFolder.save_fields
    publish = SmearFolder.publish

    def read_only(original: Callable[..., Any]) -> Callable[..., Any]:
        def refusing(*arguments: Any, **named: Any) -> Any:
            if next(fails, False):
                raise OSError(errno.EROFS, "Read-only file system")
            return original(*arguments, **named)

        return refusing

    monkeypatch.setattr(SmearFolder, "save_fields", read_only(save))
    monkeypatch.setattr(SmearFolder, "publish", read_only(publish))
    with working(tmp_path, house) as workflow:
        workflow.image_received(receive(house.inbox, "1.2.3.4", 1))
        until(lambda: len(pacs.arrived) == 3 and workflow.status().is_idle)

        assert next(fails, None) is None
        assert workflow.status().parked == ()
    assert not audit.of(Event.IMAGE_PARKED)


def test_the_next_version_takes_up_what_this_one_left(tmp_path: Path) -> None:
    """Rows as version 0.1.0 wrote them, letter by letter: a new version must read them for ever.

    The other kinds stand in test_jobs.py.
    """
    pacs = Shelf()
    house = make_house(tmp_path, audit=RecordingAudit(), destinations=[pacs])
    receive(house.inbox, "1.2.3.4", 1)
    url = f"sqlite:///{tmp_path / 'state.sqlite'}"
    make_queue(url)
    client = DBOSClient(
        system_database_url=url,
        application_name="smearlink",
        serializer=DBOSPortableJSONSerializer(),
    )
    left = {
        ("analyse_image", "images"): ("1.2.3.4.1", "1.2.3.4", 1),
        ("close_smear", "smears"): ("1.2.3.4", "1.2.3.4.1", 1, 1),
    }
    for number, ((name, queue), arguments) in enumerate(left.items()):
        options: EnqueueOptions = {
            "workflow_name": name,
            "queue_name": queue,
            "workflow_id": f"left:{number}",
            "queue_partition_key": "1.2.3.4",
            "app_version": "1",
        }
        client.enqueue(options, *arguments)
    client.destroy()

    with working(tmp_path, house) as workflow:
        until(lambda: len(pacs.arrived) == 3 and workflow.status().is_idle)

    assert {len(contents) for contents in pacs.arrived.values()} == {1}


def test_a_stop_hands_back_what_waits_and_the_next_life_takes_it_up(tmp_path: Path) -> None:
    pacs = Shelf()
    house = make_house(tmp_path, audit=RecordingAudit(), destinations=[pacs])
    with working(tmp_path, house) as workflow:
        claimed = threading.Event()
        claim = workflow.client.claim_images

        def claim_at_the_stop(*arguments: Any, **named: Any) -> list[ClaimedImage]:
            images = claim(*arguments, **named)
            if images:
                workflow._running.image_workers.begin_stop()
                claimed.set()
            return images

        workflow.client.claim_images = claim_at_the_stop  # type: ignore[method-assign]
        for number in (1, 2, 3):
            receive(house.inbox, "1.2.3.4", number)
        images = [house.inbox.facts(image) for image in house.inbox.waiting()]
        workflow.client.enqueue_image(*images)
        claimed.wait()
    assert sum(house.analysis.seen.values()) == 1

    with working(tmp_path, house) as workflow:
        until(lambda: pacs.arrived and workflow.status().is_idle)

    assert list(house.analysis.seen.values()) == [1, 1, 1]


def test_a_second_process_cannot_work_under_the_same_name(tmp_path: Path) -> None:
    house = make_house(tmp_path, audit=RecordingAudit())
    with working(tmp_path, house):
        with pytest.raises(NeedsReview) as caught, working(tmp_path, house):
            pass

        assert caught.value.code == "worker_id_taken"

"""What one life of a worker leaves to the next: lost and damaged databases, crashes, stops."""

from __future__ import annotations

from pathlib import Path

import pytest

from listener.workflow import MOST_STARTS
from pipeline.errors import NeedsReview, RetryLater
from reporting.audit import Event
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
    with working(tmp_path, house) as workflow:
        gate = workflow._gate  # hold the work back until the starts are noted
        with gate.entered(is_alone=True):
            workflow.image_received(poison)
            workflow.image_received(good)
            until(lambda: not workflow.client.not_asked([poison.sop_instance_uid]))
            workflow.client.note_start(f"image:{poison.sop_instance_uid}", MOST_STARTS)

        until(lambda: pacs.arrived and workflow.status().is_idle)

    assert list(house.inbox.parked()) == [(poison.sop_instance_uid, "crashed_repeatedly")]
    assert house.analysis.seen[poison.sop_instance_uid] == 0
    assert audit.of(Event.IMAGE_PARKED)


def test_a_stop_hands_back_what_waits_and_the_next_life_takes_it_up(tmp_path: Path) -> None:
    pacs = Shelf()
    house = make_house(tmp_path, audit=RecordingAudit(), destinations=[pacs])
    with working(tmp_path, house) as workflow, workflow._gate.entered(is_alone=True):
        workflow.image_received(receive(house.inbox, "1.2.3.4", 1))
        until(lambda: workflow.status().workers == ("w1",))
        workflow._gate.close()
    assert not house.analysis.seen

    with working(tmp_path, house) as workflow:
        until(lambda: pacs.arrived and workflow.status().is_idle)

    assert set(house.analysis.seen.values()) == {1}


def test_a_second_process_cannot_work_under_the_same_name(tmp_path: Path) -> None:
    house = make_house(tmp_path, audit=RecordingAudit())
    with working(tmp_path, house):
        with pytest.raises(NeedsReview) as caught, working(tmp_path, house):
            pass

        assert caught.value.code == "worker_id_taken"

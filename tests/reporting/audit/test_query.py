"""The trail is read by time, over all chains, and only for what is asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reporting.audit.trail import (
    Actor,
    Event,
    EventFilter,
    Outcome,
    read_events,
    recorded_review_events,
)
from tests.reporting.trails import KEY, Clock, open_trail


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    clock = Clock()
    here, there = (open_trail(tmp_path, chain=name, clock=clock) for name in ("here", "there"))
    for number in range(4):
        clock.move(60)
        trail = here if number % 2 else there
        trail.record(
            Event.IMAGE_RECEIVED,
            actor=Actor(ae_title=f"CAM{number}"),
            outcome=Outcome.SUCCESS if number else Outcome.SERIOUS_FAILURE,
            study_uid=f"1.{number}",
            accession=f"A{number}",
            count=number,
        )
    here.close()
    there.close()
    return tmp_path


def counts(folder: Path, **asked: Any) -> list[int]:
    found = read_events(folder, EventFilter(event=Event.IMAGE_RECEIVED, **asked))
    return [entry["count"] for entry in found]


def test_events_of_all_chains_come_by_time(folder: Path) -> None:
    assert counts(folder) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"study_uid": "1.2"}, [2]),
        ({"accession_hash": KEY.accession_hash("A3")}, [3]),
        ({"ae_title": "CAM1"}, [1]),
        ({"outcome": Outcome.SERIOUS_FAILURE}, [0]),
        ({"since": datetime(2026, 11, 22, 12, 3, tzinfo=UTC)}, [2, 3]),
        ({"until": datetime(2026, 11, 22, 12, 3, tzinfo=UTC)}, [0, 1]),
        ({"study_uid": "1.2", "ae_title": "CAM1"}, []),
    ],
)
def test_only_what_is_asked_for_is_shown(
    folder: Path, asked: dict[str, Any], expected: list[int]
) -> None:
    assert counts(folder, **asked) == expected


def test_a_damaged_line_is_left_out(folder: Path) -> None:
    path = next(folder.glob("audit-*-here.jsonl"))
    path.write_bytes(path.read_bytes().replace(b'"count":1', b'"count":7') + b'{"torn')

    assert counts(folder) == [0, 2, 3]


def test_an_empty_folder_has_no_events(tmp_path: Path) -> None:
    assert list(read_events(tmp_path)) == []


def test_the_acts_of_reviewers_since_a_day_are_found_in_every_chain(tmp_path: Path) -> None:
    clock = Clock()
    began = clock.now
    for day in range(3):
        for chain in ("here", "there"):
            with open_trail(tmp_path, chain=chain, clock=clock) as trail:
                trail.record(Event.REVIEW_RECORDED, review_event=f"act{day}{chain}", revision=1)
                trail.record(Event.IMAGE_RECEIVED, sop_instance_uid="1.2")
        clock.move(2 * 86400)

    everything = recorded_review_events(tmp_path, since=began)
    newest = recorded_review_events(tmp_path, since=clock.now - timedelta(days=2))

    assert everything == {f"act{day}{chain}" for day in range(3) for chain in ("here", "there")}
    assert newest == {"act2here", "act2there"}
    assert recorded_review_events(tmp_path / "absent", since=began) == frozenset()


def test_a_changed_line_does_not_say_that_an_act_was_recorded(tmp_path: Path) -> None:
    clock = Clock()
    with open_trail(tmp_path, clock=clock) as trail:
        trail.record(Event.REVIEW_RECORDED, review_event="act1", revision=1)
    path = next(tmp_path.glob("audit-*.jsonl"))
    path.write_bytes(path.read_bytes().replace(b'"act1"', b'"act2"'))

    assert recorded_review_events(tmp_path, since=clock.now) == frozenset()

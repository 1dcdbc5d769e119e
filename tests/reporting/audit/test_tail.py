"""The follower reads every event once, across files and restarts, while the chain grows."""

from __future__ import annotations

from pathlib import Path

import pytest

from reporting.audit.tail import Place, read_on
from reporting.audit.trail import Event, read_events
from tests.reporting.trails import Clock, open_trail, write_days


def read_all(folder: Path, *, most_bytes: int = 1 << 20) -> list[int]:
    place = Place()
    numbers: list[int] = []
    while True:
        entries, after = read_on(folder, "ward7", place, most_bytes=most_bytes)
        if after == place:
            return numbers
        numbers += [entry["seq"] for entry in entries]
        place = after


def test_an_empty_folder_has_nothing(tmp_path: Path) -> None:
    assert read_on(tmp_path, "ward7", Place()) == ([], Place())


@pytest.mark.parametrize("most_bytes", [2_000, 5_000, 1 << 20])
def test_every_event_is_read_once_in_order(tmp_path: Path, most_bytes: int) -> None:
    write_days(tmp_path, days=3, events=6)

    numbers = read_all(tmp_path, most_bytes=most_bytes)

    assert numbers == list(range(1, len(list(read_events(tmp_path))) + 1))


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    clock = Clock()
    trail = open_trail(tmp_path, clock=clock)
    _, place = read_on(tmp_path, "ward7", Place())
    clock.move(86400)
    trail.record(Event.IMAGE_RECEIVED, count=1)

    first, place = read_on(tmp_path, "ward7", place)
    second, place = read_on(tmp_path, "ward7", place)

    assert [e["event"] for e in first] == ["checkpoint_signed"]
    assert [e["event"] for e in second] == ["chain_rolled", "image_received"]
    assert read_on(tmp_path, "ward7", place) == ([], place)


def test_a_line_that_is_still_being_written_waits(tmp_path: Path) -> None:
    trail = open_trail(tmp_path)
    _, place = read_on(tmp_path, "ward7", Place())
    trail.record(Event.IMAGE_RECEIVED, count=1)
    [path] = tmp_path.glob("audit-*.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])

    assert read_on(tmp_path, "ward7", place) == ([], place)

    path.write_bytes(whole)
    [entry], _ = read_on(tmp_path, "ward7", place)
    assert entry["count"] == 1


def test_a_line_that_does_not_hold_is_passed_over(tmp_path: Path) -> None:
    trail = open_trail(tmp_path)
    _, place = read_on(tmp_path, "ward7", Place())
    trail.record(Event.IMAGE_RECEIVED, count=1)
    trail.record(Event.IMAGE_RECEIVED, count=2)
    [path] = tmp_path.glob("audit-*.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"count":1', b'"count":7'))

    entries, after = read_on(tmp_path, "ward7", place)

    assert [entry["count"] for entry in entries] == [2]
    assert after.offset == path.stat().st_size


def test_other_chains_are_left_to_their_own_machines(tmp_path: Path) -> None:
    write_days(tmp_path, days=1, chain="ward8")

    assert read_on(tmp_path, "ward7", Place()) == ([], Place())

"""The review log loses no event, overwrites none, and counts a repeated request once."""

from __future__ import annotations

import json
import random
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listener.storage.reviews import ReviewLog, StaleReview
from pipeline.domain import Reviewer
from pipeline.errors import Defect
from pipeline.findings.review import Act, CellKey, FieldKey, ReviewEvent
from pipeline.findings.review_records import event_from_record, event_to_record
from tests.findings import make_cell, make_cell_finding


def an_event(name: str = "e1", **given: object) -> ReviewEvent:
    values: dict[str, object] = {
        "id": name,
        "at": datetime(2026, 11, 28, 12, tzinfo=UTC),
        "reviewer": Reviewer(account="jm", name="J. Meyer", organization="Lab"),
        "act": Act.SEEN,
        "cells": (CellKey("1.2.3:1:1"),),
    }
    return ReviewEvent(**{**values, **given})  # type: ignore[arg-type]


@pytest.fixture
def log(tmp_path: Path) -> ReviewLog:
    return ReviewLog(tmp_path / "review", tmp=tmp_path / "tmp")


def test_a_damaged_event_is_a_defect_and_not_skipped(log: ReviewLog, tmp_path: Path) -> None:
    log.append(an_event(), seen_revision=0)
    (tmp_path / "review" / "00000001.json").write_text('{"format": 1, "research_use_only": true}')

    with pytest.raises(Defect, match="cannot be read"):
        ReviewLog(tmp_path / "review", tmp=tmp_path / "tmp").events()


def test_an_unlabelled_event_is_refused(tmp_path: Path) -> None:
    record = event_to_record(an_event(revision=1))
    record["research_use_only"] = False

    with pytest.raises(Defect, match="research-use label"):
        event_from_record(record)


def test_a_write_that_saw_an_older_revision_is_told_what_changed(log: ReviewLog) -> None:
    log.append(an_event("e1"), seen_revision=0)

    with pytest.raises(StaleReview) as stale:
        log.append(an_event("e2"), seen_revision=0)

    assert [one.id for one in stale.value.since] == ["e1"]
    assert [one.id for one in log.events()] == ["e1"]


def test_a_write_from_the_future_is_refused(log: ReviewLog) -> None:
    with pytest.raises(StaleReview):
        log.append(an_event(), seen_revision=7)


def test_what_another_process_writes_is_seen_without_reading_the_folder_again(
    log: ReviewLog, tmp_path: Path
) -> None:
    other = ReviewLog(tmp_path / "review", tmp=tmp_path / "tmp")
    assert log.revision() == 0
    for number in range(3):
        other.append(an_event(f"e{number}"), seen_revision=number)

    assert [one.id for one in log.events()] == ["e0", "e1", "e2"]
    assert log.revision() == 3
    assert log.find("e1") == log.events()[1]
    assert log.find("e9") is None


def test_the_same_request_twice_is_one_event(log: ReviewLog) -> None:
    first = log.append(an_event("e1"), seen_revision=0)
    log.append(an_event("e2"), seen_revision=1)

    again = log.append(an_event("e1"), seen_revision=0)

    assert again.revision == first.revision == 1
    assert log.revision() == 2


def test_another_process_sees_what_was_kept(log: ReviewLog, tmp_path: Path) -> None:
    kept = log.append(an_event(comment="röd kärna", act=Act.COMMENT), seen_revision=0)

    [read] = ReviewLog(tmp_path / "review", tmp=tmp_path / "tmp").events()

    assert event_to_record(read) == event_to_record(kept)


def test_no_draft_is_left_behind(log: ReviewLog, tmp_path: Path) -> None:
    log.append(an_event(), seen_revision=0)

    assert list((tmp_path / "tmp").iterdir()) == []


@settings(max_examples=25, deadline=None)
@given(writers=st.integers(2, 4), each=st.integers(1, 5))
def test_of_writers_at_once_nothing_is_lost_or_overwritten(
    tmp_path_factory: pytest.TempPathFactory, writers: int, each: int
) -> None:
    folder = tmp_path_factory.mktemp("log")

    def write(writer: int) -> None:
        own = ReviewLog(folder / "review", tmp=folder / f"tmp{writer}")
        for number in range(each):
            while True:
                try:
                    own.append(an_event(f"{writer}-{number}"), seen_revision=own.revision())
                except StaleReview:
                    continue
                break

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    events = ReviewLog(folder / "review", tmp=folder / "tmp").events()
    assert sorted(one.id for one in events) == sorted(
        f"{writer}-{number}" for writer in range(writers) for number in range(each)
    )
    assert [one.revision for one in events] == list(range(1, writers * each + 1))


TEXT = st.text(max_size=40)


@given(
    event=st.builds(
        ReviewEvent,
        id=st.uuids().map(str),
        revision=st.integers(0, 10_000),
        at=st.datetimes(timezones=st.just(UTC)),
        reviewer=st.builds(Reviewer, account=TEXT, name=TEXT, role=TEXT, organization=TEXT),
        act=st.sampled_from(Act),
        cells=st.lists(st.just(CellKey("1.2:1:3"))).map(tuple),
        fields=st.lists(st.just(FieldKey("1.2:1"))).map(tuple),
        before=st.lists(TEXT).map(tuple),
        to=TEXT,
        reason=TEXT,
        comment=TEXT,
        undoes=TEXT,
        model_sha256=TEXT,
        is_blind=st.booleans(),
    )
)
def test_an_event_comes_back_as_it_was(event: ReviewEvent) -> None:
    event = replace(event, added=make_cell_finding(make_cell(10_000, 50, 50)))

    there = json.loads(json.dumps(event_to_record(event)))

    assert event_to_record(event_from_record(there)) == event_to_record(event)


def test_ten_thousand_interleaved_writes_lose_and_overwrite_nothing(tmp_path: Path) -> None:
    """Two pages act on what they last saw; each refused write is shown and tried again."""
    chance = random.Random(7)  # noqa: S311 - a test that can be repeated
    wanted = refused = 0
    for smear in range(500):
        folder = tmp_path / str(smear)
        pages = [ReviewLog(folder / "review", tmp=folder / "tmp") for _ in range(2)]
        seen = [0, 0]
        done = [0, 0]
        while min(done) < 10:
            who = chance.randrange(2)
            if chance.random() < 0.3:
                seen[who] = pages[who].revision()
                continue
            try:
                kept = pages[who].append(an_event(f"{who}-{done[who]}"), seen_revision=seen[who])
            except StaleReview as stale:
                refused += 1
                seen[who] = stale.since[-1].revision
            else:
                done[who] += 1
                seen[who] = kept.revision
        ids = [one.id for one in ReviewLog(folder / "review", tmp=folder / "tmp").events()]
        assert sorted(ids) == sorted(f"{who}-{n}" for who in range(2) for n in range(done[who]))
        wanted += sum(done)

    assert wanted >= 10_000
    assert refused > 1_000

"""The index of smears: follows the files, finds at once, forgets what is gone."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from listener.web.console.app import smear_files
from listener.web.console.database import SMEAR, ConsoleDatabase
from listener.web.console.indexer import FollowedAudit, Indexer
from listener.web.console.smear_index import (
    PAGE_ROWS,
    DeliveryStanding,
    ReviewStanding,
    SmearFilter,
    SmearIndex,
    SmearRow,
)
from pipeline.domain import Grade, Interval, QualityFlag, SmearId
from reporting.audit.trail import Event
from tests.findings import make_field_findings
from tests.listener.web.console.query_plans import scans_of
from tests.listener.web.console.site import NOW, ConsoleSite


def make_row(number: int, **changes: object) -> SmearRow:
    values: dict[str, object] = {
        "smear_id": SmearId(f"1.2.{number}"),
        "version": 1,
        "study_uid": "1.2",
        "accession": f"ACC-{number:06}",
        "patient_id": f"PID-{number % 5000:05}",
        "patient_name": "Doe, Jane",
        "specimen": "",
        "pseudonym": f"P-{number}",
        "device": f"SCOPE{number % 7}",
        "received_at": NOW - timedelta(minutes=number),
        "reported_at": NOW,
        "fields": 12,
        "fields_rejected": number % 3,
        "cells": 220,
        "counted": 200,
        "blasts": number % 60,
        "referred": 9,
        "share": Interval(value=0.1, low=0.05, high=0.2),
        "grade": list(Grade)[number % 4],
        "flags": (QualityFlag.OUT_OF_FOCUS,) if number % 9 == 0 else (),
        "deliveries": {"pacs": list(DeliveryStanding)[2 + number % 4]},
        "review": list(ReviewStanding)[number % 5],
        "stamp": str(number),
    }
    return SmearRow(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def index(tmp_path: Path) -> SmearIndex:
    return SmearIndex(ConsoleDatabase(f"sqlite:///{tmp_path / 'state.sqlite'}"))


def test_a_row_comes_back_as_it_was_saved(index: SmearIndex) -> None:
    row = make_row(7, accession="=ACC<b>'\"", patient_name="د. محمد", share=None, grade=None)

    index.save([row], at=NOW)

    assert index.find(row.smear_id) == row


def test_the_newest_comes_first_page_by_page(index: SmearIndex) -> None:
    rows = [make_row(number * 7 % (2 * PAGE_ROWS + 3)) for number in range(2 * PAGE_ROWS + 3)]
    index.save(rows, at=NOW)

    pages = [index.page(SmearFilter(), number) for number in (1, 2, 3, 99)]

    numbers = [int(row.smear_id.split(".")[2]) for page in pages[:3] for row in page.rows]
    assert numbers == list(range(2 * PAGE_ROWS + 3))
    assert pages[3].number == pages[0].pages == 3


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (SmearFilter(grade="many"), {2, 6, 10}),
        (SmearFilter(device="SCOPE3"), {3, 10}),
        (SmearFilter(state="parked"), {3, 7, 11}),
        (SmearFilter(review="signed"), {2, 7}),
        (SmearFilter(since=NOW - timedelta(minutes=2)), {0, 1, 2}),
        (SmearFilter(until=NOW - timedelta(minutes=9)), {10, 11}),
        (SmearFilter(words="acc-00000"), {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}),
        (SmearFilter(words=" PID-00011 "), {11}),
        (SmearFilter(words="%"), set()),
        (SmearFilter(words="ACC_000001"), set()),
        (SmearFilter(grade="many", device="SCOPE3"), {10}),
    ],
)
def test_a_filter_finds_what_fits(
    index: SmearIndex, asked: SmearFilter, expected: set[int]
) -> None:
    index.save([make_row(number) for number in range(12)], at=NOW)

    page = index.page(asked)

    assert {int(row.smear_id.split(".")[2]) for row in page.rows} == expected
    assert page.total == len(expected)


def test_saving_again_takes_the_place_of_the_row(index: SmearIndex) -> None:
    index.save([make_row(1)], at=NOW)
    before = index.changed_at()

    index.save([make_row(1, version=2)], at=NOW + timedelta(seconds=1))

    assert index.page(SmearFilter()).total == 1
    assert index.find("1.2.1") == make_row(1, version=2)
    assert index.changed_at() > before


def test_a_clock_that_was_set_back_hides_no_change(index: SmearIndex) -> None:
    index.save([make_row(1)], at=NOW)
    before = index.changed_at()

    index.save([make_row(1, version=2)], at=NOW - timedelta(hours=1))

    assert index.changed_at() > before


def test_devices_are_listed_once(index: SmearIndex) -> None:
    index.save([make_row(number) for number in range(20)], at=NOW)

    assert index.devices() == [f"SCOPE{number}" for number in range(7)]


SMEAR_QUESTIONS = [
    (SmearFilter(), 1),
    (SmearFilter(), 2000),
    (SmearFilter(grade="many"), 1),
    (SmearFilter(device="SCOPE3"), 5),
    (SmearFilter(state="parked"), 1),
    (SmearFilter(review="not_reviewed"), 1),
    (SmearFilter(grade="few", device="SCOPE1", state="waiting"), 1),
    (SmearFilter(since=NOW - timedelta(days=7)), 1),
    (SmearFilter(words="ACC-0123"), 1),
    (SmearFilter(words="PID-04"), 1),
    (SmearFilter(words="nobody"), 1),
]
"""What `bench_console` asks of 100,000 smears."""


@pytest.mark.parametrize(("asked", "number"), SMEAR_QUESTIONS)
def test_every_question_looks_up_an_index(tmp_path: Path, asked: SmearFilter, number: int) -> None:
    database = ConsoleDatabase(f"sqlite:///{tmp_path / 'state.sqlite'}")
    index = SmearIndex(database)
    index.save((make_row(one) for one in range(200)), at=NOW)

    assert scans_of(database, lambda: index.page(asked, number)) == []
    assert scans_of(database, index.devices) == []


def test_a_scan_is_seen(tmp_path: Path) -> None:
    database = ConsoleDatabase(f"sqlite:///{tmp_path / 'state.sqlite'}")

    def count_flagged() -> None:
        with database.reading() as connection:
            connection.execute(sa.select(SMEAR.c.flags).where(SMEAR.c.flags == "x"))

    assert scans_of(database, count_flagged) == ["SCAN main.smear"]


# --- from files


def indexer(site: ConsoleSite, parked: list[tuple[str, str]] | None = None) -> Indexer:
    return Indexer(
        index=SmearIndex(site.database),
        files=smear_files(site.parts),
        inbox=site.store.inbox,
        results=site.store.results,
        gather_by="series",
        read_parked=lambda: parked or [],
    )


def test_the_index_is_built_again_from_files(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    for number in (1, 2, 3):
        found = make_field_findings(
            series_uid=f"1.2.3.{number}", sop_instance_uid=f"1.2.4.{number}"
        )
        site.put_smear([found], is_indexed=False)
    index = SmearIndex(site.database)
    index.save([make_row(9)], at=NOW)

    first, second = indexer(site).scan(), indexer(site).scan()

    found_row = index.find("1.2.3.2")
    assert (first, second) == (3, 0)
    assert index.find("1.2.9") is None
    assert found_row is not None
    assert (found_row.accession, found_row.patient_id) == ("ACC-1", "PID-4711")
    assert (found_row.version, found_row.counted, found_row.blasts) == (1, 3, 1)
    assert found_row.device == "DEVICE"
    assert found_row.received_at == NOW


def test_a_table_of_an_earlier_version_is_filled_from_the_files(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    smear = site.put_smear([make_field_findings()], builds=False)
    site.review_as("rosa", smear, seen_revision=0)
    indexer(site).scan()
    with site.database.writing() as connection:
        connection.execute(sa.text("DROP INDEX smear_by_review"))
        connection.execute(sa.text("ALTER TABLE smear DROP COLUMN review"))

    url = f"sqlite:///{site.root / 'state.sqlite'}"
    ConsoleDatabase(url).close()
    database = ConsoleDatabase(url)
    before = SmearIndex(database).find(smear)
    indexer(site).scan()
    after = SmearIndex(database).find(smear)

    assert before is not None
    assert after is not None
    assert before.review is ReviewStanding.NOT_REVIEWED
    assert after.review is ReviewStanding.IN_REVIEW
    asked = SmearFilter(review="signed")
    assert scans_of(database, lambda: SmearIndex(database).page(asked)) == []
    database.close()


def test_a_new_version_changes_the_row_at_the_next_scan(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    one = make_field_findings(sop_instance_uid="1.2.4.1")
    two = make_field_findings(sop_instance_uid="1.2.4.2")
    smear = site.put_smear([one], is_indexed=False)
    indexer(site).scan()

    site.put_smear([one, two], version=2, is_indexed=False)
    count = indexer(site).scan()

    row = SmearIndex(site.database).find(smear)
    assert count == 1
    assert row is not None
    assert (row.version, row.fields) == (2, 2)


def test_a_smear_past_its_retention_keeps_who_it_is_and_when_it_came(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    found = make_field_findings()
    kinds = site.put_smear([found], is_indexed=False)
    site.store.inbox.remove(found.sop_instance_uid)

    indexer(site).scan()

    row = SmearIndex(site.database).find(kinds)
    assert row is not None
    assert row.received_at == NOW


def test_a_parked_delivery_is_shown_as_parked(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    smear = site.put_smear(
        [make_field_findings()], destinations=["pacs", "ehr"], is_indexed=False, builds=False
    )

    indexer(site, parked=[(smear, "pacs")]).scan()

    row = SmearIndex(site.database).find(smear)
    assert row is not None
    assert row.delivery is DeliveryStanding.PARKED
    assert row.deliveries == {"pacs": "parked", "ehr": "delivered"}


def test_an_event_of_a_smear_makes_its_row_without_a_scan(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    running = indexer(site)
    audit = FollowedAudit(site.audit)
    audit.follow(running.note)
    running.start()
    smear = site.put_smear([make_field_findings()], is_indexed=False, builds=False)

    audit.record(Event.SMEAR_REPORTED, smear_id=smear, version=1)
    deadline = time.monotonic() + 60
    while SmearIndex(site.database).find(smear) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    running.stop()

    assert SmearIndex(site.database).find(smear) is not None
    assert site.audit.events == [Event.SMEAR_REPORTED]


def test_one_damaged_smear_hides_no_other(tmp_path: Path) -> None:
    site = ConsoleSite(tmp_path)
    good = site.put_smear([make_field_findings()], is_indexed=False)
    other = make_field_findings(series_uid="1.2.3.9", sop_instance_uid="1.2.4.9")
    bad = site.put_smear([other], is_indexed=False)
    (tmp_path / "results" / bad / "fields" / "1.2.4.9.json").write_text("{torn")

    count = indexer(site).scan()

    assert count == 1
    assert SmearIndex(site.database).find(good) is not None
    assert SmearIndex(site.database).find(bad) is None


def test_times_are_utc(index: SmearIndex) -> None:
    moment = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    index.save([make_row(1, received_at=moment)], at=NOW)

    row = index.find("1.2.1")

    assert row is not None
    assert row.received_at == moment

"""An image goes only after all of its results were confirmed, and then with its whole smear."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from listener.queue.jobs import DeliveryAttempt
from listener.workflow.retention import Retention
from listener.workflow.steps import ReportStatus
from pipeline.domain import SmearId
from reporting.audit.trail import Event
from tests.fakes import RecordingAudit
from tests.listener.house import Shelf, WorkflowSite, make_house, receive

SERIES = "1.2.3.4"
DAY = timedelta(days=1)
NOW = datetime.now(UTC)


def test_an_image_that_was_not_reported_stays(tmp_path: Path) -> None:
    house = make_house(tmp_path, audit=RecordingAudit())
    image = receive(house.inbox, SERIES, 1).sop_instance_uid

    assert _retention(house).sweep(NOW + 100 * DAY) == 0
    assert house.inbox.is_waiting(image)


def test_an_image_whose_results_a_destination_lacks_stays(tmp_path: Path) -> None:
    house = make_house(tmp_path, audit=RecordingAudit(), destinations=[Shelf("pacs")])
    image = _reported(house)

    assert _retention(house).sweep(NOW + 100 * DAY) == 0
    assert house.inbox.is_waiting(image)


def test_an_image_that_only_waits_for_commitment_stays(tmp_path: Path) -> None:
    shelf = Shelf("pacs", awaits_commitment=True)
    house = make_house(tmp_path, audit=RecordingAudit(), destinations=[shelf])
    image = _reported(house)
    _deliver(house)

    assert _retention(house).sweep(NOW + 100 * DAY) == 0
    assert house.inbox.is_waiting(image)


def test_a_parked_image_stays_until_a_person_decides(tmp_path: Path) -> None:
    house = make_house(tmp_path, audit=RecordingAudit())
    image = receive(house.inbox, SERIES, 1).sop_instance_uid
    house.inbox.park(image, "decode_failed")

    _retention(house).sweep(NOW + 100 * DAY)

    assert house.inbox.path_of(image).exists()


def test_a_young_image_stays(tmp_path: Path) -> None:
    house = make_house(tmp_path, audit=RecordingAudit())
    image = _reported(house)

    assert _retention(house).sweep(NOW + 29 * DAY) == 0
    assert house.inbox.is_waiting(image)


def test_one_young_image_keeps_its_whole_smear(tmp_path: Path) -> None:
    house = make_house(tmp_path, audit=RecordingAudit())
    old = receive(house.inbox, SERIES, 1).sop_instance_uid
    _reported(house, number=2)
    long_ago = (NOW - 90 * DAY).timestamp()
    os.utime(house.inbox.path_of(old), (long_ago, long_ago))

    assert _retention(house).sweep(NOW) == 0
    assert house.inbox.is_waiting(old)


def test_a_confirmed_image_goes_when_its_time_is_over_and_that_is_recorded(tmp_path: Path) -> None:
    audit = RecordingAudit()
    house = make_house(tmp_path, audit=audit, destinations=[Shelf("pacs")])
    image = _reported(house)
    _deliver(house)

    assert _retention(house).sweep(NOW + 31 * DAY) == 1
    assert not house.inbox.is_waiting(image)
    assert [one.fields["sop_instance_uid"] for one in audit.of(Event.IMAGE_DELETED)] == [image]


def test_a_destination_that_is_gone_from_the_settings_is_not_waited_for(tmp_path: Path) -> None:
    house = make_house(tmp_path, audit=RecordingAudit(), destinations=[Shelf("pacs")])
    _reported(house)
    house.destinations.replace([])

    assert _retention(house).sweep(NOW + 31 * DAY) == 1


def _retention(house: WorkflowSite) -> Retention:
    return Retention(
        inbox=house.inbox,
        results=house.results,
        destinations=house.destinations,
        gather_by="series",
        keep=30 * DAY,
        audit=house.audit,
    )


def _reported(house: WorkflowSite, *, number: int = 1) -> str:
    image = receive(house.inbox, SERIES, number).sop_instance_uid
    smear_id = SmearId(SERIES)
    for waiting in house.inbox.waiting():
        house.images.analyse(waiting, smear_id)
    closing = house.reports.close(smear_id, known=None, is_waiting=False)
    assert closing.standing is ReportStatus.REPORTED
    return image


def _deliver(house: WorkflowSite) -> None:
    go = DeliveryAttempt(smear_id=SmearId(SERIES), version=1, destination="pacs")
    assert house.sender.deliver(go).sent > 0

"""The real queue on SQLite: what it promises to the listener, to the operator and to itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import pytest

from listener.queue.status import WorkKind
from listener.workflow.destinations import DestinationQueue
from listener.workflow.steps import CloseResult
from listener.workflow.worker import Workflow
from pipeline.domain import SmearId, SOPInstanceUID
from pipeline.errors import Rejected
from reporting.delivery import (
    CommitmentReport,
    DeliveryPostponed,
    DeliveryRefused,
    Reporter,
)
from tests.fakes import RecordingAudit
from tests.listener.house import (
    BAD_SERIES,
    Shelf,
    WorkflowSite,
    make_house,
    receive,
    until,
    working,
)

_series = count(10)


@dataclass(frozen=True)
class Running:
    workflow: Workflow
    house: WorkflowSite
    pacs: Shelf
    ehr: Shelf
    audit: RecordingAudit

    def bring(self, series: str, number: int = 1) -> SOPInstanceUID:
        image = receive(self.house.inbox, series, number)
        self.workflow.image_received(image)
        return image.sop_instance_uid

    def version(self, series: str) -> int:
        latest = self.house.results.smear(SmearId(series)).latest()
        return latest.version if latest else 0

    def has_all(self, shelf: Shelf, series: str) -> bool:
        latest = self.house.results.smear(SmearId(series)).latest()
        return latest is not None and all(one.uid in shelf.arrived for one in latest.results)

    def trouble(self, *errors: Exception) -> None:
        """Have the PACS's next deliveries fail; first what earlier tests left must be over."""
        until(lambda: self.workflow.status().is_idle)
        self.pacs.troubles = list(errors)

    def parked_codes(self, series: str) -> list[str]:
        return [one.code for one in self.workflow.status().parked if one.smear_id == series]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("house")
    pacs, ehr, audit = Shelf(), Shelf(name="ehr"), RecordingAudit()
    house = make_house(root, audit=audit, destinations=[pacs, ehr], max_tries=2)
    with working(root, house) as workflow:
        yield Running(workflow=workflow, house=house, pacs=pacs, ehr=ehr, audit=audit)


@pytest.fixture
def series() -> str:
    """A series of its own for each test, as all share one workflow."""
    return f"1.2.3.{next(_series)}"


def test_a_received_image_reaches_every_destination(running: Running, series: str) -> None:
    running.bring(series)

    until(lambda: running.has_all(running.pacs, series) and running.has_all(running.ehr, series))

    assert running.version(series) == 1
    assert running.parked_codes(series) == []


def test_the_same_image_again_is_not_analysed_again(running: Running, series: str) -> None:
    image = running.bring(series)
    until(lambda: running.has_all(running.ehr, series))

    running.bring(series)
    marker = running.bring(f"{series}.7")
    until(lambda: running.house.analysis.seen[marker])

    assert running.house.analysis.seen[image] == 1
    assert running.version(series) == 1


def test_a_late_image_amends_the_report(running: Running, series: str) -> None:
    running.bring(series, 1)
    until(lambda: running.version(series) == 1)

    running.bring(series, 2)

    until(lambda: running.version(series) == 2 and running.has_all(running.pacs, series))


def test_a_bad_image_is_parked_and_taken_up_again_when_a_person_says_so(running: Running) -> None:
    image = running.bring(BAD_SERIES)
    until(lambda: list(running.house.inbox.parked()))
    (parked,) = (one for one in running.workflow.status().parked if one.sop_instance_uid == image)
    assert (parked.kind, parked.code) == (WorkKind.IMAGE, "decode_failed")
    seen = running.house.analysis.seen[image]

    assert running.workflow.client.retry(image) == 1

    until(lambda: running.house.analysis.seen[image] == seen + 1)
    until(lambda: list(running.house.inbox.parked()))
    assert running.workflow.client.retry("1.2.3.4.5.6.7.8.9") == 0


def test_a_retry_leaves_an_image_alone_whose_uid_begins_alike(running: Running) -> None:
    """1.2.3.666.1 and 1.2.3.666.10: forgetting the one must not forget the other's work."""
    short = running.bring(BAD_SERIES, 1)
    long = running.bring(BAD_SERIES, 10)
    until(lambda: {short, long} <= {image for image, _ in running.house.inbox.parked()})
    seen = running.house.analysis.seen[long]

    running.workflow.client.retry(short)

    until(lambda: short in {image for image, _ in running.house.inbox.parked()})
    assert running.house.analysis.seen[long] == seen
    assert running.workflow.client.not_enqueued([long]) == []


def test_a_refused_delivery_is_parked_shown_and_retried(running: Running, series: str) -> None:
    running.trouble(DeliveryRefused("refused", code="refused_0xa900"))
    running.bring(series)
    until(lambda: running.parked_codes(series) == ["refused_0xa900"])
    until(lambda: running.has_all(running.ehr, series))  # one delays no other
    assert not running.has_all(running.pacs, series)

    assert running.workflow.client.retry(series) == 1

    until(lambda: running.has_all(running.pacs, series))
    assert running.parked_codes(series) == []


def test_a_destination_that_stays_away_is_tried_and_then_parked(
    running: Running, series: str
) -> None:
    running.trouble(*[DeliveryPostponed("away", code="connection_refused")] * 2)
    running.bring(series)

    until(lambda: running.parked_codes(series) == ["connection_refused"])

    running.workflow.client.retry_all("pacs")
    until(lambda: running.has_all(running.pacs, series))


def test_a_commitment_report_is_read_at_once(running: Running, series: str) -> None:
    running.pacs.awaits_commitment = True
    try:
        running.bring(series)
        journal = running.house.results.smear(SmearId(series)).receipts("pacs")
        until(journal.latest)
        uids = tuple(journal.latest())

        reporter = Reporter(ae_title="PACS", address="127.0.0.1")
        transaction_uid = running.pacs.transactions[-1]

        running.workflow.record_commitment(
            reporter, CommitmentReport(transaction_uid=transaction_uid, committed=uids)
        )

        until(lambda: {line.state for line in journal.latest().values()} == {"confirmed"})
    finally:
        running.pacs.awaits_commitment = False


@pytest.mark.parametrize(
    ("ae_title", "transaction_uid", "code"),
    [
        ("STRANGER", "", "commitment_not_authorized"),
        ("", "", "commitment_not_authorized"),
        ("PACS", "2.25.1", "commitment_unknown"),
        ("PACS", "../1", "commitment_unknown"),
    ],
)
def test_a_commitment_report_that_nobody_asked_for_is_kept_nowhere(
    running: Running, ae_title: str, transaction_uid: str, code: str
) -> None:
    ledger = running.house.commitments
    report = CommitmentReport(
        transaction_uid=transaction_uid or ledger.open("pacs"), committed=("1.2.3",)
    )
    reporter = Reporter(ae_title=ae_title, address="127.0.0.1")

    with pytest.raises(Rejected) as told:
        running.workflow.record_commitment(reporter, report)

    assert told.value.code == code
    assert ledger.find(report.transaction_uid) is None
    assert running.workflow.may_report(reporter) == (ae_title == "PACS")


def test_a_device_that_says_done_has_its_smear_reported(running: Running, series: str) -> None:
    image = receive(running.house.inbox, series, 1)
    running.workflow.image_received(image)

    running.workflow.association_released([image])

    until(lambda: running.version(series) == 1)


def test_nothing_is_remembered_of_a_device_that_never_says_done(running: Running) -> None:
    """STOW-RS knows no association, and some devices abort theirs: for months, if need be."""
    before = _remembered(running.workflow)

    for _ in range(3):
        running.bring(f"1.2.3.{next(_series)}")
    until(lambda: running.workflow.status().is_idle)

    assert _remembered(running.workflow) == before


def _remembered(workflow: Workflow) -> int:
    """How much lies in the workflow's own collections."""
    return sum(len(one) for one in vars(workflow).values() if isinstance(one, (dict, list, set)))


def test_a_new_destination_is_served_without_a_restart(running: Running, series: str) -> None:
    archive = Shelf(name="archive")
    before = tuple(running.house.destinations)
    running.workflow.reload([*before, DestinationQueue(destination=archive)])
    try:
        running.bring(series)
        until(lambda: running.has_all(archive, series))
    finally:
        running.workflow.reload(before)


def test_ready_means_that_the_database_answers(running: Running) -> None:
    running.workflow.check_ready()

    assert running.workflow.status().workers in ((), ("w1",))


def test_reports_are_drawn_by_as_many_threads_as_report_workers(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV keeps its fonts for each thread that has ever drawn."""
    threads: set[int] = set()
    close = running.house.reports.close

    def noted(smear_id: SmearId, **asked: Any) -> CloseResult:
        threads.add(threading.get_ident())
        return close(smear_id, **asked)

    monkeypatch.setattr(running.house.reports, "close", noted)
    smears = [f"1.2.8.{next(_series)}" for _ in range(3)]

    for series in smears:
        running.bring(series)
    for series in smears:
        until(partial(running.version, series))

    assert len(threads) == 1

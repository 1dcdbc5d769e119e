"""Storage Commitment reports: read as the standard writes them, and as peers do."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from types import SimpleNamespace
from typing import cast

import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pynetdicom.events import Event

from pipeline.errors import Rejected, RetryLater
from reporting.delivery import CommitmentReport, Refusal
from reporting.delivery.destinations.storage_commitment import (
    EVENT_STATUS_INVALID_ARGUMENT,
    EVENT_STATUS_SUCCESS,
    SameAssociationReports,
    UnrecordedRequests,
    read_commitment_report,
)


def report(transaction: str = "1.2.3", failed: dict[str, int] | None = None) -> Dataset:
    dataset = Dataset()
    dataset.TransactionUID = transaction
    dataset.ReferencedSOPSequence = [_item("1.1")]
    if failed:
        dataset.FailedSOPSequence = [_item(uid, reason) for uid, reason in failed.items()]
    return dataset


def _item(uid: str, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    item.ReferencedSOPInstanceUID = uid
    if reason is not None:
        item.FailureReason = reason
    return item


def test_a_report_on_no_transaction_is_rejected() -> None:
    dataset = report()
    del dataset.TransactionUID

    with pytest.raises(Rejected):
        read_commitment_report(dataset)


def test_what_failed_is_told_apart_with_its_reason() -> None:
    read = read_commitment_report(report(failed={"1.9": 0x0112}))

    assert read.committed == ("1.1",)
    assert read.failed == (Refusal(uid="1.9", status="0x0112", reason="no such instance"),)


@pytest.mark.parametrize(
    ("vr", "reason", "status"),
    [
        ("LO", "0112", "0x0112"),
        ("LO", "0x0112", "0x0112"),
        ("LO", "0112H", "0x0112"),
        ("LO", " A700 ", "0xA700"),
        ("LO", "a700", "0xA700"),
        ("IS", "274", "0x0112"),
        ("DS", "274", "0x0112"),
        ("UL", 274, "0x0112"),
        ("UN", b"\x12\x01", "0x0112"),
        ("US", [274], "0x0112"),
        ("US", [274, 272], "0x0110"),
        ("LO", "no such instance", "0x0110"),
        ("LO", "", "0x0110"),
        ("UL", 70_000, "0x0110"),
        ("SL", -1, "0x0110"),
        ("US", 0x0000, "0x0110"),
        ("US", 0xB000, "0x0110"),
        ("US", 0x0111, "0x0110"),
    ],
)
def test_a_failure_reason_is_read_however_it_is_written(
    vr: str, reason: object, status: str
) -> None:
    """A value that is not a failure cannot turn a failed instance into a committed one."""
    dataset = report(failed={"1.9": 0x0112})
    del dataset.FailedSOPSequence[0].FailureReason
    dataset.FailedSOPSequence[0].add_new("FailureReason", vr, reason)

    assert read_commitment_report(dataset).failed[0].status == status


def test_a_failure_without_a_reason_is_a_processing_failure() -> None:
    dataset = report(failed={"1.9": 0x0112})
    del dataset.FailedSOPSequence[0].FailureReason

    assert read_commitment_report(dataset).failed[0].status == "0x0110"


def test_a_sequence_that_cannot_be_decoded_makes_the_report_unreadable() -> None:
    """pydicom decodes elements when they are asked for: the failure comes late."""
    dataset = Dataset()
    dataset.TransactionUID = "1.2.3"
    sequence = RawDataElement(Tag("FailedSOPSequence"), "SQ", 3, b"abc", 0, False, True)
    dataset._dict[sequence.tag] = sequence

    with pytest.raises(Rejected):
        read_commitment_report(dataset)


@pytest.mark.parametrize("keyword", ["ReferencedSOPSequence", "FailedSOPSequence"])
@pytest.mark.parametrize(
    ("vr", "value"), [("SQ", None), ("SQ", []), ("LO", "1.1"), ("SQ", [Dataset()])]
)
def test_a_sequence_that_is_none_names_nothing(keyword: str, vr: str, value: object) -> None:
    dataset = Dataset()
    dataset.TransactionUID = "1.2.3"
    dataset.add_new(keyword, vr, value)

    read = read_commitment_report(dataset)

    assert (read.committed, read.failed) == ((), ())


def test_reports_on_one_transaction_are_joined() -> None:
    lost = Refusal(uid="1.9", status="0x0112", reason="no such instance")
    first = CommitmentReport(transaction_uid="1.2.3", committed=("1.1", "1.9"))
    second = CommitmentReport(transaction_uid="1.2.3", committed=("1.2",), failed=(lost,))

    joined = CommitmentReport.joined([first, second])

    assert CommitmentReport.joined([]) is None
    assert joined is not None
    assert (joined.committed, joined.failed) == (("1.1", "1.2"), (lost,))
    assert joined.named == {"1.1", "1.2", "1.9"}


class Ledger(UnrecordedRequests):
    """Keeps every report that is given to it, or raises."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.kept: list[str] = []
        self.problem = problem

    def keep(self, report: CommitmentReport, *, destinations: Iterable[str]) -> None:
        if self.problem:
            raise self.problem
        assert tuple(destinations) == ("pacs",)
        self.kept.append(report.transaction_uid)


def test_a_report_ends_the_wait_for_it_and_another_goes_to_the_ledger() -> None:
    ledger = Ledger()
    reports = SameAssociationReports(destination="pacs", ledger=ledger)
    reports.expect("1.2.3")
    found = []
    waiting = threading.Thread(target=lambda: found.append(reports.wait_for("1.2.3", ["1.1"], 60)))
    waiting.start()

    answers = [handled(reports, "1.2.4"), handled(reports, "1.2.3")]
    waiting.join()

    assert answers == [(EVENT_STATUS_SUCCESS, None)] * 2
    assert found[0] is not None
    assert found[0].transaction_uid == "1.2.3"
    assert ledger.kept == ["1.2.4"]


def test_a_report_that_names_some_does_not_end_the_wait() -> None:
    reports = SameAssociationReports()
    reports.expect("1.2.3")
    handled(reports, "1.2.3")

    found = reports.wait_for("1.2.3", ["1.1", "1.2"], 0.01)

    assert found is not None
    assert found.named == {"1.1"}


def test_a_report_that_comes_after_the_wait_goes_to_the_ledger() -> None:
    ledger = Ledger()
    reports = SameAssociationReports(destination="pacs", ledger=ledger)
    reports.expect("1.2.3")

    assert reports.wait_for("1.2.3", ["1.1"], 0.0) is None
    assert handled(reports, "1.2.3") == (EVENT_STATUS_SUCCESS, None)
    assert ledger.kept == ["1.2.3"]


@pytest.mark.parametrize(
    ("problem", "status"),
    [
        (Rejected("no", code="commitment_unknown"), 0x0115),
        (RetryLater("no", code="disk_full"), 0x0110),
    ],
)
def test_a_report_that_cannot_be_kept_is_not_answered_with_success(
    problem: Exception, status: int
) -> None:
    reports = SameAssociationReports(destination="pacs", ledger=Ledger(problem))

    assert handled(reports, "1.2.4") == (status, None)


def test_without_a_ledger_only_the_expected_report_is_taken() -> None:
    reports = SameAssociationReports()
    reports.expect("1.2.3")

    assert handled(reports, "1.2.4") == (0x0115, None)
    assert handled(reports, "1.2.3") == (0x0000, None)


@pytest.mark.parametrize("event_type", [0, 3, 65535, None])
def test_an_event_that_the_standard_does_not_know_is_refused(event_type: int | None) -> None:
    reports = SameAssociationReports()
    reports.expect("1.2.3")

    assert handled(reports, "1.2.3", event_type=event_type) == (0x0113, None)
    assert reports.wait_for("1.2.3", ["1.1"], 0.0) is None


def event_of(event_type: int | None, information: Dataset) -> Event:
    """What pynetdicom hands over of an N-EVENT-REPORT request."""
    return cast(Event, SimpleNamespace(event_type=event_type, event_information=information))


def handled(
    reports: SameAssociationReports, transaction_uid: str, *, event_type: int | None = 1
) -> tuple[int, None]:
    """The answer to a report, given on a thread of its own as pynetdicom does."""
    answers: list[tuple[int, None]] = []
    event = event_of(event_type, report(transaction_uid))
    thread = threading.Thread(target=lambda: answers.append(reports.handle(event)))
    thread.start()
    thread.join()
    return answers[0]


def test_an_unreadable_report_is_answered_as_such() -> None:
    answer = SameAssociationReports().handle(event_of(1, Dataset()))

    assert answer == (EVENT_STATUS_INVALID_ARGUMENT, None)


def test_a_transaction_uid_is_new_each_time() -> None:
    ledger = UnrecordedRequests()

    assert len({ledger.open("pacs") for _ in range(100)}) == 100

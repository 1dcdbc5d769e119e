"""Storage Commitment reports: read as the standard writes them, and as peers do."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from pydicom import Dataset

from pipeline.errors import Rejected
from reporting.delivery import Refusal, commitment_uid
from reporting.delivery.destinations.storage_commitment import (
    EVENT_STATUS_INVALID_ARGUMENT,
    EVENT_STATUS_SUCCESS,
    SameAssociationReports,
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


def test_a_failure_without_a_reason_is_a_processing_failure() -> None:
    dataset = report(failed={"1.9": 0x0112})
    del dataset.FailedSOPSequence[0].FailureReason

    assert read_commitment_report(dataset).failed[0].status == "0x0110"


def test_a_report_ends_the_wait_for_it_and_for_no_other() -> None:
    reports = SameAssociationReports()
    found = []
    waiting = threading.Thread(target=lambda: found.append(reports.wait_for("1.2.3", 60)))
    waiting.start()

    answers = [handled(reports, "1.2.4"), handled(reports, "1.2.3")]
    waiting.join()

    assert answers == [(EVENT_STATUS_SUCCESS, None)] * 2
    assert found[0] is not None
    assert found[0].transaction_uid == "1.2.3"
    assert reports.wait_for("1.2.5", 0) is None


def handled(reports: SameAssociationReports, transaction_uid: str) -> tuple[int, None]:
    """The answer to a report, given on a thread of its own as pynetdicom does."""
    answers: list[tuple[int, None]] = []
    event = SimpleNamespace(event_information=report(transaction_uid))
    thread = threading.Thread(target=lambda: answers.append(reports.handle(event)))
    thread.start()
    thread.join()
    return answers[0]


def test_an_unreadable_report_is_answered_as_such() -> None:
    answer = SameAssociationReports().handle(SimpleNamespace(event_information=Dataset()))

    assert answer == (EVENT_STATUS_INVALID_ARGUMENT, None)


def test_the_same_request_has_the_same_transaction_and_each_round_another() -> None:
    assert commitment_uid("pacs", ["1.1", "1.2"], 0) == commitment_uid("pacs", ["1.2", "1.1"], 0)
    assert commitment_uid("pacs", ["1.1"], 0) != commitment_uid("pacs", ["1.1"], 1)
    assert commitment_uid("pacs", ["1.1"], 0) != commitment_uid("other", ["1.1"], 0)

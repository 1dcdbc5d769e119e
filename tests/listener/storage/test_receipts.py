"""Receipts survive power cuts; a torn one is none; two deliveries at once are one."""

from __future__ import annotations

from pathlib import Path

import pytest

from listener.storage.receipts import DeliveryState, ReceiptJournal, ReceiptLine
from pipeline.errors import RetryLater


def line(uid: str, state: DeliveryState = DeliveryState.CONFIRMED) -> ReceiptLine:
    return ReceiptLine(
        uid=uid,
        sha256="0" * 64,
        version=1,
        state=state,
        transaction_uid="",
        warnings=("coerced",),
        at="2026-11-24T12:00:00.000+00:00",
    )


@pytest.fixture
def journal(tmp_path: Path) -> ReceiptJournal:
    return ReceiptJournal(tmp_path / "receipts" / "pacs.jsonl")


def test_a_torn_last_line_is_no_receipt_and_spoils_no_later_one(
    tmp_path: Path, journal: ReceiptJournal
) -> None:
    with journal.held():
        journal.append([line("1.1"), line("1.2")])
    path = tmp_path / "receipts" / "pacs.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert set(journal.latest()) == {"1.1"}

    journal.append([line("1.3")])

    assert set(journal.latest()) == {"1.1", "1.3"}


def test_the_last_line_of_a_result_counts(journal: ReceiptJournal) -> None:
    with journal.held():
        journal.append([line("1.1", DeliveryState.AWAITING_COMMITMENT)])
        journal.append([line("1.1", DeliveryState.UNCOMMITTED)])

    assert journal.latest() == {"1.1": line("1.1", DeliveryState.UNCOMMITTED)}


def test_a_second_delivery_is_kept_out_while_the_first_is_in_hand(
    tmp_path: Path, journal: ReceiptJournal
) -> None:
    rival = ReceiptJournal(tmp_path / "receipts" / "pacs.jsonl")

    with journal.held(), pytest.raises(RetryLater) as caught, rival.held():
        pass

    assert caught.value.code == "delivery_in_hand"
    with rival.held():
        pass


def test_nothing_delivered_is_an_empty_journal(journal: ReceiptJournal) -> None:
    assert journal.latest() == {}

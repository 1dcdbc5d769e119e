"""Commitment reports are kept until their delivery has read them, also over a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from listener.storage.commitment_reports import CommitmentReports
from pipeline.errors import Rejected
from reporting.delivery import CommitmentReport, Refusal

REPORT = CommitmentReport(
    transaction_uid="1.2.3",
    committed=("1.1", "1.2"),
    failed=(Refusal(uid="1.9", status="0x0112", reason="no such instance"),),
)


@pytest.mark.parametrize("uid", ["", "../1.2.3", "1.2/3", "x" * 10, "1" * 65])
def test_a_transaction_that_is_no_uid_never_becomes_a_path(uid: str, tmp_path: Path) -> None:
    shelf = CommitmentReports(tmp_path / "shelf")

    with pytest.raises(Rejected):
        shelf.keep(CommitmentReport(transaction_uid=uid, committed=()))

    assert list(tmp_path.rglob("*.json")) == []


def test_what_is_kept_is_found_by_another_worker(tmp_path: Path) -> None:
    CommitmentReports(tmp_path).keep(REPORT)

    assert CommitmentReports(tmp_path).find("1.2.3") == REPORT


def test_the_same_report_twice_is_kept_once(tmp_path: Path) -> None:
    shelf = CommitmentReports(tmp_path)

    shelf.keep(REPORT)
    shelf.keep(REPORT)

    assert [file.name for file in tmp_path.iterdir()] == ["1.2.3.json"]


def test_none_is_found_before_it_came_and_after_it_was_forgotten(tmp_path: Path) -> None:
    shelf = CommitmentReports(tmp_path)
    assert shelf.find("1.2.3") is None

    shelf.keep(REPORT)
    shelf.forget("1.2.3")
    shelf.forget("1.2.3")

    assert shelf.find("1.2.3") is None

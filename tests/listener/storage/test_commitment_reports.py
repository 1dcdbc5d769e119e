"""Commitment requests stay open until they are reported in full, also over a crash."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.storage.commitment_reports import CommitmentReports
from pipeline.errors import Rejected
from reporting.delivery import CommitmentReport, Refusal

LOST = Refusal(uid="1.9", status="0x0112", reason="no such instance")


def report_on(
    transaction_uid: str, *uids: str, failed: tuple[Refusal, ...] = ()
) -> CommitmentReport:
    return CommitmentReport(transaction_uid=transaction_uid, committed=uids, failed=failed)


class TestWhatIsNeverKept:
    @pytest.mark.parametrize(
        "uid",
        [
            "",
            ".",
            "..",
            "../1.2.3",
            "1.2/3",
            "/etc",
            "x" * 10,
            "1" * 65,
            "1.2.3\0",
            "1..2",
            "2.25.1",
        ],
    )
    def test_a_transaction_that_is_not_open_never_becomes_a_path(
        self, uid: str, tmp_path: Path
    ) -> None:
        shelf = CommitmentReports(tmp_path / "shelf")
        shelf.open("pacs")
        before = sorted(tmp_path.rglob("*"))

        with pytest.raises(Rejected) as told:
            shelf.keep(report_on(uid, "1.1"), destinations=["pacs"])

        assert told.value.code == "commitment_unknown"
        assert sorted(tmp_path.rglob("*")) == before

    @given(uid=st.text(max_size=70))
    def test_whatever_a_peer_calls_a_transaction(self, uid: str) -> None:
        with pytest.raises(Rejected):
            CommitmentReports(Path("/nonexistent")).keep(report_on(uid), destinations=["pacs"])

    @pytest.mark.parametrize("destinations", [[], ["other"], [""], ["other", "PACS"]])
    def test_a_report_of_another_destination(self, destinations: list[str], tmp_path: Path) -> None:
        shelf = CommitmentReports(tmp_path)
        uid = shelf.open("pacs")

        with pytest.raises(Rejected):
            shelf.keep(report_on(uid, "1.1"), destinations=destinations)

        assert shelf.find(uid) is None

    def test_a_report_on_a_request_that_is_settled(self, tmp_path: Path) -> None:
        shelf = CommitmentReports(tmp_path)
        uid = shelf.open("pacs")
        shelf.close(uid)

        with pytest.raises(Rejected):
            shelf.keep(report_on(uid, "1.1"), destinations=["pacs"])

        assert list(tmp_path.iterdir()) == []

    def test_a_transaction_uid_cannot_be_derived(self, tmp_path: Path) -> None:
        """Two ledgers in the same state give UIDs that share nothing."""
        uids = {CommitmentReports(tmp_path / str(n)).open("pacs") for n in range(50)}

        assert len(uids) == 50
        assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)


class TestWhatIsKept:
    def test_it_is_found_by_another_worker(self, tmp_path: Path) -> None:
        uid = CommitmentReports(tmp_path).open("pacs")
        kept = report_on(uid, "1.1", "1.2", failed=(LOST,))

        CommitmentReports(tmp_path).keep(kept, destinations=["archive", "pacs"])

        assert CommitmentReports(tmp_path).find(uid) == kept

    def test_the_same_report_twice_is_kept_once(self, tmp_path: Path) -> None:
        shelf = CommitmentReports(tmp_path)
        uid = shelf.open("pacs")

        for _ in range(3):
            shelf.keep(report_on(uid, "1.1"), destinations=["pacs"])

        assert len(list((tmp_path / uid).iterdir())) == 2

    def test_reports_on_single_instances_add_up(self, tmp_path: Path) -> None:
        shelf = CommitmentReports(tmp_path)
        uid = shelf.open("pacs")

        for instance in ("1.1", "1.2", "1.3"):
            shelf.keep(report_on(uid, instance), destinations=["pacs"])
        shelf.keep(report_on(uid, failed=(LOST,)), destinations=["pacs"])

        found = shelf.find(uid)
        assert found is not None
        assert sorted(found.committed) == ["1.1", "1.2", "1.3"]
        assert found.failed == (LOST,)

    def test_what_failed_once_is_not_committed(self, tmp_path: Path) -> None:
        shelf = CommitmentReports(tmp_path)
        uid = shelf.open("pacs")

        shelf.keep(report_on(uid, "1.9", "1.1"), destinations=["pacs"])
        shelf.keep(report_on(uid, failed=(LOST,)), destinations=["pacs"])

        assert shelf.find(uid) == report_on(uid, "1.1", failed=(LOST,))

    def test_nothing_is_found_before_a_report_came_and_after_its_request_was_closed(
        self, tmp_path: Path
    ) -> None:
        shelf = CommitmentReports(tmp_path)
        uid = shelf.open("pacs")
        assert shelf.find(uid) is None

        shelf.keep(report_on(uid, "1.1"), destinations=["pacs"])
        shelf.close(uid)
        shelf.close(uid)

        assert shelf.find(uid) is None

    def test_old_requests_are_swept_and_with_them_reports_of_older_versions(
        self, tmp_path: Path
    ) -> None:
        now = datetime.now(UTC)
        shelf = CommitmentReports(tmp_path)
        old, young = shelf.open("pacs"), shelf.open("pacs")
        (tmp_path / "1.2.3.json").write_text("{}")
        long_ago = (now - timedelta(days=100)).timestamp()
        for path in (tmp_path / old, tmp_path / "1.2.3.json"):
            os.utime(path, (long_ago, long_ago))

        shelf.sweep(before=now - timedelta(days=90))
        CommitmentReports(tmp_path / "absent").sweep(before=now)

        assert [path.name for path in tmp_path.iterdir()] == [young]

"""Storage commitment reports that came in, each kept until its delivery has read it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

from listener.storage.dataset_scan import is_uid
from pipeline.errors import Rejected
from reporting.delivery import CommitmentReport, Refusal
from reporting.durable_files import make_folder, sync_folder, write_synced


class CommitmentReports:
    """A shelf of reports by transaction UID, shared by all workers."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def keep(self, report: CommitmentReport) -> None:
        """Keep a report; durable on return. The same one twice is kept once."""
        path = self._path(report.transaction_uid)
        make_folder(self._root)
        draft = self._root / f".{uuid4().hex}"
        write_synced(draft, json.dumps(asdict(report)).encode("utf-8"))
        draft.replace(path)
        sync_folder(self._root)

    def find(self, transaction_uid: str) -> CommitmentReport | None:
        """The report of a transaction, or None while there is none."""
        try:
            values = json.loads(self._path(transaction_uid).read_bytes())
        except FileNotFoundError:
            return None
        return CommitmentReport(
            transaction_uid=values["transaction_uid"],
            committed=tuple(values["committed"]),
            failed=tuple(Refusal(**refusal) for refusal in values["failed"]),
        )

    def forget(self, transaction_uid: str) -> None:
        """Drop a report that was worked in."""
        self._path(transaction_uid).unlink(missing_ok=True)

    def _path(self, transaction_uid: str) -> Path:
        if not is_uid(transaction_uid):
            raise Rejected("The transaction UID is no UID (PS3.5 9.1)", code="invalid_uid")
        return self._root / f"{transaction_uid}.json"

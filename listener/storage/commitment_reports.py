"""Open storage commitment requests and the reports on them, until their delivery has read them.

commitments/<Transaction UID>/request.json     to which destination the request went
                              <SHA-256>.json   one report; a PACS may send several

Only reports on a request that is open with their sender are kept: a report cannot confirm what was
never asked of that destination.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from listener.storage.dataset_scan import is_uid
from pipeline.errors import RetryLater
from reporting.delivery import CommitmentReport, Refusal
from reporting.delivery.commitment_transactions import new_transaction_uid, unknown_transaction
from reporting.durable_files import make_folder, publish_file

REQUEST_FILE = "request.json"
MOST_REPORTS = 1000
"""On one transaction; a PACS that reports each instance alone needs one per instance."""


class CommitmentReports:
    """The ledger of open requests by Transaction UID, shared by all workers."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, destination: str) -> str:
        """A new Transaction UID for a request to a destination; durable on return."""
        transaction_uid = new_transaction_uid()
        folder = self._root / transaction_uid
        make_folder(folder)
        content = json.dumps({"destination": destination}).encode("utf-8")
        publish_file(folder / REQUEST_FILE, content, tmp=folder)
        return transaction_uid

    def keep(self, report: CommitmentReport, *, destinations: Iterable[str]) -> None:
        """Keep a report on an open request to one of `destinations`; durable on return.

        The same one twice is kept once. Raises Rejected `commitment_unknown` for a transaction
        that is not open, or open with another destination.
        """
        folder = self._folder_of(report.transaction_uid)
        if folder is None or _destination_in(folder) not in tuple(destinations):
            raise unknown_transaction()
        content = json.dumps(asdict(report)).encode("utf-8")
        path = folder / f"{hashlib.sha256(content).hexdigest()}.json"
        if not path.exists() and len(list(folder.iterdir())) > MOST_REPORTS:
            raise RetryLater("Too many reports on one transaction", code="storage_unavailable")
        try:
            publish_file(path, content, tmp=folder)
        except FileNotFoundError as err:
            # Settled in this moment by the reports before.
            raise unknown_transaction() from err

    def find(self, transaction_uid: str) -> CommitmentReport | None:
        """What was reported on a transaction so far, or None."""
        folder = self._folder_of(transaction_uid)
        if folder is None:
            return None
        paths = sorted(path for path in folder.glob("*.json") if path.name != REQUEST_FILE)
        return CommitmentReport.joined(report for report in map(_read, paths) if report)

    def close(self, transaction_uid: str) -> None:
        """Forget a request that is reported in full or replaced by another, and its reports."""
        folder = self._folder_of(transaction_uid)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self, *, before: datetime) -> None:
        """Forget requests made before a moment: what a killed process left, or nobody waits for.

        A delivery that still waits requests commitment again under a new transaction.
        """
        for path in self._root.iterdir() if self._root.is_dir() else ():
            with suppress(FileNotFoundError):  # another worker was faster
                if path.stat().st_mtime < before.timestamp():
                    _remove(path)

    def _folder_of(self, transaction_uid: str) -> Path | None:
        """The folder of an open request; None for anything else, whatever its text."""
        if not is_uid(transaction_uid):
            return None
        folder = self._root / transaction_uid
        return folder if folder.is_dir() else None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _destination_in(folder: Path) -> str:
    """To which destination a request went; empty when it is not open."""
    try:
        return str(json.loads((folder / REQUEST_FILE).read_bytes())["destination"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _read(path: Path) -> CommitmentReport | None:
    """A report; None when its request was closed in this moment."""
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return CommitmentReport(
        transaction_uid=values["transaction_uid"],
        committed=tuple(values["committed"]),
        failed=tuple(Refusal(**refusal) for refusal in values["failed"]),
    )

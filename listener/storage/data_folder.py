"""Opens the data folder: inbox, results, commitment reports, reference cells."""

from __future__ import annotations

from dataclasses import dataclass

from config.model import Settings
from listener.storage.commitment_reports import CommitmentReports
from listener.storage.inbox import Inbox, InboxLimits
from listener.storage.reference_cells import ReferenceCells
from listener.storage.results import ResultsFolder

MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Everything that a data folder holds, open."""

    inbox: Inbox
    results: ResultsFolder
    commitments: CommitmentReports
    references: ReferenceCells


def open_store(settings: Settings, *, worker_id: str) -> Store:
    """Inbox, results and commitments of the data folder."""
    limits = InboxLimits(
        max_object_bytes=settings.dicom.max_object_mb * MEBIBYTE,
        min_free_bytes=settings.retention.min_free_disk_mb * MEBIBYTE,
    )
    return Store(
        inbox=Inbox(settings.data_dir / "inbox", limits=limits),
        results=ResultsFolder(settings.data_dir / "results", worker_id=worker_id),
        commitments=CommitmentReports(settings.data_dir / "commitments"),
        references=ReferenceCells(settings.data_dir / "references"),
    )

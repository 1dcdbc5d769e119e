"""Deletes images past their retention period once every destination has confirmed their results."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from listener.storage.inbox import Inbox
from listener.storage.results import ReportIndex, ResultsFolder, SmearFolder
from listener.storage.smear_grouping import GatherBy, smear_id_of
from listener.workflow.delivery import is_confirmed
from listener.workflow.destinations import Destinations
from listener.workflow.error_boundary import translate_errors
from pipeline.domain import SmearId, SOPInstanceUID
from reporting.audit.trail import AuditSink, Event


class Retention:
    """Sweeps the inbox. The images of a smear go together or not at all.

    A destination that was taken out of the settings is no longer waited for. Parked images and
    images that were not reported stay until a person decides.
    """

    def __init__(
        self,
        *,
        inbox: Inbox,
        results: ResultsFolder,
        destinations: Destinations,
        gather_by: GatherBy,
        keep: timedelta,
        audit: AuditSink,
    ) -> None:
        self._inbox = inbox
        self._results = results
        self._destinations = destinations
        self._gather_by = gather_by
        self._keep = keep
        self._audit = audit

    @property
    def keep(self) -> timedelta:
        """How long an image is kept at least."""
        return self._keep

    def sweep(self, now: datetime) -> int:
        """Delete what may go; return how many images. Raises RetryLater when the disk fails."""
        with translate_errors():
            old = self._older_than(now - self._keep)
            return sum(self._remove(smear_id, images) for smear_id, images in old.items())

    def _older_than(self, moment: datetime) -> dict[SmearId, set[SOPInstanceUID]]:
        old: dict[SmearId, set[SOPInstanceUID]] = {}
        for image in self._inbox.waiting():
            # The file's own time is enough to leave the young ones unread.
            if self._inbox.path_of(image).stat().st_mtime < moment.timestamp():
                smear_id = smear_id_of(self._inbox.facts(image), self._gather_by)
                old.setdefault(smear_id, set()).add(image)
        return old

    def _remove(self, smear_id: SmearId, images: set[SOPInstanceUID]) -> int:
        folder = self._results.smear(smear_id)
        latest = folder.latest()
        if latest is None or not self._is_done(folder, latest):
            return 0
        young = {image for image in latest.sources if self._inbox.is_waiting(image)} - images
        if young:
            return 0
        gone = sorted(images.intersection(latest.sources))
        self._delete(gone)
        return len(gone)

    def _is_done(self, folder: SmearFolder, latest: ReportIndex) -> bool:
        return all(
            is_confirmed(latest, destination, folder.receipts(destination.name))
            for destination in self._destinations
            if destination.name in latest.destinations
        )

    def _delete(self, images: Iterable[SOPInstanceUID]) -> None:
        for image in images:
            self._audit.record(Event.IMAGE_DELETED, sop_instance_uid=image, code="retention")
            self._inbox.remove(image)

"""From the running service to the console's parts: the only place where the two meet."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from config.model import Settings
from config.validation import is_loopback
from listener.queue.status import WorkKind
from listener.storage.data_folder import Store
from listener.storage.results import ReportIndex, SmearFolder
from listener.web.console.app import ConsoleParts, smear_files
from listener.web.console.database import ConsoleDatabase
from listener.web.console.indexer import FollowedAudit, Indexer
from listener.web.console.smear_index import SmearIndex
from listener.workflow.delivery import is_confirmed
from listener.workflow.destinations import Destinations
from listener.workflow.image_analysis import ImageAnalysis
from listener.workflow.memory_budget import MEBIBYTE, MemoryBudget, bytes_needed
from listener.workflow.reviews import Reviews
from listener.workflow.worker import Workflow
from models.classifier import MODEL_FOLDER
from pipeline.decoding.frames import ImageLimits
from pipeline.domain import CellFinding, DecisionPolicy, FieldFindings, ModelIdentity
from pipeline.errors import NeedsReview
from reporting.audit.trail import AuditSink, public_path, recorded_review_events
from reporting.dicom.deidentification import Pseudonymiser, read_site_key


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningParts:
    """What runs already when the console is made."""

    store: Store
    workflow: Workflow
    destinations: Destinations
    audit: AuditSink
    model: ModelIdentity
    policy: DecisionPolicy
    limits: ImageLimits
    analysis: ImageAnalysis
    software_version: str


def console_parts(settings: Settings, running: RunningParts) -> ConsoleParts:
    """Everything that the console needs; its database is open."""
    workflow = running.workflow
    # Of its own: a page must not wait for the analysis of a large image.
    memory = MemoryBudget(settings.image.memory_mb * MEBIBYTE // 4)

    def is_delivered(index: ReportIndex, name: str, folder: SmearFolder) -> bool:
        try:
            destination = running.destinations.get(name)
        except NeedsReview:
            return False
        return is_confirmed(index, destination, folder.receipts(name))

    def find_at(field: FieldFindings, x: float, y: float) -> CellFinding:
        inbox, image = running.store.inbox, field.sop_instance_uid
        wanted = bytes_needed(inbox.read_header(image), to_read=inbox.bytes_to_read(image))
        with memory.reserved(wanted):
            return running.analysis.find_at(inbox.read(image), field, x, y)

    def destination_checks() -> Mapping[str, Callable[[], str]]:
        return {one.name: one.destination.check for one in running.destinations}

    return ConsoleParts(
        settings=settings.console,
        database=ConsoleDatabase(settings.database_url),
        store=running.store,
        audit=running.audit,
        is_loopback=is_loopback(settings.web.host),
        software_version=running.software_version,
        model=running.model,
        cache_dir=settings.data_dir / "cache" / "console",
        audit_dir=settings.audit_dir,
        audit_public_key=public_path(settings.audit_key_file),
        policy=running.policy,
        model_folder=settings.model.folder or MODEL_FOLDER,
        gather_by=settings.smear.gather_by,
        limits=running.limits,
        compress_images=settings.results.compress_images,
        min_cells_for_percent=settings.results.min_cells_for_percent,
        on_received=workflow.image_received,
        read_status=workflow.status,
        retry=lambda key: workflow.client.retry(key),
        is_delivered=is_delivered,
        reviews=Reviews.open(
            store=running.store,
            settings=settings.review,
            audit=running.audit,
            enqueue=lambda job: workflow.client.enqueue(job),
            recorded_since=lambda moment: recorded_review_events(settings.audit_dir, since=moment),
            find_at=find_at,
        ),
        pseudonymiser=lambda: Pseudonymiser(
            read_site_key(settings.pseudonym_key_file),
            options=settings.pseudonyms.options,
            max_date_shift_days=settings.pseudonyms.max_date_shift_days,
        ),
        checks={
            "queue": workflow.check_ready,
            "disk": running.store.inbox.check_free_space,
        },
        destination_checks=destination_checks,
        free_bytes=lambda: shutil.disk_usage(settings.data_dir).free,
        memory=memory,
    )


@contextmanager
def index_smears(
    settings: Settings, parts: ConsoleParts, workflow: Workflow, audit: FollowedAudit
) -> Iterator[None]:
    """Keep the index of smears from here to the end of the `with`."""
    indexer = Indexer(
        index=SmearIndex(parts.database),
        files=smear_files(parts),
        inbox=parts.store.inbox,
        results=parts.store.results,
        gather_by=settings.smear.gather_by,
        read_parked=lambda: [
            (parked.smear_id, parked.destination)
            for parked in workflow.status().parked
            if parked.kind is WorkKind.DELIVERY
        ],
    )
    audit.follow(indexer.note)
    indexer.start()
    try:
        yield
    finally:
        indexer.stop()

"""A small site for the workflow's tests: real inbox and folders, quick doubles for the rest."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from listener.queue.client import QueueClient
from listener.queue.worker_lock import claim_worker, worker_locks
from listener.storage.commitment_reports import CommitmentReports
from listener.storage.inbox import Inbox, StoredInstance, StoreRequest
from listener.storage.results import ResultsFolder
from listener.workflow.delivery import Sender
from listener.workflow.destinations import DestinationQueue, Destinations
from listener.workflow.steps import Analysis, ImageStep, ReportSettings, ReportStep, Router
from listener.workflow.worker import UpkeepTimes, Workflow, WorkflowSettings
from pipeline.domain import FieldFindings, SmearFindings, SOPInstanceUID
from pipeline.errors import Rejected
from reporting.audit.trail import AuditSink
from reporting.delivery import DeliveryPostponed, Receipt, Reporter
from reporting.derived_uids import derived_uid
from reporting.result_set import Refuse
from reporting.results import ReportContext, Result, ResultKind
from tests.findings import MODEL, make_field_findings

KINDS = frozenset({ResultKind.ANNOTATED_FIELD, ResultKind.GALLERY, ResultKind.FHIR_BUNDLE})
BAD_SERIES = "1.2.3.666"
"""Images of this series break a rule."""


def make_dataset(series: str, number: int) -> Dataset:
    """A Secondary Capture of 4 × 4 gray pixels."""
    dataset = Dataset()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = f"{series}.{number}"
    dataset.StudyInstanceUID = "1.2.3"
    dataset.SeriesInstanceUID = series
    dataset.PatientName = "Doe^Jane"
    dataset.PatientID = "P1"
    dataset.Rows = dataset.Columns = 4
    dataset.SamplesPerPixel = 1
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = bytes(range(16))
    return dataset


def receive(inbox: Inbox, series: str, number: int) -> StoredInstance:
    """Put an image into the inbox as the listener does."""
    dataset = make_dataset(series, number)
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, dataset)
    offer = StoreRequest(
        sop_class_uid=dataset.SOPClassUID,
        sop_instance_uid=dataset.SOPInstanceUID,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        source="DEVICE",
    )
    with inbox.receive(offer) as incoming:
        incoming.write(buffer.getvalue())
        return incoming.commit()


@dataclass
class QuickAnalysis:
    """Finds the same four cells in every image, except in those that break a rule."""

    model_key: str = MODEL.key
    seen: Counter[str] = field(default_factory=Counter)

    def __call__(self, dataset: Dataset) -> tuple[FieldFindings, ...]:
        self.seen[dataset.SOPInstanceUID] += 1
        if dataset.SeriesInstanceUID == BAD_SERIES:
            raise Rejected("This picture breaks a rule", code="decode_failed")
        return (
            make_field_findings(
                sop_instance_uid=dataset.SOPInstanceUID,
                series_uid=dataset.SeriesInstanceUID,
                study_uid=dataset.StudyInstanceUID,
            ),
        )


def quick_results(
    smear: SmearFindings,
    *,
    read_source: Callable[[SOPInstanceUID], Dataset],
    context: ReportContext,
    refuse: Refuse | None = None,
) -> Iterator[Result]:
    """One object a field, a gallery of the smear, and a bundle whose version says when."""
    stamp = context.issued_at.isoformat().encode()
    for found in smear.fields:
        read_source(found.sop_instance_uid)
        uid = derived_uid("annotated_field", found.sop_instance_uid)
        yield _result(ResultKind.ANNOTATED_FIELD, uid, b"field of " + stamp)
    sources = [found.sop_instance_uid for found in smear.fields]
    yield _result(ResultKind.GALLERY, derived_uid("gallery", *sources), b"gallery " + stamp)
    yield _result(
        ResultKind.FHIR_BUNDLE,
        derived_uid("bundle", smear.smear_id),
        f"bundle v{context.version} of {len(sources)}".encode(),
    )


def _result(kind: ResultKind, uid: str, content: bytes) -> Result:
    return Result(
        kind=kind, name=f"{kind}-{uid}", media_type="text/plain", uid=uid, content=content
    )


@dataclass
class Shelf:
    """A destination that keeps what it gets; `troubles` are raised first, one an attempt."""

    name: str = "pacs"
    kinds: frozenset[ResultKind] = KINDS
    troubles: list[Exception] = field(default_factory=list)
    awaits_commitment: bool = False
    most_at_once: int = 0
    """Results taken per attempt before it breaks off; 0 for all."""
    ledger: CommitmentReports | None = None
    transactions: list[str] = field(default_factory=list)
    """Of the storage commitment requests, oldest first."""
    arrived: dict[str, list[bytes]] = field(default_factory=dict)
    attempts: int = 0
    lock: Lock = field(default_factory=Lock)

    def deliver(self, results: Sequence[Result]) -> Receipt:
        with self.lock:
            self.attempts += 1
            if self.troubles:
                raise self.troubles.pop(0)
            taken = results[: self.most_at_once or None]
            for result in taken:
                self.arrived.setdefault(result.uid, []).append(result.content)
        uids = tuple(result.uid for result in taken)
        if len(taken) < len(results):
            raise DeliveryPostponed("gone", code="not_taken_yet", receipt=Receipt(accepted=uids))
        return self._committing(uids) if self.awaits_commitment else Receipt(accepted=uids)

    def request_commitment(self, results: Sequence[Result]) -> Receipt:
        if self.troubles:
            raise self.troubles.pop(0)
        return self._committing(tuple(result.uid for result in results))

    def is_reporter(self, reporter: Reporter) -> bool:
        return reporter.ae_title == self.name.upper()

    def _committing(self, uids: tuple[str, ...]) -> Receipt:
        assert self.ledger is not None
        self.transactions.append(self.ledger.open(self.name))
        return Receipt(accepted=uids, awaiting=uids, transaction_uid=self.transactions[-1])

    def check(self) -> str:
        return "here"


def open_queue(root: Path, database_url: str) -> QueueClient:
    """The queue's client beside the inbox in a folder."""
    return QueueClient(database_url, inbox=Inbox(root / "inbox"), gather_by="series")


def to_all(destinations: Destinations) -> Router:
    """A router without rules."""

    def route(smear: SmearFindings, *, header: Dataset, image: StoredInstance) -> tuple[str, ...]:
        return tuple(one.name for one in destinations)

    return route


@dataclass(frozen=True, kw_only=True)
class WorkflowSite:
    """Everything that a workflow needs, on a folder."""

    inbox: Inbox
    results: ResultsFolder
    commitments: CommitmentReports
    analysis: QuickAnalysis
    destinations: Destinations
    images: ImageStep
    reports: ReportStep
    sender: Sender
    audit: AuditSink


def make_house(
    root: Path,
    *,
    audit: AuditSink,
    destinations: Sequence[Shelf] = (),
    worker_id: str = "w1",
    max_tries: int = 3,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    analysis: Analysis | None = None,
) -> WorkflowSite:
    """A house with `destinations`, tried quickly."""
    inbox = Inbox(root / "inbox")
    results = ResultsFolder(root / "results", worker_id=worker_id)
    commitments = CommitmentReports(root / "commitments")
    for shelf in destinations:
        shelf.ledger = commitments
    quick = QuickAnalysis()
    analysis = analysis or quick
    queues = Destinations(
        DestinationQueue(
            destination=shelf, max_tries=max_tries, first_delay_s=0.01, max_delay_s=0.05
        )
        for shelf in destinations
    )
    return WorkflowSite(
        inbox=inbox,
        results=results,
        commitments=commitments,
        analysis=quick,
        destinations=queues,
        audit=audit,
        images=ImageStep(inbox=inbox, results=results, analysis=analysis, audit=audit),
        reports=ReportStep(
            inbox=inbox,
            results=results,
            analysis=analysis,
            build_results=quick_results,
            build_variant=quick_results,
            route=to_all(queues),
            settings=ReportSettings(kinds=KINDS, compress_images=True, software_version="0.1.0"),
            audit=audit,
            clock=clock,
        ),
        sender=Sender(
            results=results,
            destinations=queues,
            commitments=commitments,
            audit=audit,
            clock=clock,
        ),
    )


@contextmanager
def working(
    root: Path,
    house: WorkflowSite,
    *,
    database_url: str = "",
    poll_s: float = 0.02,
    quiet_s: float = 0.0,
    upkeep: UpkeepTimes | None = None,
) -> Iterator[Workflow]:
    """A workflow at work on a house, polling quickly; a smear is closed without a quiet time."""
    url = database_url or f"sqlite:///{root / 'state.sqlite'}"
    locks = worker_locks(url, folder=root / "workers")
    workflow = Workflow(
        settings=WorkflowSettings(
            database_url=url,
            gather_by="series",
            quiet_s=quiet_s,
            close_on_release=True,
            poll_s=poll_s,
            upkeep=upkeep or UpkeepTimes(),
        ),
        inbox=house.inbox,
        images=house.images,
        reports=house.reports,
        sender=house.sender,
        destinations=house.destinations,
        results=house.results,
        commitments=house.commitments,
        lease=claim_worker(locks, wanted="w1"),
        locks=locks,
        audit=house.audit,
    )
    try:
        workflow.start()
        yield workflow
    finally:
        workflow.stop(grace_s=10)


def until(is_so: Callable[[], object]) -> None:
    """Come back when other threads have made something so."""
    give_up = time.monotonic() + 300
    while not is_so():
        assert time.monotonic() < give_up, "it never came to be so"
        time.sleep(0.03)

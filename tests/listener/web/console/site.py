"""A console with real folders, a real database and smears that were put there, and no service."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from argon2 import PasswordHasher
from pydicom import Dataset, dcmwrite
from starlette.testclient import TestClient

from config.sections import ConsoleSettings, ReviewSettings
from listener.observability.metrics import Metrics
from listener.queue.jobs import Job
from listener.queue.status import ParkedWork, QueueStatus, WorkflowStatus, WorkKind
from listener.storage.commitment_reports import CommitmentReports
from listener.storage.data_folder import Store
from listener.storage.inbox import Inbox, StoredInstance
from listener.storage.part10 import split_header
from listener.storage.reference_cells import ReferenceCells
from listener.storage.results import ResultsFolder
from listener.web.app import Showing, build_app
from listener.web.console.app import Console, ConsoleParts
from listener.web.console.database import ConsoleDatabase
from listener.web.console.gate import COOKIE
from listener.web.console.permissions import Role
from listener.web.console.smear_index import SmearRow
from listener.workflow.reviews import Reviews
from models.classifier import MODEL_FOLDER
from pipeline.decoding.frames import ImageLimits
from pipeline.domain import (
    Call,
    CellFinding,
    DecisionPolicy,
    FieldFindings,
    Reviewer,
    SmearId,
    SOPInstanceUID,
)
from pipeline.errors import RetryLater
from pipeline.findings.review import Act, ReviewEvent, cell_key
from pipeline.findings.smear_summary import gather_smear
from reporting.audit.trail import AuditSink, AuditTrail, load_or_make_key, public_path
from reporting.dicom.deidentification import Pseudonymiser
from reporting.result_set import build_result_set
from reporting.results import ReportContext, ResultKind
from tests.fakes import RecordingAudit
from tests.findings import MODEL, make_cell, make_cell_finding
from tests.reporting.sources import make_source

NOW = datetime(2026, 11, 28, 9, 30, tzinfo=UTC)
QUICK_HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "a long enough pass phrase"
PAGE = {"accept": "text/html"}
KINDS = frozenset({ResultKind.TABLE, ResultKind.PDF_REPORT, ResultKind.FHIR_BUNDLE})
PATIENT = {"PatientID": "PID-4711", "PatientName": "Doe^Jane", "AccessionNumber": "ACC-1"}


@dataclass
class Clock:
    """A clock that tests move."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass
class ConsoleSite:
    """What a test serves."""

    root: Path
    settings: ConsoleSettings = field(default_factory=ConsoleSettings)
    is_loopback: bool = True
    audit: RecordingAudit = field(default_factory=RecordingAudit)
    sink: AuditSink | None = None
    clock: Clock = field(default_factory=Clock)
    parked: list[ParkedWork] = field(default_factory=list)
    retried: list[str] = field(default_factory=list)
    enqueued: list[Job] = field(default_factory=list)
    received: list[StoredInstance] = field(default_factory=list)
    destinations: dict[str, Callable[[], str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = Store(
            inbox=Inbox(self.root / "inbox", clock=self.clock),
            results=ResultsFolder(self.root / "results", worker_id="w"),
            commitments=CommitmentReports(self.root / "commitments"),
            references=ReferenceCells(self.root / "references"),
        )
        self.database = ConsoleDatabase(f"sqlite:///{self.root / 'state.sqlite'}")
        key = load_or_make_key(self.root / "audit.key")
        with AuditTrail.open(self.root / "audit", chain="ward7", key=key, software_version="0.1.0"):
            pass
        self.parts = ConsoleParts(
            settings=self.settings,
            database=self.database,
            store=self.store,
            audit=self.sink or self.audit,
            is_loopback=self.is_loopback,
            software_version="0.1.0",
            model=MODEL,
            policy=DecisionPolicy(refer_above=0.3, leukemic_from=0.7, novelty_limit=5.0),
            model_folder=MODEL_FOLDER,
            gather_by="series",
            cache_dir=self.root / "cache",
            audit_dir=self.root / "audit",
            audit_public_key=public_path(self.root / "audit.key"),
            limits=ImageLimits(),
            compress_images=True,
            on_received=self.received.append,
            read_status=self.status,
            retry=self._retry,
            reviews=Reviews.open(
                store=self.store,
                settings=ReviewSettings(),
                audit=self.sink or self.audit,
                enqueue=self.enqueued.append,
                recorded_since=self.audit.review_events,
                clock=self.clock,
                find_at=find_at,
            ),
            is_delivered=lambda _index, _name, _folder: True,
            pseudonymiser=lambda: Pseudonymiser(b"k" * 32),
            checks={"queue": lambda: None, "disk": lambda: None},
            destination_checks=lambda: self.destinations,
            free_bytes=lambda: 5_000_000_000,
            clock=self.clock,
            hasher=QUICK_HASHER,
        )

    def console(self) -> Console:
        """The console; Rejected when nobody could sign in on a network."""
        return Console(self.parts)

    @contextmanager
    def client(self, console: Console | None = None, **options: Any) -> Iterator[TestClient]:
        """A browser without cookies, on the machine itself."""
        console = console or self.console()
        showing = Showing(
            software_version="0.1.0",
            metrics=Metrics(software_version="0.1.0", read_status=self.status),
            read_status=self.status,
            checks={},
            audit_dir=self.root / "audit",
            clock=self.clock,
            model=MODEL,
        )
        app = build_app(showing, console=console)
        options = {"base_url": "https://localhost", **options}
        with TestClient(app, follow_redirects=False, headers=PAGE, **options) as client:
            yield client
        console.pictures.close()

    def status(self) -> WorkflowStatus:
        """What waits."""
        queues = (QueueStatus(name="images", waiting=1, delayed=0, in_work=0, oldest_age_s=5.0),)
        return WorkflowStatus(at=NOW, queues=queues, parked=tuple(self.parked), workers=("w1",))

    def _retry(self, key: str) -> int:
        self.retried.append(key)
        return 1

    def put_smear(
        self,
        fields: Sequence[FieldFindings],
        *,
        patient: Mapping[str, str] = PATIENT,
        kinds: frozenset[ResultKind] = KINDS,
        version: int = 1,
        destinations: Sequence[str] = (),
        is_indexed: bool = True,
        builds: bool = True,
    ) -> SmearId:
        """A reported smear of these fields: images, findings, results and its row."""
        smear_id = SmearId(fields[0].series_uid)
        folder = self.store.results.smear(smear_id)
        sources: dict[SOPInstanceUID, Dataset] = {}
        for found in fields:
            source = make_source("secondary_capture", found, is_full=False)
            for keyword, value in patient.items():
                setattr(source, keyword, value)
            if any(not value.isascii() for value in patient.values()):
                source.SpecificCharacterSet = "ISO_IR 192"
            sources[found.sop_instance_uid] = source
            put_image(self.store.inbox, source)
            folder.save_fields(found.sop_instance_uid, [found])
        smear = gather_smear(smear_id, fields)
        context = ReportContext(
            version=version,
            issued_at=NOW,
            software_version="0.1.0",
            compress_images=True,
            kinds=kinds,
        )
        results = (
            build_result_set(smear, read_source=lambda uid: sources[uid], context=context)
            if builds
            else ()
        )
        folder.publish(
            results,
            version=version,
            issued_at=NOW,
            model_sha256=smear.model.sha256,
            software_version="0.1.0",
            sources=list(sources),
            destinations=destinations,
        )
        if is_indexed:
            self.index_smear(smear_id)
        return smear_id

    def put_findings(self, found: FieldFindings) -> SmearId:
        """The findings and the report of an image that is in the inbox already."""
        smear_id = SmearId(found.series_uid)
        folder = self.store.results.smear(smear_id)
        folder.save_fields(found.sop_instance_uid, [found])
        folder.publish(
            (),
            version=1,
            issued_at=NOW,
            model_sha256=found.model.sha256,
            software_version="0.1.0",
            sources=[found.sop_instance_uid],
            destinations=[],
        )
        self.index_smear(smear_id)
        return smear_id

    def review_as(self, account: str, smear_id: SmearId, *, seen_revision: int) -> None:
        """An act of somebody else: the first cell is starred."""
        found = self.parts.reviews.read(smear_id).found.fields[0]
        self.parts.reviews.record(
            smear_id,
            ReviewEvent(
                id=f"other{seen_revision}",
                at=NOW,
                reviewer=Reviewer(account=account, name=account),
                act=Act.STAR,
                cells=(cell_key(found, found.cells[0].cell),),
            ),
            seen_revision=seen_revision,
        )

    def index_smear(self, smear_id: SmearId) -> SmearRow:
        """Make the row of a smear as the indexer does."""
        from listener.web.console.app import smear_files
        from listener.web.console.smear_index import SmearIndex

        row = smear_files(self.parts).row(smear_id, earlier=None)
        assert row is not None
        SmearIndex(self.database).save([row], at=datetime.now(UTC))
        return row

    def add_account(self, name: str, *roles: Role) -> None:
        """An account with PASSWORD."""
        from listener.web.console.accounts import Accounts

        Accounts(self.database, hasher=QUICK_HASHER).add(name, PASSWORD, roles)


def find_at(_field: FieldFindings, x: float, y: float) -> CellFinding:
    """Outlines a cell wherever it is asked for."""
    return make_cell_finding(make_cell(1, round(x), round(y)), Call.NORMAL)


def put_image(inbox: Inbox, source: Dataset) -> None:
    """As STOW-RS puts it there."""
    buffer = io.BytesIO()
    dcmwrite(buffer, source, enforce_file_format=True)
    split = split_header(buffer.getvalue(), source="DEVICE", is_all=True)
    assert split is not None
    request, rest = split
    with inbox.receive(request) as incoming:
        incoming.write(rest)
        incoming.commit()


def sign_in(client: TestClient, name: str, password: str = PASSWORD) -> httpx.Response:
    """Fill in the form as a person does."""
    form = client.get("/sign-in")
    return client.post("/sign-in", data={"name": name, "password": password, "csrf": csrf_of(form)})


def csrf_of(page: httpx.Response) -> str:
    """The token of the forms of a page."""
    return page.text.split('name="csrf" value="', 1)[1].split('"', 1)[0]


def is_signed_in(client: TestClient) -> bool:
    """Whether the browser holds a session."""
    return COOKIE in client.cookies


def parked_delivery(key: str = "deliver:1", destination: str = "pacs") -> ParkedWork:
    """Work that an operator must see."""
    return ParkedWork(
        key=key,
        kind=WorkKind.DELIVERY,
        code="refused",
        message="The PACS <b>refused</b> it",
        since=NOW,
        smear_id="1.2.3",
        destination=destination,
    )


def broken() -> str:
    """A destination that does not answer."""
    raise RetryLater("No answer from 127.0.0.1:104", code="unreachable")

"""The whole service, put together in one place.

    device ─ C-STORE ─► DicomListener ─┐
    device ─ STOW-RS ─► WebServer ─────┴─► Inbox ─► Workflow ─► ImageStep   (pipeline + models)
                                                            ├─► ReportStep  (reporting)
                                                            └─► Sender      (reporting.delivery)
    every step ─► AuditTrail, and from there the metrics

`running` builds all of it from the settings, starts it in the order in which one part needs the
other, and stops it in reverse. A worker is the same without listener and web.
"""

from __future__ import annotations

import os
import platform
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import cv2

from config.model import Settings
from listener.descriptor_budget import DescriptorShares, raise_limit, share_out
from listener.dicom.server import DicomListener
from listener.observability import audit_trail
from listener.observability.audit_forwarder import AuditForwarder, place_file_of
from listener.observability.connection_metrics import ConnectionCollector
from listener.observability.event_log import LoggedAudit
from listener.observability.limited_audit import LimitedAudit
from listener.observability.logging_setup import adopt_library_loggers
from listener.observability.metrics import CountedAudit, Metrics
from listener.process_memory import give_back
from listener.queue.status import WorkflowStatus
from listener.queue.worker_lock import WorkerLease, WorkerLocks, claim_worker, worker_locks
from listener.storage.data_folder import MEBIBYTE, Store, open_store
from listener.web.app import Receiving, Showing, build_app
from listener.web.connections import WebLimits
from listener.web.console.app import Console
from listener.web.console.indexer import FollowedAudit
from listener.web.console.wiring import RunningParts, console_parts, index_smears
from listener.web.server import WebServer, read_token
from listener.workflow.delivery import Sender
from listener.workflow.destinations import (
    Destinations,
    Routes,
    make_destination_queues,
    parse_rules,
)
from listener.workflow.image_analysis import BudgetedAnalysis, ImageAnalysis, PixelBudget
from listener.workflow.memory_budget import MemoryBudget
from listener.workflow.pseudonyms import SitePseudonyms
from listener.workflow.retention import Retention
from listener.workflow.shared_reports import SharedReports
from listener.workflow.steps import ImageStep, ReportSettings, ReportStep
from listener.workflow.worker import Workflow, WorkflowSettings
from models.calibrated_classifier import CalibratedClassifier
from models.card import read_model_card
from models.classifier import MODEL_FOLDER, OnnxClassifier
from models.segmenter import OnnxSegmenter
from models.site_calibration_file import read_site_calibration
from pipeline.analyse import Classifier
from pipeline.decoding.frames import ImageLimits
from pipeline.errors import Rejected, SmearlinkError
from reporting.audit.trail import (
    AuditSink,
    AuditTrail,
    Event,
    Outcome,
)
from reporting.delivery.transport.syslog import SyslogReceiver
from reporting.delivery.transport.tls import TlsFiles
from reporting.result_set import build_result_set
from reporting.results import ResultKind

SOFTWARE_VERSION = version("smearlink")

SWITCH_INTERVAL_S = 0.0005
"""How long a thread that computes keeps the interpreter while others wait for it. An answer to a
page or a device takes it some tens of times: with the usual 5 ms a report in progress would delay
each by half a second (tests/benchmarks/bench_review.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What is running, for those who watch it, reload it or ask where it listens."""

    workflow: Workflow
    store: Store
    routes: Routes
    audit: AuditSink
    classifier: Classifier
    dicom_port: int | None
    web_port: int | None

    def status(self) -> WorkflowStatus:
        """What waits where, and what was parked why."""
        return self.workflow.status()

    def reload(self, read_settings: Callable[[], Settings]) -> bool:
        """Go on with new destinations and routes; a bad file is refused and the old ones stay."""
        try:
            settings = read_settings()
            destinations = make_destination_queues(settings.destinations, self.store.commitments)
            rules = parse_rules(settings.routes)
        except SmearlinkError as err:
            self.audit.record(Event.SETTINGS_REFUSED, outcome=Outcome.MINOR_FAILURE, code=err.code)
            return False
        self.routes.replace(rules, [one.name for one in destinations])
        self.workflow.reload(destinations)
        self.audit.record(Event.SETTINGS_RELOADED, count=len(destinations))
        return True


@contextmanager
def running(settings: Settings, *, listens: bool = True) -> Iterator[Service]:
    """The service at work from here to the end of the `with`; a worker when it does not listen.

    Raises Rejected, NeedsReview, RetryLater or Defect, each with the way out, when a part cannot
    start: settings, model, database, a port that is taken.
    """
    with ExitStack() as stack:
        # One thread per image: libraries that start more would only get in each other's way.
        cv2.setNumThreads(1)
        stack.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        threads = analysis_threads(settings)
        classifier = load_classifier(settings, threads=1 if threads > 1 else None)
        segmenter = load_segmenter()
        locks = worker_locks(settings.database_url, folder=settings.data_dir / "workers")
        lease = claim_worker(locks, wanted=settings.service.worker_id)
        stack.callback(lease.close)
        metrics = Metrics(
            software_version=SOFTWARE_VERSION,
            read_status=lambda: workflow.status(),
            free_bytes=lambda: shutil.disk_usage(settings.data_dir).free,
        )
        metrics.show_model(classifier.identity)
        if settings.audit.syslog.enabled:
            # Before the trail, so that it ends after it and sends the last events too.
            stack.enter_context(audit_forwarder(settings))
        trail = stack.enter_context(open_trail(settings, classifier, segmenter))
        logged = LoggedAudit(trail)
        audit = FollowedAudit(CountedAudit(logged, metrics))
        store = open_store(settings, worker_id=lease.worker_id)
        destinations = Destinations(
            make_destination_queues(settings.destinations, store.commitments)
        )
        routes = Routes(parse_rules(settings.routes), [one.name for one in destinations])
        analysis = ImageAnalysis(classifier, segmenter, limits=image_limits(settings))
        budgeted = BudgetedAnalysis(analysis, PixelBudget(settings.queue.analysis_megapixels))
        shared = SharedReports(
            inbox=store.inbox.root,
            results=store.results,
            processes=report_processes(settings),
        )
        stack.callback(shared.close)
        workflow = _build_workflow(
            settings, store, budgeted, destinations, routes, lease, locks, audit, shared
        )
        shares = share_out(raise_limit(), max_associations=settings.dicom.max_associations)
        limited_trail = LimitedAudit(logged)
        stack.callback(limited_trail.close)
        limited = CountedAudit(limited_trail, metrics)
        dicom = (
            _make_dicom(settings, store, workflow, limited, shares)
            if listens and settings.dicom.enabled
            else None
        )

        audit.record(
            Event.SERVICE_STARTED,
            worker_id=lease.worker_id,
            execution_provider=classifier.identity.execution_provider,
        )
        stack.callback(audit.record, Event.SERVICE_STOPPED, worker_id=lease.worker_id)
        workflow.start()
        adopt_library_loggers()
        stack.callback(workflow.stop, settings.service.stop_grace_s)
        console = None
        if settings.console.enabled and settings.web.enabled:
            limited_console = LimitedAudit(audit)
            stack.callback(limited_console.close)
            parts = console_parts(
                settings,
                RunningParts(
                    store=store,
                    workflow=workflow,
                    destinations=destinations,
                    audit=limited_console,
                    model=classifier.identity,
                    policy=classifier.policy,
                    limits=image_limits(settings),
                    analysis=analysis,
                    software_version=SOFTWARE_VERSION,
                ),
            )
            stack.callback(parts.database.close)
            if listens:
                console = Console(parts)
            stack.enter_context(index_smears(settings, parts, workflow, audit))
        web = _start_web(
            settings,
            store,
            workflow,
            metrics,
            classifier,
            limited,
            listens,
            console,
            stack,
            dicom,
            shares,
        )
        if dicom is not None:
            _start_dicom(settings, dicom, stack)
        metrics.register(
            ConnectionCollector(
                {
                    **({"dicom": dicom.counts} if dicom is not None else {}),
                    **({"web": web.counts} if web is not None else {}),
                }
            )
        )
        yield Service(
            workflow=workflow,
            store=store,
            routes=routes,
            audit=audit,
            classifier=classifier,
            dicom_port=dicom.port if dicom else None,
            web_port=web.port if web else None,
        )


def analysis_threads(settings: Settings) -> int:
    """How many images are analysed at once: as the site says, or one for each core."""
    return settings.queue.analyse_workers or len(os.sched_getaffinity(0))


def report_processes(settings: Settings) -> int:
    """How many processes build parts of reports: as the site says, and none without a core."""
    return min(settings.queue.report_processes, len(os.sched_getaffinity(0)) - 1)


def load_classifier(settings: Settings, *, threads: int | None = None) -> Classifier:
    """The network with the calibration of the site, if there is one; see `load_network`.

    Raises Rejected where the site's calibration cannot be used (`models.site_calibration_file`).
    """
    network = load_network(settings, threads=threads)
    path = settings.model.site_calibration
    if path is None:
        return network
    return CalibratedClassifier(network, read_site_calibration(path, network.identity))


def load_network(settings: Settings, *, threads: int | None = None) -> OnnxClassifier:
    """The network, compared with its manifest; a damaged file stops the start.

    `threads` is used where the settings leave it open.
    """
    model = settings.model
    return OnnxClassifier.load(
        model.folder or MODEL_FOLDER,
        precision=model.precision,
        providers=model.providers,
        threads=model.threads or threads or 0,
    )


def load_segmenter() -> OnnxSegmenter:
    """The network that finds cells, compared with its description; a damaged file stops the start.

    It belongs to the program, not to the site's model folder: another classifier may be chosen,
    but cells are cut out alike for all.
    """
    return OnnxSegmenter.load()


def open_trail(
    settings: Settings,
    classifier: Classifier | None = None,
    segmenter: OnnxSegmenter | None = None,
) -> AuditTrail:
    """This machine's chain of the audit trail; its events name the networks that are given."""
    calibration = classifier.identity.calibration if classifier else None
    return audit_trail.open_trail(
        settings,
        model_sha256=classifier.identity.sha256 if classifier else None,
        calibration_sha256=calibration.sha256 if calibration else None,
        finder_sha256=segmenter.sha256 if segmenter else None,
    )


def web_limits(shares: DescriptorShares) -> WebLimits:
    """Fewer requests than connections, so that a health probe always gets in."""
    standard = WebLimits()
    return replace(
        standard,
        connections=shares.web_connections,
        requests=min(standard.requests, shares.web_connections * 3 // 4),
        bodies=min(standard.bodies, shares.web_connections // 2),
    )


def audit_forwarder(settings: Settings) -> AuditForwarder:
    """What sends this machine's chain to the site's audit repository."""
    return AuditForwarder(
        folder=settings.audit_dir,
        chain=settings.worker_id,
        place_file=place_file_of(settings.data_dir, settings.worker_id),
        receiver=syslog_receiver(settings),
        jitter=random.random,
    )


def syslog_receiver(settings: Settings) -> SyslogReceiver:
    """The audit repository that [audit.syslog] names."""
    syslog = settings.audit.syslog
    return SyslogReceiver(
        host=syslog.host,
        port=syslog.port,
        tls=TlsFiles(
            certificate=syslog.certificate,
            private_key=syslog.private_key,
            ca_certificates=syslog.ca_certificates,
        ),
        timeout_s=syslog.timeout_s,
        hostname=platform.node() or "-",
    )


def image_limits(settings: Settings) -> ImageLimits:
    """What is worth decoding, as the site sees it."""
    image = settings.image
    return ImageLimits(
        max_megapixels=image.max_megapixels,
        min_side_px=image.min_side_px,
        max_frames=image.max_frames,
    )


def _build_workflow(
    settings: Settings,
    store: Store,
    analysis: BudgetedAnalysis,
    destinations: Destinations,
    routes: Routes,
    lease: WorkerLease,
    locks: WorkerLocks,
    audit: AuditSink,
    shared: SharedReports,
) -> Workflow:
    """The three steps, and the durable queue that runs them."""

    def clock() -> datetime:
        return datetime.now(UTC).astimezone(settings.zone)

    memory = MemoryBudget(settings.image.memory_mb * MEBIBYTE)
    images = ImageStep(
        inbox=store.inbox,
        results=store.results,
        analysis=analysis,
        audit=audit,
        memory=memory,
    )
    pseudonyms = SitePseudonyms(settings, destinations)
    pseudonyms.check()
    reports = ReportStep(
        pseudonyms=pseudonyms,
        memory=memory,
        inbox=store.inbox,
        results=store.results,
        analysis=analysis,
        build_results=shared,
        build_variant=build_result_set,
        frames_at_once=1 + report_processes(settings),
        give_back=give_back,
        route=routes,
        settings=ReportSettings(
            kinds=frozenset(map(ResultKind, settings.results.kinds)),
            compress_images=settings.results.compress_images,
            software_version=SOFTWARE_VERSION,
            min_cells_for_percent=settings.results.min_cells_for_percent,
            hl7_pdf=settings.results.hl7_pdf,
            pdf_font=settings.results.pdf_font,
            model_card=read_model_card(settings.model.folder or MODEL_FOLDER),
            readers=settings.review.readers,
        ),
        audit=audit,
        clock=clock,
    )
    sender = Sender(
        results=store.results,
        destinations=destinations,
        commitments=store.commitments,
        audit=audit,
        clock=clock,
    )
    retention = Retention(
        inbox=store.inbox,
        results=store.results,
        destinations=destinations,
        gather_by=settings.smear.gather_by,
        keep=timedelta(days=settings.retention.keep_images_days),
        audit=audit,
    )
    return Workflow(
        settings=WorkflowSettings(
            database_url=settings.database_url,
            gather_by=settings.smear.gather_by,
            quiet_s=settings.smear.quiet_s,
            close_on_release=settings.smear.close_on_release,
            analyse_workers=analysis_threads(settings),
            report_workers=settings.queue.report_workers,
        ),
        inbox=store.inbox,
        images=images,
        reports=reports,
        sender=sender,
        destinations=destinations,
        results=store.results,
        commitments=store.commitments,
        lease=lease,
        locks=locks,
        audit=audit,
        retention=retention,
    )


def _make_dicom(
    settings: Settings,
    store: Store,
    workflow: Workflow,
    audit: AuditSink,
    shares: DescriptorShares,
) -> DicomListener:
    return DicomListener(
        settings.dicom,
        store.inbox,
        workflow.image_received,
        audit,
        on_commitment=workflow.record_commitment,
        may_report=workflow.may_report,
        on_association_released=workflow.association_released,
        max_associations=shares.associations,
        max_unassociated=shares.unassociated,
    )


def _start_dicom(settings: Settings, listener: DicomListener, stack: ExitStack) -> None:
    with _taken_port_named("dicom.port"):
        listener.start()
    stack.callback(listener.stop, settings.service.stop_grace_s)


def _start_web(
    settings: Settings,
    store: Store,
    workflow: Workflow,
    metrics: Metrics,
    classifier: Classifier,
    audit: AuditSink,
    listens: bool,
    console: Console | None,
    stack: ExitStack,
    dicom: DicomListener | None,
    shares: DescriptorShares,
) -> WebServer | None:
    if not settings.web.enabled:
        return None
    showing = Showing(
        software_version=SOFTWARE_VERSION,
        metrics=metrics,
        read_status=workflow.status,
        checks={
            "queue": workflow.check_ready,
            "disk": store.inbox.check_free_space,
            **({"dicom": dicom.check_accepting} if dicom is not None else {}),
        },
        audit_dir=settings.audit_dir,
        clock=lambda: datetime.now(UTC),
        model=classifier.identity,
        check_alive=dicom.check_accepting if dicom is not None else lambda: None,
    )
    receiving = Receiving(
        inbox=store.inbox,
        on_received=workflow.image_received,
        audit=audit,
        max_request_bytes=settings.web.max_request_mb * MEBIBYTE,
    )
    takes_images = listens and settings.web.stow
    app = build_app(
        showing,
        receiving if takes_images else None,
        token=read_token(settings.web),
        console=console,
    )
    server = WebServer(settings.web, app, limits=web_limits(shares))
    with _taken_port_named("web.port"):
        server.start()
    stack.callback(server.stop, settings.service.stop_grace_s)
    if console is not None:
        console.start()
        stack.callback(console.close)
    return server


@contextmanager
def _taken_port_named(key: str) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise Rejected(
            f"{key}: cannot be listened on ({err.strerror}). Another program, or another "
            "smearlink, has it: stop that one or give another port.",
            code="port_unusable",
        ) from err

"""The real service in a process of its own, made so that a test may end it at any moment.

Everything is put together by `listener.service`; only the network is a quick stand-in, as the
kill tests ask what is lost and not what is seen. The fault hook lives here and nowhere else:
nothing in the product can be told to die.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pydicom import Dataset

import listener.service as service
import listener.workflow.image_workers as image_workers
import listener.workflow.shared_reports as shared_reports
from config.model import Settings
from config.settings import make_settings
from listener.queue.client import QueueClient
from listener.workflow.destinations import DestinationQueue, make_destination_queues
from listener.workflow.shared_reports import SharedReports
from listener.workflow.worker import UpkeepTimes, WorkflowSettings
from pipeline.domain import CellFinding, DecisionPolicy, FieldFindings, ModelIdentity
from reporting.delivery.destinations.dicom_store import DicomDestination
from tests.findings import MODEL, make_cell, make_cell_finding, make_field_findings

KINDS = ("annotated_field", "key_objects", "fhir_bundle")
MORE_KINDS = ("table", "hl7_message")
"""Where receivers of every kind listen."""
COMMITMENT_LINGER_S = 0.3
COMMITMENT_TIMEOUT_S = 20.0
"""A PACS is asked again after this time; it reports at once where the service lives to hear it."""

POISON_SERIES_NUMBER = 999_999
"""Analysing an image of this series ends the process, as a fault in a decoder would."""

STEPS = (
    (os, "fsync"),
    (os, "link"),
    (os, "rename"),
    (os, "replace"),
    (os, "unlink"),
    (QueueClient, "enqueue"),
    (QueueClient, "claim_images"),
    (QueueClient, "settle_images"),
)
"""Death comes just before one of these; whatever becomes visible outside the process passes one."""

_M_ARENA_MAX = -8
"""Of `malloc.h`."""

TORN_STEPS = (
    (os, "write"),
    (socket.socket, "send"),
    (socket.socket, "sendall"),
    (ssl.SSLSocket, "send"),
)
"""Here death comes in the middle: half of the bytes went out, to the disk or to a peer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One run of the service, from its start to its end."""

    data_dir: Path
    pacs_port: int
    pacs_ae_title: str
    fhir_url: str
    kill_at: int = 0
    """Die at this step, counted from 1 from the start of the service; 0 for never."""
    database_url: str = ""
    worker_id: str = ""
    listens: bool = True
    min_free_disk_mb: int = 0
    most_starts: int = image_workers.MOST_STARTS
    """A test need not die so often to see an image given up."""
    software_version: str = service.SOFTWARE_VERSION
    has_web: bool = False
    """Whether the console is served too, on a port of its own."""
    has_commitment: bool = False
    """Of the PACS."""
    more_destinations: tuple[Mapping[str, Any], ...] = ()
    syslog: Mapping[str, Any] = field(default_factory=dict)
    """[audit.syslog]"""


def settings_of(life: Life) -> Settings:
    """A site with a PACS and an EHR, impatient enough for a test."""
    patience = {"first_delay_s": 0.1, "max_delay_s": 1.0, "max_tries": 1000, "timeout_s": 5.0}
    pacs: dict[str, Any] = {
        "type": "dicom",
        "name": "pacs",
        "ae_title": life.pacs_ae_title,
        "host": "127.0.0.1",
    }
    if life.has_commitment:
        pacs |= {"storage_commitment": True, "commitment_timeout_s": COMMITMENT_TIMEOUT_S}
    ehr = {"type": "fhir", "name": "ehr", "url": life.fhir_url}
    return make_settings(
        {
            "service": {
                "data_dir": str(life.data_dir),
                "stop_grace_s": 10.0,
                "worker_id": life.worker_id,
            },
            "dicom": {"port": 0},
            "web": {"enabled": life.has_web, "port": 0},
            "review": {"quiet_s": 0.2},
            "smear": {"quiet_s": 0.0},
            "results": {"kinds": [*KINDS, *(MORE_KINDS if life.more_destinations else ())]},
            "audit": {"syslog": dict(life.syslog)},
            "database": {"url": life.database_url},
            "retention": {"min_free_disk_mb": life.min_free_disk_mb},
            "destination": [
                {**pacs, "port": life.pacs_port, **patience},
                {**ehr, **patience},
                *({**one, **patience} for one in life.more_destinations),
            ],
        }
    )


def live(life: Life, wire: Connection) -> None:
    """Serve until told to stop, or until the moment of `kill_at`.

    Says its DICOM port on `wire`, then answers "status" with (is_idle, parked codes), "retry"
    with a number, "web_port" with the console's, "blocks" with how many pieces of memory Python's
    objects hold, and "stop" with the end of the process.
    """
    _keep_few_arenas()
    _stand_in_network()
    image_workers.MOST_STARTS = life.most_starts
    service.SOFTWARE_VERSION = life.software_version
    settings = settings_of(life)
    if life.kill_at:
        _arm(life.kill_at)
    with service.running(settings, listens=life.listens) as running:
        wire.send(running.dicom_port)
        while (asked := wire.recv()) != "stop":
            if asked == "retry":
                wire.send(running.workflow.client.retry_all())
            elif asked == "web_port":
                wire.send(running.web_port)
            elif asked == "blocks":
                gc.collect()
                wire.send(sys.getallocatedblocks())
            else:
                status = running.status()
                wire.send((status.is_idle, [one.code for one in status.parked]))
    wire.send("stopped")
    os._exit(0)


class QuickClassifier:
    """The network's name and its policy; nobody asks it about cells."""

    @property
    def identity(self) -> ModelIdentity:
        return MODEL

    @property
    def policy(self) -> DecisionPolicy:
        return DecisionPolicy(refer_above=0.3, leukemic_from=0.7, novelty_limit=5.0)


class QuickSegmenter:
    """The name of the network that finds cells; nobody asks it."""

    sha256 = "5e" * 32


class QuickAnalysis:
    """Finds the same four cells in every image."""

    model_key = MODEL.key

    def __init__(self, classifier: object, segmenter: object, *, limits: object) -> None:
        pass

    def __call__(self, dataset: Dataset) -> tuple[FieldFindings, ...]:
        if dataset.SeriesNumber == POISON_SERIES_NUMBER:
            os.kill(os.getpid(), signal.SIGKILL)
        return (
            make_field_findings(
                sop_instance_uid=dataset.SOPInstanceUID,
                study_uid=dataset.StudyInstanceUID,
                series_uid=dataset.SeriesInstanceUID,
                width=dataset.Columns,
                height=dataset.Rows,
            ),
        )

    @staticmethod
    def find_at(_dataset: Dataset, _field: FieldFindings, x: float, y: float) -> CellFinding:
        return make_cell_finding(make_cell(1, round(x), round(y)))


def _keep_few_arenas() -> None:
    """As MALLOC_ARENA_MAX=2 of the unit file and the container, which comes too late here."""
    with suppress(AttributeError, OSError):  # not the C library of GNU
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _stand_in_network() -> None:
    hurried = UpkeepTimes(takeover_s=0.2, reconcile_s=0.5)
    # A smear of these tests has three images.
    shared_reports.LEAST_PARTS = 2
    replacements: dict[str, Any] = {
        "load_classifier": lambda settings, threads=None: QuickClassifier(),
        "load_segmenter": QuickSegmenter,
        "ImageAnalysis": QuickAnalysis,
        "make_destination_queues": _make_hurried_queues,
        "SharedReports": partial(SharedReports, least_parts_to_start=2),
        "WorkflowSettings": partial(WorkflowSettings, poll_s=0.05, upkeep=hurried),
    }
    for name, replacement in replacements.items():
        setattr(service, name, replacement)


def _make_hurried_queues(*arguments: Any) -> tuple[DestinationQueue, ...]:
    """As a site's, but a report that comes on another association is not waited for so long."""
    return tuple(map(_hurried, make_destination_queues(*arguments)))


def _hurried(queue: DestinationQueue) -> DestinationQueue:
    destination = queue.destination
    if not isinstance(destination, DicomDestination):
        return queue
    return replace(queue, destination=replace(destination, commitment_linger_s=COMMITMENT_LINGER_S))


class _Death:
    """Comes at one step of all threads together."""

    def __init__(self, kill_at: int) -> None:
        self._kill_at = kill_at
        self._steps = count(1)
        self._lock = threading.Lock()

    def is_now(self) -> bool:
        with self._lock:
            return next(self._steps) == self._kill_at


def _arm(kill_at: int) -> None:
    death = _Death(kill_at)
    for owner, name in (*STEPS, (QuickAnalysis, "__call__")):
        setattr(owner, name, _dying_before(getattr(owner, name), death))
    for owner, name in TORN_STEPS:
        setattr(owner, name, _dying_midway(getattr(owner, name), death))


def _dying_before(original: Callable[..., Any], death: _Death) -> Callable[..., Any]:
    @wraps(original)
    def dying(*arguments: Any, **named: Any) -> Any:
        if death.is_now():
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **named)

    return dying


def _dying_midway(original: Callable[..., Any], death: _Death) -> Callable[..., Any]:
    @wraps(original)
    def dying(target: Any, content: Any, *more: Any) -> Any:
        if death.is_now():
            original(target, memoryview(content)[: len(content) // 2], *more)
            os.kill(os.getpid(), signal.SIGKILL)
        return original(target, content, *more)

    return dying

"""What Prometheus may ask of the service: counts from the audit events, depths from the queues.

Every count comes from the same event that the audit trail keeps, so the two cannot disagree.
Labels are events, codes, queues and destinations: words of ours, never of a dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from listener.queue.status import WorkflowStatus
from pipeline.domain import ModelIdentity
from reporting.audit.trail import Actor, AuditSink, Event, Outcome

DURATION_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A counter, the event that raises it, and the fields that are its labels."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()


COUNTS: Mapping[Event, Count] = {
    Event.IMAGE_RECEIVED: Count(
        name="smearlink_images_received", meaning="Images answered with Success"
    ),
    Event.IMAGE_RECEIVED_AGAIN: Count(
        name="smearlink_images_received_again", meaning="Images that were here already"
    ),
    Event.IMAGE_REFUSED: Count(
        name="smearlink_images_refused", meaning="Images not taken, by reason", labels=("code",)
    ),
    Event.IMAGE_ANALYSED: Count(name="smearlink_images_analysed", meaning="Images analysed"),
    Event.IMAGE_PARKED: Count(
        name="smearlink_images_parked", meaning="Images set aside, by reason", labels=("code",)
    ),
    Event.SMEAR_REPORTED: Count(
        name="smearlink_smears_reported", meaning="Reports made, amended ones included"
    ),
    Event.REPORT_DELIVERED: Count(
        name="smearlink_reports_delivered", meaning="Deliveries made", labels=("destination",)
    ),
    Event.DELIVERY_POSTPONED: Count(
        name="smearlink_deliveries_postponed",
        meaning="Deliveries that will be tried again",
        labels=("destination", "code"),
    ),
    Event.DELIVERY_PARKED: Count(
        name="smearlink_deliveries_parked",
        meaning="Deliveries set aside for a person",
        labels=("destination", "code"),
    ),
    Event.DEFECT_MET: Count(name="smearlink_defects", meaning="Faults of our own"),
}

CELL_FIELDS = ("cells_found", "leukemic", "normal", "referred")


class Metrics:
    """The numbers of this process. `read_status` is asked at each scrape."""

    def __init__(
        self,
        *,
        software_version: str,
        read_status: Callable[[], WorkflowStatus] | None = None,
        free_bytes: Callable[[], int] | None = None,
    ) -> None:
        self._registry = CollectorRegistry()
        self._info = Info("smearlink", "What runs here", registry=self._registry)
        self._version = software_version
        self._info.info({"version": software_version, "research_use_only": "true"})
        self._events = Counter(
            "smearlink_events",
            "Audit events",
            ["event", "outcome"],
            registry=self._registry,
        )
        self._counters = {
            event: Counter(count.name, count.meaning, count.labels, registry=self._registry)
            for event, count in COUNTS.items()
        }
        self._cells = Counter("smearlink_cells", "White cells", ["kind"], registry=self._registry)
        self._durations = Histogram(
            "smearlink_step_seconds",
            "How long a step took",
            ["event"],
            buckets=DURATION_BUCKETS_S,
            registry=self._registry,
        )
        if read_status is not None:
            self._registry.register(StatusCollector(read_status))
        if free_bytes is not None:
            self._registry.register(DiskCollector(free_bytes))

    def show_model(self, model: ModelIdentity) -> None:
        """Name the model that answers and what it really runs on."""
        self._info.info(
            {
                "version": self._version,
                "model": model.name,
                "model_version": model.version,
                "model_sha256": model.sha256,
                "execution_provider": model.execution_provider,
                "research_use_only": "true",
                **({"calibration_sha256": model.calibration.sha256} if model.calibration else {}),
            }
        )

    def count(self, event: Event, outcome: Outcome, fields: Mapping[str, Any]) -> None:
        """Take one audit event into the numbers."""
        self._events.labels(event, outcome).inc()
        if event in self._counters:
            labels = [str(fields.get(name, "")) for name in COUNTS[event].labels]
            counter = self._counters[event]
            (counter.labels(*labels) if labels else counter).inc()
        if event is Event.IMAGE_ANALYSED:
            for name in CELL_FIELDS:
                self._cells.labels(name).inc(fields.get(name, 0))
        if "duration_ms" in fields:
            self._durations.labels(event).observe(fields["duration_ms"] / 1000)

    def register(self, collector: Collector) -> None:
        """Exposes further numbers that are asked for at each scrape."""
        self._registry.register(collector)

    def expose(self) -> bytes:
        """Everything in the text format of Prometheus 0.0.4."""
        return generate_latest(self._registry)


class CountedAudit:
    """An audit sink that also counts what it passed on."""

    def __init__(self, sink: AuditSink, metrics: Metrics) -> None:
        self._sink, self._metrics = sink, metrics

    def record(
        self,
        event: Event,
        *,
        actor: Actor | None = None,
        outcome: Outcome = Outcome.SUCCESS,
        **fields: Any,
    ) -> None:
        """Record, and count what was recorded."""
        self._sink.record(event, actor=actor, outcome=outcome, **fields)
        self._metrics.count(event, outcome, fields)


class StatusCollector(Collector):
    """What waits where, asked anew at each scrape."""

    def __init__(self, read_status: Callable[[], WorkflowStatus]) -> None:
        self._read_status = read_status

    def describe(self) -> Sequence[GaugeMetricFamily]:
        """Nothing in advance: registering must not ask the queues."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Depths and ages; only `smearlink_status_readable 0` when the queues do not answer."""
        readable = GaugeMetricFamily("smearlink_status_readable", "Whether the queues answered")
        try:
            status = self._read_status()
        except Exception:  # noqa: BLE001 - a scrape never fails; the gauge records it
            readable.add_metric([], 0)
            yield readable
            return
        readable.add_metric([], 1)
        yield readable
        yield from _queue_gauges(status)
        yield _parked_gauge(status)


class DiskCollector(Collector):
    """Room left for images."""

    def __init__(self, free_bytes: Callable[[], int]) -> None:
        self._free_bytes = free_bytes

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Free bytes; nothing when the folder is gone."""
        gauge = GaugeMetricFamily("smearlink_disk_free_bytes", "Room left in data_dir")
        try:
            gauge.add_metric([], self._free_bytes())
        except OSError:
            return
        yield gauge


def _queue_gauges(status: WorkflowStatus) -> Iterator[GaugeMetricFamily]:
    for field, name, meaning in (
        ("waiting", "smearlink_queue_waiting", "Pieces of work that wait for a place"),
        ("delayed", "smearlink_queue_delayed", "Pieces of work that wait for a moment"),
        ("in_work", "smearlink_queue_in_work", "Pieces of work in hand"),
        ("oldest_age_s", "smearlink_queue_oldest_age_seconds", "Age of the oldest unfinished one"),
    ):
        gauge = GaugeMetricFamily(name, meaning, labels=["queue"])
        for queue in status.queues:
            gauge.add_metric([queue.name], getattr(queue, field))
        yield gauge


def _parked_gauge(status: WorkflowStatus) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(
        "smearlink_parked", "What only a person can bring on", labels=["kind", "code"]
    )
    counted: dict[tuple[str, str], int] = {}
    for parked in status.parked:
        place = (str(parked.kind), parked.code)
        counted[place] = counted.get(place, 0) + 1
    for labels, count in counted.items():
        gauge.add_metric(list(labels), count)
    return gauge

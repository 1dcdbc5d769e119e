"""The audit trail: who did what to which image, when, with which outcome.

    with AuditTrail.open(folder, chain="ward7", key=load_or_make_key(key_file), …) as trail:
        job = trail.bind(study_uid=study, sop_instance_uid=uid)
        job.record(Event.IMAGE_ANALYSED, white_cells=12, duration_ms=840)

An event is one JSON line (`record_format`), chained by hashes and signed at intervals
(`hash_chain`), checked by `verify_trail`. It may hold only what `schema` allows.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import structlog
from structlog.typing import EventDict, WrappedLogger

from pipeline.errors import RetryLater
from reporting.audit.hash_chain import ChainWriter, TrailPolicy
from reporting.audit.query import (
    EventFilter,
    latest_events,
    read_events,
    recorded_review_events,
)
from reporting.audit.schema import Actor, Event, Outcome, check_fields, describe_actor
from reporting.audit.signing_key import (
    AuditKey,
    load_or_make_key,
    public_path,
    read_public_key,
)
from reporting.audit.verify import Finding, FindingKind, Verification, verify_trail

__all__ = [
    "Actor",
    "AuditKey",
    "AuditSink",
    "AuditTrail",
    "Event",
    "EventFilter",
    "Finding",
    "FindingKind",
    "Outcome",
    "TrailPolicy",
    "Verification",
    "latest_events",
    "load_or_make_key",
    "public_path",
    "read_events",
    "read_public_key",
    "recorded_review_events",
    "verify_trail",
]


class AuditSink(Protocol):
    """What other packages need of the trail."""

    def record(
        self,
        event: Event,
        *,
        actor: Actor | None = None,
        outcome: Outcome = Outcome.SUCCESS,
        **fields: Any,
    ) -> None:
        """Write one event, or raise: Defect for a field that is not allowed, RetryLater when
        the disk does not take it.
        """
        ...


class AuditTrail:
    """Records events into one chain; safe among threads and processes.

    Used as a context manager it also keeps a thread that brings lines to the disk and signs
    them in time, and signs the last one at the end.
    """

    def __init__(self, writer: ChainWriter, log: structlog.BoundLogger, period_s: float) -> None:
        self._writer, self._log, self._period_s = writer, log, period_s
        self._stop = threading.Event()
        self._keeper: threading.Thread | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        chain: str,
        key: AuditKey,
        software_version: str,
        model_sha256: str | None = None,
        finder_sha256: str | None = None,
        calibration_sha256: str | None = None,
        actor: Actor | None = None,
        policy: TrailPolicy | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> AuditTrail:
        """Continue the chain in `folder`, or start it.

        `chain` names the machine: its processes share the chain, other machines have their own.
        `actor` stands in events that name none: the service itself. `clock` gives aware times.
        """
        constant = {"software_version": software_version}
        hashes = {
            "model_sha256": model_sha256,
            "finder_sha256": finder_sha256,
            "calibration_sha256": calibration_sha256,
        }
        constant |= {name: sha256 for name, sha256 in hashes.items() if sha256 is not None}
        check_fields(constant)
        policy = policy or TrailPolicy()
        stamp = _Stamp(clock, constant, describe_actor(actor or Actor()))

        def describe(event: Event, fields: Mapping[str, Any]) -> dict[str, Any]:
            return dict(stamp(None, "", {"event": event, **fields}))

        writer = ChainWriter(
            folder,
            chain,
            key=key,
            policy=policy,
            describe=describe,
            monotonic=monotonic,
        )
        log: structlog.BoundLogger = structlog.wrap_logger(
            _Lines(writer),
            processors=[_hash_accession(key), _check, stamp, _as_line],
            wrapper_class=structlog.BoundLogger,
            context_class=dict,
            cache_logger_on_first_use=True,
        )
        return cls(writer, log, policy.fsync_every_s)

    def record(
        self,
        event: Event,
        *,
        actor: Actor | None = None,
        outcome: Outcome = Outcome.SUCCESS,
        **fields: Any,
    ) -> None:
        """Write one event; `accession` is written as its keyed hash only."""
        self._log.info(event, actor=actor, outcome=outcome, **fields)

    def bind(self, **fields: Any) -> AuditTrail:
        """A trail into the same chain whose events carry `fields`."""
        return AuditTrail(self._writer, self._log.bind(**fields), self._period_s)

    def tick(self) -> None:
        """Fsync and sign what is due by time."""
        self._writer.tick()

    def is_due(self) -> bool:
        """Whether `tick` may find something to do; the keeper asks every `fsync_every_s`."""
        return self._writer.is_due()

    def close(self) -> None:
        """Sign the last events and close the files."""
        self._writer.close()

    def __enter__(self) -> AuditTrail:
        self._keeper = threading.Thread(target=self._keep, name="audit-keeper", daemon=True)
        self._keeper.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._keeper is not None:
            self._keeper.join()
        self.close()

    def _keep(self) -> None:
        while not self._stop.wait(self._period_s):
            # The next event that is recorded reports a full disk; the keeper tries again.
            with contextlib.suppress(RetryLater):
                if self.is_due():
                    self.tick()


class _Stamp:
    """Puts time, event, outcome, actor and the constants first, and the label last."""

    def __init__(
        self, clock: Callable[[], datetime], constant: Mapping[str, str], actor: Mapping[str, str]
    ) -> None:
        self._clock, self._constant, self._actor = clock, constant, actor

    def __call__(self, _logger: WrappedLogger, _method: str, given: EventDict) -> EventDict:
        fields = dict(given)
        now = self._clock().astimezone(UTC)
        actor = fields.pop("actor", None)
        return {
            "time": now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "event": fields.pop("event"),
            "outcome": fields.pop("outcome", Outcome.SUCCESS),
            "actor": describe_actor(actor) if actor is not None else self._actor,
            **self._constant,
            **{name: _plain(value) for name, value in fields.items()},
            "research_use_only": True,
        }


def _plain(value: Any) -> Any:
    """Sets in order, sequences as lists."""
    if isinstance(value, frozenset | set):
        return sorted(value)
    return value


def _hash_accession(key: AuditKey) -> structlog.typing.Processor:
    def replace(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
        accession = fields.pop("accession", None)
        if accession:
            fields["accession_hash"] = key.accession_hash(str(accession))
        return fields

    return replace


def _check(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    own = ("event", "actor", "outcome")
    check_fields({name: value for name, value in fields.items() if name not in own})
    return fields


def _as_line(
    _logger: WrappedLogger, _method: str, entry: EventDict
) -> tuple[tuple[EventDict], dict[str, Any]]:
    return (entry,), {}


class _Lines:
    """The end of the structlog chain: a logger whose lines go to the writer."""

    def __init__(self, writer: ChainWriter) -> None:
        self._writer = writer

    def info(self, entry: EventDict) -> None:
        self._writer.append(entry)

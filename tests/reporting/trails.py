"""Builders for audit trails in tests: a clock that is moved, a key, a short trail on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from reporting.audit.trail import Actor, AuditKey, AuditTrail, Event, TrailPolicy

KEY = AuditKey.of(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: datetime = field(default_factory=lambda: datetime(2026, 11, 22, 12, 0, tzinfo=UTC))
    ticks: float = 0.0

    def __call__(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self.ticks

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.ticks += max(0.0, seconds)


def open_trail(
    folder: Path,
    *,
    chain: str = "ward7",
    clock: Clock | None = None,
    policy: TrailPolicy | None = None,
    key: AuditKey = KEY,
) -> AuditTrail:
    clock = clock or Clock()
    monotonic: Callable[[], float] = clock.monotonic
    return AuditTrail.open(
        folder,
        chain=chain,
        key=key,
        software_version="0.1.0",
        model_sha256="a" * 64,
        actor=Actor(host="testhost"),
        policy=policy or TrailPolicy(fsync="never", checkpoint_every_events=4),
        clock=clock,
        monotonic=monotonic,
    )


def write_days(folder: Path, *, days: int = 3, events: int = 6, chain: str = "ward7") -> None:
    """A closed trail: a file a day, a few events in each."""
    clock = Clock()
    trail = open_trail(folder, chain=chain, clock=clock)
    for day in range(days):
        for number in range(events):
            trail.record(Event.IMAGE_RECEIVED, sop_instance_uid=f"1.2.{day}.{number}")
            clock.move(1)
        clock.move(86400)
    trail.close()

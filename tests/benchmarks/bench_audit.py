"""How many audit events a second one core records: `python -m tests.benchmarks.bench_audit`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Literal

from reporting.audit.trail import (
    Actor,
    AuditTrail,
    Event,
    TrailPolicy,
    load_or_make_key,
    verify_trail,
)

EVENTS = 20_000


def events_per_second(folder: Path, fsync: Literal["event", "interval", "never"], n: int) -> float:
    """Record `n` wide events as the service does and sign every 1,000th."""
    key = load_or_make_key(folder / "audit.key")
    actor = Actor(ae_title="SLIDECAM1", host="10.20.0.15")
    with AuditTrail.open(
        folder / "audit",
        chain="bench",
        key=key,
        software_version="0.1.0",
        model_sha256="a" * 64,
        policy=TrailPolicy(fsync=fsync),
    ) as trail:
        job = trail.bind(study_uid="1.2.3", series_uid="1.2.3.4", sop_instance_uid="1.2.3.4.5")
        began = time.process_time() if fsync != "event" else time.perf_counter()
        for number in range(n):
            job.record(Event.IMAGE_ANALYSED, actor=actor, white_cells=number, duration_ms=8.5)
        ended = time.process_time() if fsync != "event" else time.perf_counter()
    if not verify_trail(folder / "audit", key.public).is_whole:
        raise SystemExit("the trail is not whole")
    return n / (ended - began)


def main() -> None:
    for fsync, n in (("never", EVENTS), ("interval", EVENTS), ("event", 500)):
        with tempfile.TemporaryDirectory() as folder:
            rate = events_per_second(Path(folder), fsync, n)  # type: ignore[arg-type]
        unit = "wall time" if fsync == "event" else "CPU time"
        print(f"fsync={fsync}: {rate:,.0f} events/s ({unit}, {n} events)")


if __name__ == "__main__":
    main()

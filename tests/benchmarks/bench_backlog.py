"""What a backlog costs the whole listener: accepting an image and starting the next, 100 against
1,000,000 waiting, on SQLite and PostgreSQL.

    python -m tests.benchmarks.bench_backlog [--database sqlite] [WAITING …]

Real listener, inbox, queue and C-STORE; analysing takes no time, so that only the queue is seen.
The waiting images lie in the inbox and in the queue as a device's would; only their way there is
shortened: rows by one statement, files by hard links. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydicom import Dataset

from listener.workflow.worker import Workflow
from pipeline.domain import FieldFindings
from tests.acceptance.postgres import PostgresServer, postgres
from tests.benchmarks.bench_queue import jobs, new_database, pile_up
from tests.builders import build_image
from tests.fakes import RecordingAudit
from tests.findings import MODEL, make_field_findings
from tests.listener.house import WorkflowSite, make_house, receive, working
from tests.listener.peers import listening, store

MAX_LINKS = 60_000
"""Names of one file; ext4 takes 65,000."""
CLAIMED = 100
"""More than are claimed before analysing begins."""

POLL_S = 0.25
"""As in the product."""

ACCEPTED = 30
STARTED = 120
WARM_UP = 20
MOST = 1.5
"""A backlog a thousand times as long may cost this much more, and no more."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Medians of one backlog, in milliseconds."""

    database: str
    waiting: int
    accept_ms: float
    start_ms: float


class _Starts:
    """Notes when each analysis begins; analyses nothing before `begin`."""

    model_key = MODEL.key

    def __init__(self) -> None:
        self.at: list[float] = []
        self.begin = threading.Event()
        self.is_enough = threading.Event()

    def __call__(self, dataset: Dataset) -> tuple[FieldFindings, ...]:
        self.begin.wait()
        self.at.append(time.perf_counter())
        if len(self.at) >= STARTED:
            self.is_enough.set()
        uids = {"sop_instance_uid": dataset.SOPInstanceUID, "series_uid": dataset.SeriesInstanceUID}
        return (make_field_findings(**uids),)


def measure(root: Path, database: str, url: str, waiting: int) -> Figures:
    """Both times with so many images waiting."""
    starts = _Starts()
    house = make_house(root, audit=RecordingAudit(), analysis=starts)
    with working(root, house, database_url=url, quiet_s=3600.0, poll_s=POLL_S) as workflow:
        _pile_up(url, house, workflow, waiting)
        accepted = list(_accept(house, workflow))
        starts.begin.set()
        starts.is_enough.wait()
    steady = starts.at[WARM_UP:STARTED]
    return Figures(
        database=database,
        waiting=waiting,
        accept_ms=1000 * statistics.median(accepted),
        start_ms=1000 * (steady[-1] - steady[0]) / (len(steady) - 1),
    )


def _pile_up(url: str, house: WorkflowSite, workflow: Workflow, waiting: int) -> None:
    """Puts the first files, the rows and the other files in place, so that neither a claim nor
    the comparison of inbox and queue misses one; a batch that is claimed waits for `begin`.
    """
    template = replace(jobs(0, 1)[0], delay_s=86400.0)  # not claimed before it is copied
    first = house.inbox.path_of(receive(house.inbox, "1.2.3", 0).sop_instance_uid)
    workflow.client.enqueue(template)
    _link_files(first, range(1, min(waiting, CLAIMED)))
    pile_up(url, template, waiting)
    _link_files(first, range(CLAIMED, waiting))


def _link_files(first: Path, numbers: range) -> None:
    content = first.read_bytes()
    source = first
    for number in numbers:
        target = first.with_name(f"1.2.3.{number}.dcm")
        if number % MAX_LINKS == 0:
            target.write_bytes(content)
            source = target
        else:
            target.hardlink_to(source)


def _accept(house: WorkflowSite, workflow: Workflow) -> Iterator[float]:
    """How long each C-STORE took, from the request to Success, and the asking for it."""
    with listening(house.inbox, on_received=workflow.client.enqueue_image) as listener:
        for number in range(ACCEPTED):
            image = build_image(number=10_000_000 + number)
            began = time.perf_counter()
            (response,) = store(listener.port, image)
            assert response.Status == 0x0000
            yield time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("waiting", nargs="*", type=int, default=[100, 1_000_000])
    parser.add_argument("--database", choices=["sqlite", "postgresql"], help="one of them only")
    asked = parser.parse_args()
    measured: list[Figures] = []
    if asked.database != "postgresql":
        measured += [_shown(_on_sqlite(waiting)) for waiting in asked.waiting]
    if asked.database != "sqlite":
        with postgres() as server:
            measured += [_shown(_on_postgresql(server, waiting)) for waiting in asked.waiting]
    ratios = {
        database: _ratios([one for one in measured if one.database == database])
        for database in dict.fromkeys(one.database for one in measured)
    }
    print(json.dumps({"figures": [asdict(one) for one in measured], "ratios": ratios}))
    sys.exit(any(ratio > MOST for found in ratios.values() for ratio in found.values()))


def _on_sqlite(waiting: int) -> Figures:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        return measure(root, "SQLite", f"sqlite:///{root / 'state.sqlite'}", waiting)


def _on_postgresql(server: PostgresServer, waiting: int) -> Figures:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        url = new_database(server, f"backlog{waiting}")
        return measure(Path(folder), "PostgreSQL", url, waiting)


def _shown(one: Figures) -> Figures:
    print(
        f"{one.database}, {one.waiting} waiting: accept {one.accept_ms:.1f} ms, "
        f"next {one.start_ms:.1f} ms",
        flush=True,
    )
    return one


def _ratios(figures: list[Figures]) -> dict[str, float]:
    """The longest backlog against the shortest."""
    first, last = figures[0], figures[-1]
    return {
        name: round(getattr(last, name) / getattr(first, name), 2)
        for name in ("accept_ms", "start_ms")
    }


if __name__ == "__main__":
    main()

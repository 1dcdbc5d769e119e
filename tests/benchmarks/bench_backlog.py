"""What a backlog costs: the time to accept an image and to start the next one, 100 against 100,000.

    python tests/benchmarks/bench_backlog.py [--json] [WAITING …]

Real listener, inbox, queue and C-STORE; analysing takes no time, so that only the queue is seen.
The waiting images lie in the inbox and in the queue as a device's would; only their way there is
shortened, as a hundred thousand associations would take the day.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from pydicom import Dataset

from listener.queue.jobs import image_job
from listener.workflow.worker import Workflow
from pipeline.domain import FieldFindings, SmearId, SOPInstanceUID
from tests.builders import build_image
from tests.fakes import RecordingAudit
from tests.findings import MODEL, make_field_findings
from tests.listener.house import WorkflowSite, make_house, receive, working
from tests.listener.peers import listening, store

TEMPLATE_IMAGE, TEMPLATE_SMEAR = "1.9.9.9.9", "1.8.8.8.8"
IMAGE, SMEAR = "'1.2.3.' || n", "'1.2.3.' || n / 10"
"""In SQL: which image and smear the n-th row is about."""

COUNTED = "WITH RECURSIVE more(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM more WHERE n < ?)"

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


def measure(root: Path, waiting: int) -> Figures:
    """Both times with so many images waiting."""
    starts = _Starts()
    house = make_house(root, audit=RecordingAudit(), analysis=starts)
    with working(root, house, quiet_s=3600.0, poll_s=POLL_S) as workflow:
        _pile_up(root, house, workflow, waiting)
        accepted = list(_accept(house, workflow))
        starts.begin.set()
        starts.is_enough.wait()
    steady = starts.at[WARM_UP:STARTED]
    return Figures(
        waiting=waiting,
        accept_ms=1000 * statistics.median(accepted),
        start_ms=1000 * (steady[-1] - steady[0]) / (len(steady) - 1),
    )


def _pile_up(root: Path, house: WorkflowSite, workflow: Workflow, waiting: int) -> None:
    """Put rows, then files in place; a batch that is claimed meanwhile waits for `begin`."""
    template = image_job(SOPInstanceUID(TEMPLATE_IMAGE), SmearId(TEMPLATE_SMEAR), delay_s=86400.0)
    workflow.client.enqueue(template)
    _multiply_row(root / "state.sqlite", template.id, waiting)
    path = house.inbox.path_of(receive(house.inbox, "1.2.3", 1).sop_instance_uid)
    content = path.read_bytes()
    for number in range(2, waiting + 1):
        path.with_name(f"1.2.3.{number}.dcm").write_bytes(content)


def _multiply_row(path: Path, template_id: str, waiting: int) -> None:
    """Give every waiting image the rows that asking for it would have made."""
    key = f"'image:' || {IMAGE}"
    status = {
        "workflow_uuid": key,
        "queue_partition_key": SMEAR,
        "status": "'ENQUEUED'",
        "delay_until_epoch_ms": "NULL",
        "created_at": "created_at + n / 50",
    }
    inputs = f"replace(replace(inputs, '{TEMPLATE_IMAGE}', {IMAGE}), '{TEMPLATE_SMEAR}', {SMEAR})"
    with closing(sqlite3.connect(path, timeout=60)) as connection, connection:
        for table, own in (
            ("workflow_input", {"workflow_uuid": key, "inputs": inputs}),
            ("workflow_status", status),
        ):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            values = ", ".join(own.get(column, f'"{column}"') for column in columns)
            names = ", ".join(f'"{column}"' for column in columns)
            connection.execute(
                f"{COUNTED} INSERT INTO {table} ({names}) SELECT {values} "  # noqa: S608
                f"FROM more, {table} WHERE workflow_uuid = ?",
                (waiting, template_id),
            )


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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("waiting", nargs="*", type=int, default=[100, 100_000])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    measured = []
    for waiting in asked.waiting:
        with tempfile.TemporaryDirectory() as folder:
            measured.append(measure(Path(folder), waiting))
            print(measured[-1], file=sys.stderr, flush=True)
    first, last = measured[0], measured[-1]
    ratios = {
        name: getattr(last, name) / getattr(first, name) for name in ("accept_ms", "start_ms")
    }
    if asked.json:
        print(json.dumps({"figures": [asdict(one) for one in measured], "ratios": ratios}))
    else:
        for one in measured:
            print(
                f"{one.waiting} waiting: accept {one.accept_ms:.1f} ms, next {one.start_ms:.1f} ms"
            )
        print(", ".join(f"{name} × {ratio:.2f}" for name, ratio in ratios.items()))
    sys.exit(any(ratio > MOST for ratio in ratios.values()))


if __name__ == "__main__":
    main()

"""What the queue costs for one image, with few and with many waiting, on SQLite and PostgreSQL.

    python -m tests.benchmarks.bench_queue [--waiting 100 10000 100000] [--workers 1 2] [--json]

Enqueuing is that of eight images received together, working off that of a batch: claimed, settled,
its smear's report enqueued. PostgreSQL is measured where `postgres` is installed; there some
worker processes also share the queue, each analysing for a fixed CPU time on one thread.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg

from listener.queue.client import QueueClient
from listener.queue.database import prepare_database
from listener.queue.dbos_adapter import make_queue
from listener.queue.jobs import Job, close_job, image_job
from listener.storage.inbox import Inbox
from pipeline.domain import SmearId, SOPInstanceUID
from tests.acceptance.postgres import PostgresServer, postgres

BATCH = 8
ROUNDS = 60
CHUNK = 2000
ANALYSIS_S = 0.04
"""CPU time of one image in the test of several workers."""
IMAGES_PER_WORKER = 120


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Medians for one image, in milliseconds of wall time."""

    database: str
    waiting: int
    enqueue_ms: float
    work_off_ms: float


def open_client(url: str, folder: Path) -> QueueClient:
    return QueueClient(url, inbox=Inbox(folder / "inbox"), gather_by="series")


def jobs(first: int, count: int) -> list[Job]:
    return [
        image_job(SOPInstanceUID(f"1.2.3.{number}"), SmearId(f"1.2.4.{number // 50}"))
        for number in range(first, first + count)
    ]


def measure(name: str, url: str, folder: Path, waiting: int) -> Cost:
    prepare_database(url)
    make_queue(url)
    with closing(open_client(url, folder)) as client:
        for first in range(0, waiting, CHUNK):
            client.enqueue(*jobs(first, min(CHUNK, waiting - first)))
        enqueued, worked = [], []
        for number in range(ROUNDS):
            began = time.perf_counter()
            client.enqueue(*jobs(10**7 + number * BATCH, BATCH))
            enqueued.append(time.perf_counter() - began)
            began = time.perf_counter()
            work_off(client, f"w{number}")
            worked.append(time.perf_counter() - began)
    return Cost(
        database=name,
        waiting=waiting,
        enqueue_ms=round(1000 * statistics.median(enqueued) / BATCH, 3),
        work_off_ms=round(1000 * statistics.median(worked) / BATCH, 3),
    )


def work_off(client: QueueClient, name: str) -> int:
    batch = client.claim_images("w1", BATCH, suspects=False)
    closes = [
        close_job(smear, trigger=f"batch-{name}", known=1, delay_s=10.0)
        for smear in {image.smear_id for image in batch}
    ]
    client.settle_images("w1", done=batch, next_jobs=closes)
    return len(batch)


def worker_process(url: str, folder: str, name: str) -> None:
    """Claims and settles until nothing waits, busy for a fixed time with each image."""
    with closing(open_client(url, Path(folder))) as client:
        while batch := client.claim_images(name, BATCH, suspects=False):
            for _ in batch:
                end = time.process_time() + ANALYSIS_S
                while time.process_time() < end:
                    pass
            client.settle_images(name, done=batch)


def images_per_s(server: PostgresServer, folder: Path, workers: int) -> float:
    url = new_database(server, f"workers{workers}")
    make_queue(url)
    images = IMAGES_PER_WORKER * workers
    with closing(open_client(url, folder)) as client:
        client.enqueue(*jobs(0, images))
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=worker_process, args=(url, str(folder), f"w{n}"))
        for n in range(workers)
    ]
    began = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    # What starting a Python process takes belongs to no worker's pace.
    return images / (time.perf_counter() - began)


def new_database(server: PostgresServer, name: str) -> str:
    with psycopg.connect(server.url, autocommit=True) as session:
        session.execute(f"CREATE DATABASE {name}".encode())
    return server.url.rsplit("/", 1)[0] + f"/{name}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--waiting", nargs="*", type=int, default=[100, 10_000, 100_000])
    parser.add_argument("--workers", nargs="*", type=int, default=[1, 2])
    asked = parser.parse_args()
    costs: list[Cost] = []
    paces: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for waiting in asked.waiting:
            folder = root / f"sqlite{waiting}"
            folder.mkdir()
            url = f"sqlite:///{folder / 'state.sqlite'}"
            costs.append(measure("SQLite", url, folder, waiting))
            print(costs[-1], flush=True)
        if shutil.which("postgres") is None:
            print("PostgreSQL is not installed and not measured", file=sys.stderr)
        else:
            with postgres() as server:
                for waiting in asked.waiting:
                    folder = root / f"postgres{waiting}"
                    folder.mkdir()
                    url = new_database(server, f"waiting{waiting}")
                    costs.append(measure("PostgreSQL", url, folder, waiting))
                    print(costs[-1], flush=True)
                for workers in asked.workers:
                    paces[workers] = round(images_per_s(server, root, workers), 1)
                    print(f"{workers} workers: {paces[workers]} images/s", flush=True)
    print(
        json.dumps(
            {
                "costs": [asdict(cost) for cost in costs],
                "images_per_s_by_workers": paces,
                "ratios": ratios(costs),
            }
        )
    )


def ratios(costs: list[Cost]) -> dict[str, float]:
    """The longest backlog against the shortest, of each database."""
    found = {}
    for database in dict.fromkeys(cost.database for cost in costs):
        own = [cost for cost in costs if cost.database == database]
        found[f"{database} enqueue"] = round(own[-1].enqueue_ms / own[0].enqueue_ms, 2)
        found[f"{database} work off"] = round(own[-1].work_off_ms / own[0].work_off_ms, 2)
    return found


if __name__ == "__main__":
    main()

"""What the queue costs for one image, with few and with many waiting, on SQLite and PostgreSQL.

    python -m tests.benchmarks.bench_queue [--waiting 100 1000000] [--workers 1 2] [--rounds 200]

Accepting is the enqueuing of eight images that were received together, starting is the claim of a
batch, settling ends it and enqueues its smear's report. The backlogs are written beforehand in one
statement each (PostgreSQL is vacuumed after it, as it would have been on the way there); then they
take turns, a batch each. A cost is the lower quartile of the rounds: what else the machine does
adds to the others. PostgreSQL is measured where it is installed; there worker processes also
share the queue, each analysing for a fixed CPU time on one thread; `pace_ratio` is the median of
the trials' ratios. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import psycopg

from listener.queue import queries
from listener.queue.client import QueueClient
from listener.queue.database import open_engine, prepare_database
from listener.queue.dbos_adapter import make_queue
from listener.queue.jobs import Job, close_job, image_job
from listener.storage.inbox import Inbox
from pipeline.domain import SmearId, SOPInstanceUID
from tests.acceptance.postgres import PostgresServer, postgres

BATCH = 8
SMEAR = 50
"""Images of one smear."""
ANALYSIS_S = 0.04
"""CPU time of one image in the test of several workers."""
WARM_UP_S, WINDOW_S = 0.5, 4.0
"""Workers start, and are then counted for so long."""
MOST_PER_WORKER = 2 * round((WARM_UP_S + WINDOW_S) / ANALYSIS_S)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one image, in milliseconds of wall time."""

    database: str
    waiting: int
    accept_ms: float
    start_ms: float
    settle_ms: float


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """A queue with so many images waiting, and what each step took, in seconds per batch."""

    waiting: int
    client: QueueClient
    accepted: list[float] = field(default_factory=list)
    started: list[float] = field(default_factory=list)
    settled: list[float] = field(default_factory=list)


def open_client(url: str, folder: Path) -> QueueClient:
    return QueueClient(url, inbox=Inbox(folder / "inbox"), gather_by="series")


def jobs(first: int, count: int) -> list[Job]:
    return [
        image_job(SOPInstanceUID(f"1.2.3.{number}"), SmearId(f"1.2.4.{number // SMEAR}"))
        for number in range(first, first + count)
    ]


def open_backlog(url: str, folder: Path, waiting: int) -> Backlog:
    """A new queue in which so many images wait."""
    prepare_database(url)
    make_queue(url)
    client = open_client(url, folder)
    client.enqueue(*jobs(0, 1))
    pile_up(url, jobs(0, 1)[0], waiting)
    return Backlog(waiting=waiting, client=client)


def pile_up(url: str, template: Job, waiting: int) -> None:
    """Gives each further image the rows that enqueuing it would have made; `template` is
    enqueued, and not claimed.
    """
    image, smear = "'1.2.3.' || n", f"'1.2.4.' || n / {SMEAR}"
    job_id = "'image:1.2.3.' || n"
    own = {
        "workflow_uuid": job_id,
        "queue_partition_key": smear,
        "status": "'ENQUEUED'",
        "delay_until_epoch_ms": "NULL",
        "attributes": "NULL",
        "created_at": f"t.created_at + n / {SMEAR}",
        "inputs": f"replace(replace(t.inputs, '1.2.3.0', {image}), '1.2.4.0', {smear})",
    }
    engine = open_engine(url)
    schema = "dbos." if engine.dialect.name == "postgresql" else ""
    with engine.begin() as connection:
        for table in (queries.JOBS, queries.INPUTS):
            columns = [column.name for column in table.columns]
            values = ", ".join(own.get(column, f"t.{column}") for column in columns)
            connection.exec_driver_sql(
                f"INSERT INTO {schema}{table.name} ({', '.join(columns)}) "  # noqa: S608
                "WITH RECURSIVE more(n) AS "
                f"(SELECT 1 UNION ALL SELECT n + 1 FROM more WHERE n < {waiting - 1}) "
                f"SELECT {values} FROM more, {schema}{table.name} AS t "
                f"WHERE t.workflow_uuid = '{template.id}' ON CONFLICT DO NOTHING"
            )
    if schema:
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
            connection.exec_driver_sql("CHECKPOINT")
    engine.dispose()


def work_batch(backlog: Backlog, number: int) -> None:
    """One batch accepted, one started and settled."""
    client = backlog.client
    fresh = jobs(10**7 + number * BATCH, BATCH)
    with timed(backlog.accepted):
        client.enqueue(*fresh)
    with timed(backlog.started):
        batch = client.claim_images("w1", BATCH, suspects=False)
    closes = [
        close_job(smear, trigger=f"batch-{number}", known=1, delay_s=10.0)
        for smear in {image.smear_id for image in batch}
    ]
    with timed(backlog.settled):
        client.settle_images("w1", done=batch, next_jobs=closes)


@contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - began)


def measure(database: str, backlogs: Sequence[Backlog], rounds: int) -> list[Cost]:
    """The costs of the backlogs, measured in turn."""
    for number in range(rounds):
        for backlog in backlogs:
            work_batch(backlog, number)
    for backlog in backlogs:
        backlog.client.close()
    return [
        Cost(
            database=database,
            waiting=backlog.waiting,
            accept_ms=per_image_ms(backlog.accepted),
            start_ms=per_image_ms(backlog.started),
            settle_ms=per_image_ms(backlog.settled),
        )
        for backlog in backlogs
    ]


def per_image_ms(seconds: list[float]) -> float:
    return round(1000 * statistics.quantiles(seconds, n=4)[0] / BATCH, 3)


def worker_process(
    url: str, folder: str, name: str, everyone_is_up: Barrier, wire: Connection
) -> None:
    """Claims and settles until the window is over, busy for a fixed time with each image; tells
    when it was done with each.
    """
    os.setsid()  # as services of their own: Linux shares a busy machine out by sessions
    ended: list[float] = []
    with closing(open_client(url, Path(folder))) as client:
        everyone_is_up.wait()
        over_at = time.perf_counter() + WARM_UP_S + WINDOW_S
        while time.perf_counter() < over_at:
            batch = client.claim_images(name, BATCH, suspects=False)
            for _ in batch:
                end = time.process_time() + ANALYSIS_S
                while time.process_time() < end:
                    pass
                ended.append(time.perf_counter())
            client.settle_images(name, done=batch)
    wire.send(ended)


def images_per_s(server: PostgresServer, folder: Path, workers: int, trial: int) -> float:
    """Of so many workers while more waits than they can do: no worker is alone at the end."""
    url = new_database(server, f"workers{workers}_{trial}")
    make_queue(url)
    with closing(open_client(url, folder)) as client:
        client.enqueue(*jobs(0, workers * MOST_PER_WORKER))
    context = multiprocessing.get_context("spawn")
    everyone_is_up = context.Barrier(workers + 1)
    wires = [context.Pipe(duplex=False) for _ in range(workers)]
    processes = [
        context.Process(
            target=worker_process, args=(url, str(folder), f"w{n}", everyone_is_up, theirs)
        )
        for n, (_, theirs) in enumerate(wires)
    ]
    for process in processes:
        process.start()
    everyone_is_up.wait()
    begin = time.perf_counter() + WARM_UP_S
    ended = [at for ours, _ in wires for at in ours.recv()]
    for process in processes:
        process.join()
    return sum(begin <= at < begin + WINDOW_S for at in ended) / WINDOW_S


def new_database(server: PostgresServer, name: str) -> str:
    with psycopg.connect(server.url, autocommit=True) as session:
        session.execute(f"CREATE DATABASE {name}".encode())
    return server.url.rsplit("/", 1)[0] + f"/{name}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--waiting", nargs="*", type=int, default=[100, 1_000_000])
    parser.add_argument("--workers", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--workers-only", action="store_true")
    parser.add_argument("--trials", type=int, default=5, help="of the workers, in turn")
    asked = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f}", flush=True)
    if asked.workers_only:
        asked.waiting = []
    with tempfile.TemporaryDirectory() as name:
        costs = measure_sqlite(Path(name), asked.waiting, asked.rounds)
    paces: dict[int, list[float]] = {}
    if shutil.which("postgres") is None:
        print("PostgreSQL is not installed and not measured", file=sys.stderr)
    else:
        with tempfile.TemporaryDirectory() as name, postgres() as server:
            costs += measure_postgresql(server, Path(name), asked.waiting, asked.rounds)
            paces = measure_workers(server, Path(name), asked.workers, asked.trials)
    print(
        json.dumps(
            {
                "load_average": round(os.getloadavg()[0], 1),
                "costs": [asdict(cost) for cost in costs],
                "ratios": ratios(costs),
                "images_per_s_by_workers": {
                    count: round(statistics.median(found), 1) for count, found in paces.items()
                },
                "pace_ratio": statistics.median(pace_ratios(paces)) if paces else None,
                "pace_ratios": pace_ratios(paces) if paces else [],
            }
        )
    )


def measure_sqlite(root: Path, waiting: Sequence[int], rounds: int) -> list[Cost]:
    backlogs = []
    for count in waiting:
        folder = root / str(count)
        folder.mkdir()
        backlogs.append(open_backlog(f"sqlite:///{folder / 'state.sqlite'}", folder, count))
    return shown(measure("SQLite", backlogs, rounds))


def measure_postgresql(
    server: PostgresServer, root: Path, waiting: Sequence[int], rounds: int
) -> list[Cost]:
    backlogs = [
        open_backlog(new_database(server, f"waiting{count}"), root, count) for count in waiting
    ]
    return shown(measure("PostgreSQL", backlogs, rounds))


def measure_workers(
    server: PostgresServer, folder: Path, workers: Sequence[int], trials: int
) -> dict[int, list[float]]:
    """Images per second by the number of workers, in each of the trials: they take turns."""
    found: dict[int, list[float]] = {count: [] for count in workers}
    for trial in range(trials):
        for count in workers if trial % 2 else reversed(workers):
            found[count].append(images_per_s(server, folder, count, trial))
    for count, paces in found.items():
        print(f"{count} workers: {statistics.median(paces):.1f} images/s", flush=True)
    return found


def pace_ratios(paces: dict[int, list[float]]) -> list[float]:
    """Of the most workers against the fewest in each trial, the smallest first."""
    fewest, most = paces[min(paces)], paces[max(paces)]
    return sorted(round(after / before, 2) for before, after in zip(fewest, most, strict=True))


def shown(costs: list[Cost]) -> list[Cost]:
    for cost in costs:
        print(cost, flush=True)
    return costs


def ratios(costs: list[Cost]) -> dict[str, float]:
    """The longest backlog against the shortest, of each database."""
    found = {}
    for database in dict.fromkeys(cost.database for cost in costs):
        first, *_, last = [cost for cost in costs if cost.database == database] * 2
        found[f"{database} accept"] = round(last.accept_ms / first.accept_ms, 2)
        found[f"{database} start"] = round(last.start_ms / first.start_ms, 2)
        found[f"{database} settle"] = round(last.settle_ms / first.settle_ms, 2)
    return found


if __name__ == "__main__":
    main()

"""What a backlog costs the whole listener: accepting an image and starting the next, 100 against
1,000,000 waiting, on SQLite and PostgreSQL.

    python -m tests.benchmarks.bench_backlog [--database sqlite] [--rounds 12] [WAITING WAITING]

Real listener, inbox, queue and C-STORE; analysing takes no time, so that only the queue is seen.
The waiting images lie in the inbox and in the queue as a device's would; only their way there is
shortened: rows by one statement, files by hard links.
Each backlog has a process and a data folder of its own, and stands still while the other one is
measured. In each round both accept and start as many images, one after the other, so that the
backlogs stay as long as they are; a ratio is the median of the rounds', beside its quartiles.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from pydicom import Dataset

from listener.service import SWITCH_INTERVAL_S
from listener.workflow.worker import Workflow
from pipeline.domain import FieldFindings
from tests.acceptance.postgres import PostgresServer, postgres
from tests.benchmarks.bench_queue import jobs, new_database, pile_up
from tests.builders import build_image, dataset_bytes
from tests.fakes import RecordingAudit
from tests.findings import MODEL, make_field_findings
from tests.listener.house import WorkflowSite, make_house, receive, working
from tests.listener.peers import RawPeer, listening

MAX_LINKS = 60_000
"""Names of one file; ext4 takes 65,000."""
CLAIMED = 100
"""More than are claimed before analysing begins."""

POLL_S = 0.25
"""As in the product."""

PER_ROUND = 60
"""Images accepted and started in a round; the first starts are not counted: what was claimed
before the pause is begun at once."""
WARM_UP = 20
ROUNDS = 12
MEASURED = ("accept_ms", "start_ms")
MOST = 1.1
"""A backlog ten thousand times as long may cost this much more: with a lower quartile above it the
benchmark fails."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one backlog took in one round, in milliseconds per image."""

    accept_ms: float
    start_ms: float


class _Starts:
    """Notes when each analysis begins; lets so many begin as it is told to."""

    model_key = MODEL.key

    def __init__(self) -> None:
        self._allowed = threading.Semaphore(0)
        self._begun = threading.Semaphore(0)
        self._is_over = False
        self.at: list[float] = []

    def __call__(self, dataset: Dataset) -> tuple[FieldFindings, ...]:
        if not self._is_over:
            self._allowed.acquire()
        self.at.append(time.perf_counter())
        self._begun.release()
        uids = {"sop_instance_uid": dataset.SOPInstanceUID, "series_uid": dataset.SeriesInstanceUID}
        return (make_field_findings(**uids),)

    def let_begin(self, count: int) -> list[float]:
        """When each of so many analyses began."""
        earlier = len(self.at)
        self._allowed.release(count)
        for _ in range(count):
            self._begun.acquire()
        return self.at[earlier:]

    def let_all_begin(self) -> None:
        """From now on nothing waits."""
        self._is_over = True
        self._allowed.release(CLAIMED)


def serve(root: Path, url: str, waiting: int, wire: Connection) -> None:
    """A backlog in a process of its own: a turn for each message, until the wire is closed."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    starts = _Starts()
    house = make_house(root, audit=RecordingAudit(), analysis=starts)
    with (
        working(root, house, database_url=url, quiet_s=3600.0, poll_s=POLL_S) as workflow,
        listening(house.inbox, on_received=workflow.client.enqueue_image) as listener,
    ):
        _pile_up(url, house, workflow, waiting)
        wire.send(os.getpid())
        number = 10_000_000
        while wire.recv():
            accept_s = _accept(listener.port, number)
            number += PER_ROUND
            at = starts.let_begin(PER_ROUND)[WARM_UP:]
            start_s = (at[-1] - at[0]) / (len(at) - 1)
            wire.send(Turn(accept_ms=1000 * accept_s, start_ms=1000 * start_s))
        starts.let_all_begin()


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


def _accept(port: int, first: int) -> float:
    """How long a C-STORE takes in one association, from the request to Success; each but the
    first waits for the queue to be told of the one before.
    """
    images = [build_image(number=first + number) for number in range(PER_ROUND)]
    took_s = []
    with RawPeer(port) as peer:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.associate(images[0].SOPClassUID)
        for image, content in [(image, dataset_bytes(image)) for image in images]:
            began = time.perf_counter()
            peer.store(image, data=content)
            assert peer.hear_status() == 0x0000
            took_s.append(time.perf_counter() - began)
    return statistics.median(took_s)


class _Backlog:
    """A process with a backlog; stopped between its turns."""

    def __init__(self, wire: Connection) -> None:
        self._wire = wire
        self._process_id: int = wire.recv()
        os.kill(self._process_id, signal.SIGSTOP)

    def turn(self) -> Turn:
        """One round's share of the work."""
        os.kill(self._process_id, signal.SIGCONT)
        self._wire.send(True)
        turn: Turn = self._wire.recv()
        os.kill(self._process_id, signal.SIGSTOP)
        return turn

    def end(self) -> None:
        """Lets the process end."""
        os.kill(self._process_id, signal.SIGCONT)
        self._wire.send(False)


@contextmanager
def _backlog(url: str, waiting: int) -> Iterator[_Backlog]:
    here, there = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        process = multiprocessing.get_context("spawn").Process(
            target=serve,
            args=(root, url or f"sqlite:///{root / 'state.sqlite'}", waiting, there),
        )
        process.start()
        there.close()
        backlog = _Backlog(here)
        try:
            yield backlog
        finally:
            backlog.end()
            process.join()


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two backlogs beside each other, round by round."""

    database: str
    waiting: list[int]
    turns: list[list[Turn]]

    def median_ms(self, name: str, place: int) -> float:
        """Of one backlog's rounds."""
        return statistics.median(getattr(turn, name) for turn in self.turns[place])

    def ratios(self, name: str) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of the rounds' ratios."""
        short, long = self.turns
        found = [
            getattr(after, name) / getattr(before, name)
            for before, after in zip(short, long, strict=True)
        ]
        lower, median, upper = statistics.quantiles(found, n=4, method="inclusive")
        return lower, median, upper


def measure(database: str, urls: list[str], waiting: list[int], rounds: int) -> Comparison:
    """Both backlogs in turn, each as often first as second."""
    turns: dict[int, list[Turn]] = {length: [] for length in waiting}
    with ExitStack() as running:
        backlogs = {
            length: running.enter_context(_backlog(url, length))
            for url, length in zip(urls, waiting, strict=True)
        }
        for length in waiting:
            backlogs[length].turn()  # the first of a process loads what it needs
        for number in range(rounds):
            for length in waiting if number % 2 else reversed(waiting):
                turns[length].append(backlogs[length].turn())
    return Comparison(database=database, waiting=waiting, turns=[turns[one] for one in waiting])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("waiting", nargs="*", type=int, default=[100, 1_000_000])
    parser.add_argument("--database", choices=["sqlite", "postgresql"], help="one of them only")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    if len(asked.waiting) != 2:
        parser.error("two backlogs are compared")
    print(f"load average {os.getloadavg()[0]:.1f}", flush=True)
    measured = []
    if asked.database != "postgresql":
        measured.append(_shown(measure("SQLite", ["", ""], asked.waiting, asked.rounds)))
    if asked.database != "sqlite":
        with postgres() as server:
            urls = [_new_database(server, waiting) for waiting in asked.waiting]
            measured.append(_shown(measure("PostgreSQL", urls, asked.waiting, asked.rounds)))
    ratios = {
        one.database: {name: round(one.ratios(name)[1], 2) for name in MEASURED} for one in measured
    }
    print(json.dumps({"load_average": round(os.getloadavg()[0], 1), "ratios": ratios}))
    sys.exit(any(one.ratios(name)[0] > MOST for one in measured for name in MEASURED))


def _new_database(server: PostgresServer, waiting: int) -> str:
    return new_database(server, f"backlog{waiting}")


def _shown(one: Comparison) -> Comparison:
    for name, does in (("accept_ms", "accept"), ("start_ms", "next")):
        short_ms, long_ms = (one.median_ms(name, place) for place in (0, 1))
        lower, median, upper = one.ratios(name)
        print(
            f"{one.database}, {one.waiting[0]} / {one.waiting[1]} waiting: {does} "
            f"{short_ms:.2f} / {long_ms:.2f} ms, × {median:.2f} ({lower:.2f} to {upper:.2f})",
            flush=True,
        )
    return one


if __name__ == "__main__":
    main()

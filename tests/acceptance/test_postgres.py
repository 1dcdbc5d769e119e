"""More than one machine: several listeners and workers share a PostgreSQL and a data folder."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import LiteralString, Self

import psycopg
import pytest
from psycopg.sql import SQL

from listener.cli.move_queue import move_queue
from listener.queue.worker_lock import AdvisoryLocks, claim_worker, worker_locks
from pipeline.errors import NeedsReview, RetryLater
from tests.acceptance.killing import Running, Trial, trial, until
from tests.acceptance.postgres import PostgresServer, postgres
from tests.listener.house import open_queue
from tests.machine import is_busy

pytestmark = pytest.mark.peers

IMAGES = 9
MOST_IMAGES = 300
MOST_WAITING = 2
"""Images sent ahead of what is done, so that no time below counts a backlog."""

MOST_TAKEOVER_S = 10.0

STOPS, IMAGES_BETWEEN_STOPS = 4, 3
"""Of the database server: with each, every worker loses its lock and lives."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres() as running:
        yield running


@pytest.fixture
def database_url(server: PostgresServer, request: pytest.FixtureRequest) -> str:
    """A database of its own for each test."""
    name = f"t{abs(hash(request.node.name))}"
    with psycopg.connect(server.url, autocommit=True) as session:
        session.execute(f"CREATE DATABASE {name}".encode())
    return server.url.rsplit("/", 1)[0] + f"/{name}"


def start(trial: Trial, name: str, *, listens: bool = False) -> Running:
    running = trial.start(worker_id=name, listens=listens)
    assert running.is_up() or not listens
    return running


def test_the_same_code_loses_nothing_on_postgresql(tmp_path: Path, database_url: str) -> None:
    with trial(tmp_path, database_url=database_url) as killing:
        for step in range(15, 90, 25):
            killing.die_at(step)

        verdict = killing.finish()

        print(verdict)
        assert (verdict.lost, verdict.duplicated) == (0, 0)
        assert killing.leftovers() == []
        assert killing.audit_problems() == ()
        assert not list(tmp_path.rglob("*.sqlite*")), "PostgreSQL is used, yet there is an SQLite"


def test_living_workers_take_over_from_killed_ones(tmp_path: Path, database_url: str) -> None:
    """Two listeners and three workers; two workers and a listener die in the midst of work."""
    with trial(tmp_path, database_url=database_url) as killing, InHand(database_url) as in_hand:
        doors = [start(killing, f"door-{n}", listens=True) for n in (1, 2)]
        workers = [start(killing, f"worker-{n}") for n in (1, 2, 3)]
        doomed = {"door-1": doors[0], "worker-1": workers[0], "worker-2": workers[1]}
        takeovers_s = []

        def kill_one_at_work() -> bool:
            for name, running in doomed.items():
                if in_hand.of(name) and running.kill_if(lambda name=name: in_hand.of(name)):
                    takeovers_s.append(in_hand.seconds_until_taken_from(name))
                    del doomed[name]
                    return True
            return False

        for number in itertools.count():
            # As many as it takes: who takes which image up is chance, and three have to die of it.
            if number >= IMAGES and not doomed:
                break
            assert number < MOST_IMAGES, "those that were to die had too little to do"
            door = doors[number % 2] if "door-1" in doomed else doors[1]
            until(lambda door=door: killing.send(door.port))
            until(lambda: kill_one_at_work() or killing.lost() <= MOST_WAITING)
        killing.kills += 3

        print(f"taken over within {max(takeovers_s):.1f} s, of {number} images")
        assert max(takeovers_s) < MOST_TAKEOVER_S or is_busy()
        until(lambda: killing.lost() == 0 and workers[2].ask("status")[0])
        until(lambda: not killing.leftovers())

        for survivor in (doors[1], workers[2]):
            survivor.stop()
        verdict = killing.verdict()
        print(verdict)
        assert (verdict.lost, verdict.duplicated) == (0, 0)
        assert killing.audit_problems() == ()


class InHand:
    """What each worker has in hand, as the shared database has it."""

    def __init__(self, database_url: str) -> None:
        self._session = psycopg.connect(database_url, autocommit=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def of(self, worker_id: str) -> list[str]:
        """Ids of the work that this worker has claimed and not ended."""
        return self._ids("status = 'PENDING' AND executor_id = %s", worker_id)

    def seconds_until_taken_from(self, dead: str) -> float:
        """How long it takes until what a dead worker had in hand is in another's or done."""
        left, died_at = set(self.of(dead)), time.monotonic()
        until(lambda: left.isdisjoint((*self.of(dead), *self._ids("status = 'ENQUEUED'"))))
        return time.monotonic() - died_at

    def _ids(self, condition: LiteralString, *values: str) -> list[str]:
        query = SQL("SELECT workflow_uuid FROM dbos.workflow_status WHERE {}").format(
            SQL(condition)
        )
        return [found for (found,) in self._session.execute(query, values)]


def test_a_worker_that_is_cut_off_and_comes_back_does_no_harm(
    tmp_path: Path, database_url: str
) -> None:
    """The server ends the sessions that hold the locks; another worker may take the work too."""
    with trial(tmp_path, database_url=database_url) as killing:
        door = start(killing, "door-1", listens=True)
        worker = start(killing, "worker-1")
        for _ in range(IMAGES):
            assert killing.send(door.port)
            with psycopg.connect(database_url, autocommit=True) as session:
                session.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND application_name LIKE 'smearlink %'"
                )

        until(lambda: killing.verdict().lost == 0 and door.ask("status")[0])

        for running in (door, worker):
            running.stop()
        assert killing.verdict().duplicated == 0


def test_a_server_that_stops_in_the_midst_of_work_is_waited_for(
    tmp_path: Path, server: PostgresServer, database_url: str
) -> None:
    """PostgreSQL goes without a word and comes back; the services go on by themselves."""
    with trial(tmp_path, database_url=database_url) as killing:
        door = start(killing, "door-1", listens=True)
        worker = start(killing, "worker-1")
        for _ in range(STOPS):
            with InHand(database_url) as in_hand:
                for _ in range(IMAGES_BETWEEN_STOPS):
                    until(lambda: killing.send(door.port))
                until(lambda in_hand=in_hand: in_hand.of("door-1") or in_hand.of("worker-1"))
            server.stop()
            is_taken_meanwhile = killing.send(door.port)
            server.start()
            assert is_taken_meanwhile, "the inbox needs no database"
        until(lambda: killing.lost() == 0 and door.ask("status")[0])

        for running in (door, worker):
            assert not running.is_dead, "it should have waited"
            running.stop()
        verdict = killing.verdict()
        print(verdict)
        sent = STOPS * (IMAGES_BETWEEN_STOPS + 1)
        assert (verdict.images, verdict.lost, verdict.duplicated) == (sent, 0, 0)
        assert killing.leftovers() == []
        assert killing.audit_problems() == ()


def test_waiting_work_moves_from_sqlite_to_postgresql(tmp_path: Path, database_url: str) -> None:
    sqlite_url = f"sqlite:///{tmp_path / 'data' / 'state.sqlite'}"
    locks = worker_locks(sqlite_url, folder=tmp_path / "data" / "workers")
    with trial(tmp_path) as killing:
        for step in (45, 50, 55, 60):
            killing.die_at(step)
        killing.database_url = database_url

        moved = move_queue(
            sqlite_url,
            database_url,
            open_queue=partial(open_queue, tmp_path / "data"),
            locks=locks,
        )
        again = move_queue(
            sqlite_url,
            database_url,
            open_queue=partial(open_queue, tmp_path / "data"),
            locks=locks,
        )
        verdict = killing.finish()

        assert moved == again > 0
        assert (verdict.lost, verdict.duplicated) == (0, 0)
        assert verdict.images >= 2


def test_a_lock_dies_with_its_session_and_not_before(database_url: str) -> None:
    locks = AdvisoryLocks(database_url)
    hold = claim_worker(locks, wanted="w1")

    assert hold.is_held()
    assert locks.try_take("w1") is None
    with pytest.raises(NeedsReview):
        claim_worker(locks, wanted="w1")
    hold.close()

    again = locks.try_take("w1")
    assert again is not None
    again.close()


def test_a_server_that_is_away_is_waited_for() -> None:
    locks = AdvisoryLocks("postgresql://smearlink@127.0.0.1:1/postgres")

    with pytest.raises(RetryLater) as caught:
        locks.try_take("w1")

    assert caught.value.code == "database_unavailable"

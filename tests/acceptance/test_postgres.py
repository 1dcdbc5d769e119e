"""More than one machine: several listeners and workers share a PostgreSQL and a data folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from listener.move_queue import move_queue
from listener.worker_lock import AdvisoryLocks, claim_worker, worker_locks
from pipeline.errors import NeedsReview, RetryLater
from tests.acceptance.killing import Running, Trial, trial, until
from tests.acceptance.postgres import postgres

pytestmark = pytest.mark.peers

IMAGES = 9
MOST_TAKEOVER_S = 10.0
DIES_AT = 60
"""Some way into its first work: a start has some thirty steps."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture
def database_url(server: str, request: pytest.FixtureRequest) -> str:
    """A database of its own for each test."""
    name = f"t{abs(hash(request.node.name))}"
    with psycopg.connect(server, autocommit=True) as session:
        session.execute(f"CREATE DATABASE {name}".encode())
    return server.rsplit("/", 1)[0] + f"/{name}"


def start(trial: Trial, name: str, *, listens: bool = False, kill_at: int = 0) -> Running:
    running = Running(trial.life(worker_id=name, listens=listens, kill_at=kill_at))
    assert running.is_up() or kill_at or not listens
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
    with trial(tmp_path, database_url=database_url) as killing:
        doors = [start(killing, f"door-{n}", listens=True) for n in (1, 2)]
        workers = [
            start(killing, f"worker-{n}", kill_at=DIES_AT if n < 3 else 0) for n in (1, 2, 3)
        ]
        for number in range(IMAGES):
            until(lambda n=number: killing.send(doors[n % 2].port))
        doors[0].kill()
        until(lambda: all(worker.is_dead for worker in workers[:2]))
        killing.kills += 3
        killed_at = time.monotonic()

        until(lambda: killing.verdict().lost == 0 and workers[2].ask("status")[0])
        taken_s = time.monotonic() - killed_at
        print(f"all done {taken_s:.1f} s after the last kill")
        assert taken_s < MOST_TAKEOVER_S
        until(lambda: not killing.leftovers())

        for survivor in (doors[1], workers[2]):
            survivor.stop()
        verdict = killing.verdict()
        print(verdict)
        assert (verdict.images, verdict.lost, verdict.duplicated) == (IMAGES, 0, 0)


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


def test_waiting_work_moves_from_sqlite_to_postgresql(tmp_path: Path, database_url: str) -> None:
    sqlite_url = f"sqlite:///{tmp_path / 'data' / 'state.sqlite'}"
    locks = worker_locks(sqlite_url, folder=tmp_path / "data" / "workers")
    with trial(tmp_path) as killing:
        for step in (45, 50, 55, 60):
            killing.die_at(step)
        killing.database_url = database_url

        moved = move_queue(sqlite_url, database_url, locks=locks)
        again = move_queue(sqlite_url, database_url, locks=locks)
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

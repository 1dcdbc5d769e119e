"""With many jobs done and many waiting PostgreSQL looks an index up, also without statistics."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from listener.queue import queries
from listener.queue.database import keep_vacuumed, open_engine
from listener.queue.dbos_adapter import make_queue
from listener.queue.jobs import IMAGES
from tests.acceptance.postgres import PostgresServer, postgres
from tests.benchmarks.bench_queue import jobs, new_database, open_client, pile_up

pytestmark = pytest.mark.peers

DONE, WAITING = 1000, 20_000
MOST_READ = 100
"""Rows that a look may read in vain."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres() as running:
        yield running


@pytest.fixture(scope="module")
def url(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a queue whose oldest jobs are done."""
    url = a_long_queue(new_database(server, "plans"), tmp_path_factory.mktemp("queue"))
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("VACUUM ANALYZE dbos.workflow_status")
    return url


@pytest.fixture(scope="module")
def url_without_statistics(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same as it is after a burst of images, before the first ANALYZE."""
    url = a_long_queue(new_database(server, "bare_plans"), tmp_path_factory.mktemp("queue"))
    with psycopg.connect(url, autocommit=True) as session:
        for statement in FORGET_STATISTICS:
            session.execute(statement)
    return url


FORGET_STATISTICS = (
    "ALTER TABLE dbos.workflow_status SET (autovacuum_enabled = false)",
    "DELETE FROM pg_statistic WHERE starelid = 'dbos.workflow_status'::regclass",
    """
    UPDATE pg_class SET reltuples = -1, relpages = 0, relallvisible = 0
    WHERE oid = 'dbos.workflow_status'::regclass
       OR oid IN (
           SELECT indexrelid FROM pg_index WHERE indrelid = 'dbos.workflow_status'::regclass
       )
    """,
)


def a_long_queue(url: str, folder: Path) -> str:
    make_queue(url)
    with closing(open_client(url, folder)) as client:
        (template,) = jobs(0, 1)
        client.enqueue(template)
        pile_up(url, template, DONE + WAITING)
        for _ in range(DONE // 1000):
            batch = client.claim_images("w1", 1000, suspects=False)
            client.settle_images("w1", done=batch)
    return url


STATEMENTS: dict[str, Any] = {
    "claim": queries.claim("postgresql", IMAGES, "w", priority=0, limit=8, version="1", now_ms=1),
    "settle": queries.settle(["image:1.2.3.7000"], "w", now_ms=1),
    "hand_back": queries.hand_back("postgresql", ["image:1.2.3.7"], "w", priority=0, now_ms=1),
    "end_delays": queries.end_delays("close:1.2.3:wish-", now_ms=1),
    "arguments": queries.arguments(["image:1.2.3.7000"]),
    "known": queries.known(["image:1.2.3.7000", "image:absent"]),
    "any_waiting": queries.any_waiting(IMAGES, priority=1),
    "unfinished": queries.unfinished(IMAGES, "1.2.4.1"),
    "queues_with_work": queries.queues_with_work(),
    "next_delay_end": queries.next_delay_end(),
    "count_in_progress": queries.count_in_progress("w", IMAGES),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_reads_what_it_does_not_need(url: str, name: str) -> None:
    check_plan(plan_of(url, STATEMENTS[name]))


@pytest.mark.parametrize("name", STATEMENTS)
def test_nor_without_statistics(url_without_statistics: str, name: str) -> None:
    check_plan(plan_of(url_without_statistics, STATEMENTS[name]))


def check_plan(plan: str) -> None:
    assert not re.search(r"Seq Scan on workflow", plan), plan
    removed = map(int, re.findall(r"Rows Removed by Filter: (\d+)", plan))
    assert max(removed, default=0) <= MOST_READ, plan


def plan_of(url: str, statement: Any) -> str:
    """As it was executed; what it changed is undone."""
    engine = open_engine(url)
    compiled = statement.compile(
        dialect=engine.dialect, compile_kwargs={"render_postcompile": True}
    )
    with closing(engine.raw_connection()) as connection:
        cursor = connection.cursor()
        cursor.execute(f"EXPLAIN ANALYZE {compiled}", compiled.params)
        rows = cursor.fetchall()
        connection.rollback()
    engine.dispose()
    return "\n".join(row[0] for row in rows)


def test_the_oldest_job_is_claimed_first(url: str, tmp_path: Path) -> None:
    with closing(open_client(url, tmp_path)) as client:
        batch = client.claim_images("w2", 2, suspects=False)
        client.settle_images("w2", not_begun=batch)

    numbers = [int(image.image.rsplit(".", 1)[1]) for image in batch]
    assert all(DONE - 50 <= number <= DONE + 100 for number in numbers)


NO_OPTIONS = """
    ALTER TABLE dbos.workflow_status RESET (
        autovacuum_vacuum_scale_factor,
        autovacuum_vacuum_threshold,
        autovacuum_analyze_scale_factor
    )
"""


def test_a_claim_without_statistics_takes_no_more_than_its_limit(
    server: PostgresServer, tmp_path: Path
) -> None:
    """A new queue is planned without statistics; its images are for all workers."""
    url = new_database(server, "without_statistics")
    make_queue(url)
    with closing(open_client(url, tmp_path)) as client:
        client.enqueue(*jobs(0, 40))

        batches = [client.claim_images(f"w{n % 2}", 8, suspects=False) for n in range(6)]

    assert [len(batch) for batch in batches] == [8, 8, 8, 8, 8, 0]
    assert len({image.job_id for batch in batches for image in batch}) == 40


def options(url: str) -> list[str]:
    engine = open_engine(url)
    asked = "SELECT reloptions FROM pg_class WHERE oid = 'dbos.workflow_status'::regclass"
    with engine.connect() as connection:
        found = connection.execute(sa.text(asked)).scalar()
    engine.dispose()
    return list(found or [])


def test_the_table_is_vacuumed_often_unless_the_site_says_otherwise(url: str) -> None:
    assert "autovacuum_vacuum_scale_factor=0.01" in options(url)

    with psycopg.connect(url, autocommit=True) as session:
        session.execute(NO_OPTIONS)
        session.execute("ALTER TABLE dbos.workflow_status SET (autovacuum_vacuum_threshold = 7)")
    keep_vacuumed(url)

    assert options(url) == ["autovacuum_vacuum_threshold=7"]


def test_a_client_without_the_right_to_say_so_works_all_the_same(
    server: PostgresServer, url: str
) -> None:
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("CREATE ROLE guest LOGIN")
        session.execute("GRANT USAGE ON SCHEMA dbos TO guest")
        session.execute(NO_OPTIONS)

    keep_vacuumed(url.replace("smearlink@", "guest@"))

    assert options(url) == []

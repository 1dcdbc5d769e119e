"""Reads the work queue's tables: counts and look-ups that stay cheap with 100,000 waiting.

The tables are those that DBOS documents (`workflow_status`, in the schema `dbos` on PostgreSQL);
nothing here writes to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from listener.queue.database import database_trouble

IN_FLIGHT = ("ENQUEUED", "PENDING")
CLOCK_SLACK_MS = 2000
"""Clocks of several workers differ by less."""
UNFINISHED = ("ENQUEUED", "PENDING", "DELAYED")

_STATUS = sa.Table(
    "workflow_status",
    sa.MetaData(schema="dbos"),
    sa.Column("workflow_uuid", sa.Text),
    sa.Column("status", sa.Text),
    sa.Column("queue_name", sa.Text),
    sa.Column("queue_partition_key", sa.Text),
    sa.Column("executor_id", sa.Text),
    sa.Column("created_at", sa.BigInteger),
    sa.Column("updated_at", sa.BigInteger),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCount:
    """Unfinished work of one queue in one state."""

    queue: str
    status: str
    count: int
    oldest_ms: int
    """Creation of the oldest, ms since 1970."""


class QueueTables:
    """Read access to the queue, for every process that knows the database's address."""

    def __init__(self, database_url: str) -> None:
        url = sa.make_url(database_url)
        if url.get_backend_name() == "postgresql":
            engine = sa.create_engine(
                url.set(drivername="postgresql+psycopg"),
                pool_size=2,
                pool_pre_ping=True,
                connect_args={"connect_timeout": 5},
            )
            self._engine = engine
        else:
            engine = sa.create_engine(url, connect_args={"timeout": 10})
            self._engine = engine.execution_options(schema_translate_map={"dbos": None})

    def close(self) -> None:
        """Let go of the connections."""
        self._engine.dispose()

    def counts(self) -> list[QueueCount]:
        """Unfinished work by queue and state, all as of one moment."""
        queue, created = _STATUS.c.queue_name, _STATUS.c.created_at
        found = self._unfinished(
            lambda status: (
                sa.select(
                    queue, sa.literal_column(f"'{status}'"), sa.func.count(), sa.func.min(created)
                )
                .where(_is(status), queue.isnot(None))
                .group_by(queue)
            )
        )
        return [
            QueueCount(queue=name, status=status, count=count, oldest_ms=oldest_ms)
            for name, status, count, oldest_ms in found
        ]

    def unfinished(self, queue: str, partition: str) -> Iterator[str]:
        """Ids of the unfinished work of one partition of a queue, all as of one moment."""
        found = self._unfinished(
            lambda status: sa.select(_STATUS.c.workflow_uuid).where(
                _is(status),
                _STATUS.c.queue_name == queue,
                _STATUS.c.queue_partition_key == partition,
            )
        )
        return (workflow_id for (workflow_id,) in found)

    def _unfinished(self, look: Callable[[str], sa.Select[Any]]) -> list[Any]:
        """The rows of each state in one statement: with several, work that moves on is missed."""
        return self._rows(sa.union_all(*(look(status) for status in UNFINISHED)))

    def executors(self) -> list[str]:
        """Workers that have work in hand."""
        rows = self._rows(sa.select(_STATUS.c.executor_id).where(_is("PENDING")).distinct())
        return sorted(executor for (executor,) in rows if executor)

    def in_hand(self, worker_id: str) -> set[str]:
        """Ids of the work that a worker has claimed and not ended."""
        rows = self._rows(
            sa.select(_STATUS.c.workflow_uuid).where(
                _is("PENDING"), _STATUS.c.executor_id == worker_id
            )
        )
        return {workflow_id for (workflow_id,) in rows}

    def delayed(self, queue: str) -> list[str]:
        """Ids of a queue's work that waits for its moment."""
        rows = self._rows(
            sa.select(_STATUS.c.workflow_uuid).where(_is("DELAYED"), _STATUS.c.queue_name == queue)
        )
        return [workflow_id for (workflow_id,) in rows]

    def delayed_from_the_future(self, now_ms: int) -> list[str]:
        """Ids of delayed work that was asked for after now: the clock was set back since."""
        rows = self._rows(
            sa.select(_STATUS.c.workflow_uuid).where(
                _is("DELAYED"), _STATUS.c.created_at > now_ms + CLOCK_SLACK_MS
            )
        )
        return [workflow_id for (workflow_id,) in rows]

    def finished(self, *, before_ms: int, most: int) -> list[str]:
        """Ids of work that ended well before a moment, `most` of them, the oldest first."""
        rows = self._rows(
            sa.select(_STATUS.c.workflow_uuid)
            .where(_is("SUCCESS"), _STATUS.c.created_at < before_ms)
            .where(_STATUS.c.updated_at < before_ms)
            .order_by(_STATUS.c.created_at)
            .limit(most)
        )
        return [workflow_id for (workflow_id,) in rows]

    def check_schema(self) -> None:
        """Raise RetryLater `database_unavailable` unless a service has made the queue."""
        self._rows(sa.select(_STATUS.c.workflow_uuid).limit(1))

    def check(self) -> None:
        """Raise RetryLater `database_unavailable` unless the database answers."""
        self._rows(sa.select(sa.literal(1)))

    def _rows(self, query: sa.Select[Any] | sa.CompoundSelect[Any]) -> list[Any]:
        with database_trouble(), self._engine.connect() as connection:
            return list(connection.execute(query))


def _is(status: str) -> sa.ColumnElement[bool]:
    """In the words of DBOS's partial indexes: SQLite uses one only where its own condition stands.

    So the states are literals and no parameters, and what is in flight says so twice.
    """
    in_flight: list[sa.ColumnElement[str]] = [sa.literal_column(f"'{one}'") for one in IN_FLIGHT]
    is_this = _STATUS.c.status == sa.literal_column(f"'{status}'")
    return is_this & _STATUS.c.status.in_(in_flight) if status in IN_FLIGHT else is_this

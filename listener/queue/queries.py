"""SQL on the work queue's tables: cheap with a million jobs waiting.

The tables are those that DBOS documents (`workflow_status` and `workflow_input`, in the schema
`dbos` on PostgreSQL). Reads look up an index each. The only writes are those that DBOS has no call
for: many jobs enqueued at once, and images claimed and settled in batches (docs/adr/0002).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

IN_FLIGHT = ("ENQUEUED", "PENDING")
UNFINISHED = ("ENQUEUED", "PENDING", "DELAYED")
CLOCK_SLACK_MS = 2000
"""Clocks of several workers differ by less."""

_SCHEMA = sa.MetaData(schema="dbos")
JOBS = sa.Table(
    "workflow_status",
    _SCHEMA,
    sa.Column("workflow_uuid", sa.Text, primary_key=True),
    sa.Column("status", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("queue_name", sa.Text),
    sa.Column("queue_partition_key", sa.Text),
    sa.Column("executor_id", sa.Text),
    sa.Column("owner_xid", sa.Text),
    sa.Column("application_name", sa.Text),
    sa.Column("application_version", sa.Text),
    sa.Column("serialization", sa.Text),
    sa.Column("priority", sa.Integer),
    sa.Column("recovery_attempts", sa.BigInteger),
    sa.Column(
        "attributes", sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(), "postgresql")
    ),
    sa.Column("created_at", sa.BigInteger),
    sa.Column("updated_at", sa.BigInteger),
    sa.Column("started_at_epoch_ms", sa.BigInteger),
    sa.Column("completed_at", sa.BigInteger),
    sa.Column("delay_until_epoch_ms", sa.BigInteger),
)
INPUTS = sa.Table(
    "workflow_input",
    _SCHEMA,
    sa.Column("workflow_uuid", sa.Text, primary_key=True),
    sa.Column("inputs", sa.Text),
    sa.Column("retention_timestamp", sa.BigInteger),
)

Look = sa.Select[Any] | sa.CompoundSelect[Any]


# --- reading


def counts() -> Look:
    """Queue, state, number and oldest creation of unfinished jobs, all as of one moment."""
    return _unfinished(
        lambda status: (
            sa.select(
                JOBS.c.queue_name,
                sa.literal_column(f"'{status}'"),
                sa.func.count(),
                sa.func.min(JOBS.c.created_at),
            )
            .where(_is(status), JOBS.c.queue_name.isnot(None))
            .group_by(JOBS.c.queue_name)
        )
    )


def unfinished(queue: str, partition: str) -> Look:
    """Ids of the unfinished jobs of one partition of a queue, all as of one moment."""
    return _unfinished(
        lambda status: sa.select(JOBS.c.workflow_uuid).where(
            _is(status), JOBS.c.queue_name == queue, JOBS.c.queue_partition_key == partition
        )
    )


@cache
def queues_with_work() -> Look:
    """Names of the queues that have a job to claim: one look-up per queue, however long it is."""
    names = (
        sa.select(sa.func.min(JOBS.c.queue_name).label("name"))
        .where(_is("ENQUEUED"))
        .cte("names", recursive=True)
    )
    following = (
        sa.select(sa.func.min(JOBS.c.queue_name))
        .where(_is("ENQUEUED"), JOBS.c.queue_name > names.c.name)
        .scalar_subquery()
    )
    names = names.union_all(sa.select(following).where(names.c.name.isnot(None)))
    return sa.select(names.c.name).where(names.c.name.isnot(None))


@cache
def next_delay_end() -> Look:
    """When the first delayed job is due, in milliseconds; NULL without one."""
    return sa.select(sa.func.min(JOBS.c.delay_until_epoch_ms)).where(_is("DELAYED"))


def executors() -> Look:
    """Workers that have jobs in progress."""
    return sa.select(JOBS.c.executor_id).where(_is("PENDING")).distinct()


def in_progress(worker_id: str) -> Look:
    """Ids of the jobs that a worker has claimed and not ended."""
    return sa.select(JOBS.c.workflow_uuid).where(_is("PENDING"), JOBS.c.executor_id == worker_id)


def count_in_progress(worker_id: str, queue: str | None) -> Look:
    """How many jobs of a queue, or of all queues, a worker has claimed and not ended."""
    claimed = sa.select(sa.func.count()).where(_is("PENDING"), JOBS.c.executor_id == worker_id)
    return claimed if queue is None else claimed.where(JOBS.c.queue_name == queue)


def delayed(queue: str) -> Look:
    """Ids of a queue's delayed jobs."""
    return sa.select(JOBS.c.workflow_uuid).where(_is("DELAYED"), JOBS.c.queue_name == queue)


def next_attempt(queue: str) -> Look:
    """When the first job of a queue that says why it is delayed is due, and its attributes."""
    return (
        sa.select(JOBS.c.delay_until_epoch_ms, JOBS.c.attributes)
        .where(
            _is("DELAYED"),
            JOBS.c.queue_name == queue,
            JOBS.c.attributes["reason"].as_string().isnot(None),
        )
        .order_by(JOBS.c.delay_until_epoch_ms)
        .limit(1)
    )


def delayed_from_the_future(now_ms: int) -> Look:
    """Ids of delayed jobs enqueued after now: the clock was set back since."""
    return sa.select(JOBS.c.workflow_uuid).where(
        _is("DELAYED"), JOBS.c.created_at > now_ms + CLOCK_SLACK_MS
    )


def finished(*, before_ms: int, limit: int) -> Look:
    """Ids of jobs that succeeded before a moment, the oldest first."""
    return (
        sa.select(JOBS.c.workflow_uuid)
        .where(_is("SUCCESS"), JOBS.c.created_at < before_ms, JOBS.c.updated_at < before_ms)
        .order_by(JOBS.c.created_at)
        .limit(limit)
    )


def arguments(job_ids: Collection[str]) -> Look:
    """Ids and arguments of jobs."""
    return sa.select(INPUTS.c.workflow_uuid, INPUTS.c.inputs).where(
        INPUTS.c.workflow_uuid.in_(job_ids)
    )


def known(job_ids: Collection[str]) -> Look:
    """Those of the named ids that are there, in whatever state."""
    return sa.select(JOBS.c.workflow_uuid).where(JOBS.c.workflow_uuid.in_(job_ids))


def any_waiting(queue: str, *, priority: int) -> Look:
    """The id of one job of a priority that can be claimed, if there is one."""
    return (
        sa.select(JOBS.c.workflow_uuid)
        .where(_is("ENQUEUED"), JOBS.c.queue_name == queue, JOBS.c.priority == priority)
        .limit(1)
    )


def any_job() -> Look:
    """One id, if there is one: fails without the tables."""
    return sa.select(JOBS.c.workflow_uuid).limit(1)


def _unfinished(look: Callable[[str], sa.Select[Any]]) -> sa.CompoundSelect[Any]:
    """The rows of each state in one statement: with several, work that moves on is missed."""
    return sa.union_all(*(look(status) for status in UNFINISHED))


def _is(status: str) -> sa.ColumnElement[bool]:
    """In the words of DBOS's partial indexes: SQLite uses one only where its own condition stands.

    So the states are literals and no parameters, and what is in flight says so twice.
    """
    in_flight: list[sa.ColumnElement[str]] = [sa.literal_column(f"'{one}'") for one in IN_FLIGHT]
    is_this = JOBS.c.status == sa.literal_column(f"'{status}'")
    return is_this & JOBS.c.status.in_(in_flight) if status in IN_FLIGHT else is_this


# --- writing


def insert_new(dialect: str, table: sa.Table) -> Any:
    """Insert rows; those whose id is there already are left alone."""
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(table).on_conflict_do_nothing(index_elements=[table.c.workflow_uuid])


def claim(
    dialect: str,
    queue: str,
    worker_id: str,
    *,
    priority: int,
    limit: int,
    version: str,
    now_ms: int,
) -> Any:
    """Give a worker the oldest jobs of a queue, each counted as begun once more.

    Returns ids and starts. Workers do not wait for each other: on PostgreSQL what
    another one is claiming is skipped, SQLite has one writer.
    """
    waiting = (
        sa.select(JOBS.c.workflow_uuid)
        .where(
            _is("ENQUEUED"),
            JOBS.c.queue_name == queue,
            # As a range: with one priority the order would be that of `created_at` alone, and
            # PostgreSQL would walk along the index of that, past all jobs that ended long ago.
            JOBS.c.priority.between(priority, priority),
        )
        .order_by(JOBS.c.priority, JOBS.c.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        # As a subquery PostgreSQL may run it once for each waiting job, and each time it skips
        # what it has locked already: one worker would take all of them.
        .cte("waiting")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    return (
        sa.update(JOBS)
        # Nobody changes them in between, so their state is not asked for again: without statistics
        # PostgreSQL would look up all jobs that wait and keep these of them.
        .where(_is_one_of(dialect, sa.select(waiting.c.workflow_uuid)))
        .values(
            status="PENDING",
            executor_id=worker_id,
            application_version=version,
            started_at_epoch_ms=now_ms,
            updated_at=now_ms,
            recovery_attempts=JOBS.c.recovery_attempts + 1,
            attributes=_with_starts(dialect, _starts(dialect) + 1),
        )
        .returning(JOBS.c.workflow_uuid, _starts(dialect))
    )


def _is_one_of(dialect: str, ids: sa.Select[Any]) -> sa.ColumnElement[bool]:
    """On PostgreSQL as an array: joined with the ids, a table without statistics may be read
    from end to end.
    """
    if dialect == "postgresql":
        return JOBS.c.workflow_uuid == sa.any_(sa.func.array(ids.scalar_subquery()))
    return JOBS.c.workflow_uuid.in_(ids)


def settle(job_ids: Collection[str], worker_id: str, *, now_ms: int) -> Any:
    """End jobs that a worker has in progress as succeeded."""
    return _own(job_ids, worker_id).values(
        status="SUCCESS", owner_xid=None, updated_at=now_ms, completed_at=now_ms
    )


def hand_back(
    dialect: str, job_ids: Sequence[str], worker_id: str, *, priority: int, now_ms: int
) -> Any:
    """Queue claimed jobs again that were not begun: they do not count as begun."""
    return _own(job_ids, worker_id).values(
        status="ENQUEUED",
        owner_xid=None,
        started_at_epoch_ms=None,
        updated_at=now_ms,
        priority=priority,
        attributes=_with_starts(dialect, _starts(dialect) - 1),
    )


def end_delays(id_prefix: str, *, now_ms: int) -> Any:
    """Have delayed jobs whose id begins so run now."""
    return (
        sa.update(JOBS)
        .where(
            JOBS.c.workflow_uuid >= id_prefix,
            JOBS.c.workflow_uuid < id_prefix + "\x7f",
            # A collation that orders in its own way may let others into the range.
            JOBS.c.workflow_uuid.startswith(id_prefix, autoescape=True),
            JOBS.c.status == "DELAYED",
        )
        .values(status="ENQUEUED", updated_at=now_ms)
    )


def _own(job_ids: Collection[str], worker_id: str) -> Any:
    return sa.update(JOBS).where(
        JOBS.c.workflow_uuid.in_(job_ids),
        JOBS.c.status == "PENDING",
        JOBS.c.executor_id == worker_id,
    )


def _starts(dialect: str) -> Any:
    """How often a job was begun, as its attributes say."""
    if dialect == "postgresql":
        return sa.func.coalesce(sa.cast(JOBS.c.attributes.op("->>")("starts"), sa.Integer), 0)
    noted = sa.func.json_extract(JOBS.c.attributes, "$.starts", type_=sa.Integer)
    return sa.func.coalesce(noted, 0, type_=sa.Integer)


def _with_starts(dialect: str, starts: Any) -> Any:
    if dialect == "postgresql":
        is_object = sa.func.jsonb_typeof(JOBS.c.attributes) == "object"
        kept = sa.case((is_object, JOBS.c.attributes), else_=sa.text("'{}'::jsonb"))
        return kept.op("||")(sa.func.jsonb_build_object("starts", starts))
    is_object = sa.func.json_type(JOBS.c.attributes) == "object"
    kept = sa.case((is_object, JOBS.c.attributes), else_="{}")
    return sa.func.json_set(kept, "$.starts", starts)

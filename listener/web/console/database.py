"""The console's own tables: accounts, sessions, uploads, and indexes of smears and audit events.

On PostgreSQL they lie in a schema of the service's database. A site on SQLite gets a file of its
own beside it, `console.sqlite`: a page that is read never waits for the work queue, patients'
identifiers stay out of the queue's file, and accounts outlive a queue that was damaged.

The indexes follow files, which are the truth: delete the rows and they are built again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from pipeline.errors import RetryLater
from reporting.durable_files import make_folder

SCHEMA = "smearlink_console"
METADATA = sa.MetaData(schema=SCHEMA)

ACCOUNT = sa.Table(
    "account",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("full_name", sa.Text, nullable=False, default=""),
    sa.Column("roles", sa.Text, nullable=False),
    sa.Column("password_hash", sa.Text, nullable=False),
    sa.Column("is_disabled", sa.Boolean, nullable=False, default=False),
    sa.Column("created_at", sa.Float, nullable=False),
)

SESSION = sa.Table(
    "session",
    METADATA,
    sa.Column("token_sha256", sa.Text, primary_key=True),
    sa.Column("account", sa.Text, nullable=False, index=True),
    sa.Column("full_name", sa.Text, nullable=False, default=""),
    sa.Column("roles", sa.Text, nullable=False),
    sa.Column("is_external", sa.Boolean, nullable=False, default=False),
    sa.Column("csrf", sa.Text, nullable=False),
    sa.Column("began_at", sa.Float, nullable=False),
    sa.Column("seen_at", sa.Float, nullable=False),
)

SECRET = sa.Table(
    "secret",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

SMEAR = sa.Table(
    "smear",
    METADATA,
    sa.Column("smear_id", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("study_uid", sa.Text, nullable=False),
    sa.Column("accession", sa.Text, nullable=False),
    sa.Column("accession_key", sa.Text, nullable=False),
    sa.Column("patient_id", sa.Text, nullable=False),
    sa.Column("patient_key", sa.Text, nullable=False),
    sa.Column("patient_name", sa.Text, nullable=False),
    sa.Column("specimen", sa.Text, nullable=False),
    sa.Column("pseudonym", sa.Text, nullable=False),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("received_at", sa.Float, nullable=False),
    sa.Column("reported_at", sa.Float),
    sa.Column("fields", sa.Integer, nullable=False),
    sa.Column("fields_rejected", sa.Integer, nullable=False),
    sa.Column("cells", sa.Integer, nullable=False),
    sa.Column("counted", sa.Integer, nullable=False),
    sa.Column("blasts", sa.Integer, nullable=False),
    sa.Column("referred", sa.Integer, nullable=False),
    sa.Column("share", sa.Float),
    sa.Column("share_low", sa.Float),
    sa.Column("share_high", sa.Float),
    sa.Column("grade", sa.Text, nullable=False),
    sa.Column("flags", sa.Text, nullable=False),
    sa.Column("deliveries", sa.Text, nullable=False),
    sa.Column("delivery_state", sa.Text, nullable=False),
    sa.Column("stamp", sa.Text, nullable=False),
    sa.Column("changed_at", sa.Float, nullable=False, index=True),
    sa.Column("review", sa.Text, nullable=False, server_default=""),
    sa.Index("smear_by_review", "review", "received_at", "smear_id"),
    sa.Index("smear_by_time", "received_at", "smear_id"),
    sa.Index("smear_by_accession", "accession_key"),
    sa.Index("smear_by_patient", "patient_key"),
    sa.Index("smear_by_grade", "grade", "received_at", "smear_id"),
    sa.Index("smear_by_device", "device", "received_at", "smear_id"),
    sa.Index("smear_by_delivery", "delivery_state", "received_at", "smear_id"),
)

UPLOAD = sa.Table(
    "upload",
    METADATA,
    sa.Column("batch", sa.Text, primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("accession", sa.Text, nullable=False),
    sa.Column("patient_id", sa.Text, nullable=False),
    sa.Column("notes", sa.Text, nullable=False),
    sa.Column("spacing_um", sa.Float),
    sa.Column("expected", sa.Integer, nullable=False),
    sa.Column("began_at", sa.Float, nullable=False, index=True),
)

UPLOADED_FILE = sa.Table(
    "uploaded_file",
    METADATA,
    sa.Column("batch", sa.Text, primary_key=True),
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("sop_instance_uid", sa.Text, nullable=False),
    sa.Column("smear_id", sa.Text, nullable=False),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
)

AUDIT_EVENT = sa.Table(
    "audit_event",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("place", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.Integer, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("person", sa.Text, nullable=False),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("study", sa.Text, nullable=False),
    sa.Column("image", sa.Text, nullable=False),
    sa.Column("smear", sa.Text, nullable=False),
    sa.Column("destination", sa.Text, nullable=False),
    sa.Index("audit_place", "file", "place", unique=True),
    sa.Index("audit_by_time", "time"),
    *(
        sa.Index(f"audit_by_{one}", one, "time")
        for one in ("event", "outcome", "person", "device", "study", "image", "smear")
    ),
    sa.Index("audit_by_destination", "destination", "event", "outcome", "time"),
)

AUDIT_FILE = sa.Table(
    "audit_file",
    METADATA,
    sa.Column("file", sa.Text, primary_key=True),
    sa.Column("read_to", sa.BigInteger, nullable=False),
)


class ConsoleDatabase:
    """Opens the tables, and makes those that are missing."""

    def __init__(self, url: str) -> None:
        address = console_url(url)
        if address.get_backend_name() == "sqlite":
            path = Path(str(address.database))
            _make_private(path)
            engine: sa.Engine = sa.create_engine(address, connect_args={"timeout": 15})
            sa.event.listen(engine, "connect", _tune)
            self.engine: sa.Engine = engine.execution_options(schema_translate_map={SCHEMA: None})
        else:
            self.engine = sa.create_engine(
                address.set(drivername="postgresql+psycopg"),
                pool_pre_ping=True,
                connect_args={"connect_timeout": 5},
            )
        with trouble_named(), self.engine.begin() as connection:
            if address.get_backend_name() != "sqlite":
                connection.execute(sa.schema.CreateSchema(SCHEMA, if_not_exists=True))
            METADATA.create_all(connection)
            _add_review_column(connection)

    def close(self) -> None:
        """Let go of the connections."""
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection to read with; RetryLater `database_unavailable` when there is none."""
        with trouble_named(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction, committed at the end of the `with`."""
        with trouble_named(), self.engine.begin() as connection:
            yield connection

    def upsert(self, connection: sa.Connection, table: sa.Table, row: dict[str, Any]) -> None:
        """Insert a row, or replace the one with its primary key."""
        self.upsert_all(connection, table, [row])

    def upsert_all(
        self, connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]
    ) -> None:
        """The same for many rows with the same columns."""
        if not rows:
            return
        keys = [column.name for column in table.primary_key.columns]
        rest = [name for name in rows[0] if name not in keys]
        if connection.dialect.name == "sqlite":
            lite = sqlite.insert(table)
            changed = {name: lite.excluded[name] for name in rest}
            connection.execute(
                lite.on_conflict_do_update(index_elements=keys, set_=changed), list(rows)
            )
        else:
            full = postgresql.insert(table)
            changed = {name: full.excluded[name] for name in rest}
            connection.execute(
                full.on_conflict_do_update(index_elements=keys, set_=changed), list(rows)
            )


def console_url(database_url: str) -> sa.URL:
    """Where the console's tables lie, given the work queue's database."""
    url = sa.make_url(database_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        return url
    return url.set(database=str(Path(url.database).with_name("console.sqlite")))


@contextmanager
def trouble_named() -> Iterator[None]:
    """Names what the database says for what happens next; never quotes it."""
    try:
        yield
    except SQLAlchemyError as err:
        raise RetryLater(
            "The console's database does not answer: check database.url, the server and the disk",
            code="database_unavailable",
        ) from err


def _add_review_column(connection: sa.Connection) -> None:
    """To a table of an earlier version; without its stamp each row is made again from the files."""
    schema = None if connection.dialect.name == "sqlite" else SCHEMA
    inspector = sa.inspect(connection)
    if any(one["name"] == "review" for one in inspector.get_columns("smear", schema=schema)):
        return
    table = "smear" if schema is None else f"{schema}.smear"
    column = "review TEXT NOT NULL DEFAULT ''"
    guard = "" if schema is None else "IF NOT EXISTS "
    connection.execute(sa.text(f"ALTER TABLE {table} ADD COLUMN {guard}{column}"))
    connection.execute(sa.update(SMEAR).values(stamp=""))
    for index in SMEAR.indexes:
        if index.name == "smear_by_review":
            index.create(connection, checkfirst=True)


def _make_private(path: Path) -> None:
    """Nobody but the service reads who may sign in."""
    make_folder(path.parent)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _tune(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")

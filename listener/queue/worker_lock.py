"""Each worker holds a lock that dies with it; whoever can take a worker's lock knows it is dead.

Beside SQLite that is a file lock, on PostgreSQL an advisory lock of the session: the kernel or
the server lets go of it when the process is killed, with no clock involved.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Protocol

import psycopg

from pipeline.errors import NeedsReview, RetryLater
from reporting.durable_files import make_folder, take_lock

MOST_WORKERS_A_HOST = 64


class WorkerLease(Protocol):
    """One taken lock."""

    @property
    def worker_id(self) -> str:
        """Of the worker that holds the lock."""

    def is_held(self) -> bool:
        """False when the lock was lost, as when the server ended its session."""
        ...

    def close(self) -> None:
        """Give it up."""
        ...


class WorkerLocks(Protocol):
    """The locks of all workers of one database."""

    def try_take(self, worker_id: str) -> WorkerLease | None:
        """The lock, or None when its worker lives. RetryLater when that cannot be told now."""
        ...


class FileHold:
    """A locked file; the lock goes when the descriptor does."""

    def __init__(self, worker_id: str, descriptor: int) -> None:
        self.worker_id = worker_id
        self._descriptor: int | None = descriptor

    def is_held(self) -> bool:
        """Whether the lock is still ours."""
        return self._descriptor is not None

    def close(self) -> None:
        """Give the lock up."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class FileLocks:
    """Locks for workers of one machine, as files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def try_take(self, worker_id: str) -> FileHold | None:
        """Take the lock, or return None while another process holds it."""
        try:
            make_folder(self._folder)
            descriptor = take_lock(self._folder / f"{worker_id}.lock", is_blocking=False)
        except BlockingIOError:
            return None
        except OSError as err:
            raise RetryLater(
                "The worker locks in the data folder cannot be opened: check its rights",
                code="storage_unavailable",
            ) from err
        return FileHold(worker_id, descriptor)


class AdvisoryHold:
    """A session of PostgreSQL that holds an advisory lock."""

    def __init__(self, worker_id: str, session: psycopg.Connection[tuple[bool]]) -> None:
        self.worker_id = worker_id
        self._session = session

    def is_held(self) -> bool:
        """Whether the lock is still ours."""
        try:
            self._session.execute("SELECT true")
        except psycopg.Error:
            return False
        return True

    def close(self) -> None:
        """Give the lock up."""
        self._session.close()


class AdvisoryLocks:
    """Locks for workers of many machines, in the PostgreSQL that they share."""

    # A machine that vanishes without a word loses its session after about five seconds.
    _SESSION = "-c tcp_keepalives_idle=2 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=3"

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url

    def try_take(self, worker_id: str) -> AdvisoryHold | None:
        """Take the lock, or return None while another process holds it."""
        try:
            session: psycopg.Connection[tuple[bool]] = psycopg.connect(
                self._database_url,
                autocommit=True,
                connect_timeout=5,
                application_name=f"smearlink {worker_id}",
                options=self._SESSION,
            )
            row = session.execute(
                "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))",
                (f"smearlink worker {worker_id}",),
            ).fetchone()
        except psycopg.Error as err:
            raise RetryLater(
                "The database does not answer: check database.url and the server",
                code="database_unavailable",
            ) from err
        if row is None or not row[0]:
            session.close()
            return None
        return AdvisoryHold(worker_id, session)


def worker_locks(database_url: str, *, folder: Path) -> WorkerLocks:
    """The locks that fit a database."""
    if database_url.startswith("postgresql"):
        return AdvisoryLocks(database_url)
    return FileLocks(folder)


def claim_worker(locks: WorkerLocks, *, wanted: str, host: str = "") -> WorkerLease:
    """Take a worker id for this process, the wanted one or the first free one of this host.

    Raises NeedsReview `worker_id_taken` when a living process has it.
    """
    candidates = (
        [wanted] if wanted else [f"{_host(host)}-{n}" for n in range(1, MOST_WORKERS_A_HOST + 1)]
    )
    for worker_id in candidates:
        hold = locks.try_take(worker_id)
        if hold is not None:
            return hold
    raise NeedsReview(
        f"Another living process works as {candidates[0]}: stop it, or set service.worker_id "
        "to another name",
        code="worker_id_taken",
    )


def _host(host: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.\-]", "-", host or socket.gethostname())
    return name[:48].strip(".-") or "worker"

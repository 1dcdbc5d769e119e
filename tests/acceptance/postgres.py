"""A real PostgreSQL for tests: Debian's programs, a folder of its own, an ordinary user."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.standins import free_ports

ORDINARY_USER = "postgres"
"""PostgreSQL refuses to run as root; Debian's package makes this user."""

PATIENCE_S = 600.0


class PostgresServer:
    """One server with a folder of its own, that can be stopped and started again."""

    def __init__(self, programs: Path, folder: Path, user: str | None) -> None:
        self._programs = programs
        self._folder = folder
        self._user = user
        self._port = free_ports(1)[0]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://smearlink@127.0.0.1:{self._port}/postgres"

    def make(self) -> None:
        """Lay its folder out."""
        subprocess.run(
            [
                *(self._programs / "initdb", "-A", "trust", "-U", "smearlink"),
                *("--no-sync", "-D", self._data),
            ],
            check=True,
            capture_output=True,
            user=self._user,
            cwd=self._folder,
        )

    def start(self) -> None:
        """Come back when it answers."""
        self._process = subprocess.Popen(
            [
                *(self._programs / "postgres", "-D", self._data, "-p", str(self._port)),
                *("-k", self._folder, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self._user,
            cwd=self._folder,
        )
        _wait_for(self.url)

    def stop(self) -> None:
        """The immediate shutdown: waits for no client, as when the machine goes."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    @property
    def _data(self) -> Path:
        return self._folder / "data"


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """A server with an empty database on loopback; skips where PostgreSQL is not installed."""
    programs = _programs()
    user = _user()
    # Not pytest's tmp_path: the folders above it are closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="smearlink-postgres-"))
    server = PostgresServer(programs, folder, user)
    try:
        if user is not None:
            shutil.chown(folder, user, user)
        server.make()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    if not found:
        pytest.skip("no PostgreSQL here: install Debian's package postgresql")
    return found[0].parent


def _user() -> str | None:
    if os.getuid() != 0:
        return None
    try:
        pwd.getpwnam(ORDINARY_USER)
    except KeyError:
        pytest.skip(f"PostgreSQL does not run as root, and there is no user {ORDINARY_USER}")
    return ORDINARY_USER


def _wait_for(url: str) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError:
            assert time.monotonic() < give_up, "PostgreSQL does not come up"
            time.sleep(0.05)
        else:
            return

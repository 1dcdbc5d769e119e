"""A real PostgreSQL for tests: Debian's programs, a folder of its own, an ordinary user."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

ORDINARY_USER = "postgres"
"""PostgreSQL refuses to run as root; Debian's package makes this user."""

PATIENCE_S = 60.0


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of an empty database on loopback; skips where PostgreSQL is not installed."""
    programs = _programs()
    user = _user()
    # Not pytest's tmp_path: the folders above it are closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="smearlink-postgres-"))
    try:
        if user is not None:
            shutil.chown(folder, user, user)
        data = folder / "data"
        subprocess.run(
            [programs / "initdb", "-A", "trust", "-U", "smearlink", "--no-sync", "-D", data],
            check=True,
            capture_output=True,
            user=user,
            cwd=folder,
        )
        port = _free_port()
        server = subprocess.Popen(
            [
                *(programs / "postgres", "-D", data, "-p", str(port), "-k", folder),
                *("-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=user,
            cwd=folder,
        )
        try:
            url = f"postgresql://smearlink@127.0.0.1:{port}/postgres"
            _wait_for(url)
            yield url
        finally:
            server.terminate()
            server.wait()
    finally:
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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

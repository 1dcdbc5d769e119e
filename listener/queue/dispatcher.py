"""Looks for jobs to claim when the queue changed, instead of polling each queue."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa

from listener.queue.client import QueueClient
from listener.queue.dbos_adapter import QueueRunner
from listener.queue.jobs import IMAGES
from listener.storage.filesystem import RACY_S

LOOK_AGAIN_S = 1.0
"""How soon queues are looked at again whose limits left jobs waiting, if nothing changes."""

CHANGED_S = 0.5
"""How soon changes that nobody told of are looked at: most are those of this process."""

RESTING_AFTER_S = 5.0
RESTING_POLL_S = 0.5
"""How often changes of other processes are looked for after so long without one."""

OUTCOME_S = 0.02
"""How long DBOS takes to note the end of a job, which makes room for the next."""

RACY_NS = int(RACY_S * 1e9)
"""A file that changed less than this ago may change again without a new time stamp."""

_log = logging.getLogger(__name__)


class Dispatcher:
    """One thread that claims jobs. In its own process it is told of new ones (`wake`)."""

    def __init__(
        self,
        database_url: str,
        *,
        client: QueueClient,
        runner: QueueRunner,
        on_images: Callable[[], None],
        poll_s: float,
    ) -> None:
        self._client = client
        self._runner = runner
        self._on_images = on_images
        self._poll_s = poll_s
        self._changes = _Changes(database_url)
        self._woken = threading.Event()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="queue-dispatcher", daemon=True)
        self._look_at = 0.0
        """Monotonic time of the next look in any case."""
        self._looked_at = 0.0
        self._changed_at = time.monotonic()
        """When another process, or this one, was last seen to have written."""
        self._lock = threading.Lock()

    def start(self) -> None:
        """Look for jobs from now on."""
        self.wake()
        self._thread.start()

    def wake(self, after_s: float = 0.0) -> None:
        """Look for jobs now, or a moment later."""
        if self._plan(time.monotonic() + after_s):
            self._woken.set()

    def stop(self) -> None:
        """Claim nothing more."""
        self._is_stopping = True
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join()
        self._changes.close()

    def _run(self) -> None:
        while True:
            now = time.monotonic()
            is_resting = now - self._changed_at > RESTING_AFTER_S
            poll_s = max(self._poll_s, RESTING_POLL_S) if is_resting else self._poll_s
            is_woken = self._woken.wait(min(poll_s, max(0.0, self._look_at - now)))
            self._woken.clear()
            if self._is_stopping:
                return
            if not is_woken and self._changes.seen():
                self._changed_at = time.monotonic()
                self._plan(self._looked_at + CHANGED_S)
            if self._is_due():
                try:
                    self._look()
                except Exception as err:  # noqa: BLE001 - the boundary of a loop
                    self._plan(time.monotonic() + LOOK_AGAIN_S)
                    _log.warning("queue cannot be looked at: %s", type(err).__name__)

    def _is_due(self) -> bool:
        """Whether it is time to look; what is planned from now on is a further look."""
        now = time.monotonic()
        with self._lock:
            if now < self._look_at:
                return False
            self._look_at, self._looked_at = float("inf"), now
        return True

    def _plan(self, look_at: float) -> bool:
        """Look at this time at the latest; False when that is planned already."""
        with self._lock:
            is_sooner = look_at < self._look_at
            self._look_at = min(self._look_at, look_at)
        return is_sooner

    def _look(self) -> None:
        names, due_ms = self._client.queues_with_work()
        if IMAGES in names:
            self._on_images()
        others = sorted(names - {IMAGES})
        self._runner.claim(others)
        wait_s = float("inf") if due_ms is None else due_ms / 1000 - time.time()
        self._plan(time.monotonic() + (min(wait_s, LOOK_AGAIN_S) if others else wait_s))


_Written = tuple[tuple[int, int], ...]
"""Size and time of the last change of each file, in nanoseconds."""


class _Changes:
    """Whether anybody wrote to the database: SQLite counts changes, PostgreSQL is always asked.

    SQLite is asked only when its files have changed: a look at them costs a fiftieth of that.
    """

    def __init__(self, database_url: str) -> None:
        url = sa.make_url(database_url)
        self._connection: sqlite3.Connection | None = None
        self._version = 0
        self._files: tuple[Path, ...] = ()
        self._written: _Written | None = None
        """How the files were at the last call; None while they may change within one tick of the
        file system's clock."""
        if url.get_backend_name() == "sqlite":
            path = str(url.database)
            self._connection = sqlite3.connect(path, check_same_thread=False)
            self._files = Path(path), Path(f"{path}-wal")

    def seen(self) -> bool:
        """Whether there was a change since the last call."""
        if self._connection is None:
            return True
        written = tuple(map(_written, self._files))
        if written == self._written:
            return False
        newest = max(changed_ns for _, changed_ns in written)
        is_settled = abs(time.time_ns() - newest) > RACY_NS
        self._written = written if is_settled else None
        with suppress(sqlite3.Error):
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
            if version == self._version:
                return False
            self._version = version
        return True

    def close(self) -> None:
        """Close the connection that watches."""
        if self._connection is not None:
            self._connection.close()


def _written(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns

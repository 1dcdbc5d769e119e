"""Writes one chain of the trail: safe against kills at any point and other writing processes.

    append ─► lock ─► read what others wrote meanwhile ─► new day? roll ─► write one line
                                                                          └─ due? sign it

Every process of a machine may write to the same chain: a lock (flock, which dies with its holder)
lets one in at a time. A line goes out in one `write`, so that a killed process loses nothing it
had recorded; a line that was cut by a kill is closed by the next writer with `chain_recovered`.
Machines that share a folder over a network have a chain each.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import Defect, RetryLater
from reporting.audit.record_format import (
    GENESIS,
    MAX_LINE_BYTES,
    Link,
    chains_in,
    checkpoint_message,
    checkpoints_name,
    decode,
    encode,
    event_files,
    events_name,
)
from reporting.audit.schema import Event
from reporting.audit.signing_key import AuditKey, key_id
from reporting.durable_files import make_folder, private_opener, sync_folder

OTHERS_S = 30.0
"""How often lines are looked for that another process wrote and died before it signed them."""
TAIL_BYTES = 4 * MAX_LINE_BYTES
"""How much of a file's end is read to find its last line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailPolicy:
    """When an event is safe on disk, and how often the trail is signed."""

    fsync: Literal["event", "interval", "never"] = "interval"
    fsync_every_s: float = 1.0
    checkpoint_every_events: int = 1000
    checkpoint_every_s: float = 300.0


class ChainWriter:
    """The end of one chain. `describe` makes the entry of an event of the chain's own."""

    def __init__(
        self,
        folder: Path,
        chain: str,
        *,
        key: AuditKey,
        policy: TrailPolicy,
        describe: Callable[[Event, Mapping[str, Any]], dict[str, Any]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._chain = folder, chain
        self._key, self._policy = key, policy
        self._describe, self._monotonic = describe, monotonic
        self._mutex = threading.Lock()
        self._seq, self._hash = 0, GENESIS
        self._signed_seq, self._signed_at = 0, monotonic()
        self._ticked_at = monotonic()
        self._is_dirty = False
        make_folder(folder)
        self._copies = _open(folder / checkpoints_name(chain))
        self._path, self._handle, self._size = folder, -1, 0
        try:
            with self._alone():
                self._take_up()
        except BaseException:
            self._close_handles()
            raise

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one event; RetryLater when the disk does not take it."""
        with self._alone():
            self._catch_up()
            self._roll(entry["time"])
            self._write(entry)
            if self._seq - self._signed_seq >= self._policy.checkpoint_every_events:
                self._sign()
            if self._policy.fsync == "event":
                os.fsync(self._handle)

    def tick(self) -> None:
        """Fsync and sign what is due by time; events are written while the disk takes its time."""
        self._ticked_at = self._monotonic()
        with self._alone():
            self._catch_up()
            is_old = self._monotonic() - self._signed_at >= self._policy.checkpoint_every_s
            if is_old and self._seq > self._signed_seq:
                self._sign()
            if not self._is_dirty or self._policy.fsync != "interval":
                return
            handle = os.dup(self._handle)
            self._is_dirty = False
        try:
            with self._trouble_named():
                os.fsync(handle)
        except RetryLater:
            self._is_dirty = True
            raise
        finally:
            os.close(handle)

    def is_due(self) -> bool:
        """Whether `tick` may find something to do; takes no lock and reads no file."""
        now = self._monotonic()
        is_old = now - self._signed_at >= self._policy.checkpoint_every_s
        return (
            (self._is_dirty and self._policy.fsync == "interval")
            or (is_old and self._seq > self._signed_seq)
            or now - self._ticked_at >= OTHERS_S
        )

    def close(self) -> None:
        """Sign what is not signed yet, and close the files."""
        with self._alone():
            self._catch_up()
            if self._seq > self._signed_seq:
                self._sign()
        self._close_handles()

    def _close_handles(self) -> None:
        for handle in (self._handle, self._copies):
            if handle >= 0:
                os.close(handle)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads and other processes out; the lock dies with the process."""
        with self._mutex:
            fcntl.flock(self._copies, fcntl.LOCK_EX)
            try:
                with self._trouble_named():
                    yield
            finally:
                fcntl.flock(self._copies, fcntl.LOCK_UN)

    @contextmanager
    def _trouble_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            raise RetryLater(
                f"The audit trail in {self._folder} cannot be written ({err.strerror}); "
                "check the disk. Nothing proceeds without its audit.",
                code="audit_not_written",
            ) from err

    # Where the chain ends

    def _take_up(self) -> None:
        """Continue where the chain ended, or start it."""
        files = event_files(self._folder).get(self._chain, [])
        self._signed_seq = self._last_copy()
        if not files:
            entry = self._describe(Event.CHAIN_STARTED, {})
            self._enter(self._folder / events_name(entry["time"], self._chain))
            self._write(entry)
            self._sign()
            return
        links = (_last_link(path) for path in reversed(files))
        before = next((link for link in links if link is not None), None)
        if before is not None:
            self._seq, self._hash = before.seq, before.hash
        self._enter(files[-1])
        self._catch_up(from_end=True)
        self._begin_file()
        unsigned = max(0, self._seq - self._signed_seq)
        entry = self._describe(Event.CHAIN_RESUMED, {"unsigned_events": unsigned})
        self._roll(entry["time"])
        self._write(entry)

    def _catch_up(self, *, from_end: bool = False) -> None:
        """Read what was written since our last line, by others or before a kill."""
        status = os.fstat(self._handle)
        if status.st_nlink == 0:
            self._enter(self._path)
            status = os.fstat(self._handle)
        if status.st_size == self._size:
            return
        start = max(0, status.st_size - TAIL_BYTES) if from_end else min(self._size, status.st_size)
        text = _read(self._handle, start, status.st_size)
        *lines, torn = text.split(b"\n")
        if from_end and start > 0:
            lines = lines[1:]
        self._size = status.st_size
        if decode(torn) is not None:  # only its newline is missing
            _write(self._handle, b"\n")
            self._size += 1
            lines, torn = [*lines, torn], b""
        follow = self._follow(lines)
        if torn:
            self._recover(torn)
        elif follow:
            self._enter(self._folder / follow)
            self._catch_up(from_end=True)
            self._begin_file()

    def _follow(self, lines: list[bytes]) -> str:
        """Move to the last of these lines; the name of the next file when it closes this one."""
        last: Link | None = None
        for line in lines:
            link = decode(line)
            if link is not None:
                last = link
                if link.is_checkpoint:
                    self._note_checkpoint(link, line)
        if last is None:
            return ""
        self._seq, self._hash = last.seq, last.hash
        return str(last.entry.get("next_file", ""))

    def _note_checkpoint(self, link: Link, line: bytes) -> None:
        """A signed line that has no copy yet (killed in between) gets it now."""
        if link.seq > self._signed_seq:
            if self._last_copy() < link.seq:
                _write(self._copies, line + b"\n")
            self._signed_seq, self._signed_at = link.seq, self._monotonic()

    def _last_copy(self) -> int:
        """The seq of the last checkpoint that has a copy; a copy cut by a kill is taken away."""
        size = os.fstat(self._copies).st_size
        text = _read(self._copies, max(0, size - TAIL_BYTES), size)
        whole, _, torn = text.rpartition(b"\n")
        if torn:
            os.ftruncate(self._copies, size - len(torn))
        link = decode(whole.rpartition(b"\n")[2])
        return link.seq if link is not None else 0

    def _recover(self, torn: bytes) -> None:
        """Close a line that was cut by a kill, and say so."""
        _write(self._handle, b"\n")
        self._size += 1
        digest = hashlib.sha256(torn).hexdigest()
        fields = {"torn_bytes": len(torn), "torn_sha256": digest}
        self._write(self._describe(Event.CHAIN_RECOVERED, fields))

    # Writing

    def _write(self, entry: Mapping[str, Any]) -> None:
        line, digest = encode(entry, seq=self._seq + 1, prev=self._hash)
        if len(line) > MAX_LINE_BYTES:
            raise Defect(
                f"An audit event of {len(line)} bytes is over the limit of {MAX_LINE_BYTES}.",
                code="audit_event_too_long",
            )
        try:
            _write(self._handle, line)
        except OSError:
            os.ftruncate(self._handle, self._size)
            raise
        self._size += len(line)
        self._seq, self._hash = self._seq + 1, digest
        self._is_dirty = True

    def _sign(self, next_file: str = "") -> None:
        """Write a checkpoint, fsync it, and keep a copy of it next to the trail."""
        seq, name = self._seq + 1, self._path.name
        message = checkpoint_message(self._chain, name, seq, self._hash, next_file)
        fields = {
            "file": name,
            "chains": chains_in(self._folder),
            "key_id": key_id(self._key.public),
            "signature": self._key.sign(message),
        }
        if next_file:
            fields["next_file"] = next_file
        before = (self._size, self._seq, self._hash)
        self._write(self._describe(Event.CHECKPOINT_SIGNED, fields))
        try:
            _write(self._copies, _read(self._handle, before[0], self._size))
        except OSError:
            self._size, self._seq, self._hash = before
            os.ftruncate(self._handle, self._size)
            raise
        self._signed_seq, self._signed_at = self._seq, self._monotonic()
        if self._policy.fsync != "never":
            os.fsync(self._handle)
            os.fsync(self._copies)
            self._is_dirty = False

    def _roll(self, now: str) -> None:
        """Close the file of a day that is over. A clock that jumps back changes nothing."""
        name = events_name(now, self._chain)
        if name > self._path.name:
            self._sign(next_file=name)
            self._enter(self._folder / name)
            self._begin_file()

    def _begin_file(self) -> None:
        """The first line of a further file; also when a kill left it empty."""
        if self._size == 0:
            self._write(self._describe(Event.CHAIN_ROLLED, {"file": self._path.name}))

    def _enter(self, path: Path) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        self._path, self._handle, self._size = path, _open(path), 0
        sync_folder(self._folder)


def _last_link(path: Path) -> Link | None:
    """The last whole line of a file."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().split(b"\n")[:-1]
    return next((link for line in reversed(lines) if (link := decode(line))), None)


def _open(path: Path) -> int:
    return private_opener(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)


def _write(handle: int, content: bytes) -> None:
    if os.write(handle, content) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _read(handle: int, start: int, end: int) -> bytes:
    return os.pread(handle, end - start, start)

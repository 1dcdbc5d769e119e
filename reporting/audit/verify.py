"""Verifies that an audit trail is intact, and reports every place where it is not.

Every line is hashed again and must follow the line before; every checkpoint must be signed by the
site's key and be present, byte for byte, in the trail and among the copies. This finds a changed
byte, a line removed, added or moved, a missing file, and an end cut off before a checkpoint. What
is cut off after the last checkpoint leaves no trace, but a stopped service has signed its last
line.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from reporting.audit.record_format import (
    GENESIS,
    Link,
    chains_in,
    checkpoint_message,
    checkpoints_name,
    decode,
    event_files,
)
from reporting.audit.signing_key import is_signed

MAX_FINDINGS = 1000
"""Findings listed per chain; the rest is left out."""


class FindingKind(StrEnum):
    """What is wrong at a place in the trail."""

    CHANGED = "changed"
    REMOVED = "removed"
    ADDED = "added"
    MISSING_FILE = "missing_file"
    CUT = "cut"
    UNSIGNED = "unsigned"
    NO_TRAIL = "no_trail"
    UNFINISHED = "unfinished"
    RECOVERED = "recovered"


HARMLESS = frozenset({FindingKind.RECOVERED})
"""Findings that are shown and do not break the trail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One place, with what is wrong there. `line` counts from 1; 0 is the file as a whole."""

    kind: FindingKind
    file: str
    line: int
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was read, and every finding, in the order of the trail."""

    findings: tuple[Finding, ...]
    events: int
    files: int
    checkpoints: int
    unsigned_events: int
    """Events after the last checkpoints: nothing could tell if these had been cut off."""

    @property
    def problems(self) -> tuple[Finding, ...]:
        """Findings that are not harmless."""
        return tuple(found for found in self.findings if found.kind not in HARMLESS)

    @property
    def is_whole(self) -> bool:
        """Whether nothing was changed since it was signed."""
        return not self.problems

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """For people: place, kind, message."""
        for found in self.findings:
            place = f"{found.file}:{found.line}" if found.line else found.file
            yield place, found.kind.value, found.message


def verify_trail(directory: Path, public_key: Ed25519PublicKey) -> Verification:
    """Check every chain in `directory`. Changes nothing; a running service may go on writing."""
    files = event_files(directory)
    chains = sorted({*files, *chains_in(directory)})
    readings = [_read_chain(directory, chain, files.get(chain, []), public_key) for chain in chains]
    findings = [found for reading in readings for found in reading.findings]
    findings += _missing_chains(readings, chains)
    if not any(reading.events for reading in readings):
        findings.append(
            Finding(
                kind=FindingKind.NO_TRAIL,
                file=directory.name,
                line=0,
                message="there is no audit trail here; name the audit folder of the site.",
            )
        )
    return Verification(
        findings=tuple(findings),
        events=sum(reading.events for reading in readings),
        files=sum(len(paths) for paths in files.values()),
        checkpoints=sum(len(reading.checkpoints) for reading in readings),
        unsigned_events=sum(reading.unsigned for reading in readings),
    )


@dataclass(slots=True, kw_only=True)
class _Reading:
    """One pass over a chain: where it stands, and what was found on the way."""

    chain: str
    public_key: Ed25519PublicKey
    seq: int = 0
    hash: str = GENESIS
    events: int = 0
    unsigned: int = 0
    next_file: str = ""
    checkpoints: list[tuple[str, int, bytes]] = field(default_factory=list)
    """File, line and text of each signed line."""
    beside: dict[str, tuple[str, int]] = field(default_factory=dict)
    """The other chains that a checkpoint saw, with its place."""
    findings: list[Finding] = field(default_factory=list)
    changed: int = 0
    """Lines since the last that holds that are there and do not hold."""
    odd: tuple[int, bytes] | None = None
    """A line that does not hold, until the next tells whether a kill cut it."""

    def report(self, kind: FindingKind, file: str, line: int, message: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(kind=kind, file=file, line=line, message=message))

    def read(self, path: Path, size: int) -> None:
        """Take in one file of events, as far as it reached when we began."""
        self._expect(path.name)
        line = 0
        for line, text in enumerate(_lines(path, size), start=1):
            self._take(path.name, line, text)
        self._settle_odd(path.name)
        if line == 0:
            self.report(FindingKind.CUT, path.name, 0, "the file is empty.")

    def _expect(self, name: str) -> None:
        if self.next_file and self.next_file != name:
            self.report(
                FindingKind.MISSING_FILE,
                self.next_file,
                0,
                f"the file is missing: the one before it says that it follows, not {name}.",
            )
        elif not self.next_file and self.seq > 0:
            self.report(
                FindingKind.CUT, name, 0, "the file before it does not end with a checkpoint."
            )
        self.next_file = ""

    def _take(self, file: str, line: int, text: bytes) -> None:
        link = decode(text[:-1]) if text.endswith(b"\n") else None
        if link is None:
            self._settle_odd(file)
            self.odd = (line, text)
            return
        if self.odd is not None and self._closes_torn_line(link):
            message = f"a line of {link.entry['torn_bytes']} bytes was cut by a kill and closed."
            self.report(FindingKind.RECOVERED, file, self.odd[0], message)
            self.odd = None
        self._settle_odd(file)
        self._follow(file, line, link)
        if link.is_checkpoint:
            self._check_signature(file, line, link, text)
        self.events += 1

    def _closes_torn_line(self, link: Link) -> bool:
        if self.odd is None or link.entry.get("event") != "chain_recovered":
            return False
        digest = hashlib.sha256(self.odd[1].removesuffix(b"\n")).hexdigest()
        return bool(link.prev == self.hash and link.entry.get("torn_sha256") == digest)

    def _settle_odd(self, file: str) -> None:
        """The odd line was no torn one: say what it is."""
        if self.odd is None:
            return
        line, text = self.odd
        self.odd = None
        if text.endswith(b"\n"):
            self.changed += 1
            self.report(FindingKind.CHANGED, file, line, "the line is not as it was written.")
        else:
            message = "the last line is cut: by a kill (the next start closes it) or by a person."
            self.report(FindingKind.UNFINISHED, file, line, message)

    def _follow(self, file: str, line: int, link: Link) -> None:
        """Compare a line's place in the chain with the one that comes next."""
        if link.prev != self.hash or link.seq != self.seq + 1:
            self._out_of_place(file, line, link)
        if self.next_file:
            message = "the line stands after the checkpoint that closed the file."
            self.report(FindingKind.ADDED, file, line, message)
        self.seq, self.hash, self.changed = link.seq, link.hash, 0
        self.unsigned += 1

    def _out_of_place(self, file: str, line: int, link: Link) -> None:
        """What the chain says of a line that does not follow the one before it."""
        gap = link.seq - self.seq - 1
        missing = gap - self.changed
        if missing > 0:
            lines = "1 line is" if missing == 1 else f"{missing} lines are"
            self.report(FindingKind.REMOVED, file, line, f"{lines} missing before this one.")
        elif gap < 0:
            message = f"the line (event {link.seq}) stands here again or in the wrong place."
            self.report(FindingKind.ADDED, file, line, message)
        elif not self.changed:
            message = "the line follows another one than the one before it."
            self.report(FindingKind.CHANGED, file, line, message)

    def _check_signature(self, file: str, line: int, link: Link, text: bytes) -> None:
        next_file = str(link.entry.get("next_file", ""))
        message = checkpoint_message(self.chain, file, link.seq, link.prev, next_file)
        if not is_signed(message, str(link.entry["signature"]), self.public_key):
            reason = "the checkpoint is not signed by this key for this place."
            self.report(FindingKind.UNSIGNED, file, line, reason)
        self.checkpoints.append((file, line, text))
        self.beside |= dict.fromkeys(link.entry.get("chains", ()), (file, line))
        self.next_file, self.unsigned = next_file, 0

    def compare_copies(self, name: str, texts: list[bytes]) -> None:
        """Every checkpoint stands in the trail and among the copies, in the same order."""
        expected = [text for _, _, text in self.checkpoints]
        if texts == expected:
            return
        before = len(self.findings)
        for file, line, text in self.checkpoints:
            if text not in texts:
                reason = f"the checkpoint has no copy in {name}."
                self.report(FindingKind.REMOVED, file, line, reason)
        for number, text in enumerate(texts, start=1):
            if text not in expected:
                self._lonely_copy(name, number, text)
        if len(self.findings) == before:
            reason = "copies of checkpoints stand twice or not in their order."
            self.report(FindingKind.CHANGED, name, 0, reason)

    def _lonely_copy(self, name: str, number: int, text: bytes) -> None:
        link = decode(text.removesuffix(b"\n"))
        if link is None:
            reason = "the copy of a checkpoint is not as it was written."
            self.report(FindingKind.CHANGED, name, number, reason)
        else:
            reason = f"the checkpoint of event {link.seq} is not in the trail: it was cut off."
            self.report(FindingKind.CUT, str(link.entry.get("file", "")), 0, reason)


def _read_chain(
    directory: Path, chain: str, files: list[Path], public_key: Ed25519PublicKey
) -> _Reading:
    reading = _Reading(chain=chain, public_key=public_key)
    copies = directory / checkpoints_name(chain)
    sizes = _sizes([*files, copies], lock=copies)
    for path in files:
        reading.read(path, sizes[path])
    if reading.next_file:
        reason = "the file is missing: the one before it says that it follows."
        reading.report(FindingKind.MISSING_FILE, reading.next_file, 0, reason)
    texts = list(_lines(copies, sizes[copies])) if copies.is_file() else []
    reading.compare_copies(copies.name, texts)
    return reading


def _sizes(paths: list[Path], *, lock: Path) -> dict[Path, int]:
    """How long the files are at one moment, between two lines of a service that goes on."""
    with contextlib.ExitStack() as stack:
        if lock.is_file():
            fcntl.flock(stack.enter_context(lock.open("rb")), fcntl.LOCK_SH)
        return {path: path.stat().st_size if path.is_file() else 0 for path in paths}


def _lines(path: Path, size: int) -> Iterator[bytes]:
    """The lines within the first `size` bytes, each with its newline."""
    with path.open("rb") as file:
        while size > 0 and (text := file.readline(size)):
            size -= len(text)
            yield text


def _missing_chains(readings: list[_Reading], chains: list[str]) -> Iterator[Finding]:
    for reading in readings:
        for chain, (file, line) in reading.beside.items():
            if chain not in chains:
                yield Finding(
                    kind=FindingKind.MISSING_FILE,
                    file=checkpoints_name(chain),
                    line=0,
                    message=f"the whole chain {chain} is missing; it was there at {file}:{line}.",
                )

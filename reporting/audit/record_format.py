"""Format of the trail on disk: one JSON object per line, each with the hash of the one before.

audit-20261122-ward7.jsonl       the events of one day and one chain
checkpoints-ward7.jsonl          a copy of each signed line of that chain

A line ends in `,"seq":7,"prev":"…","hash":"…"}`. `hash` is the SHA-256 of the line as it was before
`hash` was put in; `prev` is the hash of the line before, also across files. The first line of a
chain has the seq 1 and the prev GENESIS. A line with `signature` is a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GENESIS = "0" * 64
MAX_LINE_BYTES = 65536
_HASH_KEY = b',"hash":"'
_HASH_BYTES = len(_HASH_KEY) + 64 + len(b'"}')
_EVENTS_NAME = re.compile(r"audit-(?P<day>\d{8})-(?P<chain>[A-Za-z0-9_.\-]{1,64})\.jsonl")
_CHECKPOINTS_NAME = re.compile(r"checkpoints-(?P<chain>[A-Za-z0-9_.\-]{1,64})\.jsonl")


@dataclass(frozen=True, slots=True)
class Link:
    """One line read back: its entry, and its place in the chain."""

    entry: Mapping[str, Any]
    seq: int
    prev: str
    hash: str

    @property
    def is_checkpoint(self) -> bool:
        """Whether the record is a signed checkpoint."""
        return "signature" in self.entry


def encode(entry: Mapping[str, Any], *, seq: int, prev: str) -> tuple[bytes, str]:
    """The line of an entry, with its newline, and the line's hash."""
    body = json.dumps({**entry, "seq": seq, "prev": prev}, separators=(",", ":")).encode()
    digest = hashlib.sha256(body).hexdigest()
    return b"".join((body[:-1], _HASH_KEY, digest.encode(), b'"}\n')), digest


def decode(line: bytes) -> Link | None:
    """The link of a line without its newline; None when one byte of it is not as written."""
    body = line[:-_HASH_BYTES] + b"}"
    digest = hashlib.sha256(body).hexdigest()
    if line[-_HASH_BYTES:] != _HASH_KEY + digest.encode() + b'"}':
        return None
    try:
        entry = json.loads(body)
        return Link(entry=entry, seq=entry["seq"], prev=entry["prev"], hash=digest)
    except (ValueError, KeyError, TypeError):
        return None


def checkpoint_message(chain: str, file: str, seq: int, prev: str, next_file: str) -> bytes:
    """What a checkpoint signs: its position, and through `prev` everything before it."""
    return "\n".join(
        ("smearlink audit checkpoint", chain, file, str(seq), prev, next_file)
    ).encode()


def events_name(day: str, chain: str) -> str:
    """The file of a day (ISO date or time) of a chain."""
    return f"audit-{day[:10].replace('-', '')}-{chain}.jsonl"


def checkpoints_name(chain: str) -> str:
    """The file with the copies of a chain's signed lines."""
    return f"checkpoints-{chain}.jsonl"


def event_files(folder: Path) -> dict[str, list[Path]]:
    """The files of each chain, oldest first."""
    chains: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("audit-*.jsonl")):
        if found := _EVENTS_NAME.fullmatch(path.name):
            chains.setdefault(found["chain"], []).append(path)
    return chains


def chains_in(folder: Path) -> list[str]:
    """The chains that have checkpoints, by name."""
    names = (_CHECKPOINTS_NAME.fullmatch(path.name) for path in folder.glob("checkpoints-*.jsonl"))
    return sorted(found["chain"] for found in names if found)

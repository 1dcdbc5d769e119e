"""What a destination has confirmed: one line a result, appended and never changed.

This journal, not the work queue, says what was delivered: a lost database forgets the queue,
never a receipt. A torn last line (power cut) reads as not there, so that result is sent again
under the same UID.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pipeline.errors import RetryLater
from reporting.durable_files import make_folder, private_opener, sync_folder, take_lock


class DeliveryState(StrEnum):
    """How far a destination has confirmed a result."""

    CONFIRMED = "confirmed"
    """Accepted for good: nothing more to do."""
    AWAITING_COMMITMENT = "awaiting_commitment"
    """Accepted; storage commitment (PS3.4 annex J) was asked for and is not answered yet."""
    REJECTED = "rejected"
    """A newer report replaced it, and the destination took the Rejection Note that says so."""
    UNCOMMITTED = "uncommitted"
    """Accepted, then disowned by a storage commitment report: to be sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptLine:
    """One result at one destination, at one moment."""

    uid: str
    sha256: str
    version: int
    state: DeliveryState
    transaction_uid: str
    warnings: tuple[str, ...]
    at: str
    """ISO 8601, UTC."""


class ReceiptJournal:
    """The receipts of one smear at one destination."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def held(self) -> Iterator[None]:
        """Excludes every other delivery of this smear to this destination, in all processes.

        The lock dies with its holder. Raises RetryLater `delivery_in_hand` when it is taken.
        """
        make_folder(self._path.parent)
        try:
            descriptor = take_lock(self._path, is_blocking=False)
        except BlockingIOError as err:
            raise RetryLater(
                "This smear is being sent to this destination at this moment",
                code="delivery_in_hand",
            ) from err
        try:
            yield
        finally:
            os.close(descriptor)

    def latest(self) -> dict[str, ReceiptLine]:
        """The last line of every result, by its UID."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        return {line.uid: line for line in _parsed(text)}

    def append(self, lines: Iterable[ReceiptLine]) -> None:
        """Appends lines; durable on return."""
        text = "".join(json.dumps(asdict(line), separators=(",", ":")) + "\n" for line in lines)
        if not text:
            return
        is_new = not self._path.exists()
        with open(self._path, "a+b", opener=private_opener) as file:
            if not _ends_whole(file.fileno()):
                text = "\n" + text
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_folder(self._path.parent)


def iso(moment: datetime) -> str:
    """A time as the journals write it."""
    return moment.isoformat(timespec="milliseconds")


def _ends_whole(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"


def _parsed(text: str) -> Iterator[ReceiptLine]:
    for row in text.splitlines():
        try:
            values = json.loads(row)
        except ValueError:
            continue  # torn by a power cut: not a receipt
        yield ReceiptLine(
            uid=values["uid"],
            sha256=values["sha256"],
            version=values["version"],
            state=DeliveryState(values["state"]),
            transaction_uid=values["transaction_uid"],
            warnings=tuple(values["warnings"]),
            at=values["at"],
        )

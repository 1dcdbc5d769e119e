"""Transactions of storage commitment (PS3.4 annex J): new UIDs, and the answer to unknown ones."""

from __future__ import annotations

from uuid import uuid4

from pipeline.errors import Rejected


def new_transaction_uid() -> str:
    """A Transaction UID that nobody can derive (PS3.5 B.2, from a random UUID)."""
    return f"2.25.{uuid4().int}"


def unknown_transaction() -> Rejected:
    """The answer to a report on a request that was not made to this peer, or is settled."""
    return Rejected(
        "A commitment report names a transaction that is not open with its sender.",
        code="commitment_unknown",
    )

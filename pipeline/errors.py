"""What went wrong, named for what happens next.

SmearlinkError
├── Rejected        the input is bad and will stay bad: answer clearly, audit, park
├── RetryLater      the world is not ready (network, disk, lock): try again after a while
├── NeedsReview     a person must decide: park where `smearlink status` shows it
└── Defect          our own fault: record in full, park, go on with the next image
"""

from __future__ import annotations


class SmearlinkError(Exception):
    """Base of every error that smearlink raises on purpose.

    `code` is a stable, machine-readable word; the message says what was wrong, which rule,
    and what to do. Neither ever carries patient data.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class Rejected(SmearlinkError):
    """The input breaks a rule and will break it again; never retried."""


class RetryLater(SmearlinkError):
    """A passing condition; `after_s` says how long the other side asked us to wait."""

    def __init__(self, message: str, *, code: str, after_s: float | None = None) -> None:
        super().__init__(message, code=code)
        self.after_s = after_s


class NeedsReview(SmearlinkError):
    """Only a person can go on from here."""


class Defect(SmearlinkError):
    """A promise of our own code was broken."""

"""One destination as the workflow sees it: what goes there, how patiently it is tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reporting.delivery import Destination

LONGEST_WISH_S = 86_400.0
"""A peer that asks us to wait longer than a day is asked again after a day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlet:
    """A destination with its queue."""

    destination: Destination
    concurrency: int = 1
    rate_per_minute: int = 0
    """0 means as fast as it takes them."""
    max_tries: int = 8
    first_delay_s: float = 5.0
    max_delay_s: float = 3600.0
    commitment_timeout_s: float = 3600.0
    is_pseudonymous: bool = False
    """It gets results under pseudonyms, and never any other."""

    @property
    def name(self) -> str:
        return self.destination.name

    @property
    def queue(self) -> str:
        return delivery_queue(self.name)


def delivery_queue(destination: str) -> str:
    """The queue of a destination: each has its own, so that none waits for another (law 6)."""
    return f"deliver-{destination}"


def next_delay_s(
    *,
    attempt: int,
    first_s: float,
    longest_s: float,
    asked_s: float | None,
    jitter: Callable[[], float],
) -> float:
    """Seconds until the next try: doubled each time, spread by jitter, never less than asked.

    `attempt` counts from 1; `jitter` gives 0 to 1 and takes up to half of the delay away, so
    that a peer that comes back is not met by everything at once.
    """
    doubled = first_s * 2.0 ** min(attempt - 1, 40)
    spread = min(doubled, longest_s) * (1.0 - 0.5 * jitter())
    return max(spread, min(asked_s or 0.0, LONGEST_WISH_S))

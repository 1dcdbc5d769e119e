"""Exponential backoff with jitter between delivery attempts."""

from __future__ import annotations

from collections.abc import Callable

LONGEST_WISH_S = 86_400.0
"""A peer that asks us to wait longer than a day is asked again after a day."""


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

"""How patiently a destination is tried: longer each time, spread, never sooner than it asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from listener.queue.backoff import LONGEST_WISH_S, next_delay_s

ATTEMPTS = st.integers(1, 1000)
SHARES = st.floats(0, 1)


@given(ATTEMPTS, SHARES)
def test_a_delay_is_never_longer_than_the_site_says(attempt: int, share: float) -> None:
    delay = next_delay_s(
        attempt=attempt, first_s=5, longest_s=3600, asked_s=None, jitter=lambda: share
    )

    assert 2.5 <= delay <= 3600


@given(ATTEMPTS)
def test_it_doubles_until_it_is_the_longest(attempt: int) -> None:
    delay = next_delay_s(
        attempt=attempt, first_s=5, longest_s=3600, asked_s=None, jitter=lambda: 0.0
    )

    assert delay == min(3600, 5 * 2.0 ** min(attempt - 1, 40))


@given(ATTEMPTS, SHARES, st.floats(0, 1e9))
def test_what_a_peer_asks_is_granted_up_to_a_day(
    attempt: int, share: float, asked_s: float
) -> None:
    delay = next_delay_s(
        attempt=attempt, first_s=5, longest_s=60, asked_s=asked_s, jitter=lambda: share
    )

    assert delay >= min(asked_s, LONGEST_WISH_S)
    assert delay <= max(60, LONGEST_WISH_S)

"""Shares the associations among peers, so that no peer can hold all of them.

An address and an AE title each have a share. Where a share or the total is used up, a newcomer
takes the place of an association at rest that belongs to a larger holder, or that has carried
nothing but C-ECHO for a while. An image that makes progress is never displaced. A displaced peer
has been promised nothing; it associates again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

REST_S = 1.0
"""An association without progress for this long may make room for a smaller holder."""
IDLE_HOLDER_S = 3.0
"""One that has carried no image and no report for this long makes room for anybody."""
MIN_GAIN = 2
"""A larger holder has at least this many more, so that giving one up leaves it no smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """One association as the policy sees it."""

    address: str
    ae_title: str
    age_s: float
    resting_s: float
    """Time without progress; 0 while a message arrives at a fair speed or is worked on."""
    has_carried: bool
    """Whether an image or a report came in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How many associations there may be: in total, and of one address or one AE title."""

    total: int
    per_peer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Whether a newcomer gets an association, and which holder makes room for it."""

    is_granted: bool
    displaced: int | None = None
    """Index of the holder that is hung up on."""


def admit(address: str, ae_title: str, holders: Sequence[Holder], shares: Shares) -> Admission:
    """Decides about a newcomer from `address` that calls itself `ae_title`."""
    candidates = set(range(len(holders)))
    is_full = len(holders) >= shares.total
    same_address = {index for index in candidates if holders[index].address == address}
    same_title = {index for index in candidates if ae_title and holders[index].ae_title == ae_title}
    for same in (same_address, same_title):
        if len(same) >= shares.per_peer:
            is_full = True
            candidates &= same
    if not is_full:
        return Admission(is_granted=True)

    by_address = Counter(one.address for one in holders)
    by_peer = Counter((one.address, one.ae_title) for one in holders)

    def makes_room(holder: Holder) -> bool:
        is_idle = not holder.has_carried and holder.age_s >= IDLE_HOLDER_S
        is_larger = (
            by_address[holder.address] >= by_address[address] + MIN_GAIN
            or by_peer[holder.address, holder.ae_title] >= by_peer[address, ae_title] + MIN_GAIN
        )
        return holder.resting_s >= REST_S and (is_idle or is_larger)

    def weight(index: int) -> tuple[int, int, float]:
        holder = holders[index]
        peer = by_peer[holder.address, holder.ae_title]
        return by_address[holder.address], peer, holder.resting_s

    displaced = max(
        filter(lambda one: makes_room(holders[one]), candidates), key=weight, default=None
    )
    return Admission(is_granted=displaced is not None, displaced=displaced)

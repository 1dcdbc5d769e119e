"""Shares the file descriptors of the process between the two ports and everything else.

A connection costs a descriptor before anybody knows who it is. Each port gets a fixed part, so that
connections to one can starve neither the other nor the files that an accepted image needs.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass

RESERVED = 112
"""For data folder, queue, audit trail, networks, deliveries and the C library."""
WANTED = 4096
"""More than is shared out here; the soft limit is raised to it where the hard one allows."""
PER_ASSOCIATION = 2
"""Socket and the file that the image grows in."""
MAX_UNASSOCIATED = 256
MAX_WEB_CONNECTIONS = 128
_LEAST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptorShares:
    """How many connections of each kind there may be."""

    associations: int
    unassociated: int
    web_connections: int


def raise_limit() -> int:
    """Raises the soft limit of descriptors as far as is useful and allowed; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = WANTED if hard == unlimited else min(WANTED, hard)
    if soft != unlimited and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return WANTED if soft == unlimited else soft


def share_out(limit: int, *, max_associations: int) -> DescriptorShares:
    """What each port may have of `limit` descriptors; associations come first."""
    available = max(0, limit - RESERVED)
    associations = min(max_associations, max(_LEAST, available // (2 * PER_ASSOCIATION)))
    rest = max(0, available - PER_ASSOCIATION * associations)
    unassociated = min(MAX_UNASSOCIATED, max(_LEAST, rest // 2))
    web_connections = min(MAX_WEB_CONNECTIONS, max(_LEAST, rest - unassociated))
    return DescriptorShares(
        associations=associations,
        unassociated=unassociated,
        web_connections=web_connections,
    )

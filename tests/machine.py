"""Whether this machine can keep a promise about time: a busy one shows nothing about smearlink."""

from __future__ import annotations

import os


def is_busy() -> bool:
    """Whether more programs want to run than there are processors, several times over."""
    return os.getloadavg()[0] > 2 * len(os.sched_getaffinity(0))

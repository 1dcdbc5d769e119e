"""Keeps the process of a service small and its garbage collector idle, as far as glibc allows."""

from __future__ import annotations

import ctypes
import gc
from typing import Any

_M_ARENA_MAX = -8
"""Of `malloc.h`."""
_ARENAS = 2
"""Each thread would get an arena of its own, and keep what a large image once took there."""
_COLLECT_AFTER = 5000
"""New containers until the youngest are looked at; 700 is too eager for reports of 10,000."""


def limit_arenas() -> None:
    """Share few memory arenas among all threads; to be called before there are any."""
    if (mallopt := _of_libc("mallopt")) is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)


def settle() -> None:
    """Give back what the start has used, and leave what stays out of garbage collections."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 10, 10)
    if (malloc_trim := _of_libc("malloc_trim")) is not None:
        malloc_trim(0)


def _of_libc(name: str) -> Any:
    """A function of the C library that is loaded, or None."""
    return getattr(ctypes.CDLL(None), name, None)

"""Keeps the process of a service small and its garbage collector idle, as far as glibc allows."""

from __future__ import annotations

import ctypes
import gc
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Of `malloc.h`."""
_ARENAS = 1
"""Each thread would get an arena of its own, and keep what a large image once took there. One is
enough: the interpreter's threads allocate one after the other."""
_OWN_MAPPING_BYTES = 4 * 2**20
"""Larger blocks are given back as soon as they are free. Left alone, glibc raises this to 32 MB
with the first large image, and what lies above a free block keeps it. Blocks of small fields stay
below it: a mapping of its own costs a page fault for every 4 KB, each time."""
_FREE_BYTES = 4 * _OWN_MAPPING_BYTES
"""More free bytes than these at the end of the heap are given back."""
_COLLECT_AFTER = 5000
"""New containers until the youngest are looked at; 700 is too eager for reports of 10,000."""


def limit_heap() -> None:
    """Share few memory arenas among all threads, and give large blocks back when they are free.

    To be called before there are any.
    """
    if (mallopt := _of_libc("mallopt")) is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
        mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _FREE_BYTES)


def settle() -> None:
    """Give back what the start has used, and leave what stays out of garbage collections."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 10, 10)
    give_back()


def give_back() -> None:
    """Give free memory back that lies between what is in use; takes some 2 ms."""
    if (malloc_trim := _of_libc("malloc_trim")) is not None:
        malloc_trim(0)


def _of_libc(name: str) -> Any:
    """A function of the C library that is loaded, or None."""
    return getattr(ctypes.CDLL(None), name, None)

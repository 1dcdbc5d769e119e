"""What a service does about its own memory, each time in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest


def run(code: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    return answer.stdout


def test_what_the_start_made_is_left_out_of_garbage_collections() -> None:
    told = run(
        "import gc; from listener.process_memory import settle; settle();"
        "print(gc.get_freeze_count() > 1000, gc.isenabled())"
    )

    assert told.split() == ["True", "True"]


def test_another_c_library_is_no_obstacle() -> None:
    told = run(
        "from listener import process_memory as memory;"
        "memory.ctypes.CDLL = lambda _name: object();"
        "memory.limit_heap(); memory.settle(); print('done')"
    )

    assert told.split() == ["done"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_what_a_large_image_took_is_given_back_though_newer_blocks_lie_behind_it() -> None:
    told = run(
        "import os; from listener.process_memory import limit_heap; limit_heap()\n"
        "def resident_mb():\n"
        "    pages = int(open('/proc/self/statm').read().split()[1])\n"
        "    return pages * os.sysconf('SC_PAGE_SIZE') / 2**20\n"
        "first = b'x' * (8 << 20); del first\n"
        "before = resident_mb()\n"
        "image = [b'x' * (8 << 20) for _ in range(5)]\n"
        "held = resident_mb()\n"
        "newer = b'x' * (200 << 10)\n"
        "del image\n"
        "print(held - before > 30, resident_mb() - before < 10)"
    )

    assert told.split() == ["True", "True"]

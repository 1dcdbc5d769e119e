"""What a service does about its own memory, each time in a process of its own."""

from __future__ import annotations

import subprocess
import sys


def run(code: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    return answer.stdout


def test_what_the_start_made_is_left_out_of_garbage_collections() -> None:
    told = run(
        "import gc; from listener.cli.process_memory import settle; settle();"
        "print(gc.get_freeze_count() > 1000, gc.isenabled())"
    )

    assert told.split() == ["True", "True"]


def test_another_c_library_is_no_obstacle() -> None:
    told = run(
        "from listener.cli import process_memory as memory;"
        "memory.ctypes.CDLL = lambda _name: object();"
        "memory.limit_arenas(); memory.settle(); print('done')"
    )

    assert told.split() == ["done"]

"""What the real service asks of the kernel, traced: no Success leaves before its fsyncs are done.

The same by a disk that models what a power cut leaves: tests/listener/storage/test_inbox.py.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.killing import status_of_store
from tests.builders import build_image

SERVER = """
import sys
from pathlib import Path
from listener.storage.inbox import Inbox
from tests.listener.peers import listening
with listening(Inbox(Path(sys.argv[1]))) as listener:
    print(listener.port, flush=True)
    sys.stdin.read()
"""
CALLS = "write,pwrite64,fsync,link,linkat,renameat2,sendto,sendmsg"


def test_success_leaves_after_bytes_and_name_are_synced(tmp_path: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("no strace here: install Debian's package strace")
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-y", "--seccomp-bpf", "-e", f"trace={CALLS}", "-s", "0"]
    with subprocess.Popen(
        [*command, "-o", trace, sys.executable, "-c", SERVER, tmp_path / "inbox"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin and server.stdout
        port = server.stdout.readline().strip()
        assert port, "no trace can be made here"
        status = status_of_store(build_image(), int(port))
        server.stdin.close()

    steps = _steps(trace.read_text())
    begin = steps.index("write part")
    story = steps[begin : begin + steps[begin:].index("reply") + 1]
    assert status == 0x0000
    assert [step for step in story if step != "write part"] == [
        "fsync part",
        "name",
        "fsync new",
        "reply",
    ]
    assert story.index("fsync part") == max(_places(story, "write part")) + 1


def _places(story: list[str], wanted: str) -> list[int]:
    return [place for place, step in enumerate(story) if step == wanted]


def _steps(trace: str) -> list[str]:
    """The calls that matter, each where it ended; those of other threads may lie between."""
    patterns = {
        "write part": r"p?write(64)?\(\d+<[^>]*/inbox/tmp/[^>]*\.part>",
        "fsync part": r"fsync\(\d+<[^>]*/inbox/tmp/[^>]*\.part>",
        "name": r"(link(at)?|renameat2)\(.*/inbox/tmp/.*/inbox/new/.*= 0$",
        "fsync new": r"fsync\(\d+<[^>]*/inbox/new>",
        "reply": r"send(to|msg)\(\d+<(TCP|socket)",
    }
    lines = _whole(trace.splitlines())
    found = (
        next((name for name, pattern in patterns.items() if re.search(pattern, line)), None)
        for line in lines
    )
    return [name for name in found if name]


def _whole(lines: list[str]) -> list[str]:
    """Calls that strace wrote in two halves, put together where they ended."""
    begun: dict[str, str] = {}
    whole = []
    for line in lines:
        thread, _, call = line.partition(" ")
        if call.endswith("<unfinished ...>"):
            begun[thread] = call.removesuffix("<unfinished ...>")
        elif "resumed>" in call:
            whole.append(begun.pop(thread, "") + call.split("resumed>", 1)[1])
        else:
            whole.append(call)
    return whole

"""No signal is lost, whichever thread the kernel gives it to."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import signal, sys, threading
from listener.cli.signals import Signals

signals = Signals(reload=[signal.SIGHUP])
numbers = [signal.Signals[name] for name in sys.argv[1:]]

def tell():
    for number in numbers:
        signal.pthread_kill(threading.get_ident(), number)

threading.Thread(target=tell).start()
print(*(signals.wait() for _ in numbers))
"""


@pytest.mark.parametrize(
    ("told", "heard"),
    [
        (["SIGTERM"], "False"),
        (["SIGINT"], "False"),
        (["SIGHUP", "SIGTERM"], "True False"),
        (["SIGTERM", "SIGHUP"], "False True"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_a_signal_to_another_thread_is_heard(told: list[str], heard: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *told], capture_output=True, text=True, check=True
    )

    assert sorted(done.stdout.split()) == sorted(heard.split())

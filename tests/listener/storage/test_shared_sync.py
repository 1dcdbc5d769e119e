"""Who shares a sync shares one that began after its own change, and its failure."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from listener.storage.shared_sync import SharedSync

OTHERS = 5


class SlowSync:
    """A sync that ends when the test says so, and fails in the rounds that it names."""

    def __init__(self, *, failing: frozenset[int] = frozenset()) -> None:
        self.failing = failing
        self.begun = 0
        self.is_alone = True
        self.may_end = threading.Semaphore(0)
        self._running = threading.Lock()

    def __call__(self) -> None:
        self.is_alone &= self._running.acquire(blocking=False)
        self.begun += 1
        number = self.begun
        self.may_end.acquire()
        self._running.release()
        if number in self.failing:
            raise OSError(errno.EIO, "broken")


def wait_until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        time.sleep(0.001)


def start_one_and_others(
    shared: SharedSync, sync: SlowSync, threads: ThreadPoolExecutor
) -> tuple[Future[None], list[Future[None]]]:
    """One thread in its sync, the others waiting for it."""
    first = threads.submit(shared)
    wait_until(lambda: sync.begun == 1)
    others = [threads.submit(shared) for _ in range(OTHERS)]
    wait_until(lambda: shared.waiting == OTHERS)
    return first, others


def test_those_who_come_during_a_sync_share_the_next_one_and_never_that_one() -> None:
    sync = SlowSync()
    shared = SharedSync(sync)
    with ThreadPoolExecutor(OTHERS + 1) as threads:
        first, others = start_one_and_others(shared, sync, threads)

        sync.may_end.release()
        first.result()
        wait_until(lambda: sync.begun == 2)
        assert not any(one.done() for one in others)
        sync.may_end.release()
        for one in others:
            one.result()

    assert sync.begun == 2
    assert sync.is_alone


def test_a_failure_is_that_of_all_who_share_it_and_of_nobody_else() -> None:
    sync = SlowSync(failing=frozenset({2}))
    shared = SharedSync(sync)
    with ThreadPoolExecutor(OTHERS + 1) as threads:
        first, others = start_one_and_others(shared, sync, threads)

        sync.may_end.release(2)
        first.result()
        for one in others:
            with pytest.raises(OSError, match="broken"):
                one.result()
        sync.may_end.release()
        shared()

    assert sync.begun == 3


def test_an_interrupted_sync_is_no_success_for_those_who_share_it() -> None:
    class Interrupted(BaseException):
        """As a thread meets it whose process is told to end."""

    begun = threading.Event()
    may_end = threading.Event()

    def sync() -> None:
        if begun.is_set():
            raise Interrupted
        begun.set()
        may_end.wait()

    shared = SharedSync(sync)
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(shared)
        begun.wait()
        others = [threads.submit(shared) for _ in range(2)]
        wait_until(lambda: shared.waiting == 2)
        may_end.set()
        first.result()
        failures = [one.exception() for one in others]

    assert sorted(type(failure).__name__ for failure in failures) == [
        "Interrupted",
        "InterruptedError",
    ]


def test_alone_each_call_syncs() -> None:
    calls: list[int] = []
    shared = SharedSync(lambda: calls.append(1))

    shared()
    shared()

    assert len(calls) == 2

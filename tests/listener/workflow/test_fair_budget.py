"""What is shared is never exceeded, and whoever waits gets it in the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.workflow import fair_budget
from listener.workflow.fair_budget import MOST_OVERTAKING, FairBudget
from tests.listener.house import until

TOTAL = 10


@contextmanager
def waiting(budget: FairBudget, wanted: int) -> Iterator[threading.Event]:
    """Another thread that waits for so much; the event is set when it has it."""
    has_it = threading.Event()

    def reserve() -> None:
        with budget.reserved(wanted):
            has_it.set()

    thread = threading.Thread(target=reserve)
    before = len(budget._waiting)
    thread.start()
    until(lambda: len(budget._waiting) == before + 1)
    yield has_it
    thread.join()


def is_waited_for_by(budget: FairBudget, count: int) -> bool:
    return len(budget._waiting) == count


def test_small_ones_go_before_a_large_one_that_waits() -> None:
    budget, held = FairBudget(TOTAL), ExitStack()
    held.enter_context(budget.reserved(1))
    with waiting(budget, TOTAL) as large_has_it:
        for _ in range(MOST_OVERTAKING):
            with budget.reserved(1):
                is_waiting = not large_has_it.is_set()
        held.close()

    assert is_waiting
    assert large_has_it.is_set()


def test_a_large_one_is_not_overtaken_for_ever() -> None:
    """A site whose devices never pause analyses its one large image too."""
    budget, held = FairBudget(TOTAL), ExitStack()
    held.enter_context(budget.reserved(1))
    with waiting(budget, TOTAL) as large_has_it:
        for _ in range(MOST_OVERTAKING):
            with budget.reserved(1):
                pass
        with waiting(budget, 1) as small_has_it:
            are_waiting = not large_has_it.is_set() and not small_has_it.is_set()
            held.close()

    assert are_waiting, "there was room for the small one, and it was not its turn"
    assert large_has_it.is_set()
    assert small_has_it.is_set()


def test_those_who_wait_get_it_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_budget, "MOST_OVERTAKING", 0)
    budget = FairBudget(TOTAL)
    order: list[int] = []

    def reserve(number: int) -> None:
        with budget.reserved(number):
            order.append(number)

    threads = [threading.Thread(target=reserve, args=(number,)) for number in (6, 9, 7)]
    with budget.reserved(TOTAL):
        for count, thread in enumerate(threads, start=1):
            thread.start()
            until(partial(is_waited_for_by, budget, count))
    for thread in threads:
        thread.join()

    assert order == [6, 9, 7], "no two of them fit at once"


@given(wanted=st.lists(st.integers(0, 3 * TOTAL), max_size=12))
def test_it_is_never_exceeded_and_all_of_it_comes_back(wanted: list[int]) -> None:
    budget, lock = FairBudget(TOTAL), threading.Lock()
    held: list[int] = []
    most: list[int] = []

    def reserve(amount: int) -> None:
        with budget.reserved(amount):
            with lock:
                held.append(min(amount, TOTAL))
                most.append(sum(held))
            with lock:
                held.remove(min(amount, TOTAL))

    threads = [threading.Thread(target=reserve, args=(amount,)) for amount in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert max(most, default=0) <= TOTAL
    with budget.reserved(TOTAL):
        assert budget._waiting == []

"""Large images wait for each other; small ones go on beside them."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from listener.workflow.image_analysis import PixelBudget


def test_two_large_images_are_not_analysed_at_once() -> None:
    budget = PixelBudget(10.0)
    order: list[str] = []

    def second() -> None:
        with budget.reserved(8.0):
            order.append("second")

    with budget.reserved(8.0):
        other = threading.Thread(target=second)
        other.start()
        with budget.reserved(2.0):
            order.append("small")
        order.append("first ends")
    other.join()

    assert order == ["small", "first ends", "second"]


def test_an_image_larger_than_the_budget_goes_alone() -> None:
    budget = PixelBudget(10.0)

    with budget.reserved(100.0):
        pass
    with budget.reserved(10.0):
        pass


@given(sizes=st.lists(st.floats(0, 30), max_size=12))
def test_a_budget_is_never_exceeded_by_two(sizes: list[float]) -> None:
    budget, lock = PixelBudget(10.0), threading.Lock()
    inside: list[float] = []
    too_much: list[list[float]] = []

    def analyse(size: float) -> None:
        with budget.reserved(size):
            with lock:
                inside.append(size)
                if len(inside) > 1 and sum(inside) > 10.0 + 1e-6:
                    too_much.append(list(inside))
            with lock:
                inside.remove(size)

    threads = [threading.Thread(target=analyse, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert too_much == []
    assert not inside

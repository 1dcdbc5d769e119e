"""Large images wait for each other; small ones go on beside them."""

from __future__ import annotations

import threading

from listener.workflow.image_analysis import PixelBudget


def test_two_large_images_are_not_analysed_at_once() -> None:
    budget = PixelBudget(10.0)
    order: list[str] = []

    def second() -> None:
        with budget.reserved(8_000_000):
            order.append("second")

    with budget.reserved(8_000_000):
        other = threading.Thread(target=second)
        other.start()
        with budget.reserved(2_000_000):
            order.append("small")
        order.append("first ends")
    other.join()

    assert order == ["small", "first ends", "second"]


def test_an_image_larger_than_the_budget_goes_alone() -> None:
    budget = PixelBudget(10.0)

    with budget.reserved(100_000_000):
        pass
    with budget.reserved(10_000_000):
        pass

"""Two large images are never in memory at once, and a small one waits for nobody."""

from __future__ import annotations

import threading

import pytest
from pydicom import Dataset

from listener.workflow.memory_budget import BYTES_PER_PIXEL_BYTE, MemoryBudget, bytes_needed
from tests.builders import build_image

PATIENCE_S = 600.0


def test_what_exceeds_the_budget_runs_alone_and_after_what_runs() -> None:
    budget = MemoryBudget(100)
    order: list[str] = []
    entered, go_on = threading.Event(), threading.Event()

    def first() -> None:
        with budget.reserved(60):
            entered.set()
            go_on.wait(PATIENCE_S)
            order.append("first ends")

    def second() -> None:
        with budget.reserved(1000):
            order.append("second begins")

    threads = [threading.Thread(target=one) for one in (first, second)]
    threads[0].start()
    assert entered.wait(PATIENCE_S)
    threads[1].start()
    with budget.reserved(40):
        order.append("small")
    go_on.set()
    for thread in threads:
        thread.join()

    assert order == ["small", "first ends", "second begins"]


def test_a_fault_gives_the_bytes_back() -> None:
    budget = MemoryBudget(10)
    with pytest.raises(ValueError, match="broken"), budget.reserved(10):
        raise ValueError("broken")

    with budget.reserved(10):
        """There is room again."""


def test_the_need_follows_from_the_header() -> None:
    image = build_image()
    pixels = image.Rows * image.Columns * image.SamplesPerPixel

    assert bytes_needed(image) == pixels * BYTES_PER_PIXEL_BYTE
    assert bytes_needed(image, to_read=7) == pixels * BYTES_PER_PIXEL_BYTE + 7


@pytest.mark.parametrize("rows", [None, "many"])
def test_a_header_that_does_not_tell_needs_what_reading_takes(rows: object) -> None:
    header = Dataset()
    header.Columns = 10
    if rows is not None:
        header.__dict__["Rows"] = rows

    assert bytes_needed(header, to_read=7) == 7

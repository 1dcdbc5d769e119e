"""Places at once, alone when asked for, and nobody after it is closed."""

from __future__ import annotations

import threading

import pytest

from listener.workflow.analysis_slots import AnalysisSlots, ShuttingDown


def test_nobody_enters_a_closed_gate() -> None:
    gate = AnalysisSlots(1)
    gate.close()

    with pytest.raises(ShuttingDown), gate.entered():
        pass


def test_whoever_waits_is_sent_away_when_it_closes() -> None:
    gate, outcome = AnalysisSlots(1), []

    def come() -> None:
        try:
            with gate.entered():
                outcome.append("in")
        except ShuttingDown:
            outcome.append("sent away")

    with gate.entered():
        waiting = threading.Thread(target=come)
        waiting.start()
        gate.close()
        waiting.join()

    assert outcome == ["sent away"]


def test_whoever_comes_alone_waits_for_all_places_and_keeps_them() -> None:
    gate, inside = AnalysisSlots(2), []

    def come_alone() -> None:
        with gate.entered(exclusive=True):
            inside.append(gate._free)

    with gate.entered():
        alone = threading.Thread(target=come_alone)
        alone.start()
        assert inside == []
    alone.join()

    assert inside == [0]


def test_a_place_comes_free_also_after_an_error() -> None:
    gate = AnalysisSlots(1)
    with pytest.raises(ZeroDivisionError), gate.entered():
        raise ZeroDivisionError

    with gate.entered():
        pass

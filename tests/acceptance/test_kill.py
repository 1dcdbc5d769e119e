"""Nothing lost, nothing twice: the real service is killed at chosen steps while images flow.

The long set is test_chaos.py.
"""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.killable import POISON_SERIES_NUMBER
from tests.acceptance.killing import is_stored, trial, until
from tests.builders import build_image

LAST_STEP = 100
"""A life with one image in it has about a hundred steps, those of its start included."""

EVERY = 12


def test_nothing_is_lost_or_doubled_when_the_service_dies_at_any_step(tmp_path: Path) -> None:
    with trial(tmp_path) as killing:
        for step in range(1, LAST_STEP, EVERY):
            killing.die_at(step)

        verdict = killing.finish()

        print(verdict)
        assert (verdict.lost, verdict.duplicated) == (0, 0)
        assert verdict.images >= 3, "the trial was too short to show anything"
        assert verdict.kills >= 6, "the trial was too gentle to show anything"
        assert killing.leftovers() == []
        assert killing.audit_problems() == ()


def test_a_new_version_takes_up_what_a_killed_old_one_left(tmp_path: Path) -> None:
    """Rows and files of the old one are finished, and its reports are not sent a second time."""
    with trial(tmp_path) as killing:
        for step in range(45, LAST_STEP, 2 * EVERY):
            killing.die_at(step, software_version="0.0.1")

        verdict = killing.finish()

        print(verdict)
        assert (verdict.lost, verdict.duplicated) == (0, 0)
        assert verdict.kills >= 2, "the old version left nothing"
        assert killing.leftovers() == []
        assert killing.audit_problems() == ()


def test_an_image_that_ends_the_process_is_parked_and_holds_nobody_up(tmp_path: Path) -> None:
    with trial(tmp_path) as killing:
        poison = build_image(number=9000, series=POISON_SERIES_NUMBER)
        first = killing.start(most_starts=4)
        assert first.is_up()
        assert is_stored(poison, first.port or 0)
        first.wait()
        parked: list[str] = []
        while not parked:
            running = killing.start(most_starts=4)
            if running.is_up():
                killing.send(running.port) if not killing.acknowledged else None
                until(lambda life=running: life.is_dead or (life.ask("status") or (0, [1]))[1])
                parked = (running.ask("status") or (False, []))[1]
            running.stop()
            killing.kills += 1
            assert killing.kills < 20, "it goes on for ever"

        assert parked == ["crashed_repeatedly"]
        after = killing.start()
        assert after.is_up()
        until(lambda: (after.ask("status") or (False,))[0] and killing.verdict().lost == 0)
        after.stop()
        assert killing.verdict().duplicated == 0

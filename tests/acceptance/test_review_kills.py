"""A reviewer's process is killed at every step of writing an act: none is lost, none is doubled."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from listener.storage.reviews import ReviewLog
from pipeline.domain import Reviewer
from pipeline.findings.review import Act, CellKey, ReviewEvent

ACTS = 200
STEPS = ("fsync", "link", "unlink", "open", "mkdir", "rename")
"""Calls of the operating system that an act passes through; the kill comes before or after one."""


def an_act(name: str) -> ReviewEvent:
    return ReviewEvent(
        id=name,
        at=datetime(2026, 11, 28, tzinfo=UTC),
        reviewer=Reviewer(account="jm", name="J. Meyer"),
        act=Act.SEEN,
        cells=(CellKey("1.2.3:1:1"),),
    )


def die_at(step: int) -> None:
    """Let this process be killed at its `step`-th call of the operating system."""
    calls = count(1)

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any, **named: Any) -> Any:
            if next(calls) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            done = call(*arguments, **named)
            if next(calls) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return made

    for name in STEPS:
        setattr(os, name, dying(getattr(os, name)))


def write_and_die(folder: Path, name: str, seen: int, step: int) -> bool:
    """Have another process keep an act; True when it answered before it was killed."""
    child = os.fork()
    if child == 0:
        try:
            log = ReviewLog(folder / "review", tmp=folder / "tmp")
            die_at(step)
            log.append(an_act(name), seen_revision=seen)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - a child of the test must not go on as pytest
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFEXITED(status)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_no_act_is_lost_or_doubled_whatever_step_its_writer_dies_at(tmp_path: Path) -> None:
    chance = random.Random(18)  # noqa: S311 - a test that can be repeated
    kills = 0
    log = ReviewLog(tmp_path / "review", tmp=tmp_path / "tmp")

    for number in range(ACTS):
        seen = log.revision()
        answered = write_and_die(tmp_path, f"act-{number}", seen, chance.randint(1, 14))
        kills += not answered
        if answered:
            assert log.revision() == seen + 1
        while not answered:
            # The page did not hear back: it asks again for the same act on the page it has.
            answered = write_and_die(tmp_path, f"act-{number}", seen, chance.randint(1, 40))
            kills += not answered

    events = ReviewLog(tmp_path / "review", tmp=tmp_path / "tmp").events()
    assert [one.id for one in events] == [f"act-{number}" for number in range(ACTS)]
    assert [one.revision for one in events] == list(range(1, ACTS + 1))
    assert kills >= ACTS / 2

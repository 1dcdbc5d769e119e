"""kill -9 between a reviewer's click and the answer: no act is lost, none is kept or told twice."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.acceptance.conftest import LAST_LINE
from tests.acceptance.killed_reviews import Reviewer
from tests.acceptance.killing import trial

SEED = 20261128
FEW = 3


def review_under_kills(tmp_path: Path, kills: int) -> str:
    """Review until so many processes were killed; the count in words."""
    with trial(tmp_path) as killing:
        killing.most_starts = 1000
        rosa = Reviewer(killing, random.Random(SEED))  # noqa: S311 - a run can be run again
        rosa.prepare()
        while killing.kills < kills:
            rosa.work_until_killed(rosa.kill_at_random)
        rosa.finish()

        lost, doubled = rosa.lost(), rosa.doubled()
        words = (
            f"acts {len(rosa.clicked)}, kills {killing.kills}, of these before the answer "
            f"{rosa.without_answer}, lost {len(lost)}, doubled {len(doubled)}"
        )
        assert (lost, doubled, rosa.untold()) == ([], [], []), words
        assert set(rosa.confirmed) == set(rosa.clicked)
        assert killing.audit_problems() == ()
        assert [path for path in killing.leftovers() if path.suffix == ".json"] == []
    return words


def test_no_act_is_lost_or_doubled_when_the_service_dies_before_it_answers(tmp_path: Path) -> None:
    print(review_under_kills(tmp_path, FEW))


@pytest.mark.chaos
def test_no_act_is_lost_or_doubled_over_many_kills(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    words = review_under_kills(tmp_path, int(request.config.getoption("--kills")))

    request.config.stash[LAST_LINE] = words

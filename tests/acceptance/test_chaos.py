"""The long durability runs: `make chaos KILLS=200`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.acceptance.conftest import LAST_LINE
from tests.acceptance.counting_peers import every_peer
from tests.acceptance.killing import Trial, trial

SEED = 20261124
LONGEST_LIFE_S = 3.0
STEPS_BETWEEN = 3
CALM = 3
"""So many lives in a row that end before their step: there is no later one."""

pytestmark = pytest.mark.chaos


def test_nothing_is_lost_or_doubled_whenever_the_service_is_killed(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Killed once at every step there is, then KILLS times at random; the last line counts."""
    kills = int(request.config.getoption("--kills"))
    moments = random.Random(SEED)  # noqa: S311 - a seed, so that a bad run can be run again
    with trial(tmp_path) as killing:
        killing.most_starts = 1000
        _die_at_every_step(killing)
        at_steps = killing.kills
        print(f"\n{at_steps} kills, one at every step; {kills} at random moments follow")
        while killing.kills < at_steps + kills:
            killing.die_after(moments.uniform(0.0, LONGEST_LIFE_S))

        verdict = killing.finish()

        request.config.stash[LAST_LINE] = str(verdict)
        assert (verdict.lost, verdict.duplicated) == (0, 0)
        assert killing.leftovers() == []
        assert killing.audit_problems() == ()


def test_every_kind_of_destination_gets_everything_once_whenever_the_service_is_killed(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Storage commitment, STOW-RS, MLLP, FHIR, a folder and the audit repository together.

    The PACS reports on commitment also to a service that is dead, until another life answers.
    """
    kills = int(request.config.getoption("--kills"))
    moments = random.Random(SEED + 1)  # noqa: S311 - a seed, so that a bad run can be run again
    with every_peer(tmp_path) as everyone, trial(tmp_path, everyone=everyone) as killing:
        killing.most_starts = 1000
        for step in range(1, kills * STEPS_BETWEEN, STEPS_BETWEEN):
            killing.die_at(step)
        at_steps = killing.kills
        for _ in range(max(1, kills // 4)):
            killing.die_before_the_report()
            killing.die_after(moments.uniform(0.0, LONGEST_LIFE_S))
        while killing.kills < at_steps + kills:
            killing.die_after(moments.uniform(0.0, LONGEST_LIFE_S))

        verdict = killing.finish()

        pacs = everyone.pacs
        print(
            f"\n{verdict}; {at_steps} kills at a step; {pacs.requests} commitment requests, "
            f"{pacs.tried_in_vain} reports met a dead service, {len(pacs.unknown)} were refused, "
            f"{killing.open_commitments()} requests of dead deliveries will be swept"
        )
        assert (verdict.lost, verdict.duplicated) == (0, 0)
        assert killing.not_forwarded() == 0
        assert killing.leftovers() == []
        assert killing.audit_problems() == ()


def _die_at_every_step(killing: Trial) -> None:
    step, calm = 1, 0
    while calm < CALM:
        calm = 0 if killing.die_at(step) else calm + 1
        step += 1

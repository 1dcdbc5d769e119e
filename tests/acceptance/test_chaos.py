"""The long durability runs: `make chaos KILLS=200`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.acceptance.killing import trial

SEED = 20261124
LAST_STEP = 110
LONGEST_LIFE_S = 1.5

pytestmark = pytest.mark.chaos


def test_nothing_is_lost_or_doubled_whenever_the_service_is_killed(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Half of the kills at each step in turn, half at random moments; the last line counts."""
    kills = int(request.config.getoption("--kills"))
    moments = random.Random(SEED)  # noqa: S311 - a seed, so that a bad run can be run again
    with trial(tmp_path) as killing:
        step = 0
        while killing.kills < kills // 2:
            step = step % LAST_STEP + 1
            killing.die_at(step)
        while killing.kills < kills:
            killing.die_after(moments.uniform(0.0, LONGEST_LIFE_S))

        verdict = killing.finish()

        print(f"\n{verdict}")
        assert (verdict.lost, verdict.duplicated) == (0, 0)
        assert killing.leftovers() == []
        assert killing.audit_problems() == ()

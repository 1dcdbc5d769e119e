"""What a long durability run has to say comes last, after pytest's own summary."""

from __future__ import annotations

import pytest

LAST_LINE = pytest.StashKey[str]()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Print the count of `make chaos` as the last line."""
    if LAST_LINE in config.stash:
        print(config.stash[LAST_LINE])

"""Fixtures of the listener's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dbos import _workflow_commands

from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="session", autouse=True)
def _delayed_work_is_soon_looked_for() -> Iterator[None]:
    """DBOS does so once a second, which would make most of many a test's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_workflow_commands, "_BACKGROUND_JOBS_INTERVAL_SEC", 0.1)
        yield


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """A folder with a model of a few kilobytes, in order."""
    return write_tiny_model(tmp_path / "model")

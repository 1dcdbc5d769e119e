"""Fixtures of the listener's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_model import write_tiny_model


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """A folder with a model of a few kilobytes, in order."""
    return write_tiny_model(tmp_path / "model")

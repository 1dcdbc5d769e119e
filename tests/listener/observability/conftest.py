"""The log of these tests, in each of its formats."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
import structlog

from listener.observability.logging_setup import LogFormat, set_up_logging


@pytest.fixture(params=["json", "text"])
def log(request: pytest.FixtureRequest) -> Iterator[tuple[LogFormat, io.StringIO]]:
    """The log in both formats; everything is put back afterwards."""
    root = logging.getLogger()
    before = (root.handlers, root.level)
    stream = io.StringIO()
    set_up_logging("info", request.param, stream)
    yield request.param, stream
    root.handlers, root.level = before
    structlog.reset_defaults()

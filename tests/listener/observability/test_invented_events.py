"""Every event that is logged is one line that a terminal and a collector can take."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pytest

from listener.observability.event_log import LOGGED, LoggedAudit
from listener.observability.logging_setup import LogFormat, get_log
from reporting.audit.trail import Event
from tests.fakes import RecordingAudit


@pytest.mark.invented(kind=24)
@pytest.mark.parametrize("event", sorted(LOGGED))
def test_an_event_that_says_nothing_more_is_one_line(
    event: Event, log: tuple[LogFormat, io.StringIO]
) -> None:
    _, stream = log

    LoggedAudit(RecordingAudit()).record(event)

    assert len(stream.getvalue().splitlines()) == 1


VALUES: Mapping[str, dict[str, Any]] = {
    "line-end": {"destination": "pacs\nerror   forged line"},
    "carriage-return": {"destination": "pacs\rforged"},
    "terminal-colors": {"destination": "\x1b[31mpacs"},
    "other-script": {"destination": "病院"},
    "half-a-character": {"destination": "\udcff"},
    "no-code": {"destination": "pacs", "code": ""},
    "no-destination": {"code": "no_answer"},
    "a-number-without-end": {"destination": "pacs", "delay_s": float("inf")},
    "no-number": {"destination": "pacs", "delay_s": float("nan")},
    "very-long": {"destination": "p" * 10_000},
    "what-is-not-shown": {"patient_name": "Leakov", "destination": "pacs"},
    "brackets": {"destination": "[bold]{0}%s"},
}


@pytest.mark.invented(kind=24)
@pytest.mark.parametrize("name", VALUES)
def test_no_value_breaks_a_line(name: str, log: tuple[LogFormat, io.StringIO]) -> None:
    log_format, stream = log

    get_log("listener.events").warning("delivery_postponed", **VALUES[name])

    lines = stream.getvalue().split("\n")
    assert len([line for line in lines if line]) == 1
    assert "\x1b" not in lines[0]
    assert "\r" not in lines[0]
    assert "Leakov" not in lines[0]
    assert lines[0].encode("utf-8")
    if log_format == "json":
        assert json.loads(lines[0])["event"] == "delivery_postponed"

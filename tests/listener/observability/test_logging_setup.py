"""The log says what happened and where, and never whom it was about."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from listener.observability.logging_setup import adopt_library_loggers, get_log, set_up_logging

NAME = "MUSTERMANN^ERIKA"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """The log of the service; everything is put back afterwards."""
    root = logging.getLogger()
    before = (root.handlers, root.level, sys.excepthook, threading.excepthook)
    text = io.StringIO()
    set_up_logging("debug", "json", text)
    yield text
    root.handlers, root.level, sys.excepthook, threading.excepthook = before
    logging.captureWarnings(False)
    logging.raiseExceptions = True
    structlog.reset_defaults()


def fail(kind: type[Exception]) -> None:
    raise kind(NAME)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_fields_that_are_not_listed_are_withheld(stream: io.StringIO) -> None:
    get_log("listener.test").info("image_received", patient=NAME, study_uid=NAME, count=3)

    line = lines(stream)[0]
    assert (line["patient"], line["study_uid"], line["count"]) == ("withheld", "withheld", 3)


def test_an_event_that_is_a_sentence_is_withheld(stream: io.StringIO) -> None:
    get_log("listener.test").info(f"received {NAME}")

    assert lines(stream)[0]["event"] == "withheld"


def test_an_error_shows_its_type_and_way_but_not_its_text(stream: io.StringIO) -> None:
    try:
        fail(ValueError)
    except ValueError:
        get_log("listener.test").exception("defect_met")

    line = lines(stream)[0]
    assert line["error_type"] == "ValueError"
    assert line["trace"][-1].startswith("test_logging_setup.py:")
    assert NAME not in stream.getvalue()


def test_of_a_library_only_place_and_level_are_told(stream: io.StringIO) -> None:
    library = logging.getLogger("pynetdicom.acse")

    library.debug(f"dataset {NAME}")
    library.warning("dataset %s", NAME)
    try:
        fail(KeyError)
    except KeyError:
        library.exception(NAME, extra={"patient": NAME}, stack_info=True)

    told = lines(stream)
    assert [line["level"] for line in told] == ["warning", "error"]
    assert told[0]["where"].startswith("test_logging_setup.py:")
    assert told[1]["error_type"] == "KeyError"
    assert NAME not in stream.getvalue()


def test_a_line_that_a_library_formats_wrongly_shows_nothing(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("pydicom").warning("%d %d", NAME)

    assert NAME not in stream.getvalue() + capsys.readouterr().err


def test_a_library_that_brings_its_own_handler_loses_it(stream: io.StringIO) -> None:
    own = io.StringIO()
    library = logging.getLogger("dbos")
    library.addHandler(logging.StreamHandler(own))
    library.propagate = False

    adopt_library_loggers()
    library.warning(NAME)

    assert own.getvalue() == ""
    assert lines(stream)[0]["logger"] == "dbos"


def test_warnings_go_to_the_log_without_their_text(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn(f"Invalid value: {NAME!r}", stacklevel=1)

    assert lines(stream)[0]["logger"] == "py.warnings"
    assert NAME not in stream.getvalue() + capsys.readouterr().err


def test_what_ends_a_thread_or_the_process_is_told_without_its_text(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    thread = threading.Thread(target=fail, args=(RuntimeError,))
    thread.start()
    thread.join()
    try:
        fail(RuntimeError)
    except RuntimeError as err:
        sys.excepthook(RuntimeError, err, err.__traceback__)

    told = lines(stream)
    assert [line["event"] for line in told] == ["thread_ended_by_error", "process_ended_by_error"]
    assert NAME not in stream.getvalue() + capsys.readouterr().err


def test_people_get_text_and_machines_json() -> None:
    text = io.StringIO()
    before = logging.getLogger().handlers
    set_up_logging("info", "text", text)
    get_log("listener.test").info("web_started", port=8104)
    logging.getLogger().handlers = before
    structlog.reset_defaults()

    assert "web_started" in text.getvalue()
    assert not text.getvalue().startswith("{")

"""The service's log: structlog for us and for every library, and an allow-list for all.

JSON lines for machines, sentences on a terminal.

A line says what happened, where in the code, with ids and numbers; never what a dataset, a
message or an exception held, because nobody can know whether that names a patient. So of a
library's line only its place, its level and the kind of its error are written, and of a warning
the same. What a field may hold is what `reporting.audit.schema` allows.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from types import TracebackType
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from reporting.audit.schema import FIELDS, WORD

LogFormat = Literal["auto", "json", "text"]
QUIET = (
    "pynetdicom",
    "pydicom",
    "dbos",
    "httpx",
    "httpcore",
    "sqlalchemy",
    "uvicorn",
    "py.warnings",
)
"""Libraries whose lines below WARNING are left out."""
SILENT = ("uvicorn.access",)
"""Whose every line would hold a path or a query."""
WITHHELD = "withheld"
_OWN = ("event", "level", "logger", "time", "where", "trace", "error_type")


def set_up_logging(
    level: str, log_format: LogFormat = "auto", stream: TextIO | None = None
) -> None:
    """Route everything that is logged in this process to `stream` (standard error).

    Also warnings, and what ends a thread or the process, none of which may show what it held.
    """
    stream = stream or sys.stderr
    renderer = _renderer(log_format, stream)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                _stamp,
                _place_of_library,
                _drop_texts_of_error,
                keep_allowed,
                _drop_meta,
                renderer,
            ],
            keep_exc_info=True,
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    # Where a library formats its line wrongly, logging would print the arguments by itself.
    logging.raiseExceptions = False
    adopt_library_loggers()
    sys.excepthook = _log_uncaught
    threading.excepthook = _tell_end_of_thread
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            _place_of_error,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def adopt_library_loggers() -> None:
    """Take away the handlers that libraries gave themselves; call again after one was started."""
    known = list(logging.Logger.manager.loggerDict)
    for name in {*QUIET, *SILENT, *(name for name in known if name.startswith(QUIET))}:
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
        logger.disabled = name in SILENT
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def get_log(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for our own events: `get_log("listener.web.app").info("web_started", port=8104)`."""
    log: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return log


def keep_allowed(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Withhold every field that is not listed, or that does not look like what it should hold."""
    return {name: value if _is_allowed(name, value) else WITHHELD for name, value in fields.items()}


def _is_allowed(name: str, value: Any) -> bool:
    if name == "event":
        return WORD.accepts(value)
    if name in (*_OWN, "_record", "_from_structlog"):
        return True
    rule = FIELDS.get(name)
    return rule is not None and rule.accepts(value)


SENTENCES: Mapping[str, str] = {
    "listening": "listening for {protocol} on port {port}",
    "model_loaded": "network loaded, runs on {execution_provider}",
    "service_started": "started as worker {worker_id}",
    "service_stopped": "stopped",
    "settings_reloaded": "settings reloaded: {count} destinations",
    "settings_refused": "settings not reloaded, the old ones stay: {code}",
    "worker_taken_over": "jobs of the dead worker {worker_id} are queued again",
    "association_rejected": "association rejected: {code}",
    "image_received": "image received: {sop_instance_uid}",
    "image_received_again": "image received again, nothing to do: {sop_instance_uid}",
    "image_refused": "image refused: {code}",
    "image_parked": "image parked: {code} ({sop_instance_uid})",
    "image_deleted": "image deleted: {code} ({sop_instance_uid})",
    "smear_reported": "smear reported: version {version}, {count} results ({smear_id})",
    "smear_parked": "smear not reported, parked: {code} ({smear_id})",
    "report_delivered": "delivered to {destination}: {count} results of v{version} ({smear_id})",
    "delivery_postponed": "delivery to {destination} postponed by {delay_s} s: {code} ({smear_id})",
    "delivery_parked": "delivery to {destination} parked: {code} ({smear_id})",
    "commitment_received": "{destination} reported on storage commitment ({smear_id})",
    "commitment_overdue": "storage commitment of {destination} parked: {code} ({smear_id})",
    "defect_met": "defect in smearlink: {error_type}; see the audit trail",
}
"""What a terminal shows of an event; of others it shows name and fields."""


def render_text(_logger: WrappedLogger, _method: str, fields: EventDict) -> str:
    """One line for people: time, level and what happened."""
    moment, level = str(fields.pop("time", ""))[:19].replace("T", " "), fields.pop("level", "")
    event = str(fields.pop("event", ""))
    names = [name for _, name, _, _ in Formatter().parse(SENTENCES.get(event, "")) if name]
    if event in SENTENCES and all(name in fields for name in names):
        said = SENTENCES[event].format(**fields)
    else:
        said = " ".join([event, *(f"{name}={value}" for name, value in fields.items())])
    return f"{moment} {level:<8}{said}"


def _renderer(log_format: LogFormat, stream: TextIO) -> structlog.typing.Processor:
    is_terminal = stream.isatty()
    if log_format == "text" or (log_format == "auto" and is_terminal):
        return render_text
    return structlog.processors.JSONRenderer()


_stamp = structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")


def _place_of_error(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Of an exception keep its type and the lines it came through, not its text."""
    error = fields.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    elif isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        fields.update(describe_error(error))
    return fields


def describe_error(error: BaseException) -> dict[str, Any]:
    """The type of an error and its way through the code, innermost last."""
    frames = traceback.extract_tb(error.__traceback__)
    trace = [f"{Path(frame.filename).name}:{frame.lineno}:{frame.name}" for frame in frames]
    return {"error_type": type(error).__name__, "trace": trace[-12:]}


def _place_of_library(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Of a library's line keep who wrote it, where and how grave it is, not its words."""
    if fields.get("_from_structlog"):
        return fields
    record: logging.LogRecord = fields["_record"]
    told: EventDict = {
        "event": "library_told",
        "level": record.levelname.lower(),
        "logger": record.name,
        "where": f"{Path(record.pathname).name}:{record.lineno}",
        "time": fields["time"],
        "_record": record,
        "_from_structlog": False,
    }
    if record.exc_info and record.exc_info[1] is not None:
        told.update(describe_error(record.exc_info[1]))
    return told


def _drop_texts_of_error(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """The formatter would put the text of the error and the stack under the line by itself."""
    record: logging.LogRecord = fields["_record"]
    record.exc_info = record.exc_text = record.stack_info = None
    return fields


_drop_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    get_log("listener").critical("process_ended_by_error", exc_info=error.with_traceback(trace))


def _tell_end_of_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        get_log("listener").error("thread_ended_by_error", exc_info=args.exc_value)

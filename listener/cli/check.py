"""`smearlink check`: checks settings, model and destinations without sending anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from config.model import Settings
from listener.queue.client import QueueClient
from listener.queue.database import check_database_is_there
from listener.service import load_classifier, load_segmenter, syslog_receiver
from listener.storage.inbox import Inbox
from listener.workflow.destinations import make_destination_queues, parse_rules
from pipeline.errors import Rejected, RetryLater, SmearlinkError
from reporting.delivery.routing.rules import RuleMatch, Verdict, explain, facts_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result of one check."""

    name: str
    is_good: bool
    said: str

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteExplanation:
    """Where the results of one image would go, and why."""

    matches: tuple[RuleMatch, ...]
    certain: tuple[str, ...]
    possible: tuple[str, ...]
    """Those that depend on what the analysis finds."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def check_all(settings: Settings) -> list[Check]:
    """Settings (read already), model, data folder, database, and every destination in turn."""
    checks = [Check(name="settings", is_good=True, said="read and understood")]
    checks.append(_checked("model", lambda: _model_line(settings)))
    checks.append(_checked("cell finder", lambda: f"sha256 {load_segmenter().sha256}"))
    checks.append(_checked("data folder", lambda: _inbox_line(settings)))
    checks.append(_checked("queue", lambda: _queue_line(settings)))
    checks.append(_checked("routes", lambda: f"{len(parse_rules(settings.routes))} understood"))
    destinations = make_destination_queues(settings.destinations)
    checks += [_checked(f"destination {one.name}", one.destination.check) for one in destinations]
    if settings.audit.syslog.enabled:
        checks.append(_checked("audit repository", syslog_receiver(settings).check))
    return checks


def explain_route(settings: Settings, file: Path, *, calling_ae: str) -> RouteExplanation:
    """Evaluate every route for one DICOM file; raises Rejected `not_dicom` for other files."""
    try:
        header = dcmread(file, stop_before_pixels=True)
    except (OSError, InvalidDicomError) as err:
        raise Rejected(f"{file} is not a DICOM file", code="not_dicom") from err
    rules = parse_rules(settings.routes)
    names = [one.name for one in settings.destinations]
    if not rules:
        return RouteExplanation(matches=(), certain=tuple(names), possible=())
    matches = explain(
        rules, facts_of(rules, [header], calling_aes=[calling_ae] if calling_ae else [])
    )
    certain = _targets(matches, Verdict.MATCHES, names)
    possible = [name for name in _targets(matches, Verdict.DEPENDS, names) if name not in certain]
    return RouteExplanation(matches=tuple(matches), certain=certain, possible=tuple(possible))


def _targets(
    matches: Sequence[RuleMatch], verdict: Verdict, names: Sequence[str]
) -> tuple[str, ...]:
    chosen = {to for match in matches if match.verdict is verdict for to in match.to}
    return tuple(name for name in names if name in chosen)


def _checked(name: str, look: Callable[[], str]) -> Check:
    """Error boundary of one check: its line, or the message of the error."""
    try:
        return Check(name=name, is_good=True, said=look())
    except SmearlinkError as err:
        return Check(name=name, is_good=False, said=err.message)
    except Exception as err:  # noqa: BLE001 - a boundary; shown
        return Check(name=name, is_good=False, said=f"could not be checked ({type(err).__name__})")


def _model_line(settings: Settings) -> str:
    one = load_classifier(settings).identity
    calibration = (
        f"{one.calibration.in_words}, sha256 {one.calibration.sha256}"
        if one.calibration
        else "not calibrated for this laboratory"
    )
    return (
        f"{one.name} {one.version}, sha256 {one.sha256}, runs on {one.execution_provider}, "
        f"{calibration}"
    )


def _inbox_line(settings: Settings) -> str:
    Inbox(settings.data_dir / "inbox").check_free_space()
    return f"{settings.data_dir} can be written"


def _queue_line(settings: Settings) -> str:
    """Without leaving an empty SQLite file that later looks like a broken queue."""
    try:
        check_database_is_there(settings.database_url)
    except RetryLater:
        return "SQLite, made at the first start"
    inbox = Inbox(settings.data_dir / "inbox")
    QueueClient(settings.database_url, inbox=inbox, gather_by=settings.smear.gather_by).close()
    return "answers"

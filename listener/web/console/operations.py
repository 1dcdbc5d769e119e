"""The Operations page: what waits, what was parked and why, destinations, disk, workers."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from listener.queue.status import ParkedWork, WorkflowStatus
from listener.web.console.audit_index import AuditIndex
from listener.web.console.gate import actor_of
from listener.web.console.layout import Layout
from listener.web.console.sessions import Visitor
from pipeline.domain import ModelIdentity
from pipeline.errors import SmearlinkError
from reporting.audit.trail import AuditSink, Event, Outcome

MOST_PARKED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOutcome:
    """One thing that was looked at."""

    name: str
    is_good: bool
    said: str


class OperationsPages:
    """`/operations` and what can be done there."""

    def __init__(
        self,
        *,
        read_status: Callable[[], WorkflowStatus],
        retry: Callable[[str], int],
        checks: Mapping[str, Callable[[], None]],
        destination_checks: Callable[[], Mapping[str, Callable[[], str]]],
        free_bytes: Callable[[], int],
        trail: AuditIndex,
        layout: Layout,
        audit: AuditSink,
        software_version: str,
        model: ModelIdentity,
    ) -> None:
        self._read_status, self._retry = read_status, retry
        self._checks, self._destination_checks = checks, destination_checks
        self._free_bytes, self._trail = free_bytes, trail
        self._layout, self._audit = layout, audit
        self._software_version, self._model = software_version, model

    async def show(self, request: Request, visitor: Visitor) -> Response:
        """The page; `?taken=N` says how much was taken up again."""
        taken = request.query_params.get("taken", "")
        told = f"{int(taken)} taken up again." if taken.isdigit() and len(taken) < 7 else ""
        return await run_in_threadpool(self._page, visitor, None, told)

    async def retry(self, request: Request, visitor: Visitor) -> Response:
        """Take parked work up again, and record who did."""
        form = await request.form()
        key = str(form.get("key", ""))

        def again() -> int:
            parked = next((one for one in self._read_status().parked if one.key == key), None)
            if parked is None:
                return 0
            count = self._retry(key)
            self._audit.record(
                Event.WORK_RETRIED,
                actor=actor_of(request, visitor),
                code=parked.code,
                count=count,
                **_about(parked),
            )
            return count

        count = await run_in_threadpool(again)
        return RedirectResponse(f"/operations?taken={count}", status_code=303)

    async def test(self, request: Request, visitor: Visitor) -> Response:
        """Ask a destination whether it is there: C-ECHO, FHIR capability, MLLP connect."""
        form = await request.form()
        name = str(form.get("destination", ""))
        check = self._destination_checks().get(name)
        if check is None:
            return self._layout.problem(request, 404, "no_such_file", visitor=visitor)
        outcome = await run_in_threadpool(_checked, name, check)
        self._audit.record(
            Event.DESTINATION_TESTED,
            actor=actor_of(request, visitor),
            outcome=Outcome.SUCCESS if outcome.is_good else Outcome.MINOR_FAILURE,
            destination=name,
        )
        return await run_in_threadpool(self._page, visitor, outcome, "")

    def _page(self, visitor: Visitor, tested: CheckOutcome | None, told: str) -> Response:
        status = self._status()
        last = self._trail.last_success()
        return self._layout.page(
            "operations.html",
            visitor,
            status=200,
            work=status,
            parked=status.parked[:MOST_PARKED] if status else (),
            parked_count=len(status.parked) if status else 0,
            checks=[_checked(name, check) for name, check in self._checks.items()],
            destinations=[(name, _moment(last.get(name))) for name in self._destination_checks()],
            tested=tested,
            told=told,
            free_bytes=self._free_bytes(),
            versions={
                "smearlink": self._software_version,
                "network": f"{self._model.name} {self._model.version}",
                "network SHA-256": self._model.sha256,
                "calibration": self._model.calibration.described
                if self._model.calibration
                else "not calibrated for this laboratory",
                "runs on": self._model.execution_provider,
                "Python": platform.python_version(),
            },
        )

    def _status(self) -> WorkflowStatus | None:
        try:
            return self._read_status()
        except SmearlinkError:
            return None


def _about(parked: ParkedWork) -> dict[str, Any]:
    named = {
        "sop_instance_uid": parked.sop_instance_uid,
        "smear_id": parked.smear_id,
        "destination": parked.destination,
    }
    return {name: value for name, value in named.items() if value}


def _checked(name: str, check: Callable[[], object]) -> CheckOutcome:
    """The boundary of a check: what it said, or the message of what went wrong."""
    try:
        said = check()
    except SmearlinkError as err:
        return CheckOutcome(name=name, is_good=False, said=err.message)
    except Exception as err:  # noqa: BLE001 - a boundary; shown
        return CheckOutcome(name=name, is_good=False, said=type(err).__name__)
    return CheckOutcome(name=name, is_good=True, said=str(said or "ok"))


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None

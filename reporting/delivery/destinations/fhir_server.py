"""A transaction Bundle to a FHIR server, and what its answer means (FHIR R4 http.html#transaction).

Our ids are our own and every entry is a PUT, so that posting twice changes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reporting.delivery import DeliveryPostponed, DeliveryRefused, Receipt, Refusal
from reporting.delivery.outcome import deliver_each
from reporting.delivery.transport.http_client import Answer, Body, HttpEndpoint, raise_for_status
from reporting.delivery.transport.oauth import TokenCache
from reporting.delivery.transport.tls import TlsFiles
from reporting.outgoing import outgoing
from reporting.results import Result, ResultKind

FHIR_JSON = "application/fhir+json"
CONFLICT = 409
"""Another writer was at the same resource: the same request may pass later."""
PRECONDITION_FAILED = 412
UNPROCESSABLE = 422
MAX_ISSUES = 10
SEVERITIES = frozenset({"fatal", "error", "warning", "information"})
ISSUE_CODES = frozenset(
    {
        *("invalid", "structure", "required", "value", "invariant", "security", "login"),
        *("unknown", "expired", "forbidden", "suppressed", "processing", "not-supported"),
        *("duplicate", "multiple-matches", "not-found", "deleted", "too-long", "code-invalid"),
        *("extension", "too-costly", "business-rule", "conflict", "transient", "lock-error"),
        *("no-store", "exception", "timeout", "incomplete", "throttled", "informational"),
    }
)
"""http://hl7.org/fhir/R4/valueset-issue-severity.html and valueset-issue-type.html"""
PATH_PART = re.compile(r"\.?([A-Za-z]{1,40})(\[\d{1,4}\])?")
"""One step of where the fault lies: an element's name and position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FhirDestination:
    """An EHR's or registry's FHIR endpoint."""

    name: str
    url: str
    """The base URL, with or without a slash at its end."""
    kinds: frozenset[ResultKind] = frozenset({ResultKind.FHIR_BUNDLE})
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 30.0
    tokens: TokenCache | None = None
    tls: TlsFiles | None = None

    def deliver(self, results: Sequence[Result]) -> Receipt:
        """Post each Bundle."""
        return deliver_each(outgoing(results, self.kinds), self._post)

    def check(self) -> str:
        """The server's CapabilityStatement: its FHIR version, and whether it takes transactions."""
        answer = self._end.send("GET", f"{self._base}/metadata", headers={"Accept": FHIR_JSON})
        raise_for_status(self.name, answer)
        statement = _resource_in(answer)
        if statement.get("resourceType") != "CapabilityStatement":
            raise DeliveryRefused(
                f"{self.name} shows no CapabilityStatement at its base URL: check the URL.",
                code="wrong_address",
            )
        version = str(statement.get("fhirVersion", "of unknown version"))[:20]
        takes = "takes" if "transaction" in _system_interactions(statement) else "does not declare"
        return f"FHIR {version}, {takes} transactions"

    @property
    def _base(self) -> str:
        return self.url.rstrip("/")

    @property
    def _end(self) -> HttpEndpoint:
        return HttpEndpoint(
            name=self.name,
            timeout_s=self.timeout_s,
            headers=self.headers,
            tokens=self.tokens,
            tls=self.tls,
        )

    def _post(self, result: Result) -> str:
        answer = self._end.send(
            "POST",
            self._base,
            headers={
                "Content-Type": FHIR_JSON,
                "Accept": FHIR_JSON,
                "Prefer": "return=minimal",
            },
            body=Body.of(result.content),
        )
        return _judged(self.name, result, answer)


def _judged(name: str, result: Result, answer: Answer) -> str:
    """A remark for the audit, mostly empty, when the whole Bundle was taken; raises otherwise."""
    raise_for_status(name, answer)
    if answer.status == CONFLICT:
        raise DeliveryPostponed(
            f"{name}: another writer holds one of the resources (409).", code="fhir_conflict"
        )
    if answer.status == PRECONDITION_FAILED:
        raise _refusal(name, result, answer, "a precondition does not hold", "fhir_precondition")
    if answer.status == UNPROCESSABLE:
        raise _refusal(name, result, answer, "it breaks the server's rules", "fhir_unprocessable")
    if not answer.is_success:
        raise _refusal(name, result, answer, "it was refused", f"http_{answer.status}")
    return _taken_whole(name, result, answer)


def _taken_whole(name: str, result: Result, answer: Answer) -> str:
    """Success may still hold refused entries, where a server does not know transactions."""
    if not answer.body.strip():
        return ""
    said = _resource_in(answer)
    if said.get("resourceType") == "OperationOutcome":
        return "; ".join(_issues_in(said, _words_sent(result)))
    if said.get("resourceType") != "Bundle":
        raise DeliveryPostponed(
            f"{name} answers with something else than FHIR: is a proxy or log-in page between?",
            code="answer_not_understood",
        )
    refused = [status for status in _entry_statuses(said) if not status.startswith(("2", "304"))]
    if refused:
        raise DeliveryRefused(
            f"{name} took only part of the Bundle ({', '.join(sorted(set(refused)))}): "
            "it does not treat it as a transaction.",
            code="fhir_partly_taken",
            refused=(Refusal(uid=result.uid, status=refused[0], reason="entries refused"),),
        )
    return ""


def _refusal(name: str, result: Result, answer: Answer, why: str, code: str) -> DeliveryRefused:
    issues = (
        "; ".join(_issues_in(_resource_in(answer), _words_sent(result)))
        or "the server gave no coded reason"
    )
    return DeliveryRefused(
        f"{name}: {why} ({answer.status}): {issues}.",
        code=code,
        refused=(Refusal(uid=result.uid, status=str(answer.status), reason=issues),),
    )


def _issues_in(outcome: dict[str, Any], words: frozenset[str]) -> list[str]:
    """Severity, code and place of each issue; free text may repeat a name and is left out."""
    issues = outcome.get("issue")
    if outcome.get("resourceType") != "OperationOutcome" or not isinstance(issues, list):
        return []
    return [_issue(one, words) for one in issues[:MAX_ISSUES] if isinstance(one, dict)]


def _issue(issue: dict[str, Any], words: frozenset[str]) -> str:
    said = [str(issue.get("severity", "")), str(issue.get("code", ""))]
    known = [word for word in said if word in SEVERITIES | ISSUE_CODES]
    places = [*_texts(issue.get("expression")), *_texts(issue.get("location"))]
    found = [place for place in (_place(text, words) for text in places) if place]
    return " ".join([*known, *([f"at {found[0]}"] if found else [])]) or "an issue without a code"


def _place(text: str, words: frozenset[str]) -> str:
    """The path as far as it is made of element names that we sent: a name can look like one."""
    end = 0
    while (part := PATH_PART.match(text, end)) and part[1] in words:
        end = part.end()
    return text[:end]


def _words_sent(result: Result) -> frozenset[str]:
    """Element names and resource types of the Bundle, and nothing that was put into them."""
    words: set[str] = set()
    left: list[Any] = [json.loads(result.content)]
    while left:
        match left.pop():
            case dict() as element:
                words |= {*element, str(element.get("resourceType", ""))}
                left += element.values()
            case list() as members:
                left += members
    return frozenset(words)


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _resource_in(answer: Answer) -> dict[str, Any]:
    """The resource of an answer, empty when it holds none."""
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _entry_statuses(bundle: dict[str, Any]) -> Iterator[str]:
    """The HTTP status that leads each `entry.response.status`; `none` where there is none."""
    entries = bundle.get("entry")
    for entry in entries if isinstance(entries, list) else ():
        response = entry.get("response") if isinstance(entry, dict) else None
        status = str(response.get("status", "")) if isinstance(response, dict) else ""
        yield status[:3] if status[:3].isdigit() else "none"


def _system_interactions(statement: dict[str, Any]) -> set[str]:
    return {
        str(interaction.get("code"))
        for rest in statement.get("rest") or ()
        for interaction in rest.get("interaction") or ()
    }

"""Posts transaction Bundles to a FHIR server and reads its answers (FHIR R4 http.html#transaction).

A Bundle counts as delivered when the answer says so of each of its entries, not by the HTTP status
alone. Ids are our own and every entry is a PUT, so that posting twice changes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from reporting.delivery import DeliveryPostponed, DeliveryRefused, Receipt, Refusal
from reporting.delivery.destinations.fhir_attachments import Binary, Placement, fit_attachments
from reporting.delivery.outcome import deliver_each
from reporting.delivery.transport.answer_xml import resource_of_xml
from reporting.delivery.transport.http_client import Answer, Body, HttpEndpoint, raise_for_status
from reporting.delivery.transport.oauth import TokenCache
from reporting.delivery.transport.tls import TlsFiles
from reporting.research_label import check_labels
from reporting.results import Result, ResultKind

FHIR_JSON = "application/fhir+json"
ACCEPTED = 202
"""Queued, which is not done: FHIR's asynchronous pattern is never asked for."""
CONFLICT = 409
"""Another writer was at the same resource: the same request may pass later."""
CONFLICTS = (
    "one of the resources conflicts with what the server holds: another writer is at it, "
    "or it was deleted there and has to be restored or expunged"
)
CONFLICT_PERSISTS = "fhir_conflict_persists"
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
REMARKS = frozenset({"warning", "information", "success"})
"""Severities of what was taken nevertheless; any other, or none, is a failure."""
PASSING_STATUSES = frozenset({"408", "409", "425", "429", "500", "502", "503", "504"})
"""Of an entry that may be taken at the next try."""
TRANSIENT = frozenset(
    {"transient", "lock-error", "no-store", "exception", "timeout", "incomplete", "throttled"}
)
"""Issue types that may pass: `transient` and its children."""
BYTE_ORDER_MARK = "\ufeff".encode()
STATUS = re.compile(r"\s*(?:HTTP/[0-9.]+ +)?([1-5][0-9]{2})\b", re.ASCII)
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
    attachments: Placement = Placement.INLINE
    max_attachment_bytes: int = 700_000
    """Of what stays in the Bundle, before base64 makes it a third longer."""

    def deliver(self, results: Sequence[Result]) -> Receipt:
        """Post each Bundle, after the Binary resources that it names."""
        return deliver_each(check_labels(results, self.kinds), self._post)

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
        fitted = fit_attachments(
            result.content, self.attachments, max_bytes=self.max_attachment_bytes
        )
        for binary in fitted.binaries:
            self._upload(result, binary)
        sent = replace(result, content=fitted.content)
        remark = self._post_bundle(sent)
        return "; ".join(filter(None, (*fitted.remarks, remark)))

    def _upload(self, result: Result, binary: Binary) -> None:
        """PUT the content as it is (FHIR R4 binary.html#rest): no limit on strings applies."""
        answer = self._end.send(
            "PUT",
            f"{self._base}/Binary/{binary.id}",
            headers={"Content-Type": binary.media_type, "Accept": FHIR_JSON},
            body=Body.of(binary.content),
        )
        raise_for_status(self.name, answer)
        reply = _Reply(name=self.name, result=result, answer=answer)
        if answer.status == CONFLICT:
            raise reply.postponed(CONFLICTS, "fhir_conflict", parked_as=CONFLICT_PERSISTS)
        if answer.status == ACCEPTED or not answer.is_success:
            raise reply.refused("a Binary was refused", "fhir_binary_refused")

    def _post_bundle(self, result: Result) -> str:
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
    reply = _Reply(name=name, result=result, answer=answer)
    if answer.status == CONFLICT:
        raise reply.postponed(CONFLICTS, "fhir_conflict", parked_as=CONFLICT_PERSISTS)
    if answer.status == PRECONDITION_FAILED:
        raise reply.refused("a precondition does not hold", "fhir_precondition")
    if answer.status == UNPROCESSABLE:
        raise reply.refused("it breaks the server's rules", "fhir_unprocessable")
    if answer.status == ACCEPTED:
        raise reply.postponed("it was queued and not processed", "http_202")
    if not answer.is_success:
        raise reply.refused("it was refused", f"http_{answer.status}")
    return _taken_whole(reply)


def _taken_whole(reply: _Reply) -> str:
    """Nothing but the answer's content says that every entry was taken."""
    if not reply.answer.body.strip():
        # Prefer: return=minimal allows an answer without content (FHIR R4 http.html#ops).
        return ""
    said = reply.resource
    if said.get("resourceType") == "OperationOutcome":
        _raise_for_issues(reply, _issues_of(said), "its OperationOutcome")
        return "; ".join(reply.issues)
    if said.get("resourceType") != "Bundle":
        raise DeliveryPostponed(
            f"{reply.name} answers with something else than FHIR: is a proxy or log-in page "
            "between?",
            code="answer_not_understood",
        )
    _raise_for_entries(reply, said)
    return ""


def _raise_for_entries(reply: _Reply, bundle: Mapping[str, Any]) -> None:
    """Every entry that was sent has an answer of its own, and each says that it was taken."""
    responses = list(_responses(bundle))
    statuses = [_status_of(response) for response in responses]
    refused = [status for status in statuses if not status.startswith(("2", "304"))]
    issues = [issue for response in responses for issue in _issues_of(response.get("outcome"))]
    if refused:
        why = f"it took only part of the Bundle ({', '.join(sorted(set(refused)))})"
        if PASSING_STATUSES.issuperset(refused):
            raise reply.postponed(why, "fhir_partly_taken", issues=issues)
        raise reply.refused(why, "fhir_partly_taken", status=refused[0], issues=issues)
    _raise_for_issues(reply, issues, "the outcome of an entry")
    sent = len(json.loads(reply.result.content)["entry"])
    if len(responses) < sent:
        raise reply.refused(
            f"it answers for {len(responses)} of {sent} entries, so it does not treat the Bundle "
            "as a transaction",
            "fhir_partly_taken",
        )


def _raise_for_issues(reply: _Reply, issues: Sequence[Mapping[str, Any]], what: str) -> None:
    """An error or fatal issue means that it was not taken, whatever the HTTP status."""
    errors = [issue for issue in issues if _severity(issue) not in REMARKS]
    if not errors:
        return
    why = f"it answers success and reports an error in {what}"
    if all(issue.get("code") in TRANSIENT for issue in errors):
        raise reply.postponed(why, "fhir_error_outcome", issues=errors)
    raise reply.refused(why, "fhir_error_outcome", issues=errors)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    """The answer to one Bundle."""

    name: str
    result: Result
    answer: Answer

    @property
    def resource(self) -> dict[str, Any]:
        return _resource_in(self.answer)

    @property
    def issues(self) -> list[str]:
        """Severity, code and place of each issue of an OperationOutcome."""
        return self._written(_issues_of(self.resource))

    def refused(
        self,
        why: str,
        code: str,
        *,
        status: str = "",
        issues: Sequence[Mapping[str, Any]] | None = None,
    ) -> DeliveryRefused:
        message, refusal = self._described(why, status, issues)
        return DeliveryRefused(message, code=code, refused=(refusal,))

    def postponed(
        self,
        why: str,
        code: str,
        *,
        parked_as: str = "",
        issues: Sequence[Mapping[str, Any]] | None = None,
    ) -> DeliveryPostponed:
        message, refusal = self._described(why, "", issues)
        return DeliveryPostponed(message, code=code, refused=(refusal,), parked_as=parked_as)

    def _described(
        self, why: str, status: str, issues: Sequence[Mapping[str, Any]] | None
    ) -> tuple[str, Refusal]:
        written = self.issues if issues is None else self._written(issues)
        reason = "; ".join(written) or "the server gave no coded reason"
        message = f"{self.name}: {why} ({self.answer.status}): {reason}."
        status = status or str(self.answer.status)
        return message, Refusal(uid=self.result.uid, status=status, reason=reason)

    def _written(self, issues: Sequence[Mapping[str, Any]]) -> list[str]:
        words = _words_sent(self.result)
        return list(dict.fromkeys(_issue(one, words) for one in issues[:MAX_ISSUES]))


def _severity(issue: Mapping[str, Any]) -> str:
    return str(issue.get("severity", "")).strip().lower()


def _issues_of(outcome: Any) -> list[Mapping[str, Any]]:
    """The issues of an OperationOutcome; none of anything else."""
    if not isinstance(outcome, Mapping) or outcome.get("resourceType") != "OperationOutcome":
        return []
    return [one for one in _members(outcome.get("issue")) if isinstance(one, Mapping)]


def _members(value: Any) -> list[Any]:
    """The members of an array; converters from XML write a single one without it."""
    if isinstance(value, list):
        return value
    return [value] if isinstance(value, Mapping) else []


def _responses(bundle: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """`entry.response` of each entry, empty where there is none."""
    for entry in _members(bundle.get("entry")):
        response = entry.get("response") if isinstance(entry, Mapping) else None
        yield response if isinstance(response, Mapping) else {}


def _status_of(response: Mapping[str, Any]) -> str:
    """The HTTP status in `entry.response.status`, also of a whole status line; `none` without."""
    found = STATUS.match(str(response.get("status", "")))
    return found[1] if found else "none"


def _issue(issue: Mapping[str, Any], words: frozenset[str]) -> str:
    """Severity, code and place; free text may repeat a name and is left out."""
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
    """The resource of an answer, in JSON or XML; empty when it holds none."""
    try:
        found = json.loads(answer.body.removeprefix(BYTE_ORDER_MARK))
    except (ValueError, RecursionError):
        found = resource_of_xml(answer.body)
    return found if isinstance(found, dict) else {}


def _system_interactions(statement: dict[str, Any]) -> set[str]:
    return {
        str(interaction.get("code"))
        for rest in statement.get("rest") or ()
        for interaction in rest.get("interaction") or ()
    }

"""Sends all objects of a delivery in one STOW-RS request, multipart/related (PS3.18 10.5)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reporting.delivery import DeliveryPostponed, DeliveryRefused, Receipt
from reporting.delivery.dimse_status import Verdict, read_status
from reporting.delivery.outcome import Outcome, conclude, outcome_of, postponed
from reporting.delivery.transport.answer_xml import response_of_xml
from reporting.delivery.transport.http_client import Answer, Body, HttpEndpoint, raise_for_status
from reporting.delivery.transport.oauth import TokenCache
from reporting.delivery.transport.tls import TlsFiles
from reporting.derived_uids import derived_id, derived_uid
from reporting.research_label import check_labels
from reporting.results import DICOM_KINDS, Result, ResultKind

BYTE_ORDER_MARK = "\ufeff".encode()
DICOM_JSON = "application/dicom+json"
STORED = 200
PARTLY_STORED = (202, 409)
"""202: with warnings or failures; 409: failures, perhaps of all (PS3.18 Table 10.5.3-1)."""
FAILED_SEQUENCE = "00081198"
REFERENCED_SEQUENCE = "00081199"
REFERENCED_UID = "00081155"
FAILURE_REASON = "00081197"
WARNING_REASON = "00081196"
UNKNOWN_FAILURE = 0x0110


@dataclass(frozen=True, slots=True, kw_only=True)
class StowDestination:
    """A DICOMweb server that takes our objects."""

    name: str
    url: str
    """The URL to which /studies is added, with or without a slash at its end."""
    kinds: frozenset[ResultKind] = DICOM_KINDS
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 30.0
    tokens: TokenCache | None = None
    tls: TlsFiles | None = None

    def deliver(self, results: Sequence[Result]) -> Receipt:
        """Store them all in one request; raises with the receipt of those that were taken."""
        wanted = check_labels(results, self.kinds)
        if not wanted:
            return Receipt()
        boundary = derived_id("boundary", *(one.uid for one in wanted))
        answer = self._end.send(
            "POST",
            self._studies,
            headers={
                "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
                "Accept": DICOM_JSON,
            },
            body=_multipart(wanted, boundary),
        )
        raise_for_status(self.name, answer)
        return conclude(self.name, _outcomes(self.name, wanted, answer))

    def check(self) -> str:
        """Search for nothing by QIDO-RS: whether the server answers and accepts our credentials."""
        nothing = derived_uid("check", "no such study")
        answer = self._end.send(
            "GET",
            f"{self._studies}?StudyInstanceUID={nothing}&limit=1",
            headers={"Accept": DICOM_JSON},
        )
        raise_for_status(self.name, answer)
        if not answer.is_success:
            raise DeliveryRefused(
                f"{self.name} answers a QIDO-RS search with {answer.status}: check the URL.",
                code="wrong_address",
            )
        return "the DICOMweb server answers"

    @property
    def _studies(self) -> str:
        return f"{self.url.rstrip('/')}/studies"

    @property
    def _end(self) -> HttpEndpoint:
        return HttpEndpoint(
            name=self.name,
            timeout_s=self.timeout_s,
            headers=self.headers,
            tokens=self.tokens,
            tls=self.tls,
        )


def _multipart(results: Sequence[Result], boundary: str) -> Body:
    """Streams the parts without joining them (PS3.18 section 8.6.1.2)."""
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode("ascii")
    end = f"--{boundary}--\r\n".encode("ascii")

    def chunks() -> Iterator[bytes]:
        for result in results:
            yield head
            yield result.content
            yield b"\r\n"
        yield end

    length = sum(len(head) + len(one.content) + 2 for one in results) + len(end)
    return Body(length=length, chunks=chunks)


def _outcomes(name: str, results: Sequence[Result], answer: Answer) -> list[Outcome]:
    """The outcome of each result by the Store Instances Response (PS3.18 Annex I).

    200 means that all are stored; what it names must then be all of them, and what it says must
    be DICOM: a log-in page is no success.
    """
    if answer.status != STORED and answer.status not in PARTLY_STORED:
        raise DeliveryRefused(
            f"{name} refuses the request ({answer.status}).", code=f"http_{answer.status}"
        )
    said = _response_in(name, answer)
    failed = _reasons(said, FAILED_SEQUENCE, FAILURE_REASON, UNKNOWN_FAILURE)
    stored = _reasons(said, REFERENCED_SEQUENCE, WARNING_REASON, 0)
    if answer.status in PARTLY_STORED and not failed and not stored:
        raise DeliveryPostponed(
            f"{name} answers {answer.status} without saying what became of the objects.",
            code="answer_not_understood",
        )
    is_complete = answer.status == STORED and not stored
    return [_outcome(one.uid, failed, stored, is_complete=is_complete) for one in results]


def _outcome(
    uid: str, failed: Mapping[str, int], stored: Mapping[str, int], *, is_complete: bool
) -> Outcome:
    if uid in failed:
        return outcome_of(uid, failed[uid])
    if uid in stored:
        return outcome_of(uid, stored[uid])
    if is_complete:
        return Outcome(uid=uid, verdict=Verdict.ACCEPTED)
    return postponed(uid, "the answer does not mention it")


def _response_in(name: str, answer: Answer) -> dict[str, Any]:
    """The response in the DICOM JSON Model, also from XML; empty when nothing is said."""
    body = answer.body.removeprefix(BYTE_ORDER_MARK).strip()
    if not body:
        return {}
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = response_of_xml(body)
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict):
        raise DeliveryPostponed(
            f"{name} answers {answer.status} with something else than a Store Instances Response: "
            "is a proxy or log-in page between?",
            code="answer_not_understood",
        )
    return found


def _reasons(response: dict[str, Any], sequence: str, reason: str, without: int) -> dict[str, int]:
    """The status of each instance in one of the response's sequences."""
    element = response.get(sequence)
    items = element.get("Value") if isinstance(element, dict) else None
    found: dict[str, int] = {}
    for item in items if isinstance(items, list) else ():
        uid, status = _first(item, REFERENCED_UID), _first(item, reason)
        if isinstance(uid, str):
            found[uid.strip(" \0")] = _status(status, without)
    return found


def _status(said: Any, without: int) -> int:
    found = read_status(said)
    return without if found is None else found


def _first(item: Any, tag: str) -> Any:
    """The first value of an attribute in the DICOM JSON model, None when it has none."""
    element = item.get(tag) if isinstance(item, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None

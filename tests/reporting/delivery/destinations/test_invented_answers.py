"""Answers of PACS, FHIR servers and laboratory systems, devised from public bug reports.

Delivered is what the other side says that it keeps; the rest is tried again or shown to a person.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from listener.storage.commitment_reports import CommitmentReports
from pipeline.errors import Rejected
from reporting.delivery import CommitmentReport, DeliveryPostponed, DeliveryRefused, Refusal
from reporting.delivery.destinations.fhir_server import _judged as judged_fhir
from reporting.delivery.destinations.hl7_mllp import _judged as judged_hl7
from reporting.delivery.destinations.storage_commitment import read_commitment_report
from reporting.delivery.dimse_status import Verdict, classify_status, describe_status
from reporting.delivery.outcome import conclude, outcome_of, postponed
from reporting.delivery.transport.http_client import Answer
from reporting.delivery.transport.mllp import framed, read_acknowledgment, read_frame
from tests.reporting.delivery.labelled import make_bundle

# --- kind 8: storage commitment reports

TRANSACTION = "2.25.7"


def item(uid: str | None, reason: Any = None, **values: Any) -> Dataset:
    made = Dataset()
    if uid is not None:
        made.ReferencedSOPInstanceUID = uid
    if reason is not None:
        made.FailureReason = reason
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def report(
    committed: list[Dataset] | None, failed: list[Dataset] | None = None, **values: Any
) -> Dataset:
    made = Dataset()
    made.TransactionUID = TRANSACTION
    if committed is not None:
        made.ReferencedSOPSequence = committed
    if failed is not None:
        made.FailedSOPSequence = failed
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def as_text(reason: bytes) -> Dataset:
    """A Failure Reason that came as text."""
    made = item("1.2")
    tag = Tag("FailureReason")
    made[tag] = RawDataElement(
        tag, "SH", len(reason), reason, 0, is_implicit_VR=False, is_little_endian=True
    )
    return made


REPORTS: Mapping[str, tuple[Callable[[], Dataset], set[str], dict[str, str]]] = {
    "both-sequences": (
        lambda: report([item("1.1")], [item("1.2", 0x0112)]),
        {"1.1"},
        {"1.2": "0x0112"},
    ),
    "both-sequences-empty": (lambda: report([], []), set(), {}),
    "no-sequence": (lambda: report(None), set(), {}),
    "only-failures": (lambda: report(None, [item("1.2", 0x0110)]), set(), {"1.2": "0x0110"}),
    "failed-and-committed": (
        lambda: report([item("1.1"), item("1.2")], [item("1.2", 0x0112)]),
        {"1.1"},
        {"1.2": "0x0112"},
    ),
    "the-same-twice": (lambda: report([item("1.1"), item("1.1")]), {"1.1"}, {}),
    "padded-with-zero-bytes": (lambda: report([item("1.1\0")]), {"1.1"}, {}),
    "padded-with-blanks": (lambda: report([item(" 1.1 ")]), {"1.1"}, {}),
    "item-without-instance": (lambda: report([item(None), item("1.1")]), {"1.1"}, {}),
    "failure-without-instance": (lambda: report([item("1.1")], [item(None, 0x0112)]), {"1.1"}, {}),
    "failure-without-reason": (lambda: report([], [item("1.2")]), set(), {"1.2": "0x0110"}),
    "failure-with-success-as-reason": (
        lambda: report([], [item("1.2", 0x0000)]),
        set(),
        {"1.2": "0x0110"},
    ),
    "failure-with-a-warning-as-reason": (
        lambda: report([], [item("1.2", 0xB000)]),
        set(),
        {"1.2": "0x0110"},
    ),
    "reason-in-hexadecimal-text": (
        lambda: report([], [as_text(b"0112H ")]),
        set(),
        {"1.2": "0x0112"},
    ),
    "reason-in-decimal-text": (lambda: report([], [as_text(b"274 ")]), set(), {"1.2": "0x0112"}),
    "reason-in-words": (lambda: report([], [as_text(b"no space")]), set(), {"1.2": "0x0110"}),
    "with-retrieve-title": (
        lambda: report([item("1.1", RetrieveAETitle="ARCHIVE")], RetrieveAETitle="ARCHIVE"),
        {"1.1"},
        {},
    ),
    "with-an-instance-never-sent": (
        lambda: report([item("1.1"), item("9.9.9")]),
        {"1.1", "9.9.9"},
        {},
    ),
    "transaction-padded": (
        lambda: report([item("1.1")], TransactionUID=TRANSACTION + "\0"),
        {"1.1"},
        {},
    ),
}


@pytest.mark.invented(kind=8)
@pytest.mark.parametrize("name", REPORTS)
def test_a_report_says_what_it_names_and_no_more(name: str, tmp_path: Path) -> None:
    build, committed, failed = REPORTS[name]
    ledger = CommitmentReports(tmp_path)
    transaction = ledger.open("pacs")
    said = build()
    said.TransactionUID = said.TransactionUID.replace(TRANSACTION, transaction)

    ledger.keep(read_commitment_report(said), destinations=["pacs"])

    kept = ledger.find(transaction)
    assert kept is not None
    assert set(kept.committed) == committed
    assert {one.uid: one.status for one in kept.failed} == failed
    assert kept.named == committed | failed.keys()


def lost(uid: str) -> tuple[Refusal, ...]:
    return (Refusal(uid=uid, status="0x0112", reason="no such instance"),)


SEVERAL: Mapping[str, tuple[list[dict[str, Any]], set[str], set[str]]] = {
    "one-instance-each": ([{"committed": ("1",)}, {"committed": ("2",)}], {"1", "2"}, set()),
    "the-same-report-twice": ([{"committed": ("1",)}, {"committed": ("1",)}], {"1"}, set()),
    "success-then-failure": (
        [{"committed": ("1", "2")}, {"committed": (), "failed": lost("2")}],
        {"1"},
        {"2"},
    ),
    "failure-then-success": (
        [{"committed": (), "failed": lost("2")}, {"committed": ("1", "2")}],
        {"1"},
        {"2"},
    ),
    "nothing-then-all": ([{"committed": ()}, {"committed": ("1", "2")}], {"1", "2"}, set()),
    "successes-then-failures": (
        [{"committed": ("1",)}, {"committed": (), "failed": lost("2")}],
        {"1"},
        {"2"},
    ),
}


@pytest.mark.invented(kind=8)
@pytest.mark.parametrize("name", SEVERAL)
def test_several_reports_on_one_transaction_add_up(name: str, tmp_path: Path) -> None:
    reports, committed, failed = SEVERAL[name]
    ledger = CommitmentReports(tmp_path)
    transaction = ledger.open("pacs")

    for one in reports:
        ledger.keep(CommitmentReport(transaction_uid=transaction, **one), destinations=["pacs"])

    kept = ledger.find(transaction)
    assert kept is not None
    assert (set(kept.committed), {one.uid for one in kept.failed}) == (committed, failed)


@pytest.mark.invented(kind=8)
@pytest.mark.parametrize(
    "transaction", ["", "1.2.3", "2.25.8", "../x", "2.25.7/..", "1" * 65, "2.25.7 OR 1=1"]
)
def test_a_report_on_another_transaction_is_refused(transaction: str, tmp_path: Path) -> None:
    ledger = CommitmentReports(tmp_path)
    ledger.open("pacs")

    with pytest.raises(Rejected):
        ledger.keep(
            CommitmentReport(transaction_uid=transaction, committed=("1",)), destinations=["pacs"]
        )


# --- kind 9: FHIR

BUNDLE = make_bundle()


def entries(*statuses: Any, outcome: Any = None) -> list[dict[str, Any]]:
    more = {} if outcome is None else {"outcome": outcome}
    return [{"response": {"status": status, **more}} for status in statuses]


def bundle(said: Any, kind: str = "transaction-response") -> bytes:
    return json.dumps({"resourceType": "Bundle", "type": kind, "entry": said}).encode()


def issues(*severities: Any, code: str = "processing") -> dict[str, Any]:
    listed = [{"severity": severity, "code": code} for severity in severities]
    return {"resourceType": "OperationOutcome", "issue": listed}


def outcome(*severities: Any, code: str = "processing") -> bytes:
    return json.dumps(issues(*severities, code=code)).encode()


XML_ENTRY = '<entry><response><status value="201"/></response></entry>'
FHIR_TAKEN: Mapping[str, tuple[int, bytes]] = {
    "created-without-location": (201, bundle(entries("201", "201"))),
    "status-with-words": (200, bundle(entries("201 Created", "200 OK"))),
    "status-as-number": (200, bundle(entries(201, 200))),
    "status-as-status-line": (200, bundle(entries("HTTP/1.1 201 Created", "HTTP/2 200"))),
    "batch-response": (200, bundle(entries("200", "201"), kind="batch-response")),
    "not-modified": (200, bundle(entries("304", "200"))),
    "no-content-of-an-entry": (200, bundle(entries("204", "200"))),
    "one-answer-more": (200, bundle(entries("200", "200", "200"))),
    "warning-in-each-entry": (200, bundle(entries("200", "201", outcome=issues("warning")))),
    "outcome-of-warnings": (200, outcome("warning", "information")),
    "outcome-of-success": (200, outcome("success")),
    "outcome-in-capitals": (200, outcome("Information")),
    "outcome-without-issues": (200, b'{"resourceType":"OperationOutcome","issue":[]}'),
    "no-content": (204, b""),
    "blanks": (200, b" \r\n"),
    "line-ends-before-it": (200, b"\r\n\r\n" + bundle(entries("200", "200"))),
    "xml-in-capitals-of-declaration": (
        200,
        f'<?xml version="1.0" encoding="utf-8"?>\n<Bundle>{XML_ENTRY * 2}</Bundle>'.encode(),
    ),
}


@pytest.mark.invented(kind=9)
@pytest.mark.parametrize("name", FHIR_TAKEN)
def test_a_bundle_was_taken(name: str) -> None:
    status, body = FHIR_TAKEN[name]

    judged_fhir("ehr", BUNDLE, Answer(status=status, body=body, retry_after_s=None))


FHIR_NOT_TAKEN: Mapping[str, tuple[int, bytes, str, bool]] = {
    "error-in-capitals": (200, outcome("ERROR"), "fhir_error_outcome", False),
    "error-with-blank": (200, outcome(" error "), "fhir_error_outcome", False),
    "severity-missing": (200, outcome(None), "fhir_error_outcome", False),
    "severity-unknown": (200, outcome("critical"), "fhir_error_outcome", False),
    "issue-without-array": (
        200,
        b'{"resourceType":"OperationOutcome","issue":{"severity":"error","code":"invalid"}}',
        "fhir_error_outcome",
        False,
    ),
    "error-that-passes": (200, outcome("error", code="lock-error"), "fhir_error_outcome", True),
    "error-among-remarks": (201, outcome("information", "fatal"), "fhir_error_outcome", False),
    "error-in-an-entry": (
        200,
        bundle(entries("200", "200", outcome=issues("warning", "Error"))),
        "fhir_error_outcome",
        False,
    ),
    "entry-without-array": (200, bundle(entries("201")[0]), "fhir_partly_taken", False),
    "entry-conflict": (200, bundle(entries("201", "409 Conflict")), "fhir_partly_taken", True),
    "entry-too-many": (200, bundle(entries("429", "201")), "fhir_partly_taken", True),
    "entry-server-in-trouble": (200, bundle(entries("503", "500")), "fhir_partly_taken", True),
    "entry-conflict-and-refusal": (200, bundle(entries("409", "422")), "fhir_partly_taken", False),
    "entry-without-status": (200, bundle(entries("", "201")), "fhir_partly_taken", False),
    "entry-with-words-only": (200, bundle(entries("Created", "201")), "fhir_partly_taken", False),
    "entry-with-long-number": (200, bundle(entries("2010", "201")), "fhir_partly_taken", False),
    "bundle-without-entries": (200, bundle([]), "fhir_partly_taken", False),
    "array": (200, b"[]", "answer_not_understood", True),
    "null": (200, b"null", "answer_not_understood", True),
    "text": (200, b"OK", "answer_not_understood", True),
    "page-of-a-proxy": (200, b"<html><body>Sign in</body></html>", "answer_not_understood", True),
    "page-of-a-gateway": (502, b"<html>Bad Gateway</html>", "http_502", True),
    "json-cut": (200, bundle(entries("201", "201"))[:-5], "answer_not_understood", True),
    "another-resource": (200, b'{"resourceType":"Patient"}', "answer_not_understood", True),
    "precondition": (412, outcome("error", code="conflict"), "fhir_precondition", False),
    "conflict": (409, b"", "fhir_conflict", True),
    "too-many-requests": (429, b"", "http_429", True),
    "storage-full": (507, b"", "http_507", True),
    "queued": (202, bundle(entries("201", "201")), "http_202", True),
    "unprocessable-page": (422, b"<html/>", "fhir_unprocessable", False),
    "moved": (308, b"", "wrong_address", False),
    "unsupported-media": (415, b"", "http_415", False),
}


@pytest.mark.invented(kind=9)
@pytest.mark.parametrize("name", FHIR_NOT_TAKEN)
def test_a_bundle_was_not_taken(name: str) -> None:
    status, body, code, is_tried_again = FHIR_NOT_TAKEN[name]

    with pytest.raises((DeliveryPostponed, DeliveryRefused)) as caught:
        judged_fhir("ehr", BUNDLE, Answer(status=status, body=body, retry_after_s=None))

    assert caught.value.code == code
    assert isinstance(caught.value, DeliveryPostponed) == is_tried_again


# --- kind 16: HL7 acknowledgments

CONTROL_ID = "4f72d0e2b0217d9ab3c1"
PATIENCE_S = 600.0
"""Never waited for: the other end has closed."""
MSH = "MSH|^~\\&|LIS||SMEARLINK||20260102||ACK^R01^ACK|9|P|2.5.1"


def ack(*segments: str, head: str = MSH, end: str = "\r") -> bytes:
    return end.join([head, *segments, ""]).encode()


ACCEPTS = ack(f"MSA|AA|{CONTROL_ID}")
BLOCK = framed(b"\x06")


def judged(sent: bytes) -> str:
    """What becomes of our message when the receiver writes these bytes and closes."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(sent)
        said = read_acknowledgment(read_frame(ours, PATIENCE_S))
    return judged_hl7("lis", "1.2", said, CONTROL_ID)


HL7_TAKEN: Mapping[str, bytes] = {
    "two-acknowledgments-in-one-packet": framed(ack(f"MSA|CA|{CONTROL_ID}")) + framed(ACCEPTS),
    "block-acknowledged-first": BLOCK + framed(ACCEPTS),
    "block-acknowledged-twice": BLOCK + BLOCK + framed(ACCEPTS),
    "empty-frame-first": framed(b"") + framed(ACCEPTS),
    "frame-of-line-ends-first": framed(b"\r\n") + framed(ACCEPTS),
    "no-start-block": ACCEPTS + b"\x1c\r",
    "no-message-named": framed(ack("MSA|AA")),
    "no-message-named-but-text": framed(ack("MSA|AA||Message accepted")),
    "control-id-in-capitals": framed(ack(f"MSA|AA|{CONTROL_ID.upper()}")),
    "commit-accept": framed(ack(f"MSA|CA|{CONTROL_ID}")),
    "character-set-declared": framed(
        ack(f"MSA|AA|{CONTROL_ID}|\xc3\xbcbernommen", head=MSH + "||||||8859/1")
    ),
    "latin-1-text": framed(ACCEPTS[:-1] + b"|\xfcbernommen\r"),
    "software-segment-between": framed(ack("SFT|Mirth|4.4", f"MSA|AA|{CONTROL_ID}")),
    "error-segment-of-information": framed(ack(f"MSA|AA|{CONTROL_ID}", "ERR||||I|||stored")),
    "other-separators": framed(ack(f"MSA$AA${CONTROL_ID}", head="MSH$*~\\&$LIS")),
    "five-encoding-characters": framed(ack(f"MSA|AA|{CONTROL_ID}", head="MSH|^~\\&#|LIS")),
    "line-feeds": framed(ack(f"MSA|AA|{CONTROL_ID}", end="\n")),
    "without-last-line-end": framed(ACCEPTS.rstrip(b"\r")),
}


@pytest.mark.invented(kind=16)
@pytest.mark.parametrize("name", HL7_TAKEN)
def test_a_message_was_acknowledged(name: str) -> None:
    remark = judged(HL7_TAKEN[name])

    assert ("MSA-2" in remark) == name.startswith("no-message-named")


HL7_NOT_TAKEN: Mapping[str, tuple[bytes, str, bool]] = {
    "another-message": (framed(ack("MSA|AA|another")), "answer_not_understood", True),
    "shortened-control-id": (
        framed(ack(f"MSA|AA|{CONTROL_ID[:10]}")),
        "answer_not_understood",
        True,
    ),
    "no-msa": (framed(ack()), "answer_not_understood", True),
    "error-207-as-2.5": (
        framed(ack(f"MSA|AE|{CONTROL_ID}", "ERR|||207^error^HL70357|E")),
        "hl7_busy",
        True,
    ),
    "error-207-as-2.3": (
        framed(ack(f"MSA|AE|{CONTROL_ID}", "ERR|PID^1^5^207&internal error&HL70357")),
        "hl7_busy",
        True,
    ),
    "error-206-in-msa-6": (
        framed(ack(f"MSA|AE|{CONTROL_ID}||||206^locked^HL70357")),
        "hl7_busy",
        True,
    ),
    "error-101-as-2.3": (
        framed(ack(f"MSA|AE|{CONTROL_ID}", "ERR|PID^1^5^101&required&HL70357")),
        "hl7_refused",
        False,
    ),
    "reject-200-in-msa-6": (
        framed(ack(f"MSA|AR|{CONTROL_ID}||||200^type")),
        "hl7_refused",
        False,
    ),
    "error-without-code": (framed(ack(f"MSA|AE|{CONTROL_ID}")), "hl7_refused", False),
    "reject-without-code": (framed(ack(f"MSA|CR|{CONTROL_ID}")), "hl7_busy", True),
    "unknown-code": (framed(ack(f"MSA|OK|{CONTROL_ID}")), "hl7_busy", True),
    "error-that-names-no-message": (framed(ack("MSA|AE")), "hl7_refused", False),
}


@pytest.mark.invented(kind=16)
@pytest.mark.parametrize("name", HL7_NOT_TAKEN)
def test_a_message_was_not_taken(name: str) -> None:
    sent, code, is_tried_again = HL7_NOT_TAKEN[name]

    with pytest.raises((DeliveryPostponed, DeliveryRefused)) as caught:
        judged(sent)

    assert caught.value.code == code
    assert isinstance(caught.value, DeliveryPostponed) == is_tried_again


@pytest.mark.invented(kind=16)
@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (framed(b"\x15"), ConnectionError),
        (BLOCK, ConnectionError),
        (b"", ConnectionError),
        (ACCEPTS, ConnectionError),
        (framed(b"HTTP/1.1 400 Bad Request"), ValueError),
        (framed(b"BHS|^~\\&"), ValueError),
    ],
    ids=["block-refused", "block-only", "nothing", "no-end-block", "http", "batch"],
)
def test_what_is_no_acknowledgment_is_none(sent: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        judged(sent)


# --- kind 18: a PACS that takes some of it

STATUSES: Mapping[int, Verdict] = {
    0x0000: Verdict.ACCEPTED,
    0x0107: Verdict.ACCEPTED_WITH_NOTE,
    0x0111: Verdict.ACCEPTED_WITH_NOTE,
    0x0116: Verdict.ACCEPTED_WITH_NOTE,
    0xB000: Verdict.ACCEPTED_WITH_NOTE,
    0xB006: Verdict.ACCEPTED_WITH_NOTE,
    0xB007: Verdict.ACCEPTED_WITH_NOTE,
    0xBFFF: Verdict.ACCEPTED_WITH_NOTE,
    0x0110: Verdict.LATER,
    0x0213: Verdict.LATER,
    0xA700: Verdict.LATER,
    0xA701: Verdict.LATER,
    0xA7FF: Verdict.LATER,
    0x0117: Verdict.REVIEW,
    0x0122: Verdict.REVIEW,
    0x0124: Verdict.REVIEW,
    0x0210: Verdict.REVIEW,
    0x0211: Verdict.REVIEW,
    0xA900: Verdict.REVIEW,
    0xC000: Verdict.REVIEW,
    0xC123: Verdict.REVIEW,
    0xD000: Verdict.REVIEW,
    0xFE00: Verdict.REVIEW,
    0xFFFF: Verdict.REVIEW,
}


@pytest.mark.invented(kind=18)
@pytest.mark.parametrize("status", STATUSES, ids=lambda status: f"{status:04X}")
def test_each_status_has_its_consequence(status: int) -> None:
    assert classify_status(status) == STATUSES[status]
    assert describe_status(status)


ENDED = "the association ended before it was sent"
ATTEMPTS: Mapping[str, tuple[list[int | str], set[int], bool]] = {
    "ends-at-the-third": ([0, 0, ENDED, ENDED], {0, 1}, True),
    "ends-before-the-first": ([ENDED, ENDED], set(), True),
    "closes-before-the-response": ([0, "no answer", ENDED], {0}, True),
    "full-at-the-second": ([0, 0xA700, 0], {0, 2}, True),
    "not-authorized-for-one": ([0, 0x0124, 0], {0, 2}, False),
    "full-and-not-authorized": ([0x0124, 0xA700], set(), True),
    "context-refused-for-one": ([0x0122, 0], {1}, False),
    "another-message": ([0, "the response is to another message", ENDED], {0}, True),
    "warnings-only": ([0xB000, 0xB007], {0, 1}, False),
    "there-already": ([0x0111, 0x0111], {0, 1}, False),
    "one-unknown-status": ([0x1234, 0], {1}, False),
}


@pytest.mark.invented(kind=18)
@pytest.mark.parametrize("name", ATTEMPTS)
def test_what_was_taken_is_never_sent_again(name: str) -> None:
    said, taken, is_tried_again = ATTEMPTS[name]
    outcomes = [
        postponed(str(number), one) if isinstance(one, str) else outcome_of(str(number), one)
        for number, one in enumerate(said)
    ]

    try:
        receipt = conclude("pacs", outcomes)
    except (DeliveryPostponed, DeliveryRefused) as err:
        receipt = err.receipt
        assert isinstance(err, DeliveryPostponed) == is_tried_again
        assert {one.uid for one in err.refused} == {str(n) for n in range(len(said))} - {
            *receipt.accepted
        }
    else:
        assert len(taken) == len(said)

    assert {int(uid) for uid in receipt.accepted} == taken

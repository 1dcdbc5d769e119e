"""What people see: numbers that are right, on a terminal and off it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from listener.cli.check import Check, RouteExplanation
from listener.cli.console import (
    ProgressDisplay,
    show_checks,
    show_demo,
    show_evaluation,
    show_route,
)
from listener.cli.status import show_status
from listener.demo.results import DemoOutcome, DemoRow
from listener.queue.status import ParkedWork, QueueStatus, WorkflowStatus, WorkKind, age_text
from reporting.audit.trail import Verification, verify_trail
from reporting.delivery.routing.rules import Reason, RuleMatch, Verdict
from tests.reporting.trails import KEY, write_days

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
PARKED = ParkedWork(
    key="deliver:2.25.1:v1:pacs",
    kind=WorkKind.DELIVERY,
    code="peer_refused",
    message="The PACS [test] refused: allow SMEARLINK there",
    since=NOW,
    destination="pacs",
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5400, "1.5 h"), (172800, "2.0 d")],
)
def test_ages_are_told_in_the_unit_that_people_use(seconds: float, text: str) -> None:
    assert age_text(seconds) == text


def test_progress_off_a_terminal_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay().bar("Sending", 3) as advance:
        for _ in range(3):
            advance()
    with ProgressDisplay().spinner("Waiting") as show:
        show("2 left")

    told = capsys.readouterr()
    assert told.err == "Sending: 3\nWaiting\n"
    assert told.out == ""


def test_an_idle_service_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    show_status(WorkflowStatus(at=NOW, queues=(), parked=(), workers=()))

    told = capsys.readouterr().out
    assert "Nothing waits." in told
    assert "Nothing is parked." in told
    assert "RESEARCH USE ONLY" in told


def test_parked_work_is_shown_with_reason_and_key(capsys: pytest.CaptureFixture[str]) -> None:
    queue = QueueStatus(name="deliver-pacs", waiting=1, delayed=2, in_work=3, oldest_age_s=7200.0)

    show_status(WorkflowStatus(at=NOW, queues=(queue,), parked=(PARKED,), workers=()))

    told = capsys.readouterr().out
    assert PARKED.message in told
    assert f"KEY {PARKED.key}" in told
    assert [word for line in told.splitlines() if "deliver-pacs" in line for word in line.split()][
        :6
    ] == ["deliver-pacs", "1", "2", "3", "2.0", "h"]


def test_a_delayed_delivery_says_why_and_when_it_is_tried_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    queue = QueueStatus(
        name="deliver-pacs",
        waiting=0,
        delayed=12,
        in_work=0,
        oldest_age_s=60.0,
        next_attempt_at=NOW + timedelta(seconds=45),
        delay_reason="peer_unreachable: PACS@10.0.0.1:104 cannot be reached.",
    )
    status = WorkflowStatus(at=NOW, queues=(queue,), parked=(), workers=())

    show_status(status)

    told = capsys.readouterr().out
    assert "deliver-pacs: tries again in 45 s (" in told
    assert "peer_unreachable: PACS@10.0.0.1:104 cannot be reached." in told
    assert status.to_json()["queues"][0]["next_attempt_at"] == "2026-11-24T12:00:45+00:00"


def test_a_check_that_fails_stands_out(capsys: pytest.CaptureFixture[str]) -> None:
    show_checks(
        [
            Check(name="model", is_good=True, said="tiny"),
            Check(name="destination pacs", is_good=False, said="[nobody] answers"),
        ]
    )

    assert capsys.readouterr().out.splitlines() == [
        "ok   model: tiny",
        "FAIL destination pacs: [nobody] answers",
    ]


DIGESTS = [
    Check(name="model", is_good=True, said=f"smearnet 0.2.0, sha256 {'ab' * 32}, runs on CPU"),
    Check(name="cell finder", is_good=True, said=f"sha256 {'cd' * 32}"),
]


def test_digests_are_shown_by_their_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    show_checks(DIGESTS)

    assert capsys.readouterr().out.splitlines() == [
        "ok   model: smearnet 0.2.0, sha256 abababababab…, runs on CPU",
        "ok   cell finder: sha256 cdcdcdcdcdcd…",
    ]
    assert "ab" * 32 in DIGESTS[0].to_json()["said"]


@pytest.mark.parametrize("columns", [80, 100])
def test_on_a_terminal_no_line_of_a_check_is_too_long_and_no_word_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    away = "PACS@127.0.0.1:104 cannot be reached, or broke off before an association stood: " * 2
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    show_checks([*DIGESTS, Check(name="destination pacs", is_good=False, said=away)])

    told = capsys.readouterr().out.splitlines()
    assert max(map(len, told)) <= columns
    assert told[2].startswith("FAIL destination pacs: PACS@127.0.0.1:104 cannot be reached")
    assert all(line.startswith("     ") for line in told[3:])
    assert " ".join(" ".join(told[2:]).split()) == f"FAIL destination pacs: {away.strip()}"


def test_figures_without_a_meaning_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    figure = {"value": 0.9134, "low": 0.88, "high": 0.94}
    show_evaluation({"cells": {"cnmc": {"n": 12, "auc": figure, "ece": None}}, "fields": {}})

    told = capsys.readouterr().out
    assert "cells: cnmc (n = 12)" in told
    assert "0.913  (0.880 to 0.940)" in told
    assert "ece" not in told


def test_a_demonstration_that_delivered_all_is_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = show_demo(_outcome(tmp_path), Path("demo-output"))

    told = capsys.readouterr().out
    assert code == 0
    row = next(line for line in told.splitlines() if "field_1" in line)
    assert row.split() == ["1", "field_1", "7", "2", "4", "1", "0.97", "smear_1/field_1.png"]
    assert "scale unknown" in told
    assert "RESEARCH USE ONLY" in told
    assert "The audit trail is whole." in told


def test_everything_fits_on_80_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    name = "field_of_the_ward_2026-11-28_0012"
    rows = [replace(_row(), field=name, files=f"smear_1/{name}.png", cells=12_345)]
    queues = tuple(
        QueueStatus(name=name, waiting=123_456, delayed=78, in_work=4, oldest_age_s=99_999.0)
        for name in ("images", "deliver:research-archive-of-the-ward")
    )

    show_demo(_outcome(tmp_path, rows=rows, not_taken=["x.png breaks off: " * 9]), Path("out"))
    show_status(WorkflowStatus(at=NOW, queues=queues, parked=(PARKED,), workers=()))

    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > 80 and "KEY" not in line] == []
    told = "\n".join(lines)
    assert "12345" in told
    assert "123456" in told
    assert "…" not in told


def test_a_file_that_was_not_taken_is_named_and_fails_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = show_demo(_outcome(tmp_path, not_taken=["x[1].dcm: refused"]), Path("out"))

    assert code == 0
    assert "x[1].dcm: refused" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [{"rows": ()}, {"undelivered": (PARKED,)}])
def test_a_demonstration_that_lacks_something_is_not_good(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    assert show_demo(_outcome(tmp_path, **wrong), Path("out")) == 1


def test_a_trail_that_was_changed_is_not_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = _outcome(tmp_path, is_whole=False)

    assert show_demo(outcome, Path("out")) == 1
    assert "The audit trail is NOT whole." in capsys.readouterr().out


def _row() -> DemoRow:
    return DemoRow(
        smear="1",
        field="field_1",
        cells=7,
        leukemic=2,
        normal=4,
        referred=1,
        highest=0.971,
        files="smear_1/field_1.png",
        flags=("scale_unknown",),
    )


def _outcome(root: Path, *, is_whole: bool = True, **given: Any) -> DemoOutcome:
    row = _row()
    values: dict[str, Any] = {
        "rows": (row,),
        "pacs_count": 4,
        "ehr_count": 9,
        "not_taken": (),
        "undelivered": (),
        "verification": _verification(root, is_whole=is_whole),
        **given,
    }
    return DemoOutcome(**values)  # values of the test


def _verification(root: Path, *, is_whole: bool) -> Verification:
    trail = root / "audit"
    write_days(trail, days=1)
    if not is_whole:
        path = next(trail.glob("audit-*.jsonl"))
        path.write_text(path.read_text().replace("1.2.0.3", "1.2.0.9"))
    return verify_trail(trail, KEY.public)


def test_a_route_is_explained_question_by_question(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = (
        Reason(question="modality == 'GM'", answer=True, found="GM"),
        Reason(question="calling_ae == 'CAM1'", answer=False, found="no value"),
        Reason(question="any_leukemic", answer=None, found="not known yet"),
    )
    match = RuleMatch(
        rule="r", when="whatever", to=("pacs",), verdict=Verdict.DEPENDS, reasons=reasons
    )

    show_route(RouteExplanation(matches=(match,), certain=(), possible=("pacs",)))

    told = capsys.readouterr().out
    assert "modality == 'GM': yes (GM)" in told
    assert "calling_ae == 'CAM1': no (no value)" in told
    assert "any_leukemic: known after the analysis\n" in told
    assert "depending on the outcome also: pacs" in told

"""Findings, reports and receipts on disk: whole or absent, and never changed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from listener.storage.results import (
    MOST_UNWRITTEN_BYTES,
    ReportIndex,
    ResultsFolder,
    SmearFolder,
)
from pipeline.domain import SmearId, SOPInstanceUID
from pipeline.errors import Defect
from reporting.durable_files import write_synced
from reporting.results import Result, ResultKind
from tests.findings import make_field_findings

SMEAR = SmearId("2.25.7")
IMAGE = SOPInstanceUID("2.25.8")
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x" * 129, "Doe^Jane"])
def test_a_name_that_is_no_uid_makes_no_file(tmp_path: Path, name: str) -> None:
    results = ResultsFolder(tmp_path, worker_id="w1")

    with pytest.raises(Defect) as refusal:
        results.smear(SmearId(name))

    assert refusal.value.code == "unsafe_name"
    assert list(tmp_path.iterdir()) == []


def test_a_result_whose_name_is_a_path_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(Defect):
        _publish(_smear(tmp_path), [_result(name="../../evil.dcm")])

    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_result_that_was_changed_is_not_sent(tmp_path: Path) -> None:
    smear = _smear(tmp_path)
    index = _publish(smear, [_result()])
    (tmp_path / SMEAR / "v1" / index.results[0].name).write_bytes(b"something else")

    with pytest.raises(Defect, match="restore it from a backup") as refusal:
        smear.read(1, index.results[0])

    assert refusal.value.code == "result_damaged"


def test_a_report_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def results() -> list[Result]:
        raise ValueError("no")

    smear = _smear(tmp_path)
    with pytest.raises(ValueError, match="no"):
        _publish(smear, (one for _ in range(1) for one in [_result(), *results()]))

    assert smear.latest() is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_nothing_is_known_of_a_smear_that_was_never_here(tmp_path: Path) -> None:
    smear = _smear(tmp_path)

    assert smear.latest() is None
    assert smear.analysed() == frozenset()
    assert not smear.has_fields(IMAGE)
    assert list(ResultsFolder(tmp_path / "none", worker_id="w").smears()) == []


def test_findings_come_back_as_they_were(tmp_path: Path) -> None:
    smear = _smear(tmp_path)
    fields = (make_field_findings(sop_instance_uid=IMAGE),)

    smear.save_fields(IMAGE, fields)

    (read,) = smear.fields(IMAGE)
    assert [cell.cell.box for cell in read.cells] == [cell.cell.box for cell in fields[0].cells]
    assert read.model == fields[0].model
    assert smear.analysed() == {IMAGE}


def test_a_report_comes_back_as_it_was(tmp_path: Path) -> None:
    smear = _smear(tmp_path)

    index = _publish(smear, [_result(content=b"abc")])

    assert smear.latest() == index
    assert index.issued_at == NOON
    assert index.sources == (IMAGE,)
    assert smear.read(1, index.results[0]) == _result(content=b"abc")
    assert list(ResultsFolder(tmp_path, worker_id="w2").smears()) == [SMEAR]


def test_an_object_of_an_earlier_report_never_changes(tmp_path: Path) -> None:
    smear = _smear(tmp_path)
    _publish(smear, [_result(content=b"first")])

    second = _publish(smear, [_result(content=b"second")], version=2)

    assert smear.read(2, second.results[0]).content == b"first"


def test_a_bundle_of_a_later_report_is_the_new_one(tmp_path: Path) -> None:
    smear = _smear(tmp_path)
    bundle: dict[str, Any] = {"kind": ResultKind.FHIR_BUNDLE, "uid": "bundle-1"}
    _publish(smear, [_result(content=b"first", **bundle)])

    second = _publish(smear, [_result(content=b"second", **bundle)], version=2)

    assert smear.read(2, second.results[0]).content == b"second"


def test_of_two_workers_with_the_same_report_one_wins(tmp_path: Path) -> None:
    first = _publish(_smear(tmp_path, "w1"), [_result(content=b"one")])
    second = _publish(_smear(tmp_path, "w2"), [_result(uid="2.25.99", content=b"two")])

    assert second == first


def test_drafts_of_a_dead_worker_are_swept_and_no_others(tmp_path: Path) -> None:
    for worker in ("dead", "alive"):
        draft = tmp_path / "tmp" / worker / "half"
        draft.mkdir(parents=True)
        (draft / "x.dcm").write_bytes(b"half")
    results = ResultsFolder(tmp_path, worker_id="alive")

    swept = results.sweep_drafts("dead")

    assert swept == 1
    assert [path.parent.name for path in tmp_path.rglob("half")] == ["alive"]


def test_a_draft_is_out_of_its_worker_s_reach_before_it_is_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that lost its lock and not its life would publish what is left of it."""
    draft = tmp_path / "tmp" / "alive" / "draft"
    draft.mkdir(parents=True)
    within_reach: list[bool] = []
    monkeypatch.setattr(
        "listener.storage.results.shutil.rmtree",
        lambda *_, **__: within_reach.append(draft.exists()),
    )

    swept = ResultsFolder(tmp_path, worker_id="w2").sweep_drafts("alive")

    assert (swept, within_reach) == (1, [False])


def test_a_worker_taken_for_dead_publishes_nothing_half_and_may_go_again(tmp_path: Path) -> None:
    sweeper = ResultsFolder(tmp_path, worker_id="w2")
    smear = _smear(tmp_path)

    def swept_in_between() -> Iterator[Result]:
        yield _result()
        sweeper.sweep_drafts("w1")
        yield _result(name="2.25.10.dcm", uid="2.25.10")

    with pytest.raises(FileNotFoundError):
        _publish(smear, swept_in_between())
    assert smear.latest() is None

    again = _publish(smear, [_result()])

    assert smear.latest() == again
    assert not [path for path in (tmp_path / "tmp").rglob("*") if path.is_file()]


def test_an_index_names_results_in_the_order_in_which_they_were_made(tmp_path: Path) -> None:
    names = [f"2.25.{number}.dcm" for number in range(40)]
    results = [
        _result(name=name, uid=name, content=bytes(1 + 50_000 * (number % 7 == 0)))
        for number, name in enumerate(names)
    ]

    index = _publish(_smear(tmp_path), results)

    assert [one.name for one in index.results] == names


def test_few_results_wait_in_memory_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = MOST_UNWRITTEN_BYTES // 4
    written: list[Path] = []
    waiting: list[int] = []

    def write(path: Path, content: bytes) -> None:
        write_synced(path, content)
        written.append(path)

    def results() -> Iterator[Result]:
        for number in range(12):
            waiting.append(number - len(written))
            yield _result(name=f"2.25.{number}.dcm", uid=f"2.25.{number}", content=bytes(size))

    monkeypatch.setattr("listener.storage.results.write_synced", write)

    index = _publish(_smear(tmp_path), results())

    assert len(index.results) == 12
    assert max(waiting) <= 4


def test_an_index_says_research_use_only(tmp_path: Path) -> None:
    _publish(_smear(tmp_path), [_result()])

    assert b"RESEARCH USE ONLY" in (tmp_path / SMEAR / "v1" / "index.json").read_bytes()


def _smear(root: Path, worker: str = "w1") -> SmearFolder:
    return ResultsFolder(root, worker_id=worker).smear(SMEAR)


def _result(
    *,
    kind: ResultKind = ResultKind.ANNOTATED_FIELD,
    name: str = "2.25.9.dcm",
    uid: str = "2.25.9",
    content: bytes = b"x",
) -> Result:
    return Result(kind=kind, name=name, media_type="application/dicom", uid=uid, content=content)


def _publish(smear: SmearFolder, results: object, *, version: int = 1) -> ReportIndex:
    return smear.publish(
        results,  # type: ignore[arg-type]  # any iterable, also one that fails
        version=version,
        issued_at=NOON,
        model_sha256="0f" * 32,
        software_version="0.1.0",
        sources=[IMAGE],
        destinations=["pacs"],
    )

"""A report built by several processes is the report, byte for byte, whatever becomes of them."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from textwrap import dedent

import pytest
from hypothesis import given, strategies
from pydicom import Dataset

from listener.storage.inbox import Inbox
from listener.storage.results import ReportIndex, ResultsFolder, ResultWriters, WrittenResult
from listener.workflow import shared_reports
from listener.workflow.part_board import PartBoard
from listener.workflow.part_builder import PartBuilder, start
from listener.workflow.report_parts import PartBuilt, PartRefused, ReportTask
from listener.workflow.report_process import Answer, Request, build_parts
from listener.workflow.shared_reports import START, SharedReports
from pipeline.domain import SmearFindings, SmearId, SOPInstanceUID
from pipeline.errors import Rejected
from pipeline.findings.smear_summary import gather_smear
from reporting.result_set import ResultSet, build_result_set
from reporting.results import ReportContext, Result, ResultKind
from tests.listener.house import QuickAnalysis, receive, until
from tests.reporting.headers import make_context

SERIES = "1.2.3.4"
SMEAR = SmearId(SERIES)
IMAGES = 5
KINDS = frozenset(
    {
        ResultKind.ANNOTATED_FIELD,
        ResultKind.SEGMENTATION,
        ResultKind.GALLERY,
        ResultKind.STRUCTURED_REPORT,
        ResultKind.TABLE,
    }
)
CONTEXT: ReportContext = replace(make_context(), kinds=KINDS)

SPEAKS = """
    import os, sys, time
    from multiprocessing.connection import Connection
    from pathlib import Path
    service, marker = Connection(int(sys.argv[2])), Path(sys.argv[1])
"""
"""What a process of these tests begins with: its socket, and a file that it touches."""

DEATHS = {
    "before it is ready": "marker.touch(); sys.exit(1)",
    "when it is given a report": """
        service.send("ready"); service.recv_bytes(); marker.touch(); sys.exit(1)
    """,
    "while it builds": """
        service.send("ready"); service.recv_bytes(); service.recv_bytes()
        marker.touch(); os.kill(os.getpid(), 9)
    """,
    "after nonsense": """
        service.send("ready"); service.recv_bytes(); marker.touch(); service.send("nonsense")
        while True:
            service.recv_bytes()
    """,
    "in the middle of a file": """
        from listener.workflow import report_process

        def build(task, number):
            for result in task._fields.of_part(number):
                (task._folder / result.name).write_bytes(result.content[:100])
                marker.touch()
                os.kill(os.getpid(), 9)

        report_process._Task.build = build
        report_process.main(service.fileno())
    """,
}
HANGS = """
    service.send("ready"); service.recv_bytes(); service.recv_bytes(); marker.touch()
    while True:
        time.sleep(1000)
"""
BUILDS_FOR_EVER = """
    from listener.workflow import report_process

    def build(task, number):
        marker.touch()
        while True:
            time.sleep(1000)

    report_process._Task.build = build
    report_process.main(service.fileno())
"""


class Site:
    """An inbox with the images of one smear, their findings, and a folder for results."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.inbox = Inbox(root / "inbox")
        self.results = ResultsFolder(root / "results", worker_id="w1")
        analysis = QuickAnalysis()
        fields = [
            found
            for number in range(1, IMAGES + 1)
            for found in analysis(
                self.inbox.read(receive(self.inbox, SERIES, number).sop_instance_uid)
            )
        ]
        self.smear: SmearFindings = gather_smear(SMEAR, fields)

    def alone(self) -> list[Result]:
        return list(build_result_set(self.smear, read_source=self.inbox.read, context=CONTEXT))

    def publish(self, results: Iterator[Result | WrittenResult], version: int = 1) -> ReportIndex:
        return self.results.smear(SMEAR).publish(
            results,
            version=version,
            issued_at=CONTEXT.issued_at,
            model_sha256="0f" * 32,
            software_version="0.1.0",
            sources=[field.sop_instance_uid for field in self.smear.fields],
            destinations=["pacs"],
        )

    def published(self, index: ReportIndex) -> list[Result]:
        return [self.results.smear(SMEAR).read(index.version, one) for one in index.results]

    def drafts(self) -> list[Path]:
        return list((self.root / "results" / "tmp" / "w1").rglob("*"))

    def task(self, folder: Path) -> ReportTask:
        results = ResultSet(self.smear, read_source=self.inbox.read, context=CONTEXT)
        return ReportTask(
            smear=self.smear,
            objects=results.objects,
            context=CONTEXT,
            inbox=self.inbox.root,
            folder=folder,
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def alone(site: Site) -> list[Result]:
    return site.alone()


def script(text: str, marker: Path) -> list[str]:
    """The command of a process that behaves as this script does."""
    return [sys.executable, "-c", dedent(SPEAKS) + dedent(text), str(marker)]


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@contextmanager
def sharing(site: Site, command: Sequence[str] = START, **limits: float) -> Iterator[SharedReports]:
    shared = SharedReports(
        inbox=site.inbox.root,
        results=site.results,
        processes=1,
        least_parts_to_start=1,
        command=command,
        **limits,
    )
    try:
        yield shared
    finally:
        shared.close()


def build(
    site: Site, shared: SharedReports, after: Callable[[], object] = lambda: True
) -> list[tuple[Result, str]]:
    """The results of a shared report, each with the name of the folder where it was written.

    Its own thread reads all headers, and the first picture when something was seen of a process.
    """
    reads = 0

    def read(image: SOPInstanceUID) -> Dataset:
        nonlocal reads
        reads += 1
        if reads > IMAGES:
            until(after)
        return site.inbox.read(image)

    return [taken(result) for result in shared(site.smear, read_source=read, context=CONTEXT)]


def taken(result: Result | WrittenResult) -> tuple[Result, str]:
    if isinstance(result, Result):
        return result, ""
    indexed = result.indexed
    content = (result.folder / indexed.name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == indexed.sha256
    made = Result(
        kind=indexed.kind,
        name=indexed.name,
        media_type=indexed.media_type,
        uid=indexed.uid,
        content=content,
    )
    return made, result.folder.name


def contents(built: list[tuple[Result, str]]) -> list[Result]:
    return [result for result, _ in built]


class TestAProcessThatDies:
    @pytest.mark.parametrize("when", DEATHS)
    def test_its_parts_are_built_without_it(
        self,
        site: Site,
        alone: list[Result],
        tmp_path: Path,
        when: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        marker = tmp_path / "seen"
        with sharing(site, script(DEATHS[when], marker)) as shared:
            built = build(site, shared, marker.exists)
            until(lambda: shared.pids == [] and caplog.records)
            [record] = caplog.records

            again = build(site, shared)

        assert contents(built) == alone
        assert contents(again) == alone
        assert site.drafts() == []
        assert record.levelname == "WARNING"
        assert "Doe" not in caplog.text

    def test_one_that_hangs_is_ended_and_its_parts_are_built_without_it(
        self, site: Site, alone: list[Result], tmp_path: Path
    ) -> None:
        marker = tmp_path / "seen"
        with sharing(site, script(HANGS, marker), patience_s=0.2) as shared:
            built = build(site, shared, marker.exists)

            until(lambda: shared.pids == [])
        assert contents(built) == alone

    def test_one_that_cannot_be_started_is_done_without(
        self, site: Site, alone: list[Result]
    ) -> None:
        with sharing(site, ["/nowhere/python"]) as shared:
            assert contents(build(site, shared)) == alone

    def test_it_ends_with_the_service_that_is_killed(self) -> None:
        service = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import time\n"
                "from listener.workflow.part_builder import start\n"
                "from listener.workflow.shared_reports import START\n"
                "child = start(START)\n"
                "child.expect_ready()\n"
                "print(child.process.pid, flush=True)\n"
                "time.sleep(1000)",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert service.stdout is not None
        pid = int(service.stdout.readline())
        assert is_running(pid)

        service.kill()
        service.wait()

        until(lambda: not is_running(pid))
        service.stdout.close()

    def test_one_that_is_stopped_and_idle_ends_with_the_service(self, site: Site) -> None:
        tmp = site.root / "results" / "tmp"
        with sharing(site, idle_s=300) as shared:
            build(site, shared, lambda: any(tmp.glob("*/staged-*/process-0/*.dcm")))
            [pid] = shared.pids
            os.kill(pid, signal.SIGSTOP)

        assert not is_running(pid)
        assert shared.pids == []

    def test_it_ends_with_its_socket_while_it_builds(self, site: Site, tmp_path: Path) -> None:
        marker = tmp_path / "seen"
        child = start(script(BUILDS_FOR_EVER, marker))
        child.expect_ready()
        child.connection.send(site.task(tmp_path))
        child.connection.send(0)
        until(marker.exists)

        child.connection.close()

        assert child.process.wait(300) == 0


class TestTogether:
    def test_nobody_can_tell_who_built_what(self, site: Site, alone: list[Result]) -> None:
        tmp = site.root / "results" / "tmp"

        def has_built() -> bool:
            return any(tmp.glob("*/staged-*/process-0/*.dcm"))

        with sharing(site, idle_s=300) as shared:
            first = build(site, shared, has_built)
            [pid] = shared.pids
            command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)
            second = build(site, shared, has_built)
            version = site.publish(shared(site.smear, read_source=site.inbox.read, context=CONTEXT))

            assert shared.pids == [pid], "a stop is the service's"

        assert contents(first) == alone
        assert contents(second) == alone
        assert {"process-0", "own"} <= {folder for _, folder in first}
        assert {"process-0", "own"} <= {folder for _, folder in second}
        assert site.published(version) == alone
        assert site.drafts() == []
        assert command[:-2] == list(START)
        assert not is_running(pid)

    def test_a_process_ends_when_it_has_nothing_to_do(
        self, site: Site, alone: list[Result]
    ) -> None:
        with sharing(site, idle_s=0.05) as shared:
            build(site, shared, lambda: shared.pids)

            until(lambda: shared.pids == [])

            assert contents(build(site, shared)) == alone

    def test_a_small_report_starts_no_process(self, site: Site, alone: list[Result]) -> None:
        shared = SharedReports(inbox=site.inbox.root, results=site.results, processes=1)

        built = build(site, shared)

        assert contents(built) == alone
        assert shared.pids == []
        shared.close()

    def test_images_of_which_two_need_much_memory_are_not_shared(
        self, site: Site, alone: list[Result], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shared_reports, "MOST_SHARED_BYTES", 1)
        with sharing(site) as shared:
            built = build(site, shared)

            assert shared.pids == []
        assert contents(built) == alone

    def test_a_second_report_at_the_same_time_is_built_alone(
        self, site: Site, alone: list[Result], tmp_path: Path
    ) -> None:
        marker = tmp_path / "seen"
        others: list[list[tuple[Result, str]]] = []

        def second() -> bool:
            if marker.exists() and not others:
                others.append([])
                others[0] = build(site, shared)
            return bool(others)

        with sharing(site, script(HANGS, marker), patience_s=0.2) as shared:
            first = build(site, shared, second)

        assert contents(first) == contents(others[0]) == alone
        assert {folder for _, folder in others[0]} == {""}

    def test_an_image_that_is_gone_is_told_as_without_processes(self, tmp_path: Path) -> None:
        site = Site(tmp_path)
        with sharing(site) as shared:
            headers = 0

            def read(image: SOPInstanceUID) -> Dataset:
                nonlocal headers
                headers += 1
                if headers == IMAGES:
                    dataset = site.inbox.read(image)
                    for field in site.smear.fields:
                        site.inbox.remove(field.sop_instance_uid)
                    return dataset
                return site.inbox.read(image)

            building = shared(site.smear, read_source=read, context=CONTEXT)
            with pytest.raises(Rejected) as refused:
                list(building)

        assert refused.value.code == "image_absent"


class TestTheProcess:
    """Its work, on a thread of this process."""

    @pytest.fixture
    def answers(self, site: Site, tmp_path: Path) -> Iterator[Callable[..., list[Answer]]]:
        requests: SimpleQueue[Request] = SimpleQueue()
        answered: SimpleQueue[Answer] = SimpleQueue()
        writers = ResultWriters()
        threading.Thread(
            target=build_parts, args=(requests, answered.put, writers), daemon=True
        ).start()

        def ask(task: ReportTask, *numbers: int) -> list[Answer]:
            requests.put(task)
            for number in numbers:
                requests.put(number)
            return [answered.get() for _ in numbers]

        with writers:
            yield ask

    def test_it_answers_each_part_when_it_is_on_disk(
        self,
        site: Site,
        alone: list[Result],
        tmp_path: Path,
        answers: Callable[..., list[Answer]],
    ) -> None:
        built = answers(site.task(tmp_path), *range(IMAGES))

        assert [one.number for one in built] == list(range(IMAGES))
        results = [
            taken(result)[0]
            for one in built
            if isinstance(one, PartBuilt)
            for result in one.results
        ]
        assert results == alone[: len(results)]
        assert len(results) == IMAGES * 2

    def test_each_card_is_told_once(
        self, site: Site, tmp_path: Path, answers: Callable[..., list[Answer]]
    ) -> None:
        built = answers(site.task(tmp_path), *range(IMAGES))

        ranks = [rank for one in built if isinstance(one, PartBuilt) for rank in one.cards]
        assert sorted(ranks) == list(range(12))

    def test_what_goes_wrong_refuses_that_part_alone(
        self, site: Site, tmp_path: Path, answers: Callable[..., list[Answer]]
    ) -> None:
        good = site.task(tmp_path)
        unwritable = replace(good, folder=tmp_path / "absent")
        elsewhere = replace(good, inbox=tmp_path / "empty")

        answered = [*answers(unwritable, 0), *answers(elsewhere, 0), *answers(good, IMAGES, 0)]

        assert [type(one) for one in answered] == [PartRefused] * 3 + [PartBuilt]


PARTS = 8
ACTS = ("take", "build", "refuse", "die", "here")


@given(acts=strategies.lists(strategies.sampled_from(ACTS), max_size=40))
def test_every_part_is_built_once_whatever_processes_do(acts: list[str]) -> None:
    board = PartBoard(range(PARTS))
    taken_by_process: list[int] = []
    built: list[int] = []
    refused: set[int] = set()
    for act in [*acts, "die", *["here"] * PARTS]:
        if act == "take" and (number := board.take()) is not None:
            assert number not in refused
            taken_by_process.append(number)
        elif act == "build" and taken_by_process:
            built.append(taken_by_process.pop())
            board.built(built[-1], [], {})
        elif act == "refuse" and taken_by_process:
            refused.add(taken_by_process[-1])
            board.refuse(taken_by_process.pop())
        elif act == "die":
            board.give_back(taken_by_process)
            taken_by_process.clear()
        elif act == "here" and (number := board.take_here()) is not None:
            built.append(number)
            board.built_here(number, [])

    assert sorted(built) == list(range(PARTS))
    assert board.is_done
    assert board.are_built(range(PARTS))


def test_a_builder_that_is_closed_takes_part_in_nothing(site: Site, tmp_path: Path) -> None:
    builder = PartBuilder(START, idle_s=60)
    builder.close()

    assert not builder.join(PartBoard([0]), site.task(tmp_path), may_start=True)

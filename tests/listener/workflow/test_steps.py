"""A step may run twice and does its work once; what goes wrong with one image stays with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from listener.workflow.memory_budget import MOST_SHARED_BYTES, MemoryBudget, bytes_needed
from listener.workflow.steps import (
    CloseResult,
    ReportSettings,
    ReportStatus,
    ReportStep,
    ResultBuilder,
)
from pipeline.domain import FieldFindings, Reviewer, SmearId, SOPInstanceUID
from pipeline.errors import RetryLater
from pipeline.findings.review import Act, ReviewEvent, cell_key
from reporting.audit.trail import Event
from reporting.results import Result
from tests.fakes import RecordingAudit
from tests.findings import MODEL
from tests.listener.house import (
    BAD_SERIES,
    KINDS,
    QuickAnalysis,
    Shelf,
    WorkflowSite,
    make_house,
    quick_results,
    receive,
    to_all,
)

SMEAR = SmearId("1.2.3.4")


@pytest.fixture
def audit() -> RecordingAudit:
    return RecordingAudit()


@pytest.fixture
def house(tmp_path: Path, audit: RecordingAudit) -> WorkflowSite:
    return make_house(tmp_path, audit=audit, destinations=[Shelf()])


def analysed(house: WorkflowSite, *numbers: int, smear: SmearId = SMEAR) -> list[SOPInstanceUID]:
    images = [receive(house.inbox, smear, number).sop_instance_uid for number in numbers]
    for image in images:
        house.images.analyse(image, smear)
    return images


NOW = datetime(2026, 11, 24, 20, tzinfo=UTC)


def review_a_cell(house: WorkflowSite, image: SOPInstanceUID) -> None:
    """A person looks at the first cell of an image."""
    folder = house.results.smear(SMEAR)
    [field] = folder.fields(image)
    seen = ReviewEvent(
        id="seen-1",
        at=NOW,
        reviewer=Reviewer(account="jm", name="J. Meyer"),
        act=Act.SEEN,
        cells=(cell_key(field, field.cells[0].cell),),
    )
    folder.review().append(seen, seen_revision=0)


class TestImages:
    def test_an_image_is_analysed_once_however_often_the_step_runs(
        self, house: WorkflowSite, audit: RecordingAudit
    ) -> None:
        [image] = analysed(house, 1)

        again = house.images.analyse(image, SMEAR)

        assert again is None
        assert house.analysis.seen == {image: 1}
        assert audit.events == [Event.IMAGE_ANALYSED]

    def test_one_that_breaks_a_rule_is_parked_under_its_code(
        self, house: WorkflowSite, audit: RecordingAudit
    ) -> None:
        image = receive(house.inbox, BAD_SERIES, 1).sop_instance_uid

        code = house.images.analyse(image, SmearId(BAD_SERIES))

        assert code == "decode_failed"
        assert list(house.inbox.parked()) == [(image, "decode_failed")]
        assert not house.inbox.is_waiting(image)
        assert audit.events == [Event.IMAGE_PARKED]

    def test_what_nobody_thought_of_parks_that_image_alone(self, tmp_path: Path) -> None:
        house = make_house(tmp_path, audit=RecordingAudit(), analysis=_Failing(ZeroDivisionError()))

        code = house.images.analyse(receive(house.inbox, SMEAR, 1).sop_instance_uid, SMEAR)

        assert code == "defect"

    def test_a_reviewed_smear_takes_no_image_of_another_network(
        self, house: WorkflowSite, tmp_path: Path
    ) -> None:
        """It stays as it is: it can be read, corrected and reported."""
        [first] = analysed(house, 1)
        review_a_cell(house, first)
        newer = _Newer()
        later = make_house(tmp_path, audit=RecordingAudit(), analysis=newer)
        late = receive(later.inbox, SMEAR, 2).sop_instance_uid

        code = later.images.analyse(late, SMEAR)

        assert code == "reviewed_with_another_network"
        assert list(later.inbox.parked()) == [(late, code)]
        assert later.results.smear(SMEAR).analysed() == {first}
        assert newer.seen == {}
        closed = later.reports.close(SMEAR, known=None, is_waiting=False)
        assert closed.standing is ReportStatus.REPORTED

    def test_a_reviewed_smear_takes_a_late_image_of_the_same_network(
        self, house: WorkflowSite
    ) -> None:
        [first] = analysed(house, 1)
        review_a_cell(house, first)

        [late] = analysed(house, 2)

        assert house.results.smear(SMEAR).analysed() == {first, late}

    def test_a_world_that_is_not_ready_parks_nothing(self, tmp_path: Path) -> None:
        trouble = RetryLater("The disk is away", code="storage_unavailable")
        house = make_house(tmp_path, audit=RecordingAudit(), analysis=_Failing(trouble))
        image = receive(house.inbox, SMEAR, 1).sop_instance_uid

        with pytest.raises(RetryLater):
            house.images.analyse(image, SMEAR)

        assert house.inbox.is_waiting(image)

    def test_it_is_settled_when_analysed_or_parked_and_not_before(
        self, house: WorkflowSite
    ) -> None:
        images = house.images
        fresh = receive(house.inbox, SMEAR, 1).sop_instance_uid
        [done] = analysed(house, 2)
        bad = receive(house.inbox, BAD_SERIES, 1).sop_instance_uid
        images.analyse(bad, SmearId(BAD_SERIES))

        settled = [images.is_settled(one, SMEAR) for one in (fresh, done, bad)]

        assert settled == [False, True, True]


class TestReports:
    def test_nothing_is_reported_of_a_smear_without_images(self, house: WorkflowSite) -> None:
        assert close(house).standing is ReportStatus.EMPTY

    def test_it_waits_for_images_that_are_still_queued(self, house: WorkflowSite) -> None:
        analysed(house, 1)

        assert close(house, is_waiting=True).standing is ReportStatus.WAITING

    def test_a_close_that_a_newer_image_overtook_is_left_to_that_one_s(
        self, house: WorkflowSite
    ) -> None:
        analysed(house, 1, 2)

        assert close(house, known=1).standing is ReportStatus.OVERTAKEN
        assert close(house, known=2).standing is ReportStatus.REPORTED

    def test_closing_twice_reports_once_and_names_the_same_deliveries(
        self, house: WorkflowSite, audit: RecordingAudit
    ) -> None:
        analysed(house, 1)

        first, second = close(house), close(house)

        assert (first.standing, second.standing) == (ReportStatus.REPORTED, ReportStatus.UNCHANGED)
        assert (first.version, first.destinations) == (second.version, second.destinations)
        assert first.destinations == ("pacs",)
        assert audit.events.count(Event.SMEAR_REPORTED) == 1

    def test_a_late_image_makes_the_next_version_of_all(self, house: WorkflowSite) -> None:
        early = analysed(house, 1, 2)
        close(house)
        late = analysed(house, 3)

        closing = close(house)

        latest = house.results.smear(SMEAR).latest()
        assert (closing.standing, closing.version) == (ReportStatus.REPORTED, 2)
        assert latest is not None
        assert set(latest.sources) == {*early, *late}

    def test_a_clock_that_was_set_back_makes_no_older_version(self, tmp_path: Path) -> None:
        clock = [NOW, NOW - timedelta(hours=1)]
        house = make_house(tmp_path, audit=RecordingAudit(), clock=lambda: clock[0])
        analysed(house, 1)
        close(house)
        first = house.results.smear(SMEAR).latest()

        clock.pop(0)
        analysed(house, 2)
        close(house)

        second = house.results.smear(SMEAR).latest()
        assert first is not None
        assert second is not None
        assert second.version == 2
        assert second.issued_at > first.issued_at

    def test_findings_of_an_older_model_are_made_anew(
        self, tmp_path: Path, house: WorkflowSite
    ) -> None:
        """One report speaks with one voice."""
        [image] = analysed(house, 1)
        newer = _Newer()
        later = make_house(tmp_path, audit=RecordingAudit(), analysis=newer)

        later.reports.close(SMEAR, known=None, is_waiting=False)

        assert newer.seen == {image: 1}
        [field] = later.results.smear(SMEAR).fields(image)
        assert field.model.sha256 == newer.model_key


def reports_of(
    house: WorkflowSite, build: ResultBuilder = quick_results, **more: Any
) -> ReportStep:
    """The step that reports what the house has analyzed."""
    return ReportStep(
        inbox=house.inbox,
        results=house.results,
        analysis=house.analysis,
        build_results=build,
        build_variant=build,
        route=to_all(house.destinations),
        settings=ReportSettings(kinds=KINDS, compress_images=True, software_version="0.1.0"),
        audit=house.audit,
        clock=lambda: NOW,
        **more,
    )


class _Noted(MemoryBudget):
    def __init__(self) -> None:
        super().__init__(2**40)
        self.wanted: list[int] = []

    @contextmanager
    def reserved(self, wanted: int) -> Iterator[None]:
        self.wanted.append(wanted)
        with super().reserved(wanted):
            yield


@pytest.mark.parametrize(("most_shared", "frames"), [(MOST_SHARED_BYTES, 3), (1, 1)])
def test_a_report_holds_the_memory_of_all_images_worked_on_at_once(
    house: WorkflowSite, monkeypatch: pytest.MonkeyPatch, most_shared: int, frames: int
) -> None:
    """Large ones are worked on one after the other."""
    monkeypatch.setattr("listener.workflow.steps.MOST_SHARED_BYTES", most_shared)
    [image] = analysed(house, 1)
    header = house.inbox.read_header(image)
    memory = _Noted()
    reports = reports_of(house, memory=memory, frames_at_once=3)

    reports.close(SMEAR, known=None, is_waiting=False)

    one = bytes_needed(header, to_read=house.inbox.bytes_to_read(image))
    assert memory.wanted == [one * frames]


def test_free_memory_is_given_back_before_and_after_a_report(house: WorkflowSite) -> None:
    """What the analysis has left lies free beneath what the report is about to take."""
    analysed(house, 1)
    acts: list[str] = []

    def build(*smear: Any, **asked: Any) -> Iterator[Result]:
        acts.append("report")
        return quick_results(*smear, **asked)

    reports = reports_of(house, build, give_back=lambda: acts.append("give back"))

    reports.close(SMEAR, known=None, is_waiting=False)
    reports.close(SMEAR, known=None, is_waiting=False)

    assert acts == ["give back", "report", "give back"]


def close(
    house: WorkflowSite, *, known: int | None = None, is_waiting: bool = False
) -> CloseResult:
    return house.reports.close(SMEAR, known=known, is_waiting=is_waiting)


class _Failing:
    model_key = MODEL.key

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __call__(self, dataset: Dataset) -> tuple[FieldFindings, ...]:
        raise self._error


class _Newer(QuickAnalysis):
    def __init__(self) -> None:
        super().__init__(model_key="f" * 64)

    def __call__(self, dataset: Dataset) -> tuple[FieldFindings, ...]:
        return tuple(self._renewed(super().__call__(dataset)))

    def _renewed(self, fields: tuple[FieldFindings, ...]) -> Iterator[FieldFindings]:
        for field in fields:
            yield replace(field, model=replace(field.model, sha256=self.model_key))

"""A person's act is checked, kept, told to the auditor, and reported again in its time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from config.sections import ReviewSettings
from config.settings import make_settings
from listener.queue.jobs import Job, reviewed_to
from listener.storage.data_folder import Store, open_store
from listener.storage.reviews import StaleReview
from listener.workflow.reviews import Reviews
from pipeline.domain import Call, Reviewer, SignOff, SmearId, SOPInstanceUID
from pipeline.errors import Rejected
from pipeline.findings.review import Act, CellKey, ReviewEvent, cell_key
from reporting.audit.schema import Event
from tests.fakes import RecordingAudit
from tests.findings import make_cell, make_cell_finding, make_field_findings
from tests.listener.house import receive

SERIES = "1.2.840.7"
SMEAR = SmearId(SERIES)
MEYER = Reviewer(account="jm", name="Johanna Meyer")
OKOYE = Reviewer(account="ao", name="Ada Okoye")


class Desk:
    """Reviews of a smear with one referred and one normal cell, with what they caused."""

    def __init__(self, tmp_path: Path, **settings: Any) -> None:
        site = make_settings({"service": {"data_dir": str(tmp_path / "data")}})
        self.store: Store = open_store(site, worker_id="w")
        receive(self.store.inbox, SERIES, 1)
        field = make_field_findings(
            sop_instance_uid=f"{SERIES}.1", calls=(Call.REFERRED, Call.NORMAL)
        )
        self.store.results.smear(SMEAR).save_fields(SOPInstanceUID(f"{SERIES}.1"), [field])
        self.cells = [cell_key(field, found.cell) for found in field.cells]
        self.audit = RecordingAudit()
        self.jobs: list[Job] = []
        self.reviews = Reviews.open(
            store=self.store,
            settings=ReviewSettings(**settings),
            audit=self.audit,
            enqueue=self.jobs.append,
            recorded_since=self.audit.review_events,
            find_at=lambda _field, _x, _y: make_cell_finding(make_cell(1, 300, 300)),
        )

    def act(
        self, what: Act, *cells: CellKey, seen: int, who: Reviewer = MEYER, **given: Any
    ) -> ReviewEvent:
        event = ReviewEvent(
            id=given.pop("id", f"{what}-{seen}-{who.account}"),
            at=datetime(2026, 11, 28, tzinfo=UTC),
            reviewer=who,
            act=what,
            cells=cells,
            **given,
        )
        return self.reviews.record(SMEAR, event, seen_revision=seen)

    def settle_all(self) -> int:
        self.act(Act.RECLASSIFY, self.cells[0], seen=0, to="monocyte")
        self.act(Act.SEEN, self.cells[1], seen=1)
        return 2


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_refused_act_leaves_no_trace(desk: Desk) -> None:
    with pytest.raises(Rejected):
        desk.act(Act.RECLASSIFY, CellKey("9.9:1:1"), seen=0, to="monocyte")

    assert desk.reviews.events(SMEAR) == ()
    assert desk.jobs == []
    assert desk.audit.recorded == []


def test_an_act_on_an_older_page_is_told_what_changed(desk: Desk) -> None:
    desk.act(Act.SEEN, desk.cells[0], seen=0)

    with pytest.raises(StaleReview) as stale:
        desk.act(Act.RECLASSIFY, desk.cells[0], seen=0, who=OKOYE, to="monocyte")

    assert [one.reviewer for one in stale.value.since] == [MEYER]


def test_a_signature_is_refused_while_cells_are_open(desk: Desk) -> None:
    with pytest.raises(Rejected, match="1 unidentified and 2 unseen"):
        desk.act(Act.SIGN, seen=0)


def test_a_signature_over_open_cells_needs_a_reason(desk: Desk) -> None:
    desk.act(Act.SIGN, seen=0, reason="poor slide, repeat ordered")

    assert desk.reviews.read(SMEAR).state.sign_off is SignOff.FINAL


def test_a_site_may_ask_for_less(tmp_path: Path) -> None:
    desk = Desk(tmp_path, must_identify=False, must_see_all=False)

    desk.act(Act.SIGN, seen=0)

    assert desk.reviews.read(SMEAR).state.sign_off is SignOff.FINAL


def test_a_site_may_ask_for_two_readers(tmp_path: Path) -> None:
    desk = Desk(tmp_path, readers=2)
    seen = desk.settle_all()

    desk.act(Act.SIGN, seen=seen)
    after_one = desk.reviews.read(SMEAR).state.sign_off
    desk.act(Act.COUNTERSIGN, seen=seen + 1, who=OKOYE)

    assert after_one is SignOff.UNSIGNED
    assert desk.reviews.read(SMEAR).state.sign_off is SignOff.FINAL


def test_nobody_countersigns_their_own_signature(desk: Desk) -> None:
    seen = desk.settle_all()
    desk.act(Act.SIGN, seen=seen)

    with pytest.raises(Rejected, match="Somebody else"):
        desk.act(Act.COUNTERSIGN, seen=seen + 1)

    desk.act(Act.COUNTERSIGN, seen=seen + 1, who=OKOYE)


def test_a_correction_is_reported_after_a_quiet_while_and_a_signature_at_once(desk: Desk) -> None:
    seen = desk.settle_all()
    desk.act(Act.SIGN, seen=seen)

    correction, signature = desk.jobs
    assert correction.delay_s == ReviewSettings().quiet_s
    assert signature.delay_s == 0
    assert reviewed_to(str(signature.arguments[1])) == 3


def test_what_was_only_looked_at_is_not_reported_again(desk: Desk) -> None:
    desk.act(Act.SEEN, desk.cells[0], seen=0)

    assert desk.jobs == []


def test_a_signature_covers_the_fields_that_there_are(desk: Desk) -> None:
    desk.act(Act.SIGN, seen=desk.settle_all())

    [signature] = desk.reviews.read(SMEAR).state.signatures
    assert signature.fields == (f"{SERIES}.1:1",)


def test_the_trail_has_id_and_class_and_neither_name_nor_comment(desk: Desk) -> None:
    desk.act(
        Act.RECLASSIFY, desk.cells[0], seen=0, to="monocyte", comment="Mr Doe", reason="Mr Doe"
    )

    [event] = desk.audit.recorded
    assert event.event is Event.REVIEW_RECORDED
    assert event.fields["given_class"] == "monocyte"
    assert event.fields["review_event"] == "reclassify-0-jm"
    assert "Doe" not in repr(event)
    assert "Johanna" not in repr(event)


def test_a_missed_cell_is_outlined_and_kept(desk: Desk) -> None:
    event = ReviewEvent(
        id="add",
        at=datetime(2026, 11, 28, tzinfo=UTC),
        reviewer=MEYER,
        act=Act.ADD_CELL,
        fields=(desk.reviews.read(SMEAR).found.fields[0].sop_instance_uid + ":1",),  # type: ignore[arg-type]
        to="monocyte",
    )

    kept = desk.reviews.add_cell(SMEAR, event, place=(300, 300), seen_revision=0)

    assert kept.added is not None
    assert len(desk.reviews.read(SMEAR).smear.fields[0].cells) == 3
    again = desk.reviews.add_cell(
        SMEAR, replace(event, id="add2"), place=(300, 300), seen_revision=1
    )
    assert again.added is not None
    assert again.added.cell.index != kept.added.cell.index


def test_a_request_that_comes_again_is_told_to_the_auditor_once(desk: Desk) -> None:
    first = desk.act(Act.SEEN, desk.cells[0], seen=0, id="a" * 32)

    again = desk.act(Act.SEEN, desk.cells[0], seen=0, id="a" * 32)

    assert again.revision == first.revision
    assert [one.fields["review_event"] for one in desk.audit.recorded] == ["a" * 32]


def test_an_act_whose_writer_died_before_it_told_is_told_by_the_request_that_comes_again(
    desk: Desk,
) -> None:
    kept = desk.act(Act.CONFIRM, desk.cells[1], seen=0, to="lymphocyte")
    desk.audit.recorded.clear()  # as if the process had died right after the file was there
    desk.jobs.clear()

    desk.act(Act.CONFIRM, desk.cells[1], seen=0, to="lymphocyte")

    assert [one.fields["review_event"] for one in desk.audit.recorded] == [kept.id]
    assert len(desk.jobs) == 1


def test_the_next_start_tells_and_reports_what_a_process_kept_and_then_died(desk: Desk) -> None:
    kept = desk.act(Act.CONFIRM, desk.cells[1], seen=0, to="lymphocyte")
    desk.audit.recorded.clear()
    desk.jobs.clear()

    met = [desk.reviews.catch_up() for _ in range(2)]

    assert met[0] == 1
    assert [one.fields["review_event"] for one in desk.audit.recorded] == [kept.id]
    assert reviewed_to(str(desk.jobs[0].arguments[1])) == kept.revision


def test_a_start_passes_over_smears_without_a_review(desk: Desk) -> None:
    assert desk.reviews.catch_up() == 0
    assert desk.audit.recorded == []


def test_a_missed_cell_that_is_asked_for_again_is_not_looked_for_again(desk: Desk) -> None:
    field = CellKey(desk.cells[0].rpartition(":")[0])
    event = ReviewEvent(
        id="add",
        at=datetime(2026, 11, 28, tzinfo=UTC),
        reviewer=MEYER,
        act=Act.ADD_CELL,
        fields=(field,),  # type: ignore[arg-type]
    )
    first = desk.reviews.add_cell(SMEAR, event, place=(300, 300), seen_revision=0)

    def dead(*_: object) -> Any:
        raise Rejected("No cell is there.", code="no_cell_there")

    again = replace(desk.reviews, find_at=dead).add_cell(
        SMEAR, event, place=(300, 300), seen_revision=0
    )

    assert again.revision == first.revision
    assert len(desk.reviews.events(SMEAR)) == 1

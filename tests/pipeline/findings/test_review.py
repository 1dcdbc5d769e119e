"""The reviewed smear is a pure fold over events: nothing lost, nothing overwritten in silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import Call, CellType, Reviewer, SignOff, SmearFindings
from pipeline.errors import Rejected
from pipeline.findings.review import (
    CLASSES,
    NOT_A_CELL,
    UNIDENTIFIED,
    Act,
    CellKey,
    FieldKey,
    ReviewEvent,
    cell_key,
    check_event,
    field_key,
    field_of,
    fold,
    open_points,
    review_smear,
)
from pipeline.findings.smear_summary import bucket_counts, found_cell_count, referred_cell_count
from tests.findings import make_cell, make_cell_finding, make_field_findings, make_smear_findings

MEYER = Reviewer(account="jm", name="J. Meyer")
OKOYE = Reviewer(account="ao", name="A. Okoye")
NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def smear_of(*calls: Call, fields: int = 1) -> SmearFindings:
    return make_smear_findings(
        [
            make_field_findings(sop_instance_uid=f"1.2.3.{number}", calls=calls or (Call.NORMAL,))
            for number in range(1, fields + 1)
        ]
    )


def keys_of(smear: SmearFindings) -> list[CellKey]:
    return [cell_key(one, found.cell) for one in smear.fields for found in one.cells]


def act(revision: int, what: Act, **given: object) -> ReviewEvent:
    values: dict[str, object] = {
        "id": f"e{revision}",
        "revision": revision,
        "at": NOON + timedelta(seconds=revision),
        "reviewer": MEYER,
        "act": what,
    }
    return ReviewEvent(**{**values, **given})  # type: ignore[arg-type]


class TestRefusedEvents:
    """Bad input gets a clear answer before it gets into the log."""

    @pytest.mark.parametrize(
        ("event", "code"),
        [
            (act(1, Act.SEEN, cells=("9.9:1:1",)), "review_unknown_cell"),
            (act(1, Act.EXCLUDE_FIELD, fields=("9.9:1",)), "review_unknown_field"),
            (act(1, Act.RECLASSIFY, cells=("1.2.3.1:1:1",), to="unicorn"), "review_unknown_class"),
            (act(1, Act.RECLASSIFY, cells=("1.2.3.1:1:1",)), "review_unknown_class"),
            (act(1, Act.RECLASSIFY, to="blast"), "review_incomplete"),
            (act(1, Act.SET_TARGET, to="150"), "review_bad_target"),
            (act(1, Act.UNDO), "review_nothing_to_undo"),
            (act(1, Act.ADD_CELL, fields=("1.2.3.1:1",)), "review_incomplete"),
            (act(1, Act.COMMENT, comment="  "), "review_incomplete"),
            (act(1, Act.WITHDRAW), "review_incomplete"),
            (act(1, Act.EXCLUDE_FIELD), "review_incomplete"),
            (act(1, Act.STAR), "review_incomplete"),
        ],
    )
    def test_an_event_that_makes_no_sense_is_refused_by_its_code(
        self, event: ReviewEvent, code: str
    ) -> None:
        smear = smear_of(Call.NORMAL)

        with pytest.raises(Rejected) as refused:
            check_event(event, fold([]), smear.fields)

        assert refused.value.code == code

    def test_an_event_needs_a_time_zone(self) -> None:
        with pytest.raises(ValueError, match="time zone"):
            act(1, Act.SEEN, at=datetime(2026, 11, 28))  # noqa: DTZ001


class TestDecisions:
    def test_a_smear_without_events_is_as_it_was(self) -> None:
        smear = smear_of(Call.LEUKEMIC, Call.NORMAL)

        assert review_smear(smear, fold([])) is smear

    def test_a_reclassified_cell_is_counted_under_its_new_class(self) -> None:
        smear = smear_of(Call.LEUKEMIC, Call.NORMAL)
        [blast, _] = keys_of(smear)

        reviewed = review_smear(
            smear, fold([act(1, Act.RECLASSIFY, cells=(blast,), to="monocyte")])
        )

        assert (reviewed.leukemic_count, reviewed.normal_count) == (0, 2)
        assert reviewed.differential[CellType.MONOCYTE] == 1
        assert reviewed.review is not None
        assert reviewed.review.model_counts.leukemic_count == 1
        assert [change.to for change in reviewed.review.changes] == ["monocyte"]

    def test_the_network_s_word_stays_beside_the_person_s(self) -> None:
        smear = smear_of(Call.LEUKEMIC)
        [key] = keys_of(smear)

        reviewed = review_smear(smear, fold([act(1, Act.RECLASSIFY, cells=(key,), to="monocyte")]))

        [finding] = reviewed.fields[0].cells
        assert finding.decision is not None
        assert finding.decision.model_call is Call.LEUKEMIC
        assert finding.decision.model_type is smear.fields[0].cells[0].cell_type
        assert finding.prediction is smear.fields[0].cells[0].prediction

    def test_a_referred_cell_that_is_named_joins_the_count(self) -> None:
        smear = smear_of(Call.REFERRED)
        [key] = keys_of(smear)

        reviewed = review_smear(
            smear, fold([act(1, Act.RECLASSIFY, cells=(key,), to="myeloblast")])
        )

        assert (reviewed.white_cells_counted, reviewed.leukemic_count) == (1, 1)
        assert referred_cell_count(reviewed) == 0

    def test_what_is_no_cell_leaves_the_count_and_is_named(self) -> None:
        smear = smear_of(Call.NORMAL, Call.NORMAL)
        key = keys_of(smear)[0]

        reviewed = review_smear(smear, fold([act(1, Act.NOT_A_CELL, cells=(key,))]))

        assert found_cell_count(reviewed) == 1
        assert reviewed.review is not None
        assert reviewed.review.not_cells == 1

    def test_a_cell_that_nobody_can_name_is_referred(self) -> None:
        smear = smear_of(Call.NORMAL)
        [key] = keys_of(smear)

        reviewed = review_smear(
            smear, fold([act(1, Act.RECLASSIFY, cells=(key,), to=UNIDENTIFIED)])
        )

        assert referred_cell_count(reviewed) == 1

    def test_a_confirmed_cell_is_no_change(self) -> None:
        smear = smear_of(Call.NORMAL)
        [key] = keys_of(smear)

        reviewed = review_smear(
            smear, fold([act(1, Act.CONFIRM, cells=(key,), to="lymphocyte")])
        ).review

        assert reviewed is not None
        assert (reviewed.changes, reviewed.confirmed) == ((), 1)

    def test_the_last_of_two_readers_decides_and_both_readings_are_kept(self) -> None:
        [key] = keys_of(smear_of(Call.NORMAL))

        state = fold(
            [
                act(1, Act.RECLASSIFY, cells=(key,), to="monocyte"),
                act(2, Act.RECLASSIFY, cells=(key,), to="eosinophil", reviewer=OKOYE),
            ]
        )

        assert state.decisions[key].reviewer == OKOYE
        assert state.readings["jm"][key].to == "monocyte"
        assert state.readings["ao"][key].to == "eosinophil"

    def test_a_missed_cell_is_added_with_the_person_s_class(self) -> None:
        smear = smear_of(Call.NORMAL)
        missed = make_cell_finding(make_cell(10_001, 300, 300), Call.LEUKEMIC)

        reviewed = review_smear(
            smear,
            fold(
                [
                    act(
                        1,
                        Act.ADD_CELL,
                        fields=(field_key(smear.fields[0]),),
                        added=missed,
                        to="monocyte",
                    )
                ]
            ),
        )

        assert (reviewed.white_cells_counted, reviewed.leukemic_count) == (2, 0)
        assert reviewed.review is not None
        assert reviewed.review.added == 1

    def test_an_excluded_field_is_refused_and_its_cells_leave_the_count(self) -> None:
        smear = smear_of(Call.NORMAL, fields=2)

        reviewed = review_smear(
            smear, fold([act(1, Act.EXCLUDE_FIELD, fields=(field_key(smear.fields[0]),))])
        )

        assert reviewed.white_cells_counted == 1
        assert list(reviewed.fields_rejected) == [smear.fields[0].sop_instance_uid]

    def test_a_target_count_leaves_later_cells_out(self) -> None:
        smear = smear_of(*[Call.NORMAL] * 130)

        reviewed = review_smear(smear, fold([act(1, Act.SET_TARGET, to="100")]))

        assert reviewed.white_cells_counted == 100
        assert reviewed.review is not None
        assert reviewed.review.beyond_target == 30

    @pytest.mark.parametrize("to", [one for one in CLASSES if one != NOT_A_CELL])
    def test_every_class_that_a_person_may_give_has_a_probability_beside_it(self, to: str) -> None:
        smear = smear_of(Call.NORMAL)
        [key] = keys_of(smear)

        reviewed = review_smear(smear, fold([act(1, Act.RECLASSIFY, cells=(key,), to=to)]))

        assert 0 <= reviewed.fields[0].cells[0].type_probability <= 1


class TestUndo:
    def test_undo_brings_back_what_was_before(self) -> None:
        [key] = keys_of(smear_of(Call.NORMAL))
        first = act(1, Act.RECLASSIFY, cells=(key,), to="monocyte")
        second = act(2, Act.RECLASSIFY, cells=(key,), to="eosinophil")

        state = fold([first, second, act(3, Act.UNDO, undoes="e2")])

        assert state.decisions[key].to == "monocyte"

    def test_the_undo_of_an_undo_brings_the_act_back(self) -> None:
        [key] = keys_of(smear_of(Call.NORMAL))
        first = act(1, Act.RECLASSIFY, cells=(key,), to="monocyte")

        state = fold([first, act(2, Act.UNDO, undoes="e1"), act(3, Act.UNDO, undoes="e2")])

        assert state.decisions[key].to == "monocyte"

    def test_a_signature_cannot_be_undone(self) -> None:
        state = fold([act(1, Act.SIGN), act(2, Act.UNDO, undoes="e1")])

        assert state.sign_off is not SignOff.UNSIGNED
        assert len(state.signatures) == 1

    def test_an_undo_does_not_reach_what_comes_later(self) -> None:
        [key] = keys_of(smear_of(Call.NORMAL))

        state = fold(
            [act(1, Act.UNDO, undoes="e2"), act(2, Act.RECLASSIFY, cells=(key,), to="monocyte")]
        )

        assert state.decisions[key].to == "monocyte"

    def test_a_missed_cell_taken_back_is_gone(self) -> None:
        smear = smear_of(Call.NORMAL)
        missed = make_cell_finding(make_cell(10_001, 300, 300))
        adding = act(1, Act.ADD_CELL, fields=(field_key(smear.fields[0]),), added=missed)

        reviewed = review_smear(smear, fold([adding, act(2, Act.UNDO, undoes="e1")]))

        assert found_cell_count(reviewed) == 1


class TestSignOff:
    KEY = CellKey("1.2.3.1:1:1")

    @pytest.mark.parametrize(
        ("acts", "expected"),
        [
            ([], SignOff.UNSIGNED),
            ([Act.RECLASSIFY, Act.COMMENT], SignOff.UNSIGNED),
            ([Act.WITHDRAW], SignOff.UNSIGNED),
            ([Act.RECLASSIFY, Act.SIGN], SignOff.FINAL),
            ([Act.SIGN, Act.SEEN], SignOff.FINAL),
            ([Act.SIGN, Act.COUNTERSIGN], SignOff.FINAL),
            ([Act.SIGN, Act.RECLASSIFY], SignOff.CORRECTED),
            ([Act.SIGN, Act.RECLASSIFY, Act.SIGN], SignOff.CORRECTED),
            ([Act.SIGN, Act.COMMENT], SignOff.APPENDED),
            ([Act.SIGN, Act.COMMENT, Act.RECLASSIFY], SignOff.AMENDED),
            ([Act.SIGN, Act.WITHDRAW], SignOff.WITHDRAWN),
            ([Act.SIGN, Act.WITHDRAW, Act.SIGN], SignOff.CORRECTED),
        ],
    )
    def test_the_status_follows_from_the_acts(self, acts: Sequence[Act], expected: SignOff) -> None:
        events = [
            act(n, one, cells=(self.KEY,), to="monocyte") for n, one in enumerate(acts, start=1)
        ]

        assert fold(events).sign_off is expected

    @pytest.mark.parametrize(
        ("second", "expected"),
        [
            (None, SignOff.UNSIGNED),
            ((Act.COUNTERSIGN, MEYER), SignOff.UNSIGNED),
            ((Act.COUNTERSIGN, OKOYE), SignOff.FINAL),
            ((Act.SIGN, OKOYE), SignOff.FINAL),
        ],
    )
    def test_where_two_must_sign_one_signature_is_not_enough(
        self, second: tuple[Act, Reviewer] | None, expected: SignOff
    ) -> None:
        events = [act(1, Act.SIGN)]
        if second is not None:
            events.append(act(2, second[0], reviewer=second[1]))

        assert fold(events, readers=2).sign_off is expected

    def test_a_change_between_two_signatures_asks_for_the_first_again(self) -> None:
        events = [
            act(1, Act.SIGN),
            act(2, Act.RECLASSIFY, cells=(self.KEY,), to="monocyte"),
            act(3, Act.COUNTERSIGN, reviewer=OKOYE),
        ]

        assert fold(events, readers=2).sign_off is SignOff.UNSIGNED
        assert fold([*events, act(4, Act.SIGN)], readers=2).sign_off is SignOff.UNSIGNED
        again = [act(4, Act.SIGN), act(5, Act.COUNTERSIGN, reviewer=OKOYE)]
        assert fold([*events, *again], readers=2).sign_off is SignOff.FINAL

    def test_a_change_after_a_signature_makes_it_stale(self) -> None:
        signed = [act(1, Act.SIGN)]

        assert fold(signed).is_current
        assert not fold([*signed, act(2, Act.RECLASSIFY, cells=(self.KEY,), to="blast")]).is_current

    def test_a_field_that_came_after_the_signature_amends_the_report(self) -> None:
        smear = smear_of(Call.NORMAL, fields=2)
        signed = fold([act(1, Act.SIGN, fields=(FieldKey("1.2.3.1:1"),))])

        reviewed = review_smear(smear, signed).review

        assert reviewed is not None
        assert (reviewed.sign_off, reviewed.is_current) == (SignOff.AMENDED, False)

    def test_a_late_field_amends_nothing_that_too_few_have_signed(self) -> None:
        smear = smear_of(Call.NORMAL, fields=2)
        once = fold([act(1, Act.SIGN, fields=(FieldKey("1.2.3.1:1"),))], readers=2)

        reviewed = review_smear(smear, once).review

        assert reviewed is not None
        assert reviewed.sign_off is SignOff.UNSIGNED

    def test_open_points_are_counted_until_they_are_settled(self) -> None:
        smear = smear_of(Call.REFERRED, Call.NORMAL)
        [referred, normal] = keys_of(smear)

        assert open_points(smear, fold([])) == {"unidentified": 1, "unseen": 2}
        looked = [
            act(1, Act.RECLASSIFY, cells=(referred,), to="monocyte"),
            act(2, Act.SEEN, cells=(normal,)),
        ]
        assert open_points(smear, fold(looked)) == {}


# --- properties

SMEAR = smear_of(Call.LEUKEMIC, Call.NORMAL, Call.REFERRED, Call.NORMAL, fields=2)
KEYS = keys_of(SMEAR)
ACTS = st.sampled_from([one for one in Act if one is not Act.ADD_CELL])


@st.composite
def histories(draw: st.DrawFn, *, most: int = 12) -> list[ReviewEvent]:
    count = draw(st.integers(0, most))
    return [
        act(
            number,
            draw(ACTS),
            cells=(draw(st.sampled_from(KEYS)),),
            fields=(draw(st.sampled_from([field_key(one) for one in SMEAR.fields])),),
            to=draw(st.sampled_from([*CLASSES])),
            undoes=f"e{draw(st.integers(1, most))}",
            reviewer=draw(st.sampled_from([MEYER, OKOYE])),
            reason="why",
            comment="text",
        )
        for number in range(1, count + 1)
    ]


def _usable(events: Sequence[ReviewEvent]) -> list[ReviewEvent]:
    return [replace(one, to="200") if one.act is Act.SET_TARGET else one for one in events]


@given(histories(), st.randoms())
def test_the_order_of_reading_does_not_matter(
    events: list[ReviewEvent], random: st.DataObject
) -> None:
    events = _usable(events)
    shuffled = [*events]
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert _said(fold(shuffled + events)) == _said(fold(events))


@given(histories())
def test_independent_events_may_come_in_either_order(events: list[ReviewEvent]) -> None:
    """Acts about different cells commute: only the revision numbers tell which came first."""
    first = [one for one in _usable(events) if one.act in {Act.RECLASSIFY, Act.SEEN, Act.STAR}]
    last_by_cell = {(one.act, one.cells): one for one in first}
    independent = list({one.cells: one for one in last_by_cell.values()}.values())
    renumbered = [
        replace(one, revision=number) for number, one in enumerate(reversed(independent), start=1)
    ]
    straight = [replace(one, revision=n) for n, one in enumerate(independent, start=1)]

    assert _said(fold(renumbered)) == _said(fold(straight))


@given(histories())
def test_the_parts_always_add_up(events: list[ReviewEvent]) -> None:
    reviewed = review_smear(SMEAR, fold(_usable(events)))

    assert sum(bucket_counts(reviewed).values()) == found_cell_count(reviewed)
    assert sum(reviewed.differential.values()) == reviewed.white_cells_counted
    if reviewed.review is not None:
        excluded = sum(
            len(one.cells)
            for one in SMEAR.fields
            if field_key(one) in reviewed.review.excluded_fields
        )
        struck = sum(
            change.to == NOT_A_CELL
            and field_of(CellKey(change.cell)) not in reviewed.review.excluded_fields
            for change in reviewed.review.changes
        )
        left_out = struck + excluded + reviewed.review.beyond_target
        assert found_cell_count(reviewed) + left_out == found_cell_count(SMEAR)


@given(histories())
def test_nothing_is_final_corrected_or_amended_before_a_signature(
    events: list[ReviewEvent],
) -> None:
    for end in range(len(events) + 1):
        state = fold(_usable(events[:end]))
        was_signed = any(one.act is Act.SIGN for one in events[:end])
        assert (state.sign_off is SignOff.UNSIGNED) == (not was_signed)


@given(histories())
def test_undoing_everything_leaves_the_network_s_findings(events: list[ReviewEvent]) -> None:
    acts = [one for one in _usable(events) if one.act not in {Act.UNDO, Act.SIGN, Act.WITHDRAW}]
    undos = [
        act(1000 + number, Act.UNDO, undoes=one.id) for number, one in enumerate(acts, start=1)
    ]

    reviewed = review_smear(SMEAR, fold([*acts, *undos]))

    assert reviewed.differential == SMEAR.differential
    assert bucket_counts(reviewed) == bucket_counts(SMEAR)


def _said(state: object) -> dict[str, object]:
    return {name: getattr(state, name) for name in state.__dataclass_fields__}  # type: ignore[attr-defined]

"""Outcomes of single results become one of the three endings of an attempt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reporting.delivery import DeliveryPostponed, DeliveryRefused, Receipt, Refusal
from reporting.delivery.dimse_status import Verdict
from reporting.delivery.outcome import Outcome, conclude, deliver_each, outcome_of, postponed
from reporting.results import Result
from tests.reporting.delivery.labelled import make_picture

OUTCOMES = st.lists(st.sampled_from(Verdict), max_size=6).map(
    lambda verdicts: [
        Outcome(uid=f"1.2.{number}", verdict=verdict, status="0x0000", reason="because")
        for number, verdict in enumerate(verdicts)
    ]
)


@given(OUTCOMES)
def test_every_result_is_accepted_or_refused_and_none_both(outcomes: list[Outcome]) -> None:
    refused: tuple[Refusal, ...] = ()
    try:
        receipt = conclude("pacs", outcomes)
    except (DeliveryPostponed, DeliveryRefused) as err:
        receipt, refused = err.receipt, err.refused

    assert sorted([*receipt.accepted, *(one.uid for one in refused)]) == [
        one.uid for one in outcomes
    ]


@given(OUTCOMES)
def test_nothing_is_parked_while_something_may_still_be_taken(outcomes: list[Outcome]) -> None:
    verdicts = {one.verdict for one in outcomes}
    expected: type[Exception] | None = None
    if Verdict.LATER in verdicts:
        expected = DeliveryPostponed
    elif Verdict.REVIEW in verdicts:
        expected = DeliveryRefused

    try:
        conclude("pacs", outcomes)
    except (DeliveryPostponed, DeliveryRefused) as err:
        assert type(err) is expected
    else:
        assert expected is None


def test_remarks_are_kept_with_what_was_remarked_on() -> None:
    receipt = conclude(
        "pacs",
        [outcome_of("1.2.1", 0xB000), outcome_of("1.2.2", 0x0000)],
        receipt=Receipt(warnings=("commitment not requested: no answer",)),
    )

    assert receipt.warnings == (
        "commitment not requested: no answer",
        "0xB000 coercion of data elements 1.2.1",
    )


def test_a_message_tells_each_answer_once() -> None:
    with pytest.raises(DeliveryRefused) as told:
        conclude("pacs", [outcome_of(f"1.2.{number}", 0xC000) for number in range(5)])

    assert told.value.message.count("0xC000") == 1
    assert "took 0 of 5" in told.value.message


def test_silence_is_no_status() -> None:
    with pytest.raises(DeliveryPostponed) as told:
        conclude("pacs", [postponed("1.2.1", "no answer")], after_s=7.0)

    assert told.value.after_s == 7.0
    assert told.value.refused[0].status == ""


def test_one_by_one_ends_at_the_first_that_is_not_taken() -> None:
    results = [make_picture(name) for name in "abc"]

    def send(result: Result) -> str:
        if result is results[1]:
            raise DeliveryPostponed("full", code="disk_full")
        return "remark"

    with pytest.raises(DeliveryPostponed) as told:
        deliver_each(results, send)

    assert told.value.receipt == Receipt(accepted=(results[0].uid,), warnings=("remark",))

"""Nothing gets into the trail but what the vocabulary allows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import ReferralReason
from pipeline.errors import Defect
from reporting.audit.schema import FIELDS, Actor, Event, check_fields, describe_actor

PATIENT = ["MUSTERMANN^ERIKA", "Erika Mustermann", "PID 4711", "12.08.1964, 52 J.", "山田^太郎"]


@pytest.mark.parametrize("value", PATIENT)
@pytest.mark.parametrize("name", FIELDS)
def test_patient_data_fits_in_no_field(name: str, value: str) -> None:
    for given_value in (value, [value], {value: 1}, {"count": value}):
        with pytest.raises(Defect):
            check_fields({name: given_value})


@pytest.mark.parametrize("value", PATIENT)
def test_a_refusal_does_not_repeat_the_value(value: str) -> None:
    with pytest.raises(Defect) as caught:
        check_fields({"code": value})

    assert value not in str(caught.value)


@pytest.mark.parametrize("name", ["patient_name", "accession", "message", "path", "error", ""])
def test_an_unknown_field_is_a_defect(name: str) -> None:
    with pytest.raises(Defect) as caught:
        check_fields({name: "x"})

    assert caught.value.code == "audit_field_unknown"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", -1),
        ("count", float("nan")),
        ("count", float("inf")),
        ("count", "3"),
        ("study_uid", ""),
        ("study_uid", "1" * 65),
        ("study_uid", "1.2\n"),
        ("study_uid", None),
        ("is_duplicate", 1),
        ("reasons", "uncertain"),
    ],
)
def test_values_of_another_form_are_refused(name: str, value: Any) -> None:
    with pytest.raises(Defect):
        check_fields({name: value})


@given(st.text(alphabet=st.characters(exclude_characters="\n"), max_size=30))
def test_an_actor_is_always_printable(text: str) -> None:
    described = describe_actor(Actor(ae_title=text, host=text, user=text))

    assert all(value.isascii() and value.isprintable() for value in described.values())


def test_words_of_the_house_are_accepted() -> None:
    check_fields({"reasons": frozenset(ReferralReason), "smear_id": "1.2.3", "status": "0xA700"})
    check_fields({"smear_id": "specimen-0123abcd", "statuses": ["AE 101", "422", "0xB000"]})


def test_every_event_is_in_the_past_tense_and_in_small_letters() -> None:
    irregular = ("met", "taken_over", "received_again")

    for event in Event:
        assert event == event.lower()
        assert event.endswith(("ed", *irregular)) or event == Event.COMMITMENT_OVERDUE


SOURCES = [
    path
    for package in ("listener", "reporting", "pipeline", "models", "config")
    for path in (Path(__file__).parents[3] / package).rglob("*.py")
    if path.name not in ("schema.py", "event_codes.py")
]


@pytest.mark.parametrize("event", Event)
def test_every_event_is_recorded_somewhere(event: Event) -> None:
    assert any(f"Event.{event.name}" in path.read_text() for path in SOURCES)


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_every_field_is_written_somewhere(field: str) -> None:
    """As a keyword of a call or as a key of what is added to one; accessions as their hash."""
    written = re.compile(rf"""\b{field}=(?!=)|"{field}":|\["{field}"\] = """)

    assert any(written.search(path.read_text()) for path in SOURCES)

"""Derived UIDs and ids."""

import re
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reporting.derived_uids import derived_id, derived_uid

parts = st.lists(st.text(min_size=1, max_size=80), min_size=2, max_size=5)


@pytest.mark.parametrize("bad", [(), ("kind",), ("", "part")])
def test_an_identity_without_kind_or_part_is_refused(bad: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="kind word"):
        derived_uid(*bad)


@given(parts)
def test_a_derived_uid_is_a_legal_uid(given_parts: list[str]) -> None:
    """PS3.5 9.1: digits and dots, at most 64, no leading zero in a component."""
    uid = derived_uid(*given_parts)

    assert re.fullmatch(r"2\.25\.(0|[1-9][0-9]*)", uid)
    assert len(uid) <= 64


@given(parts)
def test_the_same_parts_give_the_same_identity(given_parts: list[str]) -> None:
    assert derived_uid(*given_parts) == derived_uid(*given_parts)
    assert UUID(derived_id(*given_parts)).version == 5


@given(parts, parts)
def test_other_parts_give_another_identity(one: list[str], other: list[str]) -> None:
    assert (one == other) == (derived_uid(*one) == derived_uid(*other))


def test_parts_are_not_glued_together() -> None:
    assert derived_uid("kind", "ab", "c") != derived_uid("kind", "a", "bc")


def test_identities_never_change_between_releases() -> None:
    """A changed value here means that every replay would duplicate: never edit it."""
    assert derived_id("kind", "part") == "1420ed3c-bf4e-5a0b-9f72-cd192101c991"

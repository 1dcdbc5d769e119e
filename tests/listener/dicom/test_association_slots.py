"""No peer can hold all associations, and nobody is displaced who makes progress."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.dicom.association_slots import Admission, Holder, Shares, admit

SHARES = Shares(total=8, per_peer=6)
RESTING = Holder(
    address="10.0.0.1", ae_title="HOLDER", age_s=60.0, resting_s=20.0, has_carried=True
)
BUSY = replace(RESTING, resting_s=0.0)
ECHOING = replace(RESTING, has_carried=False)
REFUSED = Admission(is_granted=False)
GRANTED = Admission(is_granted=True)


def holders(*some: tuple[Holder, int]) -> list[Holder]:
    return [one for one, count in some for _ in range(count)]


class TestNewcomers:
    def test_are_refused_where_all_make_progress(self) -> None:
        assert admit("10.0.0.2", "SCOPE", holders((BUSY, 8)), SHARES) == REFUSED

    def test_are_refused_where_an_equal_rests(self) -> None:
        """Between two peers of one association each nobody gains."""
        shares = Shares(total=1, per_peer=1)
        fresh = replace(RESTING, age_s=0.5, resting_s=0.5, has_carried=False)

        assert admit("10.0.0.2", "SCOPE", [fresh], shares) == REFUSED
        assert admit("10.0.0.2", "SCOPE", [RESTING], shares) == REFUSED

    def test_beyond_their_own_share_displace_nobody_else(self) -> None:
        other = replace(RESTING, address="10.0.0.9", ae_title="OTHER")
        some = holders((BUSY, 6), (other, 1))

        assert admit("10.0.0.1", "HOLDER", some, SHARES) == REFUSED

    def test_get_what_is_free(self) -> None:
        assert admit("10.0.0.2", "SCOPE", holders((RESTING, 7)), SHARES) == GRANTED

    def test_take_the_place_of_one_that_rests_and_belongs_to_a_larger_holder(self) -> None:
        some = holders((BUSY, 5), (RESTING, 1), (BUSY, 2))

        assert admit("10.0.0.2", "SCOPE", some, SHARES) == Admission(is_granted=True, displaced=5)

    def test_from_the_address_of_a_holder_are_told_apart_by_their_title(self) -> None:
        some = holders((RESTING, 6))

        admission = admit("10.0.0.1", "SCOPE", some, SHARES)

        assert admission.is_granted
        assert admission.displaced is not None

    def test_with_the_title_of_a_holder_are_told_apart_by_their_address(self) -> None:
        some = holders((RESTING, 6))

        assert admit("10.0.0.2", "HOLDER", some, SHARES).is_granted

    def test_take_the_place_of_one_that_only_echoes(self) -> None:
        """Also where every holder calls itself something else."""
        some = [replace(ECHOING, ae_title=f"HOLDER{number}") for number in range(8)]

        assert admit("10.0.0.1", "SCOPE", some, SHARES).is_granted

    def test_take_the_place_of_the_one_that_rests_longest(self) -> None:
        some = [replace(RESTING, resting_s=float(rest)) for rest in (2, 9, 3, 4, 5, 6, 7, 8)]

        assert admit("10.0.0.2", "SCOPE", some, SHARES).displaced == 1


some_holders = st.lists(
    st.builds(
        Holder,
        address=st.sampled_from(["a", "b", "c"]),
        ae_title=st.sampled_from(["A", "B", ""]),
        age_s=st.floats(0, 100),
        resting_s=st.sampled_from([0.0, 0.5, 1.0, 30.0]),
        has_carried=st.booleans(),
    ),
    max_size=12,
)


@given(some=some_holders, total=st.integers(1, 10), per_peer=st.integers(1, 10))
def test_whoever_is_admitted_no_limit_is_passed_and_no_progress_lost(
    some: list[Holder], total: int, per_peer: int
) -> None:
    shares = Shares(total=total, per_peer=per_peer)
    kept: list[Holder] = []
    for one in some:
        admission = admit(one.address, one.ae_title, kept, shares)
        if admission.displaced is not None:
            assert kept[admission.displaced].resting_s > 0
            del kept[admission.displaced]
        if admission.is_granted:
            kept.append(one)

        assert len(kept) <= total
        for name in {holder.ae_title for holder in kept} - {""}:
            assert sum(holder.ae_title == name for holder in kept) <= per_peer
        for address in {holder.address for holder in kept}:
            assert sum(holder.address == address for holder in kept) <= per_peer


@pytest.mark.parametrize("title", ["", "SCOPE"])
def test_a_blank_title_is_no_peer_of_its_own(title: str) -> None:
    blank = [replace(BUSY, address=f"10.0.0.{n}", ae_title="") for n in range(6)]

    assert admit("10.0.1.1", title, blank, SHARES) == GRANTED

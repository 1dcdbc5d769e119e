"""What a DICOM status means for what happens next: every number there is has one answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reporting.delivery.dimse_status import Verdict, classify_status, describe_status, format_status


@pytest.mark.parametrize("status", [0x0122, 0x0124, 0xA900, 0xA9FF, 0xC000, 0xCFFF, 0x0105, 0xFE00])
def test_what_would_be_refused_again_needs_a_person(status: int) -> None:
    assert classify_status(status) is Verdict.REVIEW


@pytest.mark.parametrize("status", [0xA700, 0xA7FF, 0x0110, 0x0112, 0x0213])
def test_what_may_pass_is_tried_later(status: int) -> None:
    assert classify_status(status) is Verdict.LATER


@given(st.integers(0xB000, 0xBFFF))
def test_every_warning_is_success_with_a_note(status: int) -> None:
    assert classify_status(status) is Verdict.ACCEPTED_WITH_NOTE


def test_success_is_success() -> None:
    assert classify_status(0x0000) is Verdict.ACCEPTED


@given(st.integers(0, 0xFFFF))
def test_only_success_and_warnings_count_as_taken(status: int) -> None:
    taken = classify_status(status) in (Verdict.ACCEPTED, Verdict.ACCEPTED_WITH_NOTE)

    assert taken == (
        status in (0x0000, 0x0001, 0x0107, 0x0111, 0x0116) or 0xB000 <= status <= 0xBFFF
    )


@given(st.integers(0, 0xFFFF))
def test_every_status_can_be_written_and_told(status: int) -> None:
    assert int(format_status(status), 16) == status
    assert len(format_status(status)) == 6
    assert describe_status(status)

"""No text opens as a formula, and no other text is changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reporting.documents.spreadsheet_text import spreadsheet_text

STARTS = "=+-@\t\r\n＝＋－＠"


@pytest.mark.parametrize("start", STARTS)
def test_what_begins_a_formula_becomes_text(start: str) -> None:
    assert spreadsheet_text(f"{start}cmd|' /C calc'!A0") == f"'{start}cmd|' /C calc'!A0"


@given(st.text())
def test_nothing_begins_a_formula_and_other_words_stay(words: str) -> None:
    text = spreadsheet_text(words)

    assert text[:1] not in STARTS or text == ""
    assert text == words or (text == f"'{words}" and words[0] in STARTS)

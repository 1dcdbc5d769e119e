"""Pages of PDF: words fit their room, and every letter that is drawn has a glyph."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reporting.documents import pdf_canvas
from reporting.documents.pdf_canvas import About, Canvas
from tests.reporting.pdf_reader import printed

ABOUT = About(
    title="A title",
    subject="A subject",
    creator="a test",
    created=datetime(2026, 11, 22, 20, 30, 15, tzinfo=UTC),
    document_id=UUID(int=7),
)
WORDS = st.text(st.sampled_from("abcWi .-ÄЖλ"), max_size=80)


@pytest.fixture(scope="module")
def canvas() -> Canvas:
    canvas = Canvas(ABOUT)
    canvas.add_page()
    return canvas


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(words=WORDS, width=st.floats(20, 300))
def test_wrapped_lines_fit_and_lose_nothing(canvas: Canvas, words: str, width: float) -> None:
    lines = list(canvas.wrapped(words, width=width, size=8))

    assert "".join("".join(lines).split()) == "".join(words.split())
    assert all(canvas.width(line, size=8) <= width or len(line) == 1 for line in lines)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(words=WORDS, width=st.floats(20, 300))
def test_shortened_words_fit(canvas: Canvas, words: str, width: float) -> None:
    assert canvas.width(canvas.shortened(words, width=width, size=8), size=8) <= width


@pytest.mark.parametrize("letters", ["abc", "ÄÖÜ", "Жук", "Ωμέγα", "Łódź", "µm – …"])
def test_european_letters_have_glyphs(canvas: Canvas, letters: str) -> None:
    assert canvas.is_printable(letters)


@pytest.mark.parametrize("letters", ["患", "한", "م", "\u200b", "\n", "\U0001f600"])
def test_what_has_no_glyph_is_known(canvas: Canvas, letters: str) -> None:
    assert not canvas.is_printable(letters)


def test_words_stand_where_they_were_put() -> None:
    canvas = Canvas(ABOUT)
    canvas.add_page()
    canvas.text(100, 200, "here", size=10)

    [words] = printed(canvas.content())

    assert (words.words, round(words.x)) == ("here", 100)
    assert words.y == pytest.approx(841.89 - 200, abs=1)


PIECES = (
    "Smear ",
    "3.5 µm ",
    "(95%)",
    "№ 12/7",
    "±4",
    "[é]",
    "שלום",
    "سلام ١٢",
    "\u202eX",
    "{nb}",
    "—",
)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join))
def test_pages_are_those_of_the_whole_bidirectional_algorithm(words: str) -> None:
    def page() -> bytes:
        made = Canvas(ABOUT)
        made.add_page()
        made.text(20, 20, words, size=9)
        return made.content()

    ours = page()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pdf_canvas, "_is_left_to_right", lambda _: False)
        theirs = page()

    assert ours == theirs

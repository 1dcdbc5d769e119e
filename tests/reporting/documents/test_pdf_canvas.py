"""The page writer: what it writes can be read, and no line is longer than it says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reporting.documents.pdf_canvas import (
    About,
    Page,
    Picture,
    is_printable,
    shortened,
    text_width,
    wrapped,
)
from tests.reporting.pdf_reader import dangling_offsets, picture_box, printed_lines, printed_words

WINDOWS_1252 = st.text(
    st.characters(codec="cp1252", exclude_categories=("Cc", "Cf", "Zl", "Zp")), max_size=60
)


def about(created: datetime | None = None) -> About:
    return About(
        title="A (title) with \\ and é",
        subject="subject",
        creator="creator",
        created=created or datetime(2026, 11, 22, 20, 30, 15, tzinfo=UTC),
        document_id=UUID(int=7),
    )


@pytest.mark.parametrize("words", ["Müller ß Ž €", "PID-7 (A; B)", "\\", "…"])
def test_windows_1252_can_be_printed(words: str) -> None:
    assert is_printable(words)


@pytest.mark.parametrize("words", ["患者", "Клиника", "Łódź", "α", "tab\there", "\x00", "\x81"])
def test_what_has_no_glyph_is_said_to_have_none(words: str) -> None:
    assert not is_printable(words)


@given(WINDOWS_1252)
def test_words_are_read_back_as_they_were_written(words: str) -> None:
    page = Page()
    page.text(10, 20, words)

    assert printed_words(page.document(about())) == words


@given(st.text(max_size=200), st.floats(20, 500), st.floats(5, 14), st.booleans())
def test_wrapped_lines_fit_and_lose_no_letter(
    words: str, width: float, size: float, bold: bool
) -> None:
    lines = list(wrapped(words, width=width, size=size, bold=bold))

    assert all(text_width(line, size=size, bold=bold) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(words.split())


@given(st.text(max_size=80), st.floats(20, 200))
def test_shortened_words_fit_and_say_that_they_were_cut(words: str, width: float) -> None:
    short = shortened(words, width=width, size=8)

    assert text_width(short, size=8) <= width
    assert short == words or short.endswith("\N{HORIZONTAL ELLIPSIS}")


def test_every_object_stands_where_the_table_says() -> None:
    page = Page()
    page.box(0, 0, 10, 10, (1, 0, 0))
    page.picture(Picture(jpeg=b"\xff\xd8\xff\xd9", width=1, height=1), 10, 20, 30, 40)

    pdf = page.document(about())

    assert dangling_offsets(pdf) == []
    assert picture_box(pdf) == (10, 842 - 20 - 40, 30, 40)


def test_y_counts_down_from_the_upper_edge() -> None:
    page = Page()
    page.text(36, 40, "first")
    page.text(36, 60, "second")

    first, second = printed_lines(page.document(about()))

    assert (first.y, second.y) == (802, 782)


def test_the_moment_keeps_its_offset() -> None:
    west = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(-timedelta(hours=3, minutes=30)))

    assert b"/CreationDate (D:20260102030405-03'30')" in Page().document(about(west))


def test_the_same_page_gives_the_same_bytes() -> None:
    def draw() -> bytes:
        page = Page()
        page.text(1, 2, "words")
        return page.document(about())

    assert draw() == draw()

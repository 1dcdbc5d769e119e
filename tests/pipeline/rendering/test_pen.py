"""The pen: three calls that nobody confuses, text that fits, and shapes where they were asked."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import pytest

from pipeline.domain import RESEARCH_USE_ONLY, Call
from pipeline.rendering.pen import (
    AMBER,
    CALL_COLOURS,
    CALL_STYLES,
    INK,
    WHITE,
    Mark,
    Pen,
    blank,
    draw_mark,
    draw_outline,
    draw_plate,
    draw_share,
    notice_strip,
    research_banner,
)
from tests.findings import make_contour

DEUTERANOPIA = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
PROTANOPIA = np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]])
TRITANOPIA = np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]])
"""Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB."""
CLEARLY_APART = 20.0
"""CIE76 distance; 2.3 is just noticeable."""


@pytest.mark.parametrize("sight", [np.eye(3), DEUTERANOPIA, PROTANOPIA, TRITANOPIA])
def test_the_calls_are_told_apart_by_the_colour_blind(sight: np.ndarray) -> None:
    seen = {call: _lab(sight @ _linear(color)) for call, color in CALL_COLOURS.items()}

    distances = [np.linalg.norm(seen[a] - seen[b]) for a, b in combinations(Call, 2)]

    assert min(distances) > CLEARLY_APART


def test_the_calls_differ_in_more_than_colour() -> None:
    assert len({style.mark for style in CALL_STYLES.values()}) == len(Call)
    assert CALL_STYLES[Call.REFERRED].dash
    assert CALL_STYLES[Call.LEUKEMIC].width > CALL_STYLES[Call.NORMAL].width


def test_an_outline_is_drawn_with_a_halo_and_nothing_inside() -> None:
    canvas = blank(200, 200, WHITE)

    draw_outline(canvas, make_contour(100, 100, 60), CALL_STYLES[Call.LEUKEMIC], 4.0)

    assert tuple(canvas[100, 160]) == CALL_COLOURS[Call.LEUKEMIC]
    assert (canvas[100, 100] == 255).all()
    assert (np.abs(canvas.astype(int) - INK).sum(axis=2) < 20).any()


def test_a_referred_outline_has_gaps() -> None:
    full, dashed = blank(200, 200, WHITE), blank(200, 200, WHITE)

    draw_outline(full, make_contour(100, 100, 60), CALL_STYLES[Call.NORMAL], 4.0)
    draw_outline(dashed, make_contour(100, 100, 60), CALL_STYLES[Call.REFERRED], 4.0)

    assert _gaps(full) == 1
    assert _gaps(dashed) > 6


@pytest.mark.parametrize("mark", list(Mark))
def test_marks_are_different_shapes_of_one_size(mark: Mark) -> None:
    canvas = blank(60, 60, INK)

    draw_mark(canvas, mark, (30, 30), 20, AMBER)

    columns = np.flatnonzero((canvas != INK).any(axis=(0, 2)))
    assert 18 <= columns[-1] - columns[0] <= 24


def test_a_plate_darkens_its_own_place_and_stays_inside() -> None:
    canvas = blank(50, 50, WHITE)

    draw_plate(canvas, -10, 30, 30, 40, 0.5)

    assert (canvas[:30] == 255).all()
    assert (canvas[30:, :20] < 200).all()
    assert (canvas[30:, 20:] == 255).all()


@pytest.mark.parametrize(("share", "filled"), [(0.0, 0), (0.001, 2), (0.5, 51), (1.0, 100)])
def test_a_share_fills_its_part_of_the_bar(share: float, filled: int) -> None:
    canvas = blank(100, 12, INK)

    draw_share(canvas, 0, 0, 100, share, AMBER)

    assert (canvas[5] == AMBER).all(axis=1).sum() == filled


@pytest.mark.parametrize("width", [614, 1024, 2592])
def test_the_banner_fits_whatever_the_width(width: int) -> None:
    """614 is the narrowest picture that we make: 60 % of 1024."""
    pen = Pen()

    strip = research_banner(pen, width, 40)

    columns = np.flatnonzero((strip != INK).any(axis=(0, 2)))
    assert strip.shape[1] == width
    assert columns[0] > 0
    assert columns[-1] < width - 1


def test_text_is_made_smaller_until_it_fits() -> None:
    pen = Pen()

    size = pen.fitting_size(RESEARCH_USE_ONLY, 60, 300, 700)

    assert size < 60
    assert pen.width(RESEARCH_USE_ONLY, size, 700) <= 300


def test_a_notice_stands_on_amber() -> None:
    strip = notice_strip(Pen(), 500, 20, "Look here")

    assert tuple(strip[2, 2]) == AMBER


def _linear(color: tuple[int, int, int]) -> np.ndarray:
    share = np.array(color) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    share = np.clip(linear, 0, 1)
    coded = np.where(share <= 0.0031308, share * 12.92, 1.055 * share ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(coded.astype(np.float32)[None, None], cv2.COLOR_RGB2LAB)[0, 0]


def _gaps(canvas: np.ndarray) -> int:
    """Pieces of drawn line on `canvas`."""
    drawn = (np.abs(canvas.astype(int) - 255).sum(axis=2) > 60).astype(np.uint8)
    pieces, _ = cv2.connectedComponents(drawn)
    return pieces - 1


class TestTextThatFits:
    def test_lines_keep_every_word_and_stay_within_the_room(self) -> None:
        pen, text = Pen(), "one two three four five six seven eight nine ten"

        lines = pen.lines(text, 22, 160, 600)

        assert " ".join(lines) == text
        assert len(lines) > 1
        assert max(pen.width(line, 22, 600) for line in lines) <= 160

    def test_a_word_that_is_wider_than_the_room_has_a_line_of_its_own(self) -> None:
        assert Pen().lines("a immeasurable b", 22, 60) == ["a", "immeasurable", "b"]

    def test_no_text_gives_no_line(self) -> None:
        assert Pen().lines("", 22, 100) == []

    def test_a_list_that_fits_is_whole(self) -> None:
        assert Pen().listed(["cut", "dark"], 17, 500) == "cut, dark"

    def test_a_list_ends_in_the_number_of_those_left_out(self) -> None:
        pen, words = Pen(), ["uncertain", "unlike training", "cut by edge", "smudge cell"]

        text = pen.listed(words, 17, 260)

        assert text == "uncertain, unlike training +2"
        assert pen.width(text, 17) <= 260

    def test_the_first_is_named_however_little_room_there_is(self) -> None:
        assert Pen().listed(["uncertain", "dark"], 17, 1) == "uncertain +1"

    def test_an_empty_list_is_no_text(self) -> None:
        assert Pen().listed([], 17, 100) == ""

"""The annotated field: every cell outlined where it is, labelled, and the banner always there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from pipeline.domain import (
    Call,
    FieldFindings,
    PersonDecision,
    QualityFlag,
    ReferralReason,
    Reviewer,
    SourceImage,
)
from pipeline.rendering.annotated_field import MIN_LONG_SIDE_PX, draw_field, enlargement
from pipeline.rendering.pen import AMBER, CALL_COLOURS, INK
from tests.findings import (
    make_cell,
    make_cell_finding,
    make_field_findings,
    make_picture,
)

CONFIRMED = PersonDecision(
    to="neutrophil",
    reviewer=Reviewer(account="rosa", name="Rosa"),
    at=datetime(2026, 11, 23, tzinfo=UTC),
)


def test_a_field_without_a_cell_is_shown_unchanged_below_the_banner() -> None:
    field = make_field_findings(calls=(), width=1200, height=900)
    image = make_picture(field)

    picture = draw_field(image, field)

    top = _banner_height(picture)
    assert (picture[top : top + 900] == image.pixels).all()
    assert picture.shape[1] == 1200


def test_the_source_is_not_drawn_upon() -> None:
    field = make_field_findings(width=1200, height=900)
    image = make_picture(field)
    before = image.pixels.copy()

    draw_field(image, field)

    assert (image.pixels == before).all()


@pytest.mark.parametrize("call", list(Call))
def test_a_cell_is_outlined_where_it_lies_in_the_color_of_its_call(call: Call) -> None:
    cell = make_cell(1, 600, 500, radius=80)
    field = make_field_findings(cells=[make_cell_finding(cell, call)], width=1200, height=900)

    picture = draw_field(make_picture(field), field)

    drawn = np.argwhere((picture == CALL_COLOURS[call]).all(axis=2)) - (_banner_height(picture), 0)
    on_rim = np.abs(np.hypot(drawn[:, 0] - 500, drawn[:, 1] - 600) - 80) < 6
    assert on_rim.sum() > 150


@pytest.mark.parametrize(("width", "height"), [(224, 224), (224, 900), (640, 480), (96, 80)])
def test_a_small_field_is_enlarged_so_that_text_can_be_read(width: int, height: int) -> None:
    field = make_field_findings(calls=(Call.LEUKEMIC,), width=width, height=height)

    picture = draw_field(make_picture(field), field)

    assert max(picture.shape[:2]) >= MIN_LONG_SIDE_PX
    assert max(width, height) * enlargement(width, height) == pytest.approx(MIN_LONG_SIDE_PX)


def test_the_outline_grows_with_an_enlarged_field() -> None:
    cell = make_cell(1, 112, 100, radius=20)
    field = make_field_findings(
        cells=[make_cell_finding(cell, Call.LEUKEMIC)], width=224, height=224
    )

    picture = draw_field(make_picture(field), field)

    zoom = MIN_LONG_SIDE_PX / 224
    drawn = np.argwhere((picture == CALL_COLOURS[Call.LEUKEMIC]).all(axis=2))
    drawn = drawn - (_banner_height(picture), 0)
    radius = np.hypot(drawn[:, 0] - 100.5 * zoom, drawn[:, 1] - 112.5 * zoom)
    assert (np.abs(radius - 20 * zoom) < 8).sum() > 200


def test_a_large_field_keeps_its_size_and_gets_larger_text() -> None:
    small, large = (
        make_field_findings(width=w, height=h, calls=(Call.NORMAL,))
        for w, h in ((1296, 972), (2592, 1944))
    )

    pictures = [draw_field(make_picture(field), field) for field in (small, large)]

    ratio = _banner_height(pictures[1]) / _banner_height(pictures[0])
    assert pictures[1].shape[1] == 2592
    assert ratio == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("cells", [0, 1, 12, 60])
def test_the_banner_stands_above_every_field(cells: int) -> None:
    field = make_field_findings(calls=(Call.NORMAL,) * cells, width=2592, height=1944)

    picture = draw_field(make_picture(field), field)

    banner = picture[: _banner_height(picture)]
    assert (banner == AMBER).all(axis=2).sum() > 2000


def test_a_field_that_was_not_counted_says_so() -> None:
    good = make_field_findings(calls=(), width=1200, height=900)
    bad = make_field_findings(
        width=1200, height=900, is_usable=False, flags=frozenset({QualityFlag.OUT_OF_FOCUS})
    )

    with_notice = draw_field(make_picture(bad), bad)

    extra = with_notice.shape[0] - draw_field(make_picture(good), good).shape[0]
    assert extra > 20
    assert _most_common_colour(with_notice[: 60 + extra]) in (AMBER, INK)
    assert (with_notice[:100] == AMBER).all(axis=2).sum() > 1200 * extra * 0.8


@pytest.mark.parametrize(
    "change",
    [
        lambda f: make_cell_finding(f.cell, Call.LEUKEMIC),
        lambda f: make_cell_finding(f.cell, Call.REFERRED, reasons=[ReferralReason.SMUDGE_CELL]),
        lambda f: make_cell_finding(f.cell, Call.NORMAL, probability=0.11),
        lambda f: make_cell_finding(replace(f.cell, index=7), Call.NORMAL),
        lambda f: replace(f, decision=CONFIRMED),
    ],
    ids=["call", "reason", "probability", "number", "whose word it is"],
)
def test_whatever_is_said_of_a_cell_can_be_seen(change) -> None:
    finding = make_cell_finding(make_cell(1, 600, 450, radius=60), Call.NORMAL)
    field = make_field_findings(cells=[finding], width=1200, height=900)
    other = replace(field, cells=(change(finding),))
    image = make_picture(field)

    assert not _same(draw_field(image, field), draw_field(image, other))


def test_the_same_findings_give_the_same_picture() -> None:
    field = make_field_findings(width=1200, height=900)
    image = make_picture(field)

    assert _same(draw_field(image, field), draw_field(image, field))


def test_a_cell_cut_by_each_corner_is_drawn() -> None:
    corners = [(0, 0), (639, 0), (0, 479), (639, 479)]
    cells = [
        make_cell_finding(
            make_cell(n, x, y, radius=30), Call.REFERRED, reasons=[ReferralReason.CUT_BY_EDGE]
        )
        for n, (x, y) in enumerate(corners, start=1)
    ]
    field = make_field_findings(cells=cells, width=640, height=480)

    picture = draw_field(_blank_picture(field), field)

    assert (picture == CALL_COLOURS[Call.REFERRED]).all(axis=2).sum() > 400


def _blank_picture(field: FieldFindings) -> SourceImage:
    return make_picture(replace(field, cells=()))


def _banner_height(picture: np.ndarray) -> int:
    """Rows from the top that begin with the color of the strips."""
    return int(np.argmax((picture[:, 0] != INK).any(axis=1)))


def _most_common_colour(part: np.ndarray) -> tuple[int, ...]:
    colors, counts = np.unique(part.reshape(-1, 3), axis=0, return_counts=True)
    return tuple(int(value) for value in colors[counts.argmax()])


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool((one == other).all())

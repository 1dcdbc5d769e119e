"""The gallery: the most suspicious cells first, each at one scale, beside what the network saw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.domain import (
    RGB,
    Call,
    FieldFindings,
    QualityFlag,
    ReferralReason,
    Scale,
    ScaleSource,
    SmearFindings,
    SourceImage,
)
from pipeline.rendering import gallery_summary
from pipeline.rendering.gallery import MOST_CELLS, TILE_PX, draw_gallery, most_suspicious
from pipeline.rendering.gallery_summary import (
    MARGIN_PX,
    NETWORKS_TYPES,
    PEOPLES_TYPES,
    WIDTH_PX,
    chart_height,
    draw_differential,
)
from pipeline.rendering.pen import AMBER, CALL_COLOURS, INK, Pen, blank
from tests.findings import (
    make_cell,
    make_cell_finding,
    make_field_findings,
    make_picture,
    make_smear_findings,
)
from tests.reporting.reviews import reviewed


def test_leukemic_cells_come_first_then_referred_then_normal() -> None:
    smear = make_smear_findings()

    calls = [finding.call for _, finding in most_suspicious(smear, 100)]

    assert calls == sorted(calls, key=[Call.LEUKEMIC, Call.REFERRED, Call.NORMAL].index)
    assert len(calls) == 8


def test_a_cell_that_only_the_edge_cuts_does_not_push_a_doubtful_one_off_the_page() -> None:
    cut, doubtful = (ReferralReason.CUT_BY_EDGE,), (ReferralReason.UNCERTAIN,)
    said = [(Call.REFERRED, cut, 0.3), (Call.NORMAL, (), 0.2), (Call.REFERRED, doubtful, 0.1)]
    cells = [
        make_cell_finding(make_cell(n, 100 * n, 100), call, probability=p, reasons=reasons)
        for n, (call, reasons, p) in enumerate(said, start=1)
    ]
    smear = make_smear_findings([make_field_findings(cells=cells)])

    ranked = [finding.cell.index for _, finding in most_suspicious(smear, 3)]

    assert ranked == [3, 1, 2]


def test_within_a_call_the_highest_probability_comes_first() -> None:
    cells = [
        make_cell_finding(make_cell(n, 100 * n, 100), Call.LEUKEMIC, probability=probability)
        for n, probability in enumerate((0.7, 0.99, 0.8), start=1)
    ]
    smear = make_smear_findings([make_field_findings(cells=cells)])

    ranked = [f.prediction.leukemic_probability for _, f in most_suspicious(smear, 2)]

    assert ranked == [0.99, 0.8]


def test_of_equals_the_first_field_and_cell_comes_first() -> None:
    smear = make_smear_findings()

    places = [(n, f.cell.index) for n, f in most_suspicious(smear, 100) if f.call is Call.NORMAL]

    assert places == [(0, 2), (0, 3), (1, 2), (1, 3)]


def test_every_field_is_decoded_at_most_once_in_stored_order() -> None:
    fields = [
        make_field_findings(sop_instance_uid=f"1.2.3.{n}", calls=(Call.LEUKEMIC,) * 6)
        for n in range(1, 6)
    ]
    smear = make_smear_findings(fields)
    asked: list[str] = []

    def pictures(uid: str, frame: int) -> SourceImage:
        asked.append(uid)
        return _picture(smear, uid)

    draw_gallery(smear, pictures)

    assert asked == sorted(set(asked))
    assert len(asked) == 2, "twelve cells come from the first two fields"


@pytest.mark.parametrize("cells", [0, 1, 5, 40])
def test_the_gallery_has_a_banner_and_a_fixed_width(cells: int) -> None:
    smear = _smear((Call.LEUKEMIC,) * cells)

    picture = _gallery(smear)

    assert picture.shape[1] == WIDTH_PX
    assert (picture[:63] == AMBER).all(axis=2).sum() > 2000


def test_each_card_is_framed_in_the_color_of_its_call() -> None:
    picture = _gallery(_smear((Call.LEUKEMIC, Call.REFERRED, Call.NORMAL)))

    row = _first_card_row(picture)
    assert tuple(picture[row, MARGIN_PX]) == CALL_COLOURS[Call.LEUKEMIC]
    assert tuple(picture[row, MARGIN_PX + 388]) == CALL_COLOURS[Call.REFERRED]
    assert tuple(picture[row, MARGIN_PX + 776]) == CALL_COLOURS[Call.NORMAL]


def test_the_heat_map_is_hot_where_the_network_looked() -> None:
    """The activation of made findings peaks in the upper right of the tile."""
    picture = _gallery(_smear((Call.LEUKEMIC,)))

    top = _first_card_row(picture) + 2
    left = MARGIN_PX + TILE_PX + 4
    heat = picture[top : top + TILE_PX, left : left + TILE_PX].astype(int)
    warm = heat[..., 0] - heat[..., 2]
    half = TILE_PX // 2
    assert warm[:half, half:].mean() > 20
    assert warm[half:, :half].mean() < 5


def test_a_cell_that_is_surely_normal_does_not_glow() -> None:
    """A map tells where the network looked; how sure it was dims it."""
    cell = make_cell_finding(make_cell(1, 300, 240), Call.NORMAL, probability=0.02)

    picture = _gallery(make_smear_findings([make_field_findings(cells=[cell])]))

    top = _first_card_row(picture) + 2
    left = MARGIN_PX + TILE_PX + 4
    heat = picture[top + 5 : top + TILE_PX - 5, left + 5 : left + TILE_PX - 5].astype(int)
    assert (heat[..., 0] - heat[..., 2]).max() < 20


def test_a_cell_is_shown_at_one_scale_whatever_the_field() -> None:
    """A cell of 6 µm radius covers the same part of its tile at 0.1 and at 0.2 µm a pixel."""
    shown = []
    for um_per_px, radius in ((0.1, 60), (0.2, 30)):
        cell = make_cell(1, 300, 240, radius=radius)
        field = make_field_findings(
            cells=[make_cell_finding(cell, Call.LEUKEMIC)],
            scale=Scale(um_per_px=um_per_px, source=ScaleSource.DATASET),
        )
        picture = _gallery(make_smear_findings([field]))
        top = _first_card_row(picture) + 2
        tile = picture[top : top + TILE_PX, MARGIN_PX : MARGIN_PX + TILE_PX]
        shown.append(float((tile[..., 1] < 190).mean()))

    expected = np.pi * 6**2 / 24**2
    assert shown == pytest.approx([expected, expected], rel=0.1)


def test_a_cell_at_the_corner_is_shown_on_black() -> None:
    cell = make_cell(1, 0, 0, radius=40)
    field = make_field_findings(cells=[make_cell_finding(cell, Call.REFERRED)])

    picture = _gallery(make_smear_findings([field]))

    top = _first_card_row(picture) + 4
    assert (picture[top, MARGIN_PX + 2 : MARGIN_PX + 60] < 40).all()


def test_nothing_counted_shows_dashes_and_no_share() -> None:
    """0 % would be a finding; nothing was found out."""
    refused = make_field_findings(is_usable=False, flags=frozenset({QualityFlag.OUT_OF_FOCUS}))
    empty = make_field_findings(calls=())

    pictures = [_gallery(make_smear_findings([field])) for field in (refused, empty)]

    assert all(picture.shape[1] == WIDTH_PX for picture in pictures)
    for picture in pictures:
        chart = picture[:, 1216:]
        assert not (chart == CALL_COLOURS[Call.NORMAL]).all(axis=2)[150:500].any()


def test_more_fields_than_there_is_room_for_end_in_a_count() -> None:
    fields = [
        make_field_findings(sop_instance_uid=f"1.2.3.{n}", calls=(Call.NORMAL,)) for n in range(80)
    ]

    picture = _gallery(make_smear_findings(fields))

    assert picture.shape[0] < 2000


def test_at_most_twelve_cells_are_shown() -> None:
    few, many = _smear((Call.LEUKEMIC,) * MOST_CELLS), _smear((Call.LEUKEMIC,) * 40)

    assert _gallery(few).shape[0] - _gallery(many).shape[0] in (0, 30)


def test_however_many_warnings_there_are_the_margins_stay_empty() -> None:
    reasons = tuple(ReferralReason)
    cells = [
        make_cell_finding(make_cell(n, 100 * n, 100), Call.REFERRED, reasons=reasons)
        for n in range(1, 4)
    ]
    refused = [
        make_field_findings(
            sop_instance_uid=f"1.2.4.{n}", is_usable=False, flags=frozenset(QualityFlag)
        )
        for n in range(3)
    ]

    picture = _gallery(make_smear_findings([make_field_findings(cells=cells), *refused]))

    is_amber = (picture[63:] == AMBER).all(axis=2)
    assert is_amber[:, MARGIN_PX:-MARGIN_PX].sum() > 2000
    assert not is_amber[:, -MARGIN_PX:].any()
    assert (picture[63:, -MARGIN_PX + 2 :] < 40).all()


def test_the_words_of_a_card_end_before_the_next_card() -> None:
    cell = make_cell_finding(make_cell(1, 200, 200), Call.REFERRED, reasons=tuple(ReferralReason))

    picture = _gallery(make_smear_findings([make_field_findings(cells=[cell])]))

    words = picture[_first_card_row(picture) + TILE_PX + 16 :][:32]
    assert (words[:, MARGIN_PX : MARGIN_PX + 364].max(axis=2) > 150).any()
    assert (words[:, MARGIN_PX + 370 : 1200] < 40).all()


def _smear(calls: tuple[Call, ...]) -> SmearFindings:
    return make_smear_findings([make_field_findings(calls=calls)])


def _gallery(smear: SmearFindings) -> np.ndarray:
    return draw_gallery(smear, lambda uid, frame: _picture(smear, uid))


def _picture(smear: SmearFindings, uid: str) -> SourceImage:
    [field] = [field for field in smear.fields if field.sop_instance_uid == uid]
    return make_picture(_without_reasons(field))


def _without_reasons(field: FieldFindings) -> FieldFindings:
    return replace(field)


def _first_card_row(picture: np.ndarray) -> int:
    """The row of the first card's upper frame."""
    column = picture[:, MARGIN_PX + 40]
    colors = np.array(list(CALL_COLOURS.values()))
    is_frame = (column[:, None] == colors).all(axis=2).any(axis=1)
    rows = np.flatnonzero(is_frame)
    return int(rows[rows > 250][0])


def test_the_field_of_a_smear_with_one_card_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    smear = make_smear_findings([make_field_findings(calls=[Call.NORMAL])])
    listed: list[int] = []
    monkeypatch.setattr(
        gallery_summary,
        "_draw_field_row",
        lambda _pen, _canvas, _field, number, _base: listed.append(number),
    )

    draw_gallery(smear, lambda uid, frame: _picture(smear, uid))

    assert listed == [1]


def test_the_gallery_says_whose_types_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    write = Pen.write

    def noting(self: Pen, canvas: RGB, words: str, *args: object, **options: object) -> None:
        written.append(words)
        write(self, canvas, words, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Pen, "write", noting)
    smear = make_smear_findings()
    for one in (smear, reviewed(smear)):
        draw_differential(Pen(), blank(WIDTH_PX, chart_height(one), INK), one, least_cells=50)

    assert written.count(NETWORKS_TYPES) == written.count(PEOPLES_TYPES) == 1
    assert written.index(NETWORKS_TYPES) < written.index(PEOPLES_TYPES)

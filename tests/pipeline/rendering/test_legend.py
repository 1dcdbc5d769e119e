"""The legend: counts, reasons, flags, network, and a scale bar that is as long as it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.domain import Call, QualityFlag, ReferralReason, Scale, ScaleSource
from pipeline.rendering.legend import legend_strip
from pipeline.rendering.pen import AMBER, CALL_COLOURS, WHITE, Pen
from tests.findings import make_cell, make_cell_finding, make_field_findings

TEXT_PX = 20


@pytest.mark.parametrize("width", [614, 1024, 2592])
def test_the_legend_is_as_wide_as_the_field_and_shows_every_call(width: int) -> None:
    strip = legend_strip(Pen(), make_field_findings(), width, TEXT_PX, 1.0)

    assert strip.shape[1] == width
    for color in CALL_COLOURS.values():
        assert (strip == color).all(axis=2).sum() > 50


@pytest.mark.parametrize(("um_per_px", "zoom"), [(0.1, 1.0), (0.25, 1.0), (0.2, 4.0)])
def test_the_scale_bar_is_a_round_length_of_the_picture(um_per_px: float, zoom: float) -> None:
    scale = Scale(um_per_px=um_per_px, source=ScaleSource.DATASET)
    field = make_field_findings(scale=scale)

    strip = legend_strip(Pen(), field, 1000, TEXT_PX, zoom)

    length_um = _bar_px(strip) * um_per_px / zoom
    assert min(abs(length_um - um) / um for um in (2, 5, 10, 20, 50)) < 0.02
    assert _bar_px(strip) <= 201


def test_no_scale_bar_is_drawn_when_the_scale_was_assumed() -> None:
    field = make_field_findings(scale=Scale(um_per_px=0.1, source=ScaleSource.ASSUMED))

    assert _bar_px(legend_strip(Pen(), field, 1000, TEXT_PX, 1.0)) < 40


def test_every_reason_adds_to_the_legend() -> None:
    cells = [
        make_cell_finding(make_cell(n, 90 * n, 100), Call.REFERRED, reasons=[reason])
        for n, reason in enumerate(ReferralReason, start=1)
    ]
    few = make_field_findings(cells=cells[:1])
    many = replace(few, cells=tuple(cells))

    strips = [legend_strip(Pen(), field, 700, TEXT_PX, 1.0) for field in (few, many)]

    assert strips[1].shape[0] >= strips[0].shape[0]
    assert strips[0].shape != strips[1].shape or (strips[0] != strips[1]).any()


def test_a_flag_that_did_not_refuse_the_field_is_shown_in_amber() -> None:
    plain = make_field_findings()
    flagged = make_field_findings(flags=frozenset({QualityFlag.STAIN_OUT_OF_RANGE}))

    shown = [
        (legend_strip(Pen(), field, 900, TEXT_PX, 1.0) == AMBER).all(axis=2).sum()
        for field in (plain, flagged)
    ]

    assert shown[0] == 0
    assert shown[1] > 100


def test_another_network_gives_another_legend() -> None:
    field = make_field_findings()
    other = replace(field, model=replace(field.model, sha256="ab" * 32))

    strips = [legend_strip(Pen(), each, 900, TEXT_PX, 1.0) for each in (field, other)]

    assert (strips[0] != strips[1]).any()


def _bar_px(strip: np.ndarray) -> int:
    """The longest run of white pixels in a row."""
    longest = 0
    for row in (strip == WHITE).all(axis=2):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
        runs = edges[1::2] - edges[::2]
        longest = max(longest, int(runs.max(initial=0)))
    return longest

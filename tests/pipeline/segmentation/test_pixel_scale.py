"""The scale is told by red cells, by the nucleus where they are few, and better once seen."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import pytest

from listener.demo.phantom import PhantomField
from pipeline.domain import Scale, ScaleSource
from pipeline.field.optical_density import optical_density
from pipeline.field.overview import Overview, overview_of
from pipeline.segmentation.instances import find_instances
from pipeline.segmentation.network_maps import NETWORK_UM, SegmentationMaps, ask, resized
from pipeline.segmentation.pixel_scale import NUCLEUS_UM, SEEN_NUCLEUS_UM, find_scale, scale_seen
from tests.pipeline.smears import field, segmenter

UM = 0.12


@functools.cache
def drawn() -> PhantomField:
    return field(width=640, height=480, um=UM)


def asked_at(overview: Overview, scale: Scale) -> Scale:
    """What the packaged network makes of a scale that was told wrong."""
    zoom = scale.um_per_px / NETWORK_UM
    density = optical_density(resized(drawn().pixels, zoom), overview.lamp)
    maps = ask(segmenter(), density)
    nuclei_px = find_instances(maps, NETWORK_UM).nuclei_px / zoom
    return scale_seen(overview, maps, scale, nuclei_px)


def test_a_picture_of_nothing_has_an_assumed_scale() -> None:
    scale = find_scale(np.full((64, 64, 3), 230, np.uint8), None)

    assert scale.source is ScaleSource.ASSUMED
    assert scale.red_cells_measured == 0


def test_specks_beside_a_nucleus_are_no_red_cells() -> None:
    """Eight dots of a fifth of the nucleus' width: the nucleus is believed."""
    pixels = np.full((160, 160, 3), (235, 230, 226), np.uint8)
    for place in range(8):
        cv2.circle(pixels, (15 + 18 * place, 16), 5, (225, 140, 150), cv2.FILLED)
    cv2.circle(pixels, (80, 95), 28, (90, 40, 140), cv2.FILLED)

    scale = find_scale(pixels, None)

    assert scale.source is ScaleSource.ASSUMED
    assert scale.um_per_px == pytest.approx(NUCLEUS_UM / 57, rel=0.1)


@pytest.mark.parametrize("factor", [0.6, 0.8, 1.3, 1.7])
def test_a_scale_told_wrong_is_put_right_by_what_the_network_sees(factor: float) -> None:
    overview = overview_of(drawn().pixels)
    wrong = Scale(um_per_px=factor * UM, source=ScaleSource.ASSUMED)

    better = asked_at(overview, wrong)

    assert better.source is ScaleSource.RED_CELLS
    assert better.um_per_px == pytest.approx(UM, rel=0.1)


def test_the_scale_of_the_dataset_is_never_put_right() -> None:
    told = Scale(um_per_px=1.5 * UM, source=ScaleSource.DATASET)

    assert asked_at(overview_of(drawn().pixels), told) is told


def sees_nothing(overview: Overview) -> SegmentationMaps:
    """The answer of a network that sees glass and nothing else."""
    none = np.full(overview.green.shape, -5.0, np.float32)
    return SegmentationMaps(white=none, nucleus=none, red=none, middle=none, across=none, down=none)


def test_without_red_cells_the_nucleus_that_the_network_sees_tells_the_scale() -> None:
    overview = overview_of(drawn().pixels)
    assumed = Scale(um_per_px=0.3, source=ScaleSource.ASSUMED)

    told = scale_seen(overview, sees_nothing(overview), assumed, np.array([60.0, 62.0, 90.0]))

    assert told.source is ScaleSource.ASSUMED
    assert told.um_per_px == pytest.approx(SEEN_NUCLEUS_UM / 62)


def test_where_the_network_sees_nothing_the_scale_stays() -> None:
    overview = overview_of(drawn().pixels)
    told = Scale(um_per_px=0.3, source=ScaleSource.RED_CELLS)

    assert scale_seen(overview, sees_nothing(overview), told, np.zeros(0)) is told


def test_dots_on_a_nucleus_are_not_many_red_cells() -> None:
    """Thirty dots, as platelets that lie on a cell look to a color: they cover too little."""
    pixels = np.full((300, 300, 3), (235, 230, 226), np.uint8)
    cv2.circle(pixels, (150, 170), 60, (90, 40, 140), cv2.FILLED)
    for place in range(30):
        cv2.circle(
            pixels, (12 + 28 * (place % 10), 12 + 24 * (place // 10)), 5, (225, 140, 150), -1
        )

    scale = find_scale(pixels, None)

    assert scale.um_per_px == pytest.approx(NUCLEUS_UM / 121, rel=0.1)

"""The phantom: seeded, true to its own truth, and moved by its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listener.demo.phantom import Recipe, draw_field
from listener.demo.phantom.camera import Optics
from listener.demo.phantom.cells import WHITE_CELLS
from listener.demo.phantom.field import BLASTS, PhantomField
from models.classifier import OnnxClassifier
from models.segmenter import OnnxSegmenter
from pipeline.domain import Call, CellFinding, CellType, SOPInstanceUID, SourceImage
from pipeline.findings.crops import cut_crops
from pipeline.findings.decision import assess
from pipeline.segmentation.find_cells import find_cells

SMALL = Recipe(
    width=480, height=360, um_per_px=0.15, white_cells=(CellType.NEUTROPHIL, CellType.LYMPHOBLAST)
)


def test_more_cells_than_fit_are_refused_not_left_out() -> None:
    crowded = replace(SMALL, white_cells=(CellType.MONOCYTE,) * 60)

    with pytest.raises(ValueError, match="do not fit"):
        draw_field(1, crowded)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not() -> None:
    first, again, other = draw_field(1, SMALL), draw_field(1, SMALL), draw_field(2, SMALL)

    assert np.array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, other.pixels)


@settings(max_examples=12)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(sorted(WHITE_CELLS)))
def test_every_white_cell_lies_where_the_truth_says(seed: int, kind: CellType) -> None:
    field = draw_field(seed, replace(SMALL, white_cells=(kind,)))

    (cell,) = field.cells
    assert cell.box.x >= 0 and cell.box.x + cell.box.width <= SMALL.width
    assert cell.box.y >= 0 and cell.box.y + cell.box.height <= SMALL.height
    assert 0 < cell.nucleus_area_um2 < cell.area_um2
    inside = np.zeros(field.pixels.shape[:2], np.uint8)
    cv2.fillPoly(inside, [cell.contour], 1)
    green = field.pixels[..., 1]
    assert np.percentile(green[inside == 1], 20) < np.percentile(green[inside == 0], 20)


def test_touching_pairs_touch() -> None:
    recipe = Recipe(white_cells=(CellType.LYMPHOBLAST,) * 2, touching_pairs=1)

    field = draw_field(3, recipe)

    first, second = field.cells
    apart = np.hypot(*np.subtract(first.centre, second.centre)) * field.um_per_px
    reach = sum(np.sqrt(cell.area_um2 / np.pi) for cell in field.cells)
    assert apart < reach + 0.8


def test_blasts_and_only_blasts_are_leukemic() -> None:
    field = draw_field(1, replace(SMALL, white_cells=(CellType.NEUTROPHIL, CellType.MYELOBLAST)))

    assert [cell.is_leukemic for cell in field.cells] == [False, True]


def _with(optics: Optics) -> PhantomField:
    return draw_field(5, replace(SMALL, optics=optics))


def test_blur_takes_the_edges_away() -> None:
    pictures = [_with(Optics(blur_um=blur_um, noise=0.0)).pixels for blur_um in (0.0, 1.0)]

    sharp, blurred = (cv2.Laplacian(picture, cv2.CV_64F).var() for picture in pictures)

    assert blurred < sharp / 2


def test_a_strong_stain_is_darker_and_a_bluish_one_bluer() -> None:
    plain, strong, bluish = (
        _with(optics)
        for optics in (Optics(), Optics(stain_strength=1.3), Optics(stain_balance=0.3))
    )

    assert strong.pixels.mean() < plain.pixels.mean()
    blueness = [float(f.pixels[..., 2].mean() - f.pixels[..., 0].mean()) for f in (bluish, plain)]
    assert blueness[0] > blueness[1]


SEEDS_NOT_DRAWN_BY = range(7000, 7004)
"""Nothing was chosen by these: neither how cells are drawn nor what the network learned."""


def called(kind: CellType) -> list[CellFinding | None]:
    """What is said of each drawn cell of a type; None where it was not found."""
    classifier, segmenter = OnnxClassifier.load(), OnnxSegmenter.load()
    said: list[CellFinding | None] = []
    for seed in SEEDS_NOT_DRAWN_BY:
        drawn = draw_field(seed, Recipe(width=960, height=720, white_cells=(kind,) * 5))
        image = SourceImage(
            sop_instance_uid=SOPInstanceUID("2.25.1"), frame=1, pixels=drawn.pixels, spacing_um=None
        )
        found = find_cells(image, segmenter)
        answers = classifier.classify(cut_crops(image, found.cells, found.scale))
        findings = assess(found.cells, answers, classifier.policy, found.quality)
        said += [at(cell.centre, findings) for cell in drawn.cells]
    return said


def at(place: tuple[float, float], findings: Sequence[CellFinding]) -> CellFinding | None:
    """The finding whose outline holds the place."""
    holds = (f for f in findings if cv2.pointPolygonTest(f.cell.contour, place, False) >= 0)
    return next(holds, None)


@pytest.mark.parametrize("kind", BLASTS)
def test_drawn_blasts_are_called_leukemic(kind: CellType) -> None:
    calls = [finding.call if finding else None for finding in called(kind)]

    assert calls.count(Call.LEUKEMIC) >= 0.9 * len(calls)
    assert calls.count(Call.NORMAL) <= 0.02 * len(calls)


@pytest.mark.parametrize("kind", [kind for kind in WHITE_CELLS if kind not in BLASTS])
def test_nine_of_ten_drawn_normal_cells_get_their_type(kind: CellType) -> None:
    said = called(kind)

    right = [finding is not None and finding.cell_type is kind for finding in said]
    assert np.mean(right) >= 0.9
    assert not [finding for finding in said if finding and finding.call is Call.LEUKEMIC]

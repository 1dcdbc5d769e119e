"""A picture of one cell, cut out of a field, is told as the field was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.evaluation.pack import read_pack
from pipeline.domain import Box, FieldCells, QualityFlag, SourceImage
from pipeline.field.quality import LIMITS, judge_quality
from pipeline.segmentation.find_cells import central_cell, find_cells
from pipeline.segmentation.pixel_scale import find_scale
from tests.pipeline.not_smears import KINDS, not_smears
from tests.pipeline.smears import by_a_poor_camera, field, image_of, overlap, segmenter

DATA = Path(__file__).parents[3] / "shared" / "data"
MORE_DATA = DATA.with_name("data2")
TIGHT = 1.3
"""Side of the picture, as cells are cut out for galleries, in widths of the cell."""


def cut_around(image: SourceImage, box: Box, widths: float) -> tuple[SourceImage, Box] | None:
    """A square picture with the box in its middle, and the box in it; None beyond the edge."""
    side = round(widths * max(box.width, box.height))
    left, top = round(box.x + (box.width - side) / 2), round(box.y + (box.height - side) / 2)
    if min(left, top) < 0 or left + side > image.width or top + side > image.height:
        return None
    pixels = np.ascontiguousarray(image.pixels[top : top + side, left : left + side])
    inside = Box(x=box.x - left, y=box.y - top, width=box.width, height=box.height)
    return image_of(pixels), inside


def cut_out(image: SourceImage, found: FieldCells, widths: float) -> Iterator[tuple[float, bool]]:
    """Of each sure cell: how its scale alone compares with the field's, and if it is found."""
    for cell in found.cells:
        cut = cut_around(image, cell.box, widths)
        if cut is None or cell.is_cut_by_edge or cell.confidence < 0.6:
            continue
        alone = find_cells(cut[0], segmenter())
        central = central_cell(alone, width=cut[0].width, height=cut[0].height)
        is_found = central is not None and overlap(central.box, cut[1]) > 0.7
        yield alone.scale.um_per_px / found.scale.um_per_px, is_found


def test_a_picture_with_neither_nucleus_nor_red_cells_is_refused() -> None:
    """Skin, hair and the like have colors of a smear at times; a cell they have not."""
    (portrait,) = (kind for kind in KINDS if kind.__name__ == "_portrait")
    _, pixels = next(not_smears(portrait))
    assert judge_quality(pixels, find_scale(pixels, None)).is_usable, "its colors are a smear's"

    found = find_cells(image_of(pixels), segmenter())

    assert QualityFlag.NOT_A_SMEAR in found.quality.flags
    assert found.quality.figures["proofs"] == 0
    assert found.cells == ()


def test_nuclei_bluer_than_glass_are_believed_where_a_nucleus_is_seen() -> None:
    """Some cameras draw them so; in a picture of one cell they are most of what is stained."""
    drawn = field(seed=8, um=0.1, stain_strength=0.8)
    bluer = drawn.pixels.astype(np.float32)
    stain_hue = np.clip((bluer[..., 2] - bluer[..., 1] - 15) / 60, 0, 1)[..., None]
    bluer += stain_hue * (np.array([0, 0, 1]) * (252 - bluer))
    image = image_of(bluer.astype(np.uint8))
    whole = find_cells(image, segmenter())
    cuts = [cut for cell in whole.cells if (cut := cut_around(image, cell.box, TIGHT))]

    alone = [find_cells(cut, segmenter()) for cut, _ in cuts]

    brighter = [found for found in alone if found.quality.figures["chroma"] > LIMITS.most_chroma]
    assert len(brighter) >= 3, "too few show what is tested"
    assert all(found.quality.is_usable and found.cells for found in brighter)


@pytest.mark.parametrize("grain_px", [2.5, 3.5])
def test_coarse_grain_of_a_poor_camera_does_not_tell_the_scale(grain_px: float) -> None:
    """Its grain looks like many red cells of a few pixels; the cell is found at its own scale."""
    drawn = field(seed=3, um=0.1)
    faint = by_a_poor_camera(drawn.pixels).astype(np.float32)
    noise = np.random.default_rng(1).normal(0, 1, drawn.pixels.shape[:2]).astype(np.float32)
    grain = cv2.GaussianBlur(noise, (0, 0), grain_px)
    faint += 10 * (grain / grain.std())[..., None] * np.array([0.6, 1.0, 0.8], np.float32)
    lymphocyte = min((cell.box for cell in drawn.cells), key=lambda box: box.width)
    cut = cut_around(image_of(np.clip(faint, 0, 255).astype(np.uint8)), lymphocyte, 2.0)
    assert cut is not None
    assert find_scale(cut[0].pixels, None).um_per_px > 0.5, "the grain tells no scale"

    found = find_cells(cut[0], segmenter())

    central = central_cell(found, width=cut[0].width, height=cut[0].height)
    assert central is not None and overlap(central.box, cut[1]) > 0.5
    assert found.scale.um_per_px == pytest.approx(0.1, rel=0.3)


@pytest.mark.parametrize(("widths", "most_error"), [(TIGHT, 0.3), (2.0, 0.12)])
def test_a_phantom_cell_alone_is_found_and_scaled(widths: float, most_error: float) -> None:
    """Three cells of four within `most_error` (logarithms): few red cells tell a scale roughly."""
    errors, are_found = [], []
    for seed in (3, 8, 11, 14, 17):
        image = image_of(field(seed=seed, um=0.1).pixels)
        for ratio, is_found in cut_out(image, find_cells(image, segmenter()), widths):
            errors.append(abs(np.log(ratio)))
            are_found.append(is_found)

    assert len(errors) >= 10
    assert np.quantile(errors, 0.75) < most_error
    assert np.mean(are_found) > 0.9


@pytest.mark.data
@pytest.mark.skipif(
    not (DATA / "manifest.csv").is_file(), reason="no data pack beside the checkout"
)
@pytest.mark.parametrize("source", ["bccd", "raabin", "draaslan"])
def test_a_real_cell_alone_is_found(source: str) -> None:
    rows = [row for row in read_pack(DATA, None) if row.source == source and row.kind == "field"]
    told: list[tuple[float, bool]] = []
    for row in rows[::3]:
        image = row.read_image()
        told += cut_out(image, find_cells(image, segmenter()), TIGHT)
    ratios, are_found = zip(*told, strict=True)
    errors = np.abs(np.log(ratios))

    print(
        f"{source}: {len(told)} cells alone, found {np.mean(are_found):.2f}, scale off by "
        f"{np.median(errors):.2f}, by more than 0.3 {np.mean(errors > 0.3):.2f} (logarithms)"
    )
    assert len(told) >= 10
    assert np.mean(are_found) > 0.9
    assert np.mean(errors > 0.5) < 0.1


@pytest.mark.data
@pytest.mark.skipif(
    not (MORE_DATA / "manifest.csv").is_file(), reason="no second data pack beside the checkout"
)
def test_cells_alone_by_a_poor_camera_are_found_at_their_scale() -> None:
    """A person reads nearly all of them; its grain and parts of cells look like small red cells."""
    rows = [row for row in read_pack(MORE_DATA, None) if row.source == "chula_cells"][::3]
    widths = []
    refused = 0
    for row in rows:
        image = row.read_image()
        found = find_cells(image, segmenter())
        refused += not found.quality.is_usable
        cell = central_cell(found, width=image.width, height=image.height)
        widths.append(2 * (cell.shape.area_um2 / np.pi) ** 0.5 if cell else np.inf)

    missed, too_wide = np.isinf(widths), np.array(widths) > 20
    print(f"{len(rows)} cells: {refused} refused, {missed.sum()} missed, {too_wide.sum()} too wide")
    assert len(rows) >= 100
    assert refused <= len(rows) / 16
    assert missed.mean() <= 0.07
    assert (too_wide & ~missed).mean() <= 0.05

"""What is no smear is refused, what is a poor one says why, and a good one passes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from models.evaluation.pack import read_pack
from pipeline.domain import QualityFlag, Scale, ScaleSource
from pipeline.field.quality import judge_quality
from pipeline.segmentation.find_cells import find_cells
from pipeline.segmentation.pixel_scale import find_scale
from tests.pipeline.not_smears import KINDS, Draw, not_smears
from tests.pipeline.smears import by_a_poor_camera, field, found_of, image_of, segmenter

DATA = Path(__file__).parents[4] / "shared" / "data"
MORE_DATA = DATA.with_name("data2")
POOR = ("chula", "hs2", "iml", "vivax")
SCALE = Scale(um_per_px=0.12, source=ScaleSource.RED_CELLS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__[1:])
def test_pictures_of_other_things_are_refused_ten_of_ten(kind: Draw) -> None:
    shown = list(not_smears(kind))

    passed = [
        name
        for name, pixels in shown
        if find_cells(image_of(pixels), segmenter()).quality.is_usable
    ]

    assert len(shown) == 10
    assert passed == []


def test_a_field_of_a_poor_camera_is_read_where_a_person_reads_it() -> None:
    drawn = field()

    found = find_cells(image_of(by_a_poor_camera(drawn.pixels)), segmenter())

    assert found.quality.is_usable
    assert found_of([cell.box for cell in drawn.cells], found.cells) >= 0.6 * len(drawn.cells)


def test_faint_colors_that_scatter_are_no_smear_without_cells_seen_in_them() -> None:
    clouds = np.random.default_rng(2).normal(0, 60, (300, 400, 3)).astype(np.float32)
    faint = 180 + 6 * cv2.GaussianBlur(clouds, (0, 0), 9)
    pixels = np.clip(np.rint(faint), 0, 255).astype(np.uint8)

    assert not find_cells(image_of(pixels), segmenter()).quality.is_usable
    assert not find_cells(image_of(pixels)).quality.is_usable


def test_a_gray_picture_is_told_from_one_that_is_no_smear() -> None:
    gray = field().pixels.mean(axis=2, keepdims=True).astype(np.uint8).repeat(3, axis=2)

    quality = find_cells(image_of(gray), segmenter()).quality

    assert not quality.is_usable
    assert QualityFlag.GRAYSCALE in quality.flags
    assert QualityFlag.NOT_A_SMEAR not in quality.flags


@pytest.mark.parametrize("share", [0.05, 0.4, 0.8])
def test_a_picture_whose_lower_part_is_missing_is_told_from_one_that_is_no_smear(
    share: float,
) -> None:
    cut = field().pixels.copy()
    cut[round((1 - share) * cut.shape[0]) :] = 128

    quality = find_cells(image_of(cut), segmenter()).quality

    assert not quality.is_usable
    assert QualityFlag.TRUNCATED in quality.flags
    assert QualityFlag.NOT_A_SMEAR not in quality.flags


def test_a_black_strip_at_the_lower_edge_of_a_scan_is_no_missing_part() -> None:
    strip = field().pixels.copy()
    strip[-20:] = 0

    assert find_cells(image_of(strip), segmenter()).quality.is_usable


def test_nothing_is_looked_for_in_a_refused_picture() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (300, 300, 3)).astype(np.uint8)

    found = find_cells(image_of(noise))

    assert not found.quality.is_usable
    assert QualityFlag.NOT_A_SMEAR in found.quality.flags
    assert found.cells == ()


@pytest.mark.parametrize("level", [40, 128, 255])
def test_one_colour_is_refused_as_empty(level: int) -> None:
    found = find_cells(image_of(np.full((200, 300, 3), level, np.uint8)))

    assert not found.quality.is_usable
    assert QualityFlag.EMPTY in found.quality.flags


def test_a_black_picture_is_refused_for_want_of_light() -> None:
    found = find_cells(image_of(np.zeros((200, 300, 3), np.uint8)))

    assert not found.quality.is_usable
    assert QualityFlag.UNDEREXPOSED in found.quality.flags


def test_a_field_far_out_of_focus_is_refused_for_that() -> None:
    blurred = field(blur_um=4.0).pixels

    quality = judge_quality(blurred, find_scale(blurred, None))

    assert QualityFlag.OUT_OF_FOCUS in quality.flags
    assert not quality.is_usable


def test_too_little_light_is_said() -> None:
    dark = field(lamp=(100.0, 95.0, 90.0)).pixels

    assert QualityFlag.UNDEREXPOSED in judge_quality(dark, SCALE).flags


def test_too_much_light_is_said() -> None:
    bright = cv2.convertScaleAbs(field().pixels, alpha=1.9)

    assert QualityFlag.OVEREXPOSED in judge_quality(np.asarray(bright, np.uint8), SCALE).flags


def test_a_stain_that_is_hardly_there_is_said() -> None:
    pale = field(stain_strength=0.22).pixels

    assert QualityFlag.STAIN_OUT_OF_RANGE in judge_quality(pale, SCALE).flags


def test_a_scale_that_was_only_assumed_is_said() -> None:
    assumed = Scale(um_per_px=0.1, source=ScaleSource.ASSUMED)

    assert QualityFlag.SCALE_UNKNOWN in judge_quality(field().pixels, assumed).flags


@pytest.mark.parametrize(
    "optics",
    [
        {},
        {"stain_strength": 0.6},
        {"stain_strength": 1.5},
        {"stain_balance": -0.3},
        {"stain_balance": 0.3},
        {"noise": 4.0},
        {"vignetting": 0.25},
        {"blur_um": 0.5},
    ],
)
def test_a_good_field_has_no_flag(optics: dict[str, float]) -> None:
    assert judge_quality(field(**optics).pixels, SCALE).flags == frozenset()


@pytest.mark.data
@pytest.mark.skipif(
    not (DATA / "manifest.csv").is_file(), reason="no data pack beside the checkout"
)
def test_hardly_a_real_field_is_refused() -> None:
    rows = [row for row in read_pack(DATA, None) if row.kind == "field"][::3]

    refused = [
        row.file for row in rows if not find_cells(row.read_image(), segmenter()).quality.is_usable
    ]

    assert len(rows) > 50
    assert len(refused) < 0.01 * len(rows)


@pytest.mark.data
@pytest.mark.skipif(
    not (MORE_DATA / "manifest.csv").is_file(), reason="no second data pack beside the checkout"
)
def test_hardly_a_field_of_a_poor_camera_is_refused() -> None:
    """One in ten at most, of fields that a person reads."""
    rows = [row for row in read_pack(MORE_DATA, None) if row.source in POOR][::4]

    refused = [
        row.file for row in rows if not find_cells(row.read_image(), segmenter()).quality.is_usable
    ]

    assert len(rows) > 40
    assert len(refused) <= 0.1 * len(rows), refused

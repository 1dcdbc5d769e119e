"""The packaged cell finder loads when whole, refuses to when damaged, and finds phantom cells."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from listener.demo.phantom import Recipe, draw_field
from models.segmenter import DESCRIPTION, SEGMENTER_FOLDER, OnnxSegmenter
from pipeline.domain import CellType
from pipeline.errors import Defect
from pipeline.rendering.segmentation_stages import COLUMNS, TILE_PX, draw_stages
from pipeline.segmentation.find_cells import find_cells
from pipeline.segmentation.network_maps import MAP_COUNT
from tests.pipeline.smears import field, found_of, image_of

FILE = "segmenter.onnx"


@pytest.fixture(scope="module")
def segmenter() -> OnnxSegmenter:
    return OnnxSegmenter.load()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (FILE, DESCRIPTION):
        shutil.copy(SEGMENTER_FOLDER / name, tmp_path / name)
    return tmp_path


def test_it_says_which_file_answers(segmenter: OnnxSegmenter) -> None:
    content = (SEGMENTER_FOLDER / FILE).read_bytes()

    assert segmenter.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("size", [(16, 16), (48, 160)])
def test_maps_are_as_large_as_the_picture(segmenter: OnnxSegmenter, size: tuple[int, int]) -> None:
    maps = segmenter.answer(np.zeros((3, *size), np.float32))

    assert maps.shape == (MAP_COUNT, *size)
    assert maps.dtype == np.float32


def test_clear_glass_holds_nothing(segmenter: OnnxSegmenter) -> None:
    maps = segmenter.answer(np.zeros((3, 96, 96), np.float32))

    assert (maps[:4] < 0).all()


def test_a_changed_file_is_refused(folder: Path) -> None:
    content = bytearray((folder / FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / FILE).write_bytes(content)

    with pytest.raises(Defect, match="sha256") as caught:
        OnnxSegmenter.load(folder)
    assert caught.value.code == "segmenter_damaged"


@pytest.mark.parametrize("name", [FILE, DESCRIPTION])
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()

    with pytest.raises(Defect, match=name) as caught:
        OnnxSegmenter.load(folder)
    assert caught.value.code == "segmenter_damaged"


@pytest.mark.parametrize("text", ["", "[segmenter]\n", "segmenter = 1\n", "[segmenter"])
def test_a_description_that_says_too_little_is_refused(folder: Path, text: str) -> None:
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")

    with pytest.raises(Defect) as caught:
        OnnxSegmenter.load(folder)
    assert caught.value.code == "segmenter_damaged"


def test_a_graph_of_another_kind_is_refused(folder: Path) -> None:
    graph = (Path(__file__).parent / "tiny.onnx").read_bytes()
    (folder / FILE).write_bytes(graph)
    digest = hashlib.sha256(graph).hexdigest()
    told = f'[segmenter]\nfile = "{FILE}"\nsha256 = "{digest}"\n'
    (folder / DESCRIPTION).write_text(told, encoding="utf-8")

    with pytest.raises(Defect, match="input") as caught:
        OnnxSegmenter.load(folder)
    assert caught.value.code == "segmenter_damaged"


@pytest.mark.parametrize(
    "optics",
    [
        {},
        {"stain_strength": 0.6},
        {"stain_strength": 1.5},
        {"stain_balance": -0.3},
        {"stain_balance": 0.3},
        {"blur_um": 0.6},
        {"noise": 4.0},
        {"vignetting": 0.25},
    ],
)
def test_every_phantom_cell_is_found_and_no_other(
    segmenter: OnnxSegmenter, optics: dict[str, float]
) -> None:
    drawn = field(**optics)

    found = find_cells(image_of(drawn.pixels), segmenter).cells

    assert found_of([cell.box for cell in drawn.cells], found) == len(drawn.cells) == len(found)


@pytest.mark.parametrize("um", [0.06, 0.1, 0.2, 0.25])
def test_the_microscope_does_not_matter(segmenter: OnnxSegmenter, um: float) -> None:
    drawn = field(um=um, width=round(96 / um), height=round(72 / um))

    found = find_cells(image_of(drawn.pixels), segmenter)

    boxes = [cell.box for cell in drawn.cells]
    assert found_of(boxes, found.cells) == len(drawn.cells) == len(found.cells)
    assert found.scale.um_per_px == pytest.approx(um, rel=0.08)


@pytest.mark.parametrize("red_cells", [3000, 25000])
def test_density_does_not_matter(segmenter: OnnxSegmenter, red_cells: float) -> None:
    drawn = draw_field(
        5, Recipe(width=800, height=600, um_per_px=0.12, red_cells_per_mm2=red_cells)
    )

    found = find_cells(image_of(drawn.pixels), segmenter).cells

    assert found_of([cell.box for cell in drawn.cells], found) == len(drawn.cells) == len(found)


def test_a_field_without_white_cells_has_none(segmenter: OnnxSegmenter) -> None:
    drawn = draw_field(5, Recipe(width=640, height=480, um_per_px=0.12, white_cells=()))

    assert find_cells(image_of(drawn.pixels), segmenter).cells == ()


def test_cells_that_touch_are_told_apart_and_said_to_touch(segmenter: OnnxSegmenter) -> None:
    blasts = (CellType.LYMPHOBLAST,) * 4
    drawn = draw_field(
        5, Recipe(width=800, height=600, um_per_px=0.12, white_cells=blasts, touching_pairs=2)
    )

    found = find_cells(image_of(drawn.pixels), segmenter).cells

    assert found_of([cell.box for cell in drawn.cells], found) == len(drawn.cells) == len(found)
    assert sum(cell.is_touching for cell in found) >= 2


@pytest.mark.parametrize("factors", [(0.92, 1.0, 1.0), (1.0, 0.93, 1.0), (0.95, 0.97, 0.9)])
def test_another_lamp_changes_areas_by_less_than_a_tenth(
    segmenter: OnnxSegmenter, factors: tuple[float, float, float]
) -> None:
    drawn = field()
    relit = np.clip(drawn.pixels * np.array(factors), 0, 255).astype(np.uint8)

    before = find_cells(image_of(drawn.pixels), segmenter).cells
    after = find_cells(image_of(relit), segmenter).cells

    assert len(before) == len(after)
    for one, two in zip(before, after, strict=True):
        assert two.shape.area_um2 == pytest.approx(one.shape.area_um2, rel=0.1)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turning_the_field_turns_the_findings(segmenter: OnnxSegmenter, turns: int) -> None:
    """The same number of cells; sorted areas differ by less than a tenth."""
    drawn = field()
    turned = np.ascontiguousarray(np.rot90(drawn.pixels, turns))

    before = find_cells(image_of(drawn.pixels), segmenter).cells
    after = find_cells(image_of(turned), segmenter).cells

    assert len(before) == len(after) == len(drawn.cells)
    areas = [sorted(cell.shape.area_um2 for cell in cells) for cells in (before, after)]
    assert areas[0] == pytest.approx(areas[1], rel=0.1)


def test_confidences_are_probabilities_and_differ(segmenter: OnnxSegmenter) -> None:
    found = find_cells(image_of(field().pixels), segmenter).cells

    said = [cell.confidence for cell in found]
    assert all(0 < confidence <= 1 for confidence in said)
    assert len(set(said)) == len(said)


@pytest.mark.parametrize("width", [301, 800])
def test_the_sheet_of_stages_shows_what_it_found(segmenter: OnnxSegmenter, width: int) -> None:
    image = image_of(np.ascontiguousarray(field().pixels[:, :width]))

    sheet = draw_stages(image, segmenter)

    assert sheet.shape[1] == COLUMNS * TILE_PX

"""Maps become cells: one for pixels that agree on a middle, two where they do not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.segmentation.instances import find_instances
from pipeline.segmentation.network_maps import NETWORK_UM, OFFSET_PX, SegmentationMaps, ask

SIDE = 96
YES, NO = 6.0, -6.0


def disc_at(x: float, y: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 < radius**2)


def maps_of(
    cells: list[tuple[NDArray[np.bool_], tuple[float, float]]],
    peaks: list[tuple[float, float]],
) -> SegmentationMaps:
    """Cells (mask, and where its pixels point) and the middles that the network sees."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    white = np.full((SIDE, SIDE), NO, np.float32)
    middle, across, down = white.copy(), np.zeros_like(white), np.zeros_like(white)
    for mask, (x, y) in cells:
        white[mask] = YES
        across[mask], down[mask] = x - columns[mask], y - rows[mask]
    for x, y in peaks:
        middle[disc_at(x, y, 3)] = YES
        middle[disc_at(x, y, 1.5)] = YES + 1
    return SegmentationMaps(
        white=white, nucleus=white, red=-white, middle=middle, across=across, down=down
    )


def test_a_cell_is_its_mask() -> None:
    mask = disc_at(40, 50, 18)

    found = find_instances(maps_of([(mask, (40, 50))], [(40, 50)]), NETWORK_UM)

    assert len(found.outlines) == 1
    assert np.array_equal(found.labels == 1, mask)
    assert found.outlines[0].mean(axis=0) == pytest.approx((40, 50), abs=0.5)
    radii = np.linalg.norm(found.outlines[0] - (40, 50), axis=1)
    assert radii.mean() == pytest.approx(18, abs=0.7)


def test_cells_that_touch_are_two() -> None:
    left, right = disc_at(30, 48, 17), disc_at(64, 48, 17)
    right &= ~left

    found = find_instances(
        maps_of([(left, (30, 48)), (right, (64, 48))], [(30, 48), (64, 48)]), NETWORK_UM
    )

    assert len(found.outlines) == 2
    assert {int(found.labels[48, 30]), int(found.labels[48, 64])} == {1, 2}


def test_two_middles_of_one_cell_are_one() -> None:
    """The halves point past their own middles at that of the whole."""
    whole = disc_at(48, 48, 22)
    columns = np.mgrid[:SIDE, :SIDE][1]
    halves = [(whole & (columns < 48), (44.0, 48.0)), (whole & (columns >= 48), (52.0, 48.0))]

    found = find_instances(maps_of(halves, [(38, 48), (58, 48)]), NETWORK_UM)

    assert len(found.outlines) == 1
    assert np.array_equal(found.labels == 1, whole)


def test_what_would_be_wider_than_any_cell_is_not_joined() -> None:
    """At half a pixel's size the same halves are a giant's; 24 µm is the limit."""
    whole = disc_at(48, 48, 22)
    columns = np.mgrid[:SIDE, :SIDE][1]
    halves = [(whole & (columns < 48), (44.0, 48.0)), (whole & (columns >= 48), (52.0, 48.0))]

    found = find_instances(maps_of(halves, [(38, 48), (58, 48)]), 2 * NETWORK_UM)

    assert len(found.outlines) == 2


def test_a_cell_without_a_middle_is_none() -> None:
    found = find_instances(maps_of([(disc_at(40, 50, 18), (40, 50))], []), NETWORK_UM)

    assert found.outlines == []
    assert not found.labels.any()


def test_unsure_cells_say_so() -> None:
    sure = maps_of([(disc_at(40, 50, 18), (40, 50))], [(40, 50)])
    unsure = SegmentationMaps(
        white=np.asarray(sure.white / 6, np.float32),
        nucleus=sure.nucleus,
        red=sure.red,
        middle=sure.middle,
        across=sure.across,
        down=sure.down,
    )

    one = find_instances(sure, NETWORK_UM).confidences[0]
    two = find_instances(unsure, NETWORK_UM).confidences[0]

    assert one > 0.95
    assert two < 0.8


class Echo:
    """Answers the first color as every map, and remembers what it was shown."""

    sha256 = "0" * 64

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()

    def answer(self, density: NDArray[np.float32]) -> NDArray[np.float32]:
        self.shape = density.shape
        return np.repeat(density[:1], 6, axis=0)


@pytest.mark.parametrize("size", [(8, 8), (50, 61), (16, 32)])
def test_a_network_is_asked_in_sixteens_and_answers_for_the_picture(size: tuple[int, int]) -> None:
    density = np.random.default_rng(1).uniform(0, 1, (*size, 3)).astype(np.float32)
    echo = Echo()

    maps = ask(echo, density)

    assert all(side % 16 == 0 for side in echo.shape[1:])
    assert maps.white.shape == size
    assert np.array_equal(maps.white, density[..., 0])
    assert np.allclose(maps.across, OFFSET_PX * density[..., 0])

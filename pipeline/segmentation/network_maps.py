"""What a learned segmenter says of a field: one number for each question at each pixel.

The network is asked on optical density, at about `NETWORK_UM` µm a pixel; it was trained to
bear half and twice that, because a scale may be wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.domain import RGB
from pipeline.field.optical_density import Density, Map
from pipeline.field.overview import enlarged, reduced

NETWORK_UM = 0.4
"""µm a pixel that the network was trained around: a nucleus is 20 pixels wide."""
MULTIPLE = 16
"""The network halves its picture four times."""
GLASS_AROUND = 8
"""Pixels of clear glass below and to the right, at least."""
DENSITIES = (-0.05, 1.6)
"""Range of what the network has seen."""
OFFSET_PX = 16.0
"""Unit of the way to a cell's middle."""
MAP_COUNT = 6
SURE_LOGIT = 1.5
"""Where the network is sure of red cell or of glass: one in five would be wrong at most."""


class Segmenter(Protocol):
    """What the finding of cells asks of a network; `models.segmenter` answers it."""

    @property
    def sha256(self) -> str:
        """Of the file that answers."""
        ...

    def answer(self, density: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps, 6 × H × W, of a density, 3 × H × W; H and W are multiples of 16.

        Logits of white cell, nucleus, red cell and middle of a white cell; and the way to the
        middle across and down, in units of 16 pixels.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentationMaps:
    """The network's answers about one picture, each height × width."""

    white: Map
    nucleus: Map
    red: Map
    middle: Map
    """Logits; above 0 means yes."""
    across: Map
    down: Map
    """From a white cell's pixel to the middle of its cell, in pixels."""

    @property
    def is_glass(self) -> NDArray[np.bool_]:
        """Where the network is sure of seeing no cell at all."""
        return (self.red < -SURE_LOGIT) & (self.white < -SURE_LOGIT)


def ask(segmenter: Segmenter, density: Density) -> SegmentationMaps:
    """The maps of a density picture, height × width × 3."""
    height, width = density.shape[:2]
    tall, wide = (-(-(side + GLASS_AROUND) // MULTIPLE) * MULTIPLE for side in (height, width))
    laid = np.zeros((3, tall, wide), np.float32)
    laid[:, :height, :width] = np.clip(density, *DENSITIES).transpose(2, 0, 1)
    white, nucleus, red, middle, across, down = segmenter.answer(laid)[:, :height, :width]
    return SegmentationMaps(
        white=white,
        nucleus=nucleus,
        red=red,
        middle=middle,
        across=across * OFFSET_PX,
        down=down * OFFSET_PX,
    )


def resized(pixels: RGB, zoom: float, halved: RGB | None = None) -> RGB:
    """The picture at another size, at least 8 pixels a side; as it is when that changes little.

    `halved` is the same picture, where it was halved already: the result is the same, sooner.
    """
    if abs(zoom - 1) < 0.02:
        return pixels
    height, width = pixels.shape[:2]
    size = (max(round(width * zoom), 8), max(round(height * zoom), 8))
    if zoom > 1:
        return enlarged(pixels, size)
    if halved is None or halved.shape[1] < size[0] or halved.shape[0] < size[1]:
        return reduced(pixels, size)
    return reduced(halved, size)

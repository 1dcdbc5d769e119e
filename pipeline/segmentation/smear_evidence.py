"""Counts what proves that a picture shows a smear: nuclei and red cells that are beyond doubt.

For pictures whose colors and red cells alone do not (`quality.wants_proof`; ADR 0014).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.field.masks import windows
from pipeline.field.optical_density import Density
from pipeline.segmentation.instances import SURE_OF_NUCLEUS, Instances
from pipeline.segmentation.network_maps import SURE_LOGIT, SegmentationMaps


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceLimits:
    """What a nucleus, and a field full of red cells, must show to prove a smear."""

    least_green: float = 0.08
    least_red_share: float = 0.05
    most_red_share: float = 1.1
    most_blue_share: float = 0.55
    """Usual density of a nucleus, and those of red and blue light beside that of green: over all
    sources of the data pack 0.11 and more; 0.11 to 1.0; and -0.16 to 0.44."""
    least_chromatin: float = 0.1
    most_rest: float = 0.85
    """How uneven a nucleus is (deviation), and how dense the rest of its cell, beside its
    density: there 0.13 and more, and 0.74 at most in 98 of 100."""
    most_haze: float = 0.25
    most_haze_of_red: float = 0.25
    """Density of glass beside that of nuclei, and of red cells: there 0.21 at most in 98 of 100."""
    least_red_cover: float = 0.2
    """Share of a picture that is full of red cells: in 98 of 100 without a white cell 0.23 and
    more."""


USUAL = EvidenceLimits()
FAINT = EvidenceLimits(
    most_red_share=2.2,
    most_haze=0.35,
    most_haze_of_red=0.7,
    least_red_cover=0.08,
)
"""For fields of a poor camera: red cells are half as dense as usual, so the same noise of the glass
weighs more beside them, and white balance turns nuclei blue (`../shared/data2`, chula)."""


def count_smear_evidence(
    maps: SegmentationMaps, density: Density, seen: Instances, limits: EvidenceLimits = USUAL
) -> int:
    """Counts the nuclei that prove a smear, and one more if it is full of red cells; 0: no smear.

    `density` is that of the picture that the network was asked about, `seen` its cells.
    """
    haze = _haze(maps, density)
    nuclei = _nuclei(density, seen, haze, limits)
    return nuclei + _is_full_of_red_cells(maps, density, haze, limits)


def _nuclei(density: Density, seen: Instances, haze: float, limits: EvidenceLimits) -> int:
    """How many nuclei of white cells are seen beyond doubt: by their color, chromatin and cell.

    Azure absorbs most green, some red and little blue, whatever the stain; chromatin is
    uneven; the rest of the cell is paler, and the glass beside it clear.
    """
    parts, count = seen.nuclei.parts, 0
    for label, (view, _) in windows(parts).items():
        if seen.confidences[label - 1] < SURE_OF_NUCLEUS:
            continue
        is_nucleus = parts[view] == label
        own = density[view]
        red, green, blue = np.median(own[is_nucleus], axis=0)
        rest = own[(seen.labels[view] == label) & ~is_nucleus, 1]
        is_azure = limits.least_red_share * green < red < limits.most_red_share * green
        is_azure &= green > limits.least_green and abs(blue) < limits.most_blue_share * green
        is_uneven = np.std(own[is_nucleus, 1]) > limits.least_chromatin * green
        is_darker = rest.size == 0 or np.median(rest) < limits.most_rest * green
        count += bool(is_azure and is_uneven and is_darker and haze < limits.most_haze * green)
    return count


def _is_full_of_red_cells(
    maps: SegmentationMaps, density: Density, haze: float, limits: EvidenceLimits
) -> bool:
    """Whether much of it is red cells for the network, on glass that is clear beside them."""
    is_red = maps.red > SURE_LOGIT
    if np.mean(is_red) < limits.least_red_cover:
        return False
    return bool(haze < limits.most_haze_of_red * np.median(density[is_red, 1]))


def _haze(maps: SegmentationMaps, density: Density) -> float:
    """Density of the glass, in whichever color it is least clear; 0 where there is none."""
    glass = density[maps.is_glass]
    return float(np.percentile(np.abs(glass), 80, axis=0).max()) if len(glass) else 0.0

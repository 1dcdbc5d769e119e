"""What proves that a picture shows a smear: nuclei and red cells that a network sees beyond doubt.

For pictures whose colours and red cells alone do not (`quality.wants_proof`; ADR 0014).
"""

from __future__ import annotations

import numpy as np

from pipeline.field.masks import windows
from pipeline.field.optical_density import Density
from pipeline.segmentation.instances import SURE_OF_NUCLEUS, Instances
from pipeline.segmentation.network_maps import SURE_LOGIT, SegmentationMaps

LEAST_NUCLEUS_GREEN = 0.08
LEAST_RED_SHARE, MOST_RED_SHARE, MOST_BLUE_SHARE = 0.05, 1.1, 0.55
"""Usual density of a nucleus, and those of red and blue light beside that of green: over all
sources of the data pack 0.11 and more; 0.11 to 1.0; and -0.16 to 0.44."""
LEAST_CHROMATIN, MOST_REST = 0.1, 0.85
"""How uneven a nucleus is (deviation), and how dense the rest of its cell, beside its density:
there 0.13 and more, and 0.74 at most in 98 of 100."""
MOST_HAZE = 0.25
"""Density of glass beside that of nuclei and red cells: there 0.21 at most in 98 of 100."""
LEAST_RED_COVER = 0.2
"""Share of a picture that is full of red cells: in 98 of 100 without a white cell 0.23 and more."""


def count_smear_evidence(maps: SegmentationMaps, density: Density, seen: Instances) -> int:
    """How many nuclei prove it, and one more where it is full of red cells; 0 for no smear.

    `density` is that of the picture that the network was asked about, `seen` its cells.
    """
    haze = _haze(maps, density)
    return _nuclei(density, seen, haze) + _is_full_of_red_cells(maps, density, haze)


def _nuclei(density: Density, seen: Instances, haze: float) -> int:
    """How many nuclei of white cells are seen beyond doubt: by their colour, chromatin and cell.

    Azure holds back most green, some red and little blue, whatever the stain; chromatin is
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
        is_azure = LEAST_RED_SHARE * green < red < MOST_RED_SHARE * green
        is_azure &= green > LEAST_NUCLEUS_GREEN and abs(blue) < MOST_BLUE_SHARE * green
        is_uneven = np.std(own[is_nucleus, 1]) > LEAST_CHROMATIN * green
        is_darker = rest.size == 0 or np.median(rest) < MOST_REST * green
        count += bool(is_azure and is_uneven and is_darker and haze < MOST_HAZE * green)
    return count


def _is_full_of_red_cells(maps: SegmentationMaps, density: Density, haze: float) -> bool:
    """Whether much of it is red cells for the network, on glass that is clear beside them."""
    is_red = maps.red > SURE_LOGIT
    if np.mean(is_red) < LEAST_RED_COVER:
        return False
    return bool(haze < MOST_HAZE * np.median(density[is_red, 1]))


def _haze(maps: SegmentationMaps, density: Density) -> float:
    """Density of the glass, in whichever colour it is least clear; 0 where there is none."""
    glass = density[maps.is_glass]
    return float(np.percentile(np.abs(glass), 80, axis=0).max()) if len(glass) else 0.0

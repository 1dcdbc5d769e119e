"""Optical density of each part of a Wright-Giemsa stained cell, for red, green and blue.

Read off well-stained fields against clear glass; a density of 0.3 halves the light.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def _dye(red: float, green: float, blue: float) -> NDArray[np.float32]:
    return np.array([red, green, blue], np.float32)


HAEMOGLOBIN = _dye(0.085, 0.165, 0.145)
CHROMATIN = _dye(0.42, 0.70, 0.17)
LYMPHOCYTE_CHROMATIN = _dye(0.41, 0.65, 0.20)
BLAST_CHROMATIN = _dye(0.265, 0.75, 0.09)
SMUDGED_CHROMATIN = _dye(0.05, 0.22, 0.03)
BASOPHILIA = _dye(0.18, 0.25, 0.05)
DEEP_BASOPHILIA = _dye(0.285, 0.21, 0.05)
PALE_CYTOPLASM = _dye(0.08, 0.13, 0.05)
GREY_CYTOPLASM = _dye(0.15, 0.13, 0.055)
NEUTROPHIL_GRANULE = _dye(0.05, 0.10, 0.04)
EOSINOPHIL_GRANULE = _dye(0.09, 0.28, 0.20)
BASOPHIL_GRANULE = _dye(0.42, 0.70, 0.20)
PLATELET = _dye(0.20, 0.33, 0.12)

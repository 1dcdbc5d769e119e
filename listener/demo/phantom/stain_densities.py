"""Optical density of each part of a Wright-Giemsa stained cell, for red, green and blue.

Read off well-stained fields against clear glass; a density of 0.3 halves the light.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def _dye(red: float, green: float, blue: float) -> NDArray[np.float32]:
    return np.array([red, green, blue], np.float32)


HAEMOGLOBIN = _dye(0.085, 0.165, 0.145)
CHROMATIN = _dye(0.42, 0.64, 0.27)
BLAST_CHROMATIN = _dye(0.345, 0.60, 0.20)
SMUDGED_CHROMATIN = _dye(0.05, 0.22, 0.03)
BASOPHILIA = _dye(0.205, 0.175, 0.045)
PALE_CYTOPLASM = _dye(0.06, 0.10, 0.055)
GREY_CYTOPLASM = _dye(0.15, 0.16, 0.07)
NEUTROPHIL_GRANULE = _dye(0.05, 0.10, 0.04)
EOSINOPHIL_GRANULE = _dye(0.07, 0.27, 0.27)
BASOPHIL_GRANULE = _dye(0.45, 0.66, 0.28)
PLATELET = _dye(0.20, 0.33, 0.12)

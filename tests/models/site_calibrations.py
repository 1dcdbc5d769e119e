"""A site calibration as `smearlink calibrate` makes one."""

from __future__ import annotations

from datetime import date
from typing import Any

from models.site_calibration import Figures
from models.site_calibration_file import SiteCalibration

FIGURES = Figures(
    sensitivity=0.5,
    specificity=0.9,
    called_leukemic=0.02,
    referred=0.1,
    calibration_error=0.2,
    log_loss=0.5,
)


def make_calibration(**changed: Any) -> SiteCalibration:
    """Of both labels, from packs, for the network `net` 1.0."""
    told: dict[str, Any] = {
        "site": "St. Anna",
        "made_on": date(2026, 11, 28),
        "model_name": "net",
        "model_version": "1.0",
        "slope": 1.2,
        "offset": 0.5,
        "made_from": "packs",
        "smears": 9,
        "leukemic_cells": 60,
        "normal_cells": 300,
        "before": FIGURES,
        "after": FIGURES,
    }
    return SiteCalibration(**(told | changed))

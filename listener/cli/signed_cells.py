"""Cells of signed smears with the class that the signature stands for, for a site calibration.

A cell counts with its class in the signed report: as a person named it, or as the network called
it where somebody looked at it and let it stand. Counting named cells alone would mislead: where
people correct what is wrong and leave the rest, those are the network's errors.
"""

from __future__ import annotations

from collections.abc import Iterable

from listener.storage.reviewed_smears import ReviewedSmear
from models.evaluation.labeled_cells import NOT_JUDGED, LabeledCells
from models.site_calibration import raw_probability
from models.site_calibration_file import SiteCalibration
from pipeline.domain import Call, CellFinding, CellType, ModelIdentity, SignOff
from pipeline.findings.review import ADDED_FROM, cell_key

UNSURE = NOT_JUDGED | {CellType.PROMYELOCYTE, CellType.UNDETERMINED}
"""Of these nobody can say which label they have: promyelocytes are leukemic in APL alone."""

NOT_SIGNED = "smears that are not signed, or changed since"
OTHER_NETWORK = "cells found by another network or version"
OTHER_CALIBRATION = "cells found under another calibration"
NOT_SEEN = "cells that nobody looked at"
NO_LABEL = "cells of no clear label (referred, undetermined, smudge, platelet, promyelocyte)"
ADDED = "cells that a person added"


def cells_of_reviews(
    reviewed: Iterable[ReviewedSmear],
    *,
    model: ModelIdentity,
    calibration: SiteCalibration | None,
    normal_cells_only: bool,
) -> LabeledCells:
    """The cells of the signed smears among these that the present network found.

    Probabilities are the network's own: what was found under `calibration` is brought back.
    """
    labeled = LabeledCells()
    for one in reviewed:
        if not is_signed(one):
            labeled.left_out[NOT_SIGNED] += 1
            continue
        for field in one.smear.fields:
            own = field.model.calibration
            reason = ""
            if (field.model.name, field.model.version) != (model.name, model.version):
                reason = OTHER_NETWORK
            elif own and (calibration is None or own.sha256 != calibration.sha256):
                reason = OTHER_CALIBRATION
            for finding in field.cells:
                is_seen = cell_key(field, finding.cell) in one.state.seen
                why = reason or _left_out(finding, is_seen=is_seen)
                if why:
                    labeled.left_out[why] += 1
                    continue
                is_leukemic = finding.call is Call.LEUKEMIC
                if is_leukemic and normal_cells_only:
                    continue
                said = finding.prediction.leukemic_probability
                if own and calibration:
                    said = raw_probability(said, calibration.slope, calibration.offset)
                labeled.add(probability=said, is_leukemic=is_leukemic, smear=one.smear.smear_id)
    return labeled


def is_signed(one: ReviewedSmear) -> bool:
    """Whether a signature stands for what the smear says now; later remarks change nothing."""
    review = one.smear.review
    if review is None or review.sign_off in {SignOff.UNSIGNED, SignOff.WITHDRAWN}:
        return False
    return review.is_current or review.sign_off is SignOff.APPENDED


def _left_out(finding: CellFinding, *, is_seen: bool) -> str:
    """Why the cell tells nothing; "" where it does."""
    if finding.cell.index >= ADDED_FROM:
        return ADDED
    if finding.call is Call.REFERRED or finding.cell_type in UNSURE:
        return NO_LABEL
    return "" if is_seen else NOT_SEEN

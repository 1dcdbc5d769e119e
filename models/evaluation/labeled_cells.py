"""Cells of packs with their labels and what the network says of them, for a site calibration.

A cell picture gives its one cell. Of a field labeled normal every white cell is normal; of one
labeled leukemic only the cells with a marked center (`centroids.csv`) are known, as leukemic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.evaluation.cells import cut_row
from models.evaluation.detection import points_found
from models.evaluation.ground_truth import GroundTruth, read_ground_truth
from models.evaluation.pack import PackRow, PictureKind
from pipeline.analyse import Classifier
from pipeline.domain import RGB, CellKind, CellType
from pipeline.errors import Rejected
from pipeline.findings.crops import cut_crops
from pipeline.segmentation.find_cells import find_cells
from pipeline.segmentation.network_maps import Segmenter

NOT_JUDGED = frozenset({CellType.SMUDGE_CELL, CellType.PLATELET})
"""Types of which a label would say nothing about leukemia."""
CHUNK = 64


@dataclass(slots=True)
class LabeledCells:
    """One entry per cell in each of the first three; why others were left out, by count."""

    probabilities: list[float] = field(default_factory=list)
    is_leukemic: list[bool] = field(default_factory=list)
    smears: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, *, probability: float, is_leukemic: bool, smear: str) -> None:
        """One more cell."""
        self.probabilities.append(probability)
        self.is_leukemic.append(is_leukemic)
        self.smears.append(smear)

    @property
    def columns(self) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.str_]]:
        """Probabilities, labels and smears as arrays."""
        return (
            np.array(self.probabilities, np.float64),
            np.array(self.is_leukemic, np.bool_),
            np.array(self.smears, np.str_),
        )


def labeled_rows(
    rows: Sequence[PackRow], *, source: str, normal_cells_only: bool
) -> tuple[PackRow, ...]:
    """The labeled pictures of one source.

    Raises Rejected: `calibration_sources` where the packs hold several sources and none, or one
    that is not there, is named; `calibration_no_smear` where a row has no subject;
    `calibration_nothing_labeled`.
    """
    labeled = [row for row in rows if row.label in ("leukemic", "normal")]
    sources = sorted({row.source for row in labeled})
    if source and source not in sources:
        raise Rejected(
            f"The packs have no labeled picture of the source {source!r}, only of "
            f"{', '.join(sources) or 'none'}.",
            code="calibration_sources",
        )
    if not source and len(sources) > 1:
        raise Rejected(
            f"The packs hold several sources ({', '.join(sources)}); a calibration is for one "
            "laboratory. Name it with --source.",
            code="calibration_sources",
        )
    chosen = [
        row
        for row in labeled
        if row.source == (source or row.source)
        and not (normal_cells_only and row.label == "leukemic")
        and row.known_type not in NOT_JUDGED
    ]
    if not chosen:
        raise Rejected(
            "The packs hold no picture with the label leukemic or normal.",
            code="calibration_nothing_labeled",
        )
    nameless = next((row for row in chosen if not row.subject), None)
    if nameless is not None:
        raise Rejected(
            f"{nameless.file} has no subject; write the smear or the patient of each picture "
            "into the column subject, so that smears can be left out.",
            code="calibration_no_smear",
        )
    return tuple(chosen)


def ask_about_cells(
    rows: Sequence[PackRow],
    *,
    classifier: Classifier,
    segmenter: Segmenter | None = None,
    on_asked: Callable[[], None] = lambda: None,
) -> LabeledCells:
    """What the network says of every labeled cell of `labeled_rows`."""
    truths = {
        root: read_ground_truth(root)
        for root in {row.root for row in rows if row.kind is PictureKind.FIELD}
    }
    labeled = LabeledCells()
    for first in range(0, len(rows), CHUNK):
        crops: list[RGB] = []
        asked: list[PackRow] = []
        for row in rows[first : first + CHUNK]:
            found = list(_crops(row, truths, segmenter))
            if not found:
                labeled.left_out["no cell found in the picture"] += 1
            crops += found
            asked += [row] * len(found)
            on_asked()
        predictions = classifier.classify(np.stack(crops)) if crops else []
        for row, said in zip(asked, predictions, strict=True):
            labeled.add(
                probability=said.leukemic_probability,
                is_leukemic=row.label == "leukemic",
                smear=row.subject,
            )
    return labeled


def _crops(
    row: PackRow, truths: Mapping[Path, GroundTruth], segmenter: Segmenter | None
) -> Iterator[RGB]:
    """Of the cells whose label is known."""
    if row.kind is PictureKind.CELL:
        yield from (one.crop for one in cut_row(row, segmenter))
        return
    image = row.read_image()
    found = find_cells(image, segmenter)
    known = [cell for cell in found.cells if cell.kind is CellKind.WHITE_CELL]
    if row.label == "leukemic":
        centers = truths[row.root].centroids.get(row.file)
        known = [
            cell for cell in known if centers is not None and points_found(centers, [cell.contour])
        ]
    if known:
        yield from cut_crops(image, known, found.scale)

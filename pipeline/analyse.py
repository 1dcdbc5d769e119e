"""One field, from pixels to findings: the whole story on one screen."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.domain import (
    Cell,
    CellFinding,
    DecisionPolicy,
    FieldFindings,
    ModelIdentity,
    Prediction,
    SeriesUID,
    SourceImage,
    StudyUID,
)
from pipeline.errors import Rejected
from pipeline.findings.crops import cut_crops
from pipeline.findings.decision import assess
from pipeline.segmentation.find_cells import find_cells
from pipeline.segmentation.network_maps import Segmenter


class Classifier(Protocol):
    """What the analysis asks of a network; `models.classifier` answers it."""

    @property
    def identity(self) -> ModelIdentity:
        """Name, version, hash and execution provider of the network."""

    @property
    def policy(self) -> DecisionPolicy:
        """How its probabilities become calls."""

    def classify(self, crops: NDArray[np.uint8]) -> list[Prediction]:
        """One prediction a crop; crops are N × 224 × 224 × 3, uint8, RGB. N may be 0."""
        ...


def analyse_field(
    image: SourceImage,
    *,
    study_uid: StudyUID,
    series_uid: SeriesUID,
    classifier: Classifier,
    segmenter: Segmenter | None = None,
) -> FieldFindings:
    """Find the white cells of one frame, ask the network about each, and decide what to say."""
    found = find_cells(image, segmenter)
    crops = cut_crops(image, found.cells, found.scale)
    predictions = classifier.classify(crops)
    return FieldFindings(
        study_uid=study_uid,
        series_uid=series_uid,
        sop_instance_uid=image.sop_instance_uid,
        frame=image.frame,
        width=image.width,
        height=image.height,
        scale=found.scale,
        quality=found.quality,
        cells=assess(found.cells, predictions, classifier.policy, found.quality),
        model=model_identity(classifier, segmenter),
    )


MISSED_UM = 40.0
"""Side of the window in which a cell that a person points to is looked for."""


def analyse_at(
    image: SourceImage,
    field: FieldFindings,
    *,
    x: float,
    y: float,
    classifier: Classifier,
    segmenter: Segmenter | None = None,
) -> CellFinding:
    """Outline and classify the cell at x, y (pixels of the frame) that `field` does not hold.

    Raises Rejected: `outside_the_field`, `cell_known` where `field` has a cell there already,
    `no_cell_there` where the finder sees none.
    """
    if not (0 <= x < image.width and 0 <= y < image.height):
        raise Rejected("The place is outside of the field.", code="outside_the_field")
    if any(_holds(known.cell, x, y) for known in field.cells):
        raise Rejected("There is a cell at this place already.", code="cell_known")
    reach = round(MISSED_UM / 2 / field.scale.um_per_px)
    left, top = max(0, round(x) - reach), max(0, round(y) - reach)
    window = replace(
        image,
        pixels=np.ascontiguousarray(image.pixels[top : round(y) + reach, left : round(x) + reach]),
        spacing_um=field.scale.um_per_px,
    )
    cells = [_moved(cell, left, top) for cell in find_cells(window, segmenter).cells]
    here = [cell for cell in cells if _holds(cell, x, y)]
    if not here:
        raise Rejected("The finder sees no cell at this place.", code="no_cell_there")
    crops = cut_crops(image, here[:1], field.scale)
    [finding] = assess(here[:1], classifier.classify(crops), classifier.policy, field.quality)
    return finding


def _holds(cell: Cell, x: float, y: float) -> bool:
    return cv2.pointPolygonTest(cell.contour.astype(np.float32), (x, y), False) >= 0


def _moved(cell: Cell, left: int, top: int) -> Cell:
    """A cell of a window in the pixels of the whole frame."""
    shift = np.array([left, top], np.int32)
    return replace(
        cell,
        box=replace(cell.box, x=cell.box.x + left, y=cell.box.y + top),
        contour=cell.contour + shift,
        nucleus_contours=tuple(contour + shift for contour in cell.nucleus_contours),
    )


def model_identity(classifier: Classifier, segmenter: Segmenter | None) -> ModelIdentity:
    """The networks whose answers the findings are."""
    return replace(classifier.identity, finder_sha256=segmenter.sha256 if segmenter else "")

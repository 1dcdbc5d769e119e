"""One field, from pixels to findings: the whole story on one screen."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.domain import (
    DecisionPolicy,
    FieldFindings,
    ModelIdentity,
    Prediction,
    SeriesUID,
    SourceImage,
    StudyUID,
)
from pipeline.findings.crops import cut_crops
from pipeline.findings.decision import assess
from pipeline.segmentation.find_cells import find_cells
from pipeline.segmentation.network_maps import Segmenter


class Classifier(Protocol):
    """What the analysis asks of a network; `models.classifier` answers it."""

    @property
    def identity(self) -> ModelIdentity: ...

    @property
    def policy(self) -> DecisionPolicy: ...

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


def model_identity(classifier: Classifier, segmenter: Segmenter | None) -> ModelIdentity:
    """The networks whose answers the findings are."""
    return replace(classifier.identity, finder_sha256=segmenter.sha256 if segmenter else "")

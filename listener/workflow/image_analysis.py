"""One image, from its dataset to the findings of every frame, within a budget of memory."""

from __future__ import annotations

from pydicom import Dataset

from listener.workflow.fair_budget import FairBudget
from pipeline.analyse import Classifier, analyse_at, analyse_field, model_identity
from pipeline.decoding.frames import ImageLimits, read_frames
from pipeline.domain import CellFinding, FieldFindings, SeriesUID, StudyUID
from pipeline.errors import Rejected
from pipeline.segmentation.network_maps import Segmenter


class ImageAnalysis:
    """Decodes an image and asks the network about its cells."""

    def __init__(
        self, classifier: Classifier, segmenter: Segmenter | None = None, *, limits: ImageLimits
    ) -> None:
        self._classifier = classifier
        self._segmenter = segmenter
        self._limits = limits

    @property
    def model_key(self) -> str:
        """Which networks answer, as in `ModelIdentity.key`."""
        return model_identity(self._classifier, self._segmenter).key

    def __call__(self, dataset: Dataset) -> tuple[FieldFindings, ...]:
        """Findings of every frame, in order; Rejected when the image breaks a rule."""
        return tuple(
            analyse_field(
                frame,
                study_uid=StudyUID(str(dataset.get("StudyInstanceUID", ""))),
                series_uid=SeriesUID(str(dataset.get("SeriesInstanceUID", ""))),
                classifier=self._classifier,
                segmenter=self._segmenter,
            )
            for frame in read_frames(dataset, limits=self._limits)
        )

    def find_at(self, dataset: Dataset, field: FieldFindings, x: float, y: float) -> CellFinding:
        """The cell at x, y of one frame that the finder missed; Rejected where none is seen."""
        for frame in read_frames(dataset, limits=self._limits):
            if frame.frame == field.frame:
                return analyse_at(
                    frame,
                    field,
                    x=x,
                    y=y,
                    classifier=self._classifier,
                    segmenter=self._segmenter,
                )
        raise Rejected("The frame is not in its image any more.", code="source_frame_missing")


class PixelBudget(FairBudget):
    """Pixels that may be analysed at once."""

    def __init__(self, megapixels: float) -> None:
        super().__init__(max(1, round(megapixels * 1e6)))


class BudgetedAnalysis:
    """An analysis whose large images wait for each other, so that memory stays bounded."""

    def __init__(self, analysis: ImageAnalysis, budget: PixelBudget) -> None:
        self._analysis = analysis
        self._budget = budget

    @property
    def model_key(self) -> str:
        """Which networks answer, as in `ModelIdentity.key`."""
        return self._analysis.model_key

    def __call__(self, dataset: Dataset) -> tuple[FieldFindings, ...]:
        """As `ImageAnalysis`; frames are decoded one after the other, so one frame counts."""
        with self._budget.reserved(_pixels(dataset)):
            return self._analysis(dataset)


def _pixels(dataset: Dataset) -> int:
    """Of one frame; 0 where rows and columns are no numbers, which the analysis refuses."""
    try:
        return int(dataset.get("Rows", 0)) * int(dataset.get("Columns", 0))
    except (TypeError, ValueError):
        return 0

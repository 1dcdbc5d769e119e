"""One image, from its dataset to the findings of every frame."""

from __future__ import annotations

from pydicom import Dataset

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

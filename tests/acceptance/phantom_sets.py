"""Result sets of phantom smears: what the real pictures look like, without the network.

The finding and outlining of cells is the real one; a quick stand-in classifier calls a cell
leukemic by the size of its nucleus, so that all three calls occur.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from listener.demo.phantom import Recipe, draw_field
from pipeline.analyse import analyse_field
from pipeline.domain import (
    RGB,
    CellType,
    DecisionPolicy,
    ModelIdentity,
    Prediction,
    SeriesUID,
    SmearFindings,
    SmearId,
    SOPInstanceUID,
    SourceImage,
    StudyUID,
)
from pipeline.findings.smear_summary import gather_smear
from reporting.result_set import build_result_set
from reporting.results import DICOM_KINDS, ReportContext, Result
from tests.findings import MODEL, make_field_findings, make_prediction
from tests.reporting.headers import ISSUED_AT
from tests.reporting.sources import make_source, put_pixels

STUDY = StudyUID("1.2.826.0.1.3680043.10.999.100")
SERIES = SeriesUID("1.2.826.0.1.3680043.10.999.200")
CELLS = (
    CellType.LYMPHOBLAST,
    CellType.NEUTROPHIL,
    CellType.LYMPHOBLAST,
    CellType.LYMPHOCYTE,
    CellType.MYELOBLAST,
    CellType.MONOCYTE,
    CellType.EOSINOPHIL,
)
UM_PER_PX = 0.1


class QuickClassifier:
    """Calls a crop by its share of dark, blue pixels: large nuclei pass for leukemic."""

    @property
    def identity(self) -> ModelIdentity:
        return MODEL

    @property
    def policy(self) -> DecisionPolicy:
        return DecisionPolicy(refer_above=0.3, leukemic_from=0.7, novelty_limit=5.0)

    def classify(self, crops: NDArray[np.uint8]) -> list[Prediction]:
        shares = [float((crop[..., 0] < 150).mean()) for crop in crops]
        ranks = np.argsort(np.argsort(shares)) / max(1, len(shares) - 1)
        return [_prediction(float(rank)) for rank in ranks]


def _prediction(rank: float) -> Prediction:
    cell_type = CellType.LYMPHOBLAST if rank >= 0.7 else CellType.LYMPHOCYTE
    return make_prediction(round(0.02 + 0.96 * rank, 2), cell_type)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomSet:
    """A smear, its sources as DICOM, and everything that was made of them."""

    smear: SmearFindings
    sources: dict[SOPInstanceUID, Dataset]
    results: tuple[Result, ...]


def make_phantom_set(
    kind: str = "microscopic",
    *,
    fields: int = 2,
    compress_images: bool = True,
    width: int = 1280,
    height: int = 960,
    cells: Sequence[CellType] = CELLS,
    versions: Sequence[int] = (1,),
) -> PhantomSet:
    """A phantom smear of `fields` fields, sent as sources of the SOP class `kind`.

    Each later version of its results is issued a twentieth of a second after the one before.
    """
    recipe = Recipe(width=width, height=height, um_per_px=UM_PER_PX, white_cells=tuple(cells))
    pictures = {
        SOPInstanceUID(f"1.2.826.0.1.3680043.10.999.{number}"): draw_field(number, recipe).pixels
        for number in range(1, fields + 1)
    }
    smear = gather_smear(
        SmearId("series-1.2.826.0.1.3680043.10.999.200"),
        [_analysed(uid, pixels) for uid, pixels in pictures.items()],
    )
    sources = {
        uid: _source(kind, number, uid, pixels)
        for number, (uid, pixels) in enumerate(pictures.items(), start=1)
    }
    contexts = [
        ReportContext(
            version=version,
            issued_at=ISSUED_AT + timedelta(milliseconds=50 * (version - 1)),
            software_version="0.1.0",
            compress_images=compress_images,
            kinds=DICOM_KINDS,
        )
        for version in versions
    ]
    results = [
        result
        for context in contexts
        for result in build_result_set(smear, read_source=sources.__getitem__, context=context)
    ]
    return PhantomSet(smear=smear, sources=sources, results=tuple(results))


def _analysed(uid: SOPInstanceUID, pixels: RGB):
    image = SourceImage(sop_instance_uid=uid, frame=1, pixels=pixels, spacing_um=UM_PER_PX)
    return analyse_field(image, study_uid=STUDY, series_uid=SERIES, classifier=QuickClassifier())


def _source(kind: str, number: int, uid: SOPInstanceUID, pixels: RGB) -> Dataset:
    height, width = pixels.shape[:2]
    findings = make_field_findings(sop_instance_uid=uid, width=width, height=height)
    source = make_source(kind, findings)
    source.InstanceNumber = number
    source.SeriesDescription = "Blood smear, phantom"
    put_pixels(source, pixels)
    return source

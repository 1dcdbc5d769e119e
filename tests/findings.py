"""Findings made by hand: small, deterministic, legal values of `pipeline.domain` for any room."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi, sin

import cv2
import numpy as np

from pipeline.domain import (
    CELL_TYPES,
    RGB,
    Box,
    Call,
    Cell,
    CellFinding,
    CellKind,
    CellShape,
    CellType,
    Contour,
    FieldFindings,
    FieldQuality,
    ModelIdentity,
    Prediction,
    QualityFlag,
    ReferralReason,
    Scale,
    ScaleSource,
    SeriesUID,
    SmearFindings,
    SmearId,
    SOPInstanceUID,
    SourceImage,
    StudyUID,
)
from pipeline.findings.smear_summary import gather_smear

MODEL = ModelIdentity(
    name="smearlink-resnet50",
    version="1.0.0",
    sha256="0f" * 32,
    execution_provider="CPUExecutionProvider",
)

CALLS = (Call.LEUKEMIC, Call.NORMAL, Call.NORMAL, Call.REFERRED)
"""Handed out in turn where a test does not say."""

_TYPES_BY_CALL = {
    Call.LEUKEMIC: CellType.BLAST,
    Call.NORMAL: CellType.LYMPHOCYTE,
    Call.REFERRED: CellType.MONOCYTE,
}
_PROBABILITIES = {Call.LEUKEMIC: 0.97, Call.NORMAL: 0.04, Call.REFERRED: 0.52}


def make_contour(x: float, y: float, radius: float, *, corners: int = 24) -> Contour:
    """A closed round outline, N × 2 int32."""
    angles = [2 * pi * corner / corners for corner in range(corners)]
    points = [(round(x + radius * cos(a)), round(y + radius * sin(a))) for a in angles]
    return np.array(points, dtype=np.int32)


def make_cell(
    index: int, x: int, y: int, *, radius: int = 40, kind: CellKind = CellKind.WHITE_CELL
) -> Cell:
    """One round cell with a round nucleus, its center at (x, y) in pixels."""
    um = 0.15
    return Cell(
        index=index,
        kind=kind,
        box=Box(x=x - radius, y=y - radius, width=2 * radius + 1, height=2 * radius + 1),
        contour=make_contour(x, y, radius),
        nucleus_contours=(make_contour(x, y, radius * 0.7),),
        shape=CellShape(
            area_um2=pi * (radius * um) ** 2,
            nucleus_area_um2=pi * (0.7 * radius * um) ** 2,
            perimeter_um=2 * pi * radius * um,
            equivalent_diameter_um=2 * radius * um,
            circularity=0.98,
            solidity=0.99,
            eccentricity=0.1,
            nucleus_to_cell_ratio=0.49,
            nucleus_lobes=1,
        ),
        is_cut_by_edge=False,
        is_touching=False,
        confidence=0.95,
    )


def make_prediction(
    probability: float, cell_type: CellType = CellType.LYMPHOCYTE, *, novelty: float = 0.2
) -> Prediction:
    """A prediction that is sure of `cell_type`, with an activation peak off the center."""
    rest = 0.1 / (len(CELL_TYPES) - 1)
    rows, columns = np.mgrid[0:7, 0:7].astype(np.float32)
    peak = np.exp(-((rows - 2) ** 2 + (columns - 4) ** 2) / 4)
    return Prediction(
        leukemic_probability=probability,
        type_probabilities=tuple(0.9 if kind is cell_type else rest for kind in CELL_TYPES),
        activation_map=np.round(peak * probability, 3).astype(np.float32),
        novelty=novelty,
    )


def make_cell_finding(
    cell: Cell,
    call: Call = Call.NORMAL,
    *,
    probability: float | None = None,
    cell_type: CellType | None = None,
    reasons: Sequence[ReferralReason] = (ReferralReason.UNCERTAIN,),
) -> CellFinding:
    """One cell with a call; `reasons` count only for a referred cell."""
    kind = cell_type or _TYPES_BY_CALL[call]
    return CellFinding(
        cell=cell,
        prediction=make_prediction(
            _PROBABILITIES[call] if probability is None else probability, kind
        ),
        cell_type=kind,
        call=call,
        reasons=tuple(reasons) if call is Call.REFERRED else (),
    )


def make_field_findings(
    *,
    sop_instance_uid: str = "1.2.826.0.1.3680043.10.999.1",
    frame: int = 1,
    width: int = 640,
    height: int = 480,
    calls: Sequence[Call] = CALLS,
    cells: Sequence[CellFinding] | None = None,
    study_uid: str = "1.2.826.0.1.3680043.10.999.100",
    series_uid: str = "1.2.826.0.1.3680043.10.999.200",
    flags: frozenset[QualityFlag] = frozenset(),
    is_usable: bool = True,
    scale: Scale | None = None,
    model: ModelIdentity = MODEL,
) -> FieldFindings:
    """One field with a row-wise grid of cells, one for each of `calls` (or just `cells`)."""
    return FieldFindings(
        study_uid=StudyUID(study_uid),
        series_uid=SeriesUID(series_uid),
        sop_instance_uid=SOPInstanceUID(sop_instance_uid),
        frame=frame,
        width=width,
        height=height,
        scale=scale or Scale(um_per_px=0.15, source=ScaleSource.RED_CELLS, red_cells_measured=30),
        quality=FieldQuality(flags=flags, is_usable=is_usable, figures={"focus": 0.8}),
        cells=tuple(_grid(calls, width, height) if cells is None else cells) if is_usable else (),
        model=model,
    )


def make_smear_findings(
    fields: Sequence[FieldFindings] | None = None, *, smear_id: str = "smear-1"
) -> SmearFindings:
    """A counted smear of `fields`, by default two fields of four cells."""
    kept = (
        [make_field_findings(sop_instance_uid=f"1.2.826.0.1.3680043.10.999.{n}") for n in (1, 2)]
        if fields is None
        else list(fields)
    )
    return gather_smear(SmearId(smear_id), kept)


def make_picture(findings: FieldFindings) -> SourceImage:
    """A plain picture on which the cells of `findings` stand: pale ground, violet nuclei."""
    pixels: RGB = np.full((findings.height, findings.width, 3), (236, 222, 226), dtype=np.uint8)
    for finding in findings.cells:
        cv2.fillPoly(pixels, [finding.cell.contour], (186, 170, 214))
        cv2.fillPoly(pixels, list(finding.cell.nucleus_contours), (104, 62, 142))
    return SourceImage(
        sop_instance_uid=findings.sop_instance_uid,
        frame=findings.frame,
        pixels=pixels,
        spacing_um=findings.scale.um_per_px,
    )


def _grid(calls: Sequence[Call], width: int, height: int) -> list[CellFinding]:
    columns = max(1, width // 120)
    rows = max(1, -(-len(calls) // columns))
    radius = max(4, min(40, width // (3 * columns), height // (3 * rows)))
    return [
        make_cell_finding(
            make_cell(
                number + 1,
                (2 * (number % columns) + 1) * width // (2 * columns),
                (2 * (number // columns) + 1) * height // (2 * rows),
                radius=radius,
            ),
            call,
        )
        for number, call in enumerate(calls)
    ]

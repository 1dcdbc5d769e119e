"""Judging single-cell pictures, through the same cutting, network and rules as the service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.baseline import Baseline, colour_and_area
from models.evaluation.metrics import (
    Figure,
    Measure,
    accuracy,
    area_under_roc,
    balanced_accuracy,
    bootstrap_figure,
    calibration_error,
    macro_f1,
    sensitivity,
    sensitivity_at_95,
    specificity,
)
from models.evaluation.pack import PackRow
from pipeline.analyse import Classifier
from pipeline.domain import (
    CELL_TYPES,
    RGB,
    Box,
    Call,
    Cell,
    CellKind,
    CellShape,
    CellType,
    FieldQuality,
)
from pipeline.findings.crops import cut_crops, cut_masked
from pipeline.findings.decision import BLASTS, assess
from pipeline.segmentation.find_cells import central_cell, find_cells
from pipeline.segmentation.network_maps import Segmenter

MASKED_UM_PER_PX = {"cnmc": 0.055}
"""Scale of sources that come cut out on black, so that no red cell can tell it."""

MASKED_CELL_DIAMETER_UM = 12.0
"""Taken for the diameter of a cut-out cell whose source is not in the table."""

CALLED_LEUKEMIC_FROM = 0.5
"""For sensitivity, specificity and balanced accuracy, where every cell is called."""

CHUNK = 64
NO_TYPE = -1
ALL_TYPES: tuple[CellType | None, ...] = tuple(CellType)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedCell:
    """One single-cell picture: what is known, and what was said.

    A picture in which no cell was found counts as probability one half, referred, of no type.
    """

    row: PackRow
    probability: float = 0.5
    cell_type: int = NO_TYPE
    """Index in CELL_TYPES."""
    is_referred: bool = True
    is_called_leukemic: bool = False
    novelty: float | None = None
    um_per_px: float | None = None
    """As it was measured; None where the pack's table gives it, or no cell was found."""
    baseline: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CutCell:
    """The one cell of a picture, as the network sees it."""

    row: PackRow
    crop: RGB
    cell: Cell
    quality: FieldQuality
    um_per_px: float | None = None
    """None where it was not measured."""


def judge_cells(
    rows: Sequence[PackRow],
    *,
    classifier: Classifier,
    baseline: Baseline,
    segmenter: Segmenter | None = None,
    on_judged: Callable[[], None] = lambda: None,
) -> tuple[JudgedCell, ...]:
    """One judgement a row, in order."""
    judged = []
    for first in range(0, len(rows), CHUNK):
        chunk = rows[first : first + CHUNK]
        cut = [cell for row in chunk for cell in cut_row(row, segmenter)]
        said = {cell.row.path: cell for cell in _ask(cut, classifier, baseline)}
        judged += [said.get(row.path, JudgedCell(row=row)) for row in chunk]
        for _ in chunk:
            on_judged()
    return tuple(judged)


def cut_row(row: PackRow, segmenter: Segmenter | None = None) -> Iterator[CutCell]:
    """The picture's one cell with its crop; nothing where no cell was found."""
    if row.is_masked:
        pixels = row.read_pixels()
        crop = cut_masked(pixels, masked_scale(pixels, row.source))
        yield CutCell(row=row, crop=crop, cell=_whole_picture(pixels), quality=_UNDOUBTED)
        return
    image = row.read_image()
    found = find_cells(image, segmenter)
    cell = central_cell(found, width=image.width, height=image.height)
    if cell is not None:
        yield CutCell(
            row=row,
            crop=cut_crops(image, [cell], found.scale)[0],
            cell=cell,
            quality=found.quality,
            um_per_px=found.scale.um_per_px,
        )


def masked_scale(pixels: RGB, source: str) -> float:
    """µm a pixel of a cut-out cell: its source's, or from an ordinary cell's diameter."""
    if source in MASKED_UM_PER_PX:
        return MASKED_UM_PER_PX[source]
    area_px = max(int((pixels.max(axis=2) > 12).sum()), 1)
    return MASKED_CELL_DIAMETER_UM / float(2 * np.sqrt(area_px / np.pi))


_UNDOUBTED = FieldQuality(flags=frozenset(), is_usable=True)


def _whole_picture(pixels: RGB) -> Cell:
    """The cell that a publisher cut out: all of it, taken as it is."""
    height, width = pixels.shape[:2]
    contour = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.int32)
    return Cell(
        index=1,
        kind=CellKind.WHITE_CELL,
        box=Box(x=0, y=0, width=width, height=height),
        contour=contour,
        nucleus_contours=(),
        shape=CellShape(
            area_um2=0.0,
            nucleus_area_um2=0.0,
            perimeter_um=0.0,
            equivalent_diameter_um=0.0,
            circularity=0.0,
            solidity=0.0,
            eccentricity=0.0,
            nucleus_to_cell_ratio=0.0,
            nucleus_lobes=0,
        ),
        is_cut_by_edge=False,
        is_touching=False,
        confidence=1.0,
    )


def _ask(
    cut: Sequence[CutCell], classifier: Classifier, baseline: Baseline
) -> Iterator[JudgedCell]:
    if not cut:
        return
    crops = np.stack([one.crop for one in cut])
    plain = baseline.score(np.stack([colour_and_area(crop) for crop in crops]))
    predictions = classifier.classify(crops)
    for one, said, score in zip(cut, predictions, plain, strict=True):
        (finding,) = assess([one.cell], [said], classifier.policy, one.quality)
        yield JudgedCell(
            row=one.row,
            probability=said.leukemic_probability,
            cell_type=int(np.argmax(said.type_probabilities)),
            is_referred=finding.call is Call.REFERRED,
            is_called_leukemic=finding.call is Call.LEUKEMIC,
            novelty=said.novelty,
            um_per_px=one.um_per_px,
            baseline=float(score),
        )


def score_cells(judged: Sequence[JudgedCell]) -> dict[str, dict[str, object]]:
    """The `cells` half of the evaluation: figures of each source, by name."""
    sources = sorted({cell.row.source for cell in judged})
    return {
        source: _score_source([cell for cell in judged if cell.row.source == source])
        for source in sources
    }


def _score_source(judged: Sequence[JudgedCell]) -> dict[str, object]:
    labelled = [cell for cell in judged if cell.row.label]
    typed = [cell for cell in judged if _is_typed(cell.row)]
    called_normal = [c for c in labelled if c.row.label == "normal" and not c.is_referred]
    seen = [cell for cell in labelled if cell.novelty is not None]
    measured = [cell for cell in judged if cell.um_per_px is not None]
    truths = _truths(labelled)
    probabilities = np.array([cell.probability for cell in labelled], dtype=np.float64)
    plain = np.array([cell.baseline for cell in labelled], dtype=np.float64)
    calls = probabilities >= CALLED_LEUKEMIC_FROM
    referred = np.array([cell.is_referred for cell in judged], dtype=np.bool_)
    alarms = np.array([cell.is_called_leukemic for cell in called_normal], dtype=np.bool_)
    types = np.array([ALL_TYPES.index(cell.row.known_type) for cell in typed], dtype=np.int64)
    answers = np.array([_answered(cell) for cell in typed], dtype=np.int64)
    novelties = np.array([cell.novelty for cell in seen], dtype=np.float64)
    scales = np.array([cell.um_per_px for cell in measured], dtype=np.float64)
    ranked = _figure(labelled, _of(area_under_roc, truths, probabilities))
    return {
        "n": len(judged),
        "auc": ranked,
        "balanced_accuracy": _figure(labelled, _of(balanced_accuracy, truths, calls)),
        "sensitivity": _figure(labelled, _of(sensitivity, truths, calls)),
        "specificity": _figure(labelled, _of(specificity, truths, calls)),
        "sensitivity_at_95": _figure(labelled, _of(sensitivity_at_95, truths, probabilities)),
        "called_leukemic": _figure(called_normal, lambda rows: float(alarms[rows].mean())),
        "ece": _figure(labelled, _of(calibration_error, truths, probabilities)),
        "referred": _figure(judged, lambda rows: float(referred[rows].mean())),
        "novelty_auc": _figure(seen, _of(area_under_roc, _is_wrong(seen), novelties)),
        "scale_error": _figure(measured, lambda rows: _scale_error(scales, rows)),
        "cell_type_accuracy": _figure(typed, _of(accuracy, types, answers)),
        "cell_type_macro_f1": _figure(typed, _of(macro_f1, types, answers)),
        "baseline_auc": _figure(labelled, _of(area_under_roc, truths, plain)),
    }


def _truths(judged: Sequence[JudgedCell]) -> NDArray[np.bool_]:
    return np.array([cell.row.label == "leukemic" for cell in judged], dtype=np.bool_)


def _is_wrong(judged: Sequence[JudgedCell]) -> NDArray[np.bool_]:
    """Where the label is on the other side of one half."""
    said = np.array([cell.probability >= CALLED_LEUKEMIC_FROM for cell in judged], dtype=np.bool_)
    return np.asarray(said != _truths(judged))


def _scale_error(um_per_px: NDArray[np.float64], rows: NDArray[np.int64]) -> float:
    """How far, as a natural logarithm, the scale is off in the mean.

    A source is taken for one microscope and camera, so what its pictures say in the middle stands
    for the truth; an error that all of them share does not show.
    """
    logs = np.log(um_per_px)
    return float(np.abs(logs[rows] - np.median(logs)).mean())


def _is_typed(row: PackRow) -> bool:
    """A type is known, and the network has it."""
    return row.known_type in BLASTS or row.known_type in CELL_TYPES


def _answered(cell: JudgedCell) -> int:
    """The type that was said; the true one where a blast was said to be one and either side leaves
    its lineage open.
    """
    if cell.cell_type == NO_TYPE:
        return NO_TYPE
    both = {CELL_TYPES[cell.cell_type], cell.row.known_type}
    if both <= BLASTS and CellType.BLAST in both:
        return ALL_TYPES.index(cell.row.known_type)
    return ALL_TYPES.index(CELL_TYPES[cell.cell_type])


def _of(
    figure: Callable[[NDArray[Any], NDArray[Any]], float | None],
    truths: NDArray[Any],
    answers: NDArray[Any],
) -> Measure:
    return lambda rows: figure(truths[rows], answers[rows])


def _figure(judged: Sequence[JudgedCell], measure: Measure) -> dict[str, float] | None:
    figure: Figure | None = bootstrap_figure(
        measure,
        [cell.row.subject for cell in judged],
        strata=[(cell.row.label, cell.row.cell_type) for cell in judged],
    )
    return figure.as_json() if figure else None

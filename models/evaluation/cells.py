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
    FieldQuality,
)
from pipeline.findings.crops import cut_crops, cut_masked
from pipeline.findings.decision import assess
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
    baseline: float = 0.5


CutCell = tuple[PackRow, RGB, Cell, FieldQuality]


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
        said = {cell.row.file: cell for cell in _ask(cut, classifier, baseline)}
        judged += [said.get(row.file, JudgedCell(row=row)) for row in chunk]
        for _ in chunk:
            on_judged()
    return tuple(judged)


def cut_row(row: PackRow, segmenter: Segmenter | None = None) -> Iterator[CutCell]:
    """The picture's one cell with its crop; nothing where no cell was found."""
    if row.is_masked:
        pixels = row.read_pixels()
        crop = cut_masked(pixels, masked_scale(pixels, row.source))
        yield row, crop, _whole_picture(pixels), _UNDOUBTED
        return
    image = row.read_image()
    found = find_cells(image, segmenter)
    cell = central_cell(found, width=image.width, height=image.height)
    if cell is not None:
        yield row, cut_crops(image, [cell], found.scale)[0], cell, found.quality


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
    crops = np.stack([crop for _, crop, _, _ in cut])
    plain = baseline.score(np.stack([colour_and_area(crop) for crop in crops]))
    predictions = classifier.classify(crops)
    for (row, _, cell, quality), said, score in zip(cut, predictions, plain, strict=True):
        (finding,) = assess([cell], [said], classifier.policy, quality)
        yield JudgedCell(
            row=row,
            probability=said.leukemic_probability,
            cell_type=int(np.argmax(said.type_probabilities)),
            is_referred=finding.call is Call.REFERRED,
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
    typed = [cell for cell in judged if cell.row.cell_type]
    truths = np.array([cell.row.label == "leukemic" for cell in labelled], dtype=np.bool_)
    probabilities = np.array([cell.probability for cell in labelled], dtype=np.float64)
    plain = np.array([cell.baseline for cell in labelled], dtype=np.float64)
    calls = probabilities >= CALLED_LEUKEMIC_FROM
    referred = np.array([cell.is_referred for cell in judged], dtype=np.bool_)
    types = np.array([_type_index(cell.row.cell_type) for cell in typed], dtype=np.int64)
    answers = np.array([cell.cell_type for cell in typed], dtype=np.int64)
    ranked = _figure(labelled, _of(area_under_roc, truths, probabilities))
    return {
        "n": len(judged),
        "auc": ranked,
        "balanced_accuracy": _figure(labelled, _of(balanced_accuracy, truths, calls)),
        "sensitivity": _figure(labelled, _of(sensitivity, truths, calls)),
        "specificity": _figure(labelled, _of(specificity, truths, calls)),
        "ece": _figure(labelled, _of(calibration_error, truths, probabilities)),
        "referred": _figure(judged, lambda rows: float(referred[rows].mean())),
        "cell_type_accuracy": _figure(typed, _of(accuracy, types, answers)),
        "cell_type_macro_f1": _figure(typed, _of(macro_f1, types, answers)),
        "baseline_auc": _figure(labelled, _of(area_under_roc, truths, plain)),
    }


def _type_index(name: str) -> int:
    return [kind.value for kind in CELL_TYPES].index(name)


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

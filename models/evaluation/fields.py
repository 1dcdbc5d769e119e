"""Judging the finding of cells, and whole fields, against what a pack knows.

Only `pipeline.segmentation.find_cells.find_cells` is timed: processor time on one thread, so that
what else the machine does is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np

from models.evaluation.detection import average_precision, dice, hits, painted, points_found
from models.evaluation.ground_truth import GroundTruth, mask_path, read_ground_truth
from models.evaluation.metrics import Measure, area_under_roc, bootstrap_figure
from models.evaluation.pack import PackRow, PictureKind
from pipeline.analyse import Classifier
from pipeline.domain import Call, Cell, CellFinding, CellKind, FieldCells, SourceImage
from pipeline.findings.crops import cut_crops
from pipeline.findings.decision import assess
from pipeline.segmentation.find_cells import find_cells
from pipeline.segmentation.network_maps import Segmenter


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedField:
    """One picture: what was found against what is true; None where nothing is known."""

    row: PackRow
    milliseconds: float
    megapixels: float
    is_refused: bool
    found: int
    """White cells."""
    confidences: tuple[float, ...] = ()
    hits: tuple[bool, ...] = ()
    """Of the found, in the order of `confidences`; empty where no boxes are known."""
    boxes: int | None = None
    centroids: int | None = None
    centroids_found: int = 0
    marked: tuple[CellFinding, ...] = ()
    """What was said of the cells that hold a centroid; empty without a classifier."""
    nucleus_dice: float | None = None
    cell_dice: float | None = None
    called_leukemic: int | None = None
    """None without a classifier."""
    called_normal: int = 0

    @property
    def leukemic_share(self) -> float:
        """Of the cells that were called; 0 where none was."""
        leukemic = self.called_leukemic or 0
        return leukemic / max(leukemic + self.called_normal, 1)


def rows_to_judge(rows: Sequence[PackRow]) -> tuple[PackRow, ...]:
    """The fields, and the single-cell pictures whose cells somebody outlined."""
    return tuple(
        row
        for row in rows
        if row.kind is PictureKind.FIELD or mask_path(row.root, row.file).is_file()
    )


def judge_fields(
    rows: Sequence[PackRow],
    *,
    classifier: Classifier | None = None,
    segmenter: Segmenter | None = None,
    on_judged: Callable[[], None] = lambda: None,
) -> tuple[JudgedField, ...]:
    """One judgement a picture that `rows_to_judge` keeps, in order."""
    kept = rows_to_judge(rows)
    truths = {root: read_ground_truth(root) for root in {row.root for row in kept}}
    judged = []
    with _one_thread():
        for row in kept:
            judged.append(_judge(row, truths[row.root], classifier, segmenter))
            on_judged()
    return tuple(judged)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _judge(
    row: PackRow,
    truth: GroundTruth,
    classifier: Classifier | None,
    segmenter: Segmenter | None,
) -> JudgedField:
    image = row.read_image()
    began = time.thread_time()
    found = find_cells(image, segmenter)
    milliseconds = (time.thread_time() - began) * 1000
    white = [cell for cell in found.cells if cell.kind is CellKind.WHITE_CELL]
    boxes, centroids = truth.boxes.get(row.file), _centroids(row, truth)
    sides = np.array(
        [(c.box.x, c.box.y, c.box.width, c.box.height) for c in white], np.float64
    ).reshape(-1, 4)
    confidences = tuple(cell.confidence for cell in white)
    nucleus, cell = _dices(row, image, white, truth)
    findings = _findings(image, found, classifier)
    calls = [finding.call for finding in findings or ()]
    return JudgedField(
        row=row,
        milliseconds=milliseconds,
        megapixels=image.width * image.height / 1e6,
        is_refused=not found.quality.is_usable,
        found=len(white),
        confidences=confidences,
        hits=() if boxes is None else hits(sides, confidences, boxes),
        boxes=None if boxes is None else len(boxes),
        centroids=None if centroids is None else len(centroids),
        centroids_found=(
            0 if centroids is None else points_found(centroids, [c.contour for c in white])
        ),
        marked=_marked(findings or (), centroids),
        nucleus_dice=nucleus,
        cell_dice=cell,
        called_leukemic=None if findings is None else calls.count(Call.LEUKEMIC),
        called_normal=calls.count(Call.NORMAL),
    )


def _centroids(row: PackRow, truth: GroundTruth) -> np.ndarray | None:
    return truth.centroids.get(row.file)


def _dices(
    row: PackRow, image: SourceImage, white: Sequence[Cell], truth: GroundTruth
) -> tuple[float | None, float | None]:
    drawn = truth.masks(row.file)
    if drawn is None:
        return None, None
    size = image.height, image.width
    nuclei = painted([lobe for cell in white for lobe in cell.nucleus_contours], *size)
    cells = painted([cell.contour for cell in white], *size)
    return dice(nuclei, drawn[0]), dice(cells, drawn[1])


def _findings(
    image: SourceImage, found: FieldCells, classifier: Classifier | None
) -> Sequence[CellFinding] | None:
    """What the network and the rules of the service say of each cell."""
    if classifier is None:
        return None
    predictions = classifier.classify(cut_crops(image, found.cells, found.scale))
    return assess(found.cells, predictions, classifier.policy, found.quality)


def _marked(
    findings: Sequence[CellFinding], centroids: np.ndarray | None
) -> tuple[CellFinding, ...]:
    if centroids is None:
        return ()
    return tuple(one for one in findings if points_found(centroids, [one.cell.contour]))


def score_fields(judged: Sequence[JudgedField]) -> dict[str, dict[str, object]]:
    """The `fields` half of the evaluation: figures of each source, by name."""
    sources = sorted({field.row.source for field in judged})
    return {
        source: _score_source([field for field in judged if field.row.source == source])
        for source in sources
    }


def _score_source(judged: Sequence[JudgedField]) -> dict[str, object]:
    boxed = [field for field in judged if field.boxes is not None]
    pointed = [field for field in judged if field.centroids is not None]
    ranked = [field for field in judged if _is_ranked(field)]
    healthy = [field for field in ranked if field.row.label == "normal"]
    return {
        "n": len(judged),
        "precision": _ratio(boxed, lambda f: sum(f.hits), lambda f: f.found),
        "recall": _ratio(boxed, lambda f: sum(f.hits), lambda f: f.boxes or 0),
        "f1": _ratio(boxed, lambda f: 2 * sum(f.hits), lambda f: f.found + (f.boxes or 0)),
        "ap": _figure(boxed, _average_precision(boxed)),
        "centroid_recall": _ratio(pointed, lambda f: f.centroids_found, lambda f: f.centroids or 0),
        "nucleus_dice": _mean(judged, lambda f: f.nucleus_dice),
        "cell_dice": _mean(judged, lambda f: f.cell_dice),
        "refused": _mean(judged, lambda f: float(f.is_refused)),
        "ms_per_megapixel": _ratio(judged, lambda f: f.milliseconds, lambda f: f.megapixels),
        "leukemic_auc": _figure(ranked, _leukemic_auc(ranked)),
        "false_leukemic": _ratio(healthy, lambda f: f.called_leukemic or 0, lambda f: f.found),
    }


def _is_ranked(field: JudgedField) -> bool:
    is_field = field.row.kind is PictureKind.FIELD
    return is_field and bool(field.row.label) and field.called_leukemic is not None


def _average_precision(judged: Sequence[JudgedField]) -> Measure:
    def measure(rows: np.ndarray) -> float | None:
        drawn = [judged[row] for row in rows]
        confidences = np.array([c for field in drawn for c in field.confidences], np.float64)
        is_hit = np.array([hit for field in drawn for hit in field.hits], np.bool_)
        return average_precision(confidences, is_hit, sum(field.boxes or 0 for field in drawn))

    return measure


def _leukemic_auc(ranked: Sequence[JudgedField]) -> Measure:
    truths = np.array([field.row.label == "leukemic" for field in ranked], np.bool_)
    shares = np.array([field.leukemic_share for field in ranked], np.float64)
    return lambda rows: area_under_roc(truths[rows], shares[rows])


def _ratio(
    judged: Sequence[JudgedField],
    above: Callable[[JudgedField], float],
    below: Callable[[JudgedField], float],
) -> dict[str, float] | None:
    """Sum over sum; None where the lower sum is 0."""
    upper = np.array([above(field) for field in judged], np.float64)
    lower = np.array([below(field) for field in judged], np.float64)

    def measure(rows: np.ndarray) -> float | None:
        whole = float(lower[rows].sum())
        return float(upper[rows].sum()) / whole if whole else None

    return _figure(judged, measure)


def _mean(
    judged: Sequence[JudgedField], figure: Callable[[JudgedField], float | None]
) -> dict[str, float] | None:
    """Mean over the pictures for which the figure is known."""
    known = [field for field in judged if figure(field) is not None]
    values = np.array([figure(field) for field in known], np.float64)
    return _figure(known, lambda rows: float(values[rows].mean()))


def _figure(judged: Sequence[JudgedField], measure: Measure) -> dict[str, float] | None:
    drawn = bootstrap_figure(
        measure,
        [field.row.subject for field in judged],
        strata=[field.row.label for field in judged],
    )
    return drawn.as_json() if drawn else None

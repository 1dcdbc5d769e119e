"""`smearlink evaluate`: the network and the finding of cells, judged on packs, as JSON values.

    {"cells": {SOURCE: {"n", "auc", …}}, "fields": {SOURCE: {"n", "precision", …}}}

Every figure but n is {"value", "low", "high"} with its 95 % interval, or null where the source
cannot tell it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from config.model import Settings
from listener.cli.console import ProgressDisplay
from listener.service import load_classifier, load_segmenter
from models.evaluation.baseline import read_baseline
from models.evaluation.cells import judge_cells, score_cells
from models.evaluation.fields import judge_fields, rows_to_judge, score_fields
from models.evaluation.pack import PackRow, PictureKind, read_pack
from pipeline.analyse import Classifier
from pipeline.errors import Rejected
from pipeline.segmentation.network_maps import Segmenter

Scores = dict[str, dict[str, object]]


def evaluate_with_progress(
    packs: Sequence[Path], *, split: str | None, settings: Settings
) -> dict[str, Scores]:
    """Judge every picture of the packs, or those of `split` and those of none; show how far it is.

    A source that stands in two packs is one source.
    Raises Rejected (pack_manifest, pack_empty, …) when a pack cannot be used.
    """
    rows = [row for pack in packs for row in read_pack(pack, split)]
    if not rows:
        raise Rejected(
            "No pack has a picture for this split; leave --split out for all of them",
            code="pack_empty",
        )
    classifier, segmenter, progress = load_classifier(settings), load_segmenter(), ProgressDisplay()
    return {
        "cells": _cells(rows, classifier, segmenter, progress),
        "fields": _fields(rows, classifier, segmenter, progress),
    }


def _cells(
    rows: Sequence[PackRow], classifier: Classifier, segmenter: Segmenter, progress: ProgressDisplay
) -> Scores:
    cells = [row for row in rows if row.kind is PictureKind.CELL]
    if not cells:
        return {}
    with progress.bar("Judging cells", len(cells)) as advance:
        judged = judge_cells(
            cells,
            classifier=classifier,
            baseline=read_baseline(),
            segmenter=segmenter,
            on_judged=advance,
        )
    return score_cells(judged)


def _fields(
    rows: Sequence[PackRow], classifier: Classifier, segmenter: Segmenter, progress: ProgressDisplay
) -> Scores:
    """Fields, and the single cells whose outline the pack knows."""
    fields = rows_to_judge(rows)
    if not fields:
        return {}
    with progress.bar("Judging fields", len(fields)) as advance:
        judged = judge_fields(fields, classifier=classifier, segmenter=segmenter, on_judged=advance)
    return score_fields(judged)

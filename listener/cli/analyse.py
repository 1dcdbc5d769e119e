"""Analyses files without any network: findings as JSON values, pictures into a folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
from pydicom import FileDataset

from config.model import Settings
from listener.modality.find_files import image_files
from listener.modality.secondary_capture import to_dicom
from listener.service import image_limits, load_classifier, load_segmenter
from listener.workflow.error_boundary import translate_errors
from pipeline.analyse import Classifier, analyse_field
from pipeline.decoding.frames import read_frames
from pipeline.domain import (
    RESEARCH_USE_ONLY,
    RGB,
    FieldFindings,
    SeriesUID,
    SourceImage,
    StudyUID,
)
from pipeline.errors import Rejected, SmearlinkError
from pipeline.findings.serialization import field_to_record
from pipeline.rendering.annotated_field import draw_field
from pipeline.segmentation.network_maps import Segmenter


def analyse_files(
    paths: Sequence[Path],
    out: Path,
    *,
    settings: Settings,
    with_stages: bool,
    write: Callable[[Any], None],
) -> int:
    """Analyse each file; how many could not be. Each finding and each refusal is one value."""
    classifier, segmenter = load_classifier(settings), load_segmenter()
    out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for path in image_files(paths):
        try:
            with translate_errors():
                for image, found in _frames(path, classifier, segmenter, settings):
                    write(_record(path, found))
                    _keep_pictures(path, image, found, out, segmenter if with_stages else None)
        except SmearlinkError as err:
            failed += 1
            write({"file": str(path), "code": err.code, "error": err.message})
    return failed


def _frames(
    path: Path, classifier: Classifier, segmenter: Segmenter, settings: Settings
) -> Iterator[tuple[SourceImage, FieldFindings]]:
    for dataset in to_dicom([path]):
        for image in read_frames(dataset, limits=image_limits(settings)):
            found = analyse_field(
                image, **_place_of(dataset), classifier=classifier, segmenter=segmenter
            )
            yield image, found


def _place_of(dataset: FileDataset) -> dict[str, Any]:
    return {
        "study_uid": StudyUID(str(dataset.get("StudyInstanceUID", ""))),
        "series_uid": SeriesUID(str(dataset.get("SeriesInstanceUID", ""))),
    }


def _record(path: Path, found: FieldFindings) -> dict[str, Any]:
    return {"file": str(path), "label": RESEARCH_USE_ONLY, **field_to_record(found)}


def _keep_pictures(
    path: Path, image: SourceImage, found: FieldFindings, out: Path, staged: Segmenter | None
) -> None:
    """Pictures of what was found; with a segmenter, also of its stages."""
    name = path.stem if image.frame == 1 else f"{path.stem}_{image.frame}"
    _write_png(out / f"{name}_annotated.png", draw_field(image, found))
    if staged is not None:
        from pipeline.rendering.segmentation_stages import draw_stages  # only developers ask for it

        _write_png(out / f"{name}_stages.png", draw_stages(image, staged))
    print(f"{path.name}: {len(found.cells)} cells", file=sys.stderr)  # noqa: T201


def _write_png(path: Path, picture: RGB) -> None:
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise Rejected(f"{path} cannot be written", code="picture_unwritable")

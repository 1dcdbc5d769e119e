"""`smearlink analyse`: analyses files without any network; JSON lines, a table and pictures."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from PIL import Image
from pydicom import FileDataset
from pydicom.multival import MultiValue

from config.model import Settings
from listener.cli.console import show_skipped
from listener.modality.find_files import find_images, shown
from listener.modality.secondary_capture import to_dicom
from listener.service import image_limits, load_classifier, load_segmenter
from listener.workflow.error_boundary import translate_errors
from pipeline.analyse import Classifier, analyse_field
from pipeline.decoding.frames import ImageLimits, read_frames
from pipeline.domain import (
    RESEARCH_USE_ONLY,
    RGB,
    CellFinding,
    FieldFindings,
    SeriesUID,
    SourceImage,
    StudyUID,
)
from pipeline.errors import Rejected, SmearlinkError
from pipeline.findings.serialization import field_to_record
from pipeline.rendering.annotated_field import draw_field
from pipeline.segmentation.network_maps import Segmenter
from reporting.documents.spreadsheet_text import spreadsheet_text

TABLE_NAME = "cells.csv"
COLUMNS = (
    *("file", "accession", "patient_id", "frame", "cell_index", "x", "y", "width", "height"),
    *("call", "cell_type", "probability_leukemic", "probability_type", "reasons"),
    *("annotated_image", "model_sha256", "research_use_only"),
)
"""One row per cell; boxes in pixels of the file's own picture, upright."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """One analysed frame, and where it came from."""

    path: Path
    dataset: FileDataset
    image: SourceImage
    found: FieldFindings

    def names(self) -> dict[str, str]:
        """What tells a person which picture this is."""
        return {
            "file": shown(self.path),
            "accession": _text(self.dataset, "AccessionNumber"),
            "patient_id": _text(self.dataset, "PatientID"),
        }


def analyse_files(
    paths: Sequence[Path],
    out: Path,
    *,
    settings: Settings,
    with_stages: bool,
    write: Callable[[Any], None],
) -> int:
    """Analyse each file; how many could not be. Each finding and each refusal is one value.

    `out` gets an annotated picture per frame, in the folders that the files lie in, and one table
    of all cells.
    """
    files = find_images(paths)
    show_skipped(files)
    # Pictures of an earlier run are no input, though `out` may lie in the folder that is named.
    images = [path for path in files.images if path in paths or not path.is_relative_to(out)]
    names = PictureNames(paths, images)
    _make_folder(out)
    classifier, segmenter = load_classifier(settings), load_segmenter()
    failed = 0
    with _opened(out / TABLE_NAME) as table:
        rows = csv.DictWriter(table, COLUMNS, lineterminator="\r\n")
        rows.writeheader()
        for number, path in enumerate(images, start=1):
            place = f"[{number}/{len(images)}]"
            try:
                with translate_errors():
                    for frame in _frames(path, classifier, segmenter, image_limits(settings)):
                        picture = names.of(path, frame.image.frame)
                        _keep_pictures(frame, out / picture, segmenter if with_stages else None)
                        write(_record(frame, shown(f"{picture}_annotated.png")))
                        rows.writerows(_rows(frame, shown(f"{picture}_annotated.png")))
                        _say(f"{place} {shown(path)}: {len(frame.found.cells)} cells")
            except SmearlinkError as err:
                failed += 1
                write({"file": shown(path), "code": err.code, "error": err.message})
                _say(f"{place} not analysed: {_named(path, err.message)}")
    return failed


class PictureNames:
    """Where the pictures of each file go: every frame of every file has a name of its own.

    A picture lies in the same folder below `out` as its file does below the folder that was named.
    Files that differ in their suffix only keep it; what is still the same is numbered.
    """

    def __init__(self, named: Sequence[Path], files: Sequence[Path]) -> None:
        stems = [_below(path, named).with_suffix("") for path in files]
        shared = {stem for stem in stems if stems.count(stem) > 1}
        self._names: dict[Path, Path] = {}
        self._taken: set[str] = set()
        for path, stem in zip(files, stems, strict=True):
            name = _below(path, named) if stem in shared else stem
            self._names[path] = self._free(name)

    def of(self, path: Path, frame: int) -> Path:
        """Without the ending that says what the picture shows; relative to `out`."""
        name = self._names[path]
        return name if frame == 1 else self._free(name.with_name(f"{name.name}_{frame}"))

    def _free(self, name: Path) -> Path:
        free, number = name, 1
        while str(free).casefold() in self._taken:
            number += 1
            free = name.with_name(f"{name.name}-{number}")
        self._taken.add(str(free).casefold())
        return free


def _below(path: Path, named: Sequence[Path]) -> Path:
    """The path below the folder that the user named; only its name for a file."""
    for folder in named:
        if folder != path and path.is_relative_to(folder):
            return path.relative_to(folder)
    return Path(path.name)


def _frames(
    path: Path, classifier: Classifier, segmenter: Segmenter, limits: ImageLimits
) -> Iterator[_Frame]:
    for dataset in to_dicom([path], limits=limits):
        for image in read_frames(dataset, limits=limits):
            found = analyse_field(
                image, **_place_of(dataset), classifier=classifier, segmenter=segmenter
            )
            yield _Frame(path=path, dataset=dataset, image=image, found=found)


def _place_of(dataset: FileDataset) -> dict[str, Any]:
    return {
        "study_uid": StudyUID(str(dataset.get("StudyInstanceUID", ""))),
        "series_uid": SeriesUID(str(dataset.get("SeriesInstanceUID", ""))),
    }


def _text(dataset: FileDataset, keyword: str) -> str:
    """A value of DICOM as text; pydicom splits at backslashes."""
    value = dataset.get(keyword)
    parts = value if isinstance(value, MultiValue) else [value or ""]
    return "\\".join(str(part) for part in parts)


def _record(frame: _Frame, picture: str) -> dict[str, Any]:
    return {
        **frame.names(),
        "annotated_image": picture,
        "label": RESEARCH_USE_ONLY,
        **field_to_record(frame.found),
    }


def _rows(frame: _Frame, picture: str) -> Iterator[Mapping[str, str | int]]:
    names = {**frame.names(), "annotated_image": picture}
    text = {column: spreadsheet_text(words) for column, words in names.items()}
    for finding in frame.found.cells:
        yield {**text, **_cell_columns(frame.found, finding)}


def _cell_columns(field: FieldFindings, finding: CellFinding) -> Mapping[str, str | int]:
    box = finding.cell.box
    return {
        "frame": field.frame,
        "cell_index": finding.cell.index,
        "x": box.x,
        "y": box.y,
        "width": box.width,
        "height": box.height,
        "call": finding.call,
        "cell_type": finding.cell_type,
        "probability_leukemic": f"{finding.prediction.leukemic_probability:.4f}",
        "probability_type": f"{finding.type_probability:.4f}",
        "reasons": " ".join(finding.reasons),
        "model_sha256": field.model.sha256,
        "research_use_only": RESEARCH_USE_ONLY,
    }


def _keep_pictures(frame: _Frame, place: Path, staged: Segmenter | None) -> None:
    """Pictures of what was found; with a segmenter, also of its stages."""
    _make_folder(place.parent)
    profile = frame.dataset.get("ICCProfile")
    annotated = place.with_name(f"{place.name}_annotated.png")
    _write_png(annotated, draw_field(frame.image, frame.found), profile)
    if staged is not None:
        from pipeline.rendering.segmentation_stages import draw_stages  # only developers ask for it

        stages = place.with_name(f"{place.name}_stages.png")
        _write_png(stages, draw_stages(frame.image, staged), profile)


def _write_png(path: Path, picture: RGB, profile: bytes | None) -> None:
    """Write a picture with the color profile of its source."""
    if profile:
        target = io.BytesIO()
        Image.fromarray(picture).save(target, "PNG", icc_profile=bytes(profile))
        content = target.getvalue()
    else:
        content = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()
    try:
        path.write_bytes(content)
    except OSError as err:
        raise _unwritable(path, err) from err


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise _unwritable(folder, err) from err


def _opened(path: Path) -> io.TextIOWrapper:
    try:
        return path.open("w", newline="", encoding="utf-8")
    except OSError as err:
        raise _unwritable(path, err) from err


def _named(path: Path, message: str) -> str:
    return message if message.startswith(shown(path)) else f"{shown(path)}: {message}"


def _unwritable(path: Path, err: OSError) -> Rejected:
    return Rejected(
        f"{shown(path)} cannot be written ({err.strerror}): name another folder with --out, or "
        "make room and check its permissions",
        code="picture_unwritable",
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201

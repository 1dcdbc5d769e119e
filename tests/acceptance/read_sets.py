"""What programs of others read back: the results of a smear, and what `analyse` says of it in JSON.

The two come from runs of their own: the command on the files, and the steps of the service.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset, dcmread

from config.model import Settings
from listener.demo.phantom import Recipe, draw_field
from listener.service import load_classifier, load_segmenter
from pipeline.analyse import analyse_field
from pipeline.decoding.frames import read_frames
from pipeline.domain import CellType, SmearFindings, SmearId, SOPInstanceUID
from pipeline.findings.smear_summary import gather_smear
from reporting.result_set import build_result_set
from reporting.results import ReportContext, Result, ResultKind
from tests.acceptance.phantom_sets import SERIES, STUDY
from tests.findings import make_field_findings
from tests.reporting.headers import ISSUED_AT
from tests.reporting.sources import make_source, put_pixels

WIDTH, HEIGHT = 1280, 960
UM_PER_PX = 0.1
CELLS = (
    CellType.LYMPHOBLAST,
    CellType.NEUTROPHIL,
    CellType.LYMPHOCYTE,
    CellType.MYELOBLAST,
    CellType.MONOCYTE,
    CellType.LYMPHOBLAST,
    CellType.EOSINOPHIL,
)


@dataclass(frozen=True, kw_only=True)
class ReadSet:
    """One smear: its results as files, and the JSON lines of `smearlink analyse`."""

    folder: Path
    results: tuple[Result, ...]
    sources: dict[SOPInstanceUID, Dataset]
    lines: tuple[dict[str, Any], ...]

    def files(self, kind: ResultKind) -> list[Path]:
        """The files of one kind, in their order."""
        return [self.folder / one.name for one in self.results if one.kind is kind]

    def objects(self, kind: ResultKind) -> list[FileDataset]:
        """The DICOM objects of one kind."""
        return [dcmread(file) for file in self.files(kind)]

    def content(self, kind: ResultKind) -> bytes:
        """The one document of its kind."""
        [file] = self.files(kind)
        return file.read_bytes()

    @cached_property
    def cells(self) -> dict[str, dict[str, Any]]:
        """Every cell of the JSON by its name in the report."""
        return {
            f"field {number} cell {cell['cell']['index']}": {**cell, "field": line}
            for number, line in enumerate(self.lines, start=1)
            for cell in line["cells"]
        }

    def in_field(self, sop_instance_uid: str, call: str) -> list[dict[str, Any]]:
        """Cells of the JSON in one field that have this call, in their order."""
        return [
            cell
            for cell in self.cells.values()
            if cell["call"] == call and cell["field"]["sop_instance_uid"] == sop_instance_uid
        ]

    def count(self, call: str) -> int:
        """Cells of the JSON that have this call."""
        return sum(cell["call"] == call for cell in self.cells.values())

    def counts_by_type(self) -> Counter[str]:
        """Cells of the JSON that were not referred, by type; leukemic ones are blasts."""
        return Counter(
            "blast" if cell["call"] == "leukemic" else cell["cell_type"]
            for cell in self.cells.values()
            if cell["call"] != "referred"
        )


def make_read_sets(folder: Path) -> dict[str, ReadSet]:
    """Two phantom fields through the network that ships: on a slide, and as photographs."""
    slides = dict(_sources("slide_coordinates"))
    (folder / "in").mkdir()
    for uid, source in slides.items():
        source.save_as(folder / "in" / f"{uid}.dcm", enforce_file_format=True)
    lines = sorted(_analysed(folder / "in", folder / "out"), key=lambda one: one["file"])
    smear = _analysed_here(slides)
    return {
        kind: _read_set(smear, sources, folder / kind, tuple(lines))
        for kind, sources in (("slide", slides), ("photograph", dict(_sources("microscopic"))))
    }


def _read_set(
    smear: SmearFindings,
    sources: dict[SOPInstanceUID, Dataset],
    folder: Path,
    lines: tuple[dict[str, Any], ...],
) -> ReadSet:
    context = ReportContext(
        version=1,
        issued_at=ISSUED_AT,
        software_version="0.1.0",
        compress_images=True,
        kinds=frozenset(ResultKind),
        min_cells_for_percent=1,
    )
    results = tuple(build_result_set(smear, read_source=sources.__getitem__, context=context))
    folder.mkdir()
    for result in results:
        (folder / result.name).write_bytes(result.content)
    return ReadSet(folder=folder, results=results, sources=sources, lines=lines)


def filled(contours: list[list[int]]) -> NDArray[np.uint8]:
    """Pixels that flat contours of the JSON cover, as a mask of the field."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for contour in contours:
        cv2.fillPoly(mask, [np.array(contour, np.int32).reshape(-1, 2)], 1)
    return mask


def polygon_area(points: Any) -> float:
    """The area that a polygon encloses, in its own units, by the shoelace formula."""
    x, y = (np.asarray(points, np.float64)[:, :2] - np.asarray(points, np.float64)[0, :2]).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _sources(kind: str) -> Iterator[tuple[SOPInstanceUID, Dataset]]:
    recipe = Recipe(width=WIDTH, height=HEIGHT, um_per_px=UM_PER_PX, white_cells=CELLS)
    for number in (1, 2):
        uid = SOPInstanceUID(f"1.2.826.0.1.3680043.10.999.{number}")
        findings = make_field_findings(sop_instance_uid=uid, width=WIDTH, height=HEIGHT)
        source = make_source(kind, findings)
        source.InstanceNumber = number
        source.PixelSpacing = [UM_PER_PX / 1000, UM_PER_PX / 1000]
        put_pixels(source, draw_field(number, recipe).pixels)
        yield uid, source


def _analysed_here(sources: dict[SOPInstanceUID, Dataset]) -> SmearFindings:
    """By the steps of the service, apart from the command."""
    classifier, segmenter = load_classifier(Settings()), load_segmenter()
    fields = [
        analyse_field(
            image, study_uid=STUDY, series_uid=SERIES, classifier=classifier, segmenter=segmenter
        )
        for source in sources.values()
        for image in read_frames(dcmread(BytesIO(_bytes(source))))
    ]
    return gather_smear(SmearId(f"series-{SERIES}"), fields)


def _bytes(source: Dataset) -> bytes:
    buffer = BytesIO()
    source.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _analysed(images: Path, out: Path) -> Iterator[dict[str, Any]]:
    command = [sys.executable, "-m", "listener", "analyse", str(images), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return map(json.loads, done.stdout.splitlines())

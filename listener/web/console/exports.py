"""Results that a person takes away: one smear or several, with identity or under pseudonyms."""

from __future__ import annotations

import csv
import io
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydicom import Dataset
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from listener.storage.dataset_scan import is_uid
from listener.storage.inbox import Inbox
from listener.storage.results import ResultsFolder
from listener.storage.reviewed_smears import ReviewedSmear
from listener.web.console.galleries import PlacedCell, place_cells, told_probability
from listener.web.console.gate import actor_of
from listener.web.console.layout import CONSOLE_HEADERS, Layout
from listener.web.console.permissions import Permission
from listener.web.console.pictures import Pictures
from listener.web.console.sessions import Visitor
from listener.web.console.smear_files import OpenSmear, SmearFiles
from pipeline.domain import CELL_TYPES, RESEARCH_USE_ONLY, SmearId, SOPInstanceUID
from pipeline.errors import NeedsReview, Rejected, SmearlinkError
from pipeline.findings.review import ReviewState
from reporting.audit.trail import AuditSink, Event
from reporting.dicom.deidentification import Pseudonymiser
from reporting.documents.spreadsheet_text import spreadsheet_text
from reporting.result_set import build_result_set
from reporting.results import DICOM_KINDS, ReportContext, Result, ResultKind

MOST_SMEARS = 100
LABEL_FILE = "RESEARCH-USE-ONLY.txt"


class ExportKind(StrEnum):
    """What a person can take away."""

    PDF = "pdf"
    CSV = "csv"
    FHIR = "fhir"
    DICOM = "dicom"
    PICTURES = "pictures"
    CELLS = "cells"


EXPORT_WORDS: Sequence[tuple[str, str]] = (
    (ExportKind.PDF, "PDF report"),
    (ExportKind.CSV, "CSV table"),
    (ExportKind.FHIR, "FHIR JSON"),
    (ExportKind.DICOM, "DICOM objects"),
    (ExportKind.PICTURES, "annotated pictures"),
    (ExportKind.CELLS, "all cells (ZIP)"),
)
_RESULT_KINDS: Mapping[ExportKind, frozenset[ResultKind]] = {
    ExportKind.PDF: frozenset({ResultKind.PDF_REPORT}),
    ExportKind.CSV: frozenset({ResultKind.TABLE}),
    ExportKind.FHIR: frozenset({ResultKind.FHIR_BUNDLE}),
    ExportKind.DICOM: DICOM_KINDS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFile:
    """One file of an export; its name holds UIDs and numbers alone."""

    name: str
    media_type: str
    content: bytes


class Exporter:
    """Makes the files."""

    def __init__(
        self,
        *,
        results: ResultsFolder,
        inbox: Inbox,
        pictures: Pictures,
        pseudonymiser: Callable[[], Pseudonymiser],
        software_version: str,
        compress_images: bool,
        reviewed: Callable[[SmearId], ReviewedSmear],
    ) -> None:
        self._results, self._inbox, self._pictures = results, inbox, pictures
        self._pseudonymiser = pseudonymiser
        self._software_version = software_version
        self._compress_images = compress_images
        self._reviewed = reviewed

    def files(
        self, opened: OpenSmear, kind: ExportKind, *, is_pseudonymous: bool
    ) -> Iterator[ExportFile]:
        """Everything of a kind; NeedsReview when it must be made and the images are gone, or may
        not leave under pseudonyms because text is burned into them.
        """
        if kind is ExportKind.PICTURES:
            yield from self._annotated(opened, is_pseudonymous=is_pseudonymous)
        elif kind is ExportKind.CELLS:
            yield from self._cells(opened, is_pseudonymous=is_pseudonymous)
        else:
            for result in self._reported(opened, _RESULT_KINDS[kind], is_pseudonymous):
                yield ExportFile(
                    name=result.name, media_type=result.media_type, content=result.content
                )

    def _reported(
        self, opened: OpenSmear, kinds: frozenset[ResultKind], is_pseudonymous: bool
    ) -> Iterator[Result]:
        """As the report has them; those that the site does not make are made now."""
        folder = self._results.smear(opened.smear.smear_id)
        chosen = [
            result
            for result in opened.index.results
            if result.kind in kinds and result.is_pseudonymous == is_pseudonymous
        ]
        if chosen:
            yield from (folder.read(opened.index.version, result) for result in chosen)
            return
        context = ReportContext(
            version=opened.index.version,
            issued_at=opened.index.issued_at,
            software_version=opened.index.software_version,
            compress_images=self._compress_images,
            kinds=kinds,
        )
        smear, read_source = self._reviewed(opened.smear.smear_id).smear, self._source
        if is_pseudonymous:
            variant = self._pseudonymiser().variant(smear, read_source=read_source, context=context)
            yield from build_result_set(
                variant.smear, read_source=variant.read_source, context=variant.context
            )
        else:
            yield from build_result_set(smear, read_source=read_source, context=context)

    def _annotated(self, opened: OpenSmear, *, is_pseudonymous: bool) -> Iterator[ExportFile]:
        reviewed = self._reviewed(opened.smear.smear_id).smear
        for number, field in enumerate(opened.smear.fields, start=1):
            if is_pseudonymous:
                self._check_pixels(field.sop_instance_uid)
            content = self._pictures.annotated(opened, number, reviewed).read_bytes()
            yield ExportFile(
                name=f"field-{number:03}-annotated.jpg",
                media_type="image/jpeg",
                content=labelled(content),
            )

    def _cells(self, opened: OpenSmear, *, is_pseudonymous: bool) -> Iterator[ExportFile]:
        placed = [cell for cells in place_cells(opened.smear).values() for cell in cells]
        yield ExportFile(
            name="cells.csv",
            media_type="text/csv",
            content=_cell_table(
                opened,
                placed,
                self._reviewed(opened.smear.smear_id).state,
                is_pseudonymous=is_pseudonymous,
            ),
        )
        if opened.identity.notes and not is_pseudonymous:
            notes = f"{RESEARCH_USE_ONLY}\n\n{opened.identity.notes}\n"
            yield ExportFile(name="notes.txt", media_type="text/plain", content=notes.encode())
        for number, field in enumerate(opened.smear.fields, start=1):
            here = [cell for cell in placed if cell.field_number == number]
            if not here:
                continue
            if is_pseudonymous:
                self._check_pixels(field.sop_instance_uid)
            with self._pictures.memory_for(field):
                image = self._pictures.decoded(field)
                for cell in here:
                    yield ExportFile(
                        name=cell_file(cell),
                        media_type="image/jpeg",
                        content=labelled(self._pictures.crop(opened, cell, image)),
                    )
                del image

    def _check_pixels(self, image: SOPInstanceUID) -> None:
        """What must not leave under pseudonyms says so here (text burned into the pixels)."""
        self._pseudonymiser().dataset(self._inbox.read_header(image))

    def _source(self, image: SOPInstanceUID) -> Dataset:
        try:
            return self._inbox.read(image)
        except Rejected as err:
            raise NeedsReview(
                "The site does not make this kind of result, and the images that it could be made "
                "of now are past their retention period",
                code="image_retired",
            ) from err


class ExportPage:
    """`POST /export`."""

    def __init__(
        self, *, exporter: Exporter, files: SmearFiles, layout: Layout, audit: AuditSink
    ) -> None:
        self._exporter, self._files = exporter, files
        self._layout, self._audit = layout, audit

    async def export(self, request: Request, visitor: Visitor) -> Response:
        """One file as it is, several as a ZIP."""
        form = await request.form()
        kind = str(form.get("kind", ""))
        smears = [str(one) for one in form.getlist("smear") if is_uid(str(one))][:MOST_SMEARS]
        if kind not in list(ExportKind) or not smears:
            return self._layout.problem(
                request,
                400,
                "nothing_chosen",
                visitor=visitor,
                detail="Choose at least one smear and what to take away.",
            )
        try:
            return await run_in_threadpool(
                self._response, request, visitor, smears, ExportKind(kind)
            )
        except SmearlinkError as err:
            status = 410 if err.code == "image_retired" else 409
            return self._layout.problem(
                request, status, err.code, visitor=visitor, detail=err.message
            )

    def _response(
        self, request: Request, visitor: Visitor, smears: Sequence[str], kind: ExportKind
    ) -> Response:
        opened = [one for smear in smears if (one := self._files.open(SmearId(smear)))]
        if not opened:
            return self._layout.problem(request, 404, "smear_absent", visitor=visitor)
        is_pseudonymous = not visitor.may(Permission.IDENTIFY)
        path, name, media_type = self._written(opened, kind, is_pseudonymous=is_pseudonymous)
        for one in opened:
            self._audit.record(
                Event.RESULTS_EXPORTED,
                actor=actor_of(request, visitor),
                smear_id=one.smear.smear_id,
                version=one.index.version,
                kinds=[str(kind)],
                trigger="pseudonymous" if is_pseudonymous else "identified",
            )
        return FileResponse(
            path,
            media_type=media_type,
            filename=name,
            headers=dict(CONSOLE_HEADERS),
            background=BackgroundTask(os.unlink, path),
        )

    def _written(
        self, opened: Sequence[OpenSmear], kind: ExportKind, *, is_pseudonymous: bool
    ) -> tuple[str, str, str]:
        """The path of a temporary file with everything, its name for people and its type."""
        descriptor, path = tempfile.mkstemp(prefix="smearlink-export-")
        os.close(descriptor)
        try:
            single = self._only_file(opened, kind, is_pseudonymous=is_pseudonymous)
            if single is not None:
                Path(path).write_bytes(single.content)
                return path, f"research-use-only-{single.name}", single.media_type
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                archive.comment = RESEARCH_USE_ONLY.encode()
                archive.writestr(LABEL_FILE, RESEARCH_USE_ONLY + "\n")
                for number, one in enumerate(opened, start=1):
                    folder = f"smear-{number:03}/" if len(opened) > 1 else ""
                    for file in self._exporter.files(one, kind, is_pseudonymous=is_pseudonymous):
                        archive.writestr(folder + file.name, file.content)
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise
        return path, f"research-use-only-{kind}.zip", "application/zip"

    def _only_file(
        self, opened: Sequence[OpenSmear], kind: ExportKind, *, is_pseudonymous: bool
    ) -> ExportFile | None:
        """PDF, CSV and FHIR of one smear are one file, and need no ZIP around them."""
        if len(opened) > 1 or kind not in (ExportKind.PDF, ExportKind.CSV, ExportKind.FHIR):
            return None
        files = list(self._exporter.files(opened[0], kind, is_pseudonymous=is_pseudonymous))
        return files[0] if len(files) == 1 else None


def cell_file(cell: PlacedCell) -> str:
    """A cell's picture inside an export: class, field and number."""
    return f"cells/{cell.cell_class}/field-{cell.field_number:03}-cell-{cell.number:03}.jpg"


def _cell_table(
    opened: OpenSmear,
    placed: Sequence[PlacedCell],
    state: ReviewState,
    *,
    is_pseudonymous: bool,
) -> bytes:
    identity, model = opened.identity, opened.smear.model
    calibration = model.calibration
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(
        [
            *("label", "accession", "patient_id", "field", "cell", "class", "person_class", "call"),
            *("probability_leukemic", "probability_normal", "cell_type", "type_probability"),
            *("referred_for", "outline_confidence", "novelty", "area_um2"),
            *("nucleus_to_cell_ratio", "file", "notes"),
            *(f"probability_{kind}" for kind in CELL_TYPES),
            *("model", "model_version", "model_sha256"),
            *(("calibration_sha256",) if calibration else ()),
        ]
    )
    whose = (identity.accession, identity.patient_id)
    notes = identity.notes
    if is_pseudonymous:
        whose, notes = ("", identity.pseudonym), ""
    for cell in placed:
        found, prediction = cell.finding, cell.finding.prediction
        writer.writerow(
            [
                RESEARCH_USE_ONLY,
                *map(spreadsheet_text, whose),
                *(
                    cell.field_number,
                    cell.number,
                    cell.cell_class,
                    _decided(cell, state),
                    found.call,
                ),
                f"{prediction.leukemic_probability:.4f}",
                f"{1 - prediction.leukemic_probability:.4f}",
                found.cell_type,
                f"{told_probability(found):.4f}",
                " ".join(found.reasons),
                f"{found.cell.confidence:.4f}",
                f"{prediction.novelty:.4f}",
                f"{found.cell.shape.area_um2:.2f}",
                f"{found.cell.shape.nucleus_to_cell_ratio:.4f}",
                cell_file(cell),
                spreadsheet_text(notes),
                *(f"{one:.4f}" for one in prediction.type_probabilities),
                *map(spreadsheet_text, (model.name, model.version, model.sha256)),
                *((calibration.sha256,) if calibration else ()),
            ]
        )
    return b"\xef\xbb\xbf" + text.getvalue().encode()


def _decided(cell: PlacedCell, state: ReviewState) -> str:
    """What a person called it; "" where nobody did."""
    decision = state.decisions.get(cell.key)
    return decision.to if decision is not None else ""


def labelled(jpeg: bytes) -> bytes:
    """The label as a comment segment right after the start of the image (ITU-T T.81 B.2.4.5)."""
    words = RESEARCH_USE_ONLY.encode()
    return b"".join((jpeg[:2], b"\xff\xfe", (len(words) + 2).to_bytes(2, "big"), words, jpeg[2:]))

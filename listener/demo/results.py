"""What the demonstration leaves behind: results under readable names, and a row a field."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from pydicom import dcmread

from listener.modality.store_scu import SentImage
from listener.queue.status import ParkedWork
from listener.storage.results import IndexedResult, ReportIndex, ResultsFolder, SmearFolder
from pipeline.domain import Call, FieldFindings, SmearId, SOPInstanceUID
from reporting.audit.trail import Verification
from reporting.delivery.destinations.folder import png_of
from reporting.results import ResultKind

PICTURES = frozenset({ResultKind.ANNOTATED_FIELD, ResultKind.GALLERY})
OF_ONE_IMAGE = frozenset(
    {
        ResultKind.ANNOTATED_FIELD,
        ResultKind.PRESENTATION_STATE,
        ResultKind.SEGMENTATION,
        ResultKind.BULK_ANNOTATIONS,
    }
)
REFERENCES = ("SourceImageSequence", "ReferencedImageSequence", "ReferencedInstanceSequence")
"""Where a result names its source, in the data set itself or in its referenced series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRow:
    """One field in the closing table."""

    smear: str
    field: str
    cells: int
    leukemic: int
    normal: int
    referred: int
    highest: float | None
    """Highest leukemic probability; None without a cell."""
    files: str
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoImage:
    """One image that was sent, and the answer to it."""

    file: Path
    sop_instance_uid: SOPInstanceUID
    smear_id: SmearId
    answer: SentImage


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOutcome:
    """Everything that the closing table says."""

    rows: Sequence[DemoRow]
    pacs_count: int
    ehr_count: int
    not_taken: Sequence[str]
    """A line for each file that gave no field, with the reason."""
    undelivered: Sequence[ParkedWork]
    verification: Verification

    @property
    def is_good(self) -> bool:
        """Something was analysed, all of it arrived, and the audit trail is whole."""
        return bool(self.rows) and not self.undelivered and self.verification.is_whole


def lay_out_results(
    results: ResultsFolder, sent: Sequence[DemoImage], out: Path
) -> Iterator[DemoRow]:
    """Lay every result out under names that people can read, and give a row a field.

    The rows of a smear stand in the order that numbers its fields in the gallery.
    """
    names = short_names(sent)
    for number, smear_id in enumerate(_smears(sent), start=1):
        folder = results.smear(smear_id)
        index = folder.latest()
        if index is None:
            continue
        target = out / f"smear_{number}"
        target.mkdir(parents=True)
        pictures = _lay_out(folder, index, names, target)
        places = {uid: place for place, (uid, _) in enumerate(pictures)}
        for uid in sorted(index.sources, key=lambda uid: places.get(uid, len(places))):
            for found in folder.fields(uid):
                files = pictures.get((uid, found.frame), target.name)
                yield _row(str(number), names[uid], found, files)


def _smears(sent: Sequence[DemoImage]) -> Iterable[SmearId]:
    """Those with an image that was taken, in the order of sending."""
    return dict.fromkeys(one.smear_id for one in sent if one.answer.is_stored)


def short_names(sent: Sequence[DemoImage]) -> dict[SOPInstanceUID, str]:
    """The stem of each file, or its whole name where two in one smear share the stem."""
    taken = [one for one in sent if one.answer.is_stored]
    shared = Counter((one.smear_id, one.file.stem) for one in taken)
    names: dict[SOPInstanceUID, str] = {}
    for one in taken:
        is_alone = shared[one.smear_id, one.file.stem] == 1
        name = one.file.stem if is_alone else one.file.name.replace(".", "_")
        names.setdefault(one.sop_instance_uid, name)
    return names


def _lay_out(
    folder: SmearFolder, index: ReportIndex, names: Mapping[SOPInstanceUID, str], target: Path
) -> dict[tuple[SOPInstanceUID, int], str]:
    """Write each result of a smear; the annotated picture of each frame."""
    pictures: dict[tuple[SOPInstanceUID, int], str] = {}
    for result in index.results:
        content = folder.read(index.version, result).content
        name = _readable_name(result, content, names)
        (target / name).write_bytes(content)
        if result.kind in PICTURES:
            (target / name).with_suffix(".png").write_bytes(png_of(content))
        if result.kind is ResultKind.ANNOTATED_FIELD:
            pictures[_frame_of(content)] = f"{target.name}/{Path(name).stem}.png"
    return pictures


def _readable_name(
    result: IndexedResult, content: bytes, names: Mapping[SOPInstanceUID, str]
) -> str:
    suffix = Path(result.name).suffix
    if result.kind not in OF_ONE_IMAGE:
        return f"{result.kind}{suffix}"
    uid, frame = _frame_of(content)
    of_frame = f"_{frame}" if frame > 1 else ""
    name = f"{names.get(uid, uid)}{of_frame}"
    return f"{name}_{result.kind.removesuffix('_field')}{suffix}"


def _frame_of(content: bytes) -> tuple[SOPInstanceUID, int]:
    """The image, and the first of its frames, that a DICOM result was made from."""
    dataset = dcmread(io.BytesIO(content), stop_before_pixels=True)
    series = dataset.get("ReferencedSeriesSequence", ())
    places = (dataset, *series)
    for place, keyword in product(places, REFERENCES):
        for item in place.get(keyword, ()):
            numbers = item.get("ReferencedFrameNumber", 1)
            first = numbers if isinstance(numbers, int) else numbers[0]
            return SOPInstanceUID(str(item.ReferencedSOPInstanceUID)), int(first)
    return SOPInstanceUID(""), 1


def _row(smear: str, name: str, found: FieldFindings, files: str) -> DemoRow:
    calls = [cell.call for cell in found.cells]
    chances = [cell.prediction.leukemic_probability for cell in found.cells]
    return DemoRow(
        smear=smear,
        field=name if found.frame == 1 else f"{name} frame {found.frame}",
        cells=len(calls),
        leukemic=calls.count(Call.LEUKEMIC),
        normal=calls.count(Call.NORMAL),
        referred=calls.count(Call.REFERRED),
        highest=max(chances, default=None),
        files=files,
        flags=tuple(sorted(found.quality.flags)),
    )

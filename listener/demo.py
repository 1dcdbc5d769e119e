"""The demonstration: phantom smears, or a user's own images, through the whole service.

Everything is real but the peers: the service listens on loopback, images go in by C-STORE, results
come out by C-STORE to a stand-in PACS and by HTTP to a stand-in FHIR endpoint.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
from pydicom import FileDataset, dcmread

from config.settings import Settings, make_settings
from listener.image_files import image_files
from listener.log import set_up_logging
from listener.phantom import Recipe, draw_field
from listener.phantom.field import HEALTHY_CELLS
from listener.results_folder import IndexedResult, ReportIndex, SmearFolder
from listener.send import PeerAddress, SentImage, send_images
from listener.service import Service, running
from listener.standins import StandInFhir, StandInPacs
from listener.terminal import Steps, show_demo
from listener.wrap import Order, as_dicom, is_dicom
from pipeline.domain import Call, CellType, FieldFindings, SmearId, SOPInstanceUID
from pipeline.errors import Rejected
from reporting.audit import public_path, read_public_key, verify_trail
from reporting.delivery.folder import png_of
from reporting.results import ResultKind

MARK = ".smearlink-demo"
"""Lies in a folder that the demo made, so that it may be made anew."""
PICTURES = frozenset({ResultKind.ANNOTATED_FIELD, ResultKind.GALLERY})
PHANTOM_UM_PER_PX = 0.1
LONGEST_WAIT_S = 1800.0
SMEARS: Mapping[str, Sequence[CellType]] = {
    "healthy": HEALTHY_CELLS,
    "leukemic": (
        CellType.LYMPHOBLAST,
        CellType.NEUTROPHIL,
        CellType.LYMPHOBLAST,
        CellType.LYMPHOCYTE,
        CellType.LYMPHOBLAST,
        CellType.MYELOBLAST,
    ),
}


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


def run_demo(
    out: Path, *, data: Path | None = None, fields: int = 6, model: Path | None = None
) -> int:
    """Everything from drawing to the table; the exit code of the command."""
    _make_room(out)
    steps = Steps()
    sources = image_files([data]) if data else list(_draw_phantom(out / "phantom", fields, steps))
    order = Order(spacing_um=None if data else PHANTOM_UM_PER_PX, accession="DEMO-1")
    log = (out / "service.log").open("w", encoding="utf-8")
    with ExitStack() as stack:
        stack.enter_context(log)
        set_up_logging("info", "json", log)
        pacs = stack.enter_context(StandInPacs(out / "pacs"))
        ehr = stack.enter_context(StandInFhir())
        settings = _settings(out, pacs, ehr, model)
        readable, unreadable = _readable(sources)
        images = list(as_dicom(readable, order))
        with running(settings) as service:
            refused = _send(images, service, steps)
            _wait(service, {SmearId(str(one.SeriesInstanceUID)) for one in images}, steps)
            parked = service.status().parked
            rows = list(_collect(service, images, readable, out))
        (out / "ehr").mkdir(exist_ok=True)
        _keep_resources(ehr, out / "ehr")
        pacs_count = len(pacs.stored)
    logging.shutdown()
    verification = verify_trail(
        settings.audit_dir, read_public_key(public_path(settings.audit_key_file))
    )
    return show_demo(
        rows,
        out=out,
        pacs_count=pacs_count,
        ehr_count=len(ehr.versions),
        verification=verification,
        refused=[*unreadable, *(f"{one.sop_instance_uid}: {one.comment}" for one in refused)],
        parked=parked,
    )


def _make_room(out: Path) -> None:
    """An empty folder with our mark; one that somebody else filled is left alone."""
    if out.exists() and any(out.iterdir()):
        if not (out / MARK).exists():
            raise Rejected(
                f"{out} holds other files: name an empty or a new folder with --out",
                code="folder_in_use",
            )
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()


def _draw_phantom(folder: Path, fields: int, steps: Steps) -> Iterator[Path]:
    """Fields of a healthy and of a leukemic smear, as PNG files with their truth beside them."""
    names = list(SMEARS)
    with steps.counted("Drawing phantom fields", fields) as advance:
        for number in range(fields):
            name = names[number * len(names) // fields]
            kinds = SMEARS[name]
            turn = number % len(kinds)
            recipe = Recipe(
                um_per_px=PHANTOM_UM_PER_PX,
                white_cells=(*kinds[turn:], *kinds[:turn])[:7],
                touching_pairs=number % 2,
            )
            drawn = draw_field(1000 + number, recipe)
            path = folder / name / f"field_{number + 1}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), cv2.cvtColor(drawn.pixels, cv2.COLOR_RGB2BGR))
            truth = [
                {"cell_type": cell.cell_type, "centre": cell.centre, "is_blast": cell.is_leukemic}
                for cell in drawn.cells
            ]
            path.with_suffix(".truth.json").write_text(json.dumps(truth, indent=1))
            advance()
            yield path


def _settings(out: Path, pacs: StandInPacs, ehr: StandInFhir, model: Path | None) -> Settings:
    patience = {"first_delay_s": 0.5, "max_delay_s": 5.0, "max_tries": 4}
    return make_settings(
        {
            "service": {"data_dir": str(out.absolute() / "service"), "worker_id": "demo"},
            "dicom": {"port": 0},
            "web": {"enabled": False},
            "model": {"folder": str(model.absolute()) if model else ""},
            "smear": {"quiet_s": 600.0},
            "retention": {"min_free_disk_mb": 100},
            "audit": {"folder": str(out.absolute() / "audit")},
            "destination": [
                {
                    "name": "pacs",
                    "type": "dicom",
                    "ae_title": pacs.ae_title,
                    "host": "127.0.0.1",
                    "port": pacs.port,
                    **patience,
                },
                {"name": "ehr", "type": "fhir", "url": ehr.url, **patience},
            ],
        }
    )


def _readable(sources: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The files that are images, and a line for each that is none."""
    readable, unreadable = [], []
    for path in sources:
        try:
            list(as_dicom([path]))
            readable.append(path)
        except Rejected as err:
            unreadable.append(f"{path.name}: {err.message}")
    if not readable:
        raise Rejected("None of the files is an image that can be sent", code="no_images")
    return readable, unreadable


def _send(images: Sequence[FileDataset], service: Service, steps: Steps) -> list[SentImage]:
    """Send by C-STORE; the images that were refused."""
    peer = PeerAddress(ae_title="SMEARLINK", host="127.0.0.1", port=service.dicom_port or 0)
    with steps.counted("Sending by C-STORE", len(images)) as advance:
        sent = list(send_images(images, peer, on_sent=lambda _: advance()))
    return [one for one in sent if not one.is_stored]


def _wait(service: Service, smears: Iterable[SmearId], steps: Steps) -> None:
    """Ask for the reports at once, and watch until everything is delivered or parked."""
    for smear_id in sorted(smears):
        service.workflow.client.close(smear_id)
    limit = time.monotonic() + LONGEST_WAIT_S
    with steps.watched("Analysing, reporting, delivering") as show:
        while time.monotonic() < limit:
            status = service.status()
            waiting = sum(one.waiting + one.delayed + one.in_work for one in status.queues)
            show(waiting)
            if waiting == 0:
                return
            if all(one.waiting + one.in_work == 0 for one in status.queues):
                for smear_id in sorted(smears):
                    service.workflow.client.close(smear_id)
            time.sleep(0.4)


def _collect(
    service: Service, images: Sequence[FileDataset], readable: Sequence[Path], out: Path
) -> Iterator[DemoRow]:
    """Lay every result out under names that people can read, and give a row a field."""
    names = _field_names(images, readable)
    smears = dict.fromkeys(SmearId(str(one.SeriesInstanceUID)) for one in images)
    for number, smear_id in enumerate(smears, start=1):
        folder = service.store.results.smear(smear_id)
        index = folder.latest()
        if index is None:
            continue
        target = out / "results" / f"smear_{number}"
        target.mkdir(parents=True)
        pictures = _lay_out(folder, index, names, target)
        for uid in index.sources:
            for found in folder.fields(uid):
                yield _row(f"smear {number}", names[uid], found, pictures.get(uid, ""))


def _field_names(
    images: Sequence[FileDataset], readable: Sequence[Path]
) -> dict[SOPInstanceUID, str]:
    """The file's name of each image; both come in the order of `as_dicom`."""
    in_order = sorted(readable, key=lambda path: (not is_dicom(path), path))
    uids = [SOPInstanceUID(str(one.SOPInstanceUID)) for one in images]
    return dict(zip(uids, (path.stem for path in in_order), strict=True))


def _lay_out(
    folder: SmearFolder, index: ReportIndex, names: Mapping[SOPInstanceUID, str], target: Path
) -> dict[SOPInstanceUID, str]:
    """Write each result of a smear; the annotated picture of each source."""
    pictures: dict[SOPInstanceUID, str] = {}
    for result in index.results:
        content = folder.read(index.version, result).content
        name = _readable_name(result, content, names)
        (target / name).write_bytes(content)
        if result.kind in PICTURES:
            (target / name).with_suffix(".png").write_bytes(png_of(content))
        if result.kind is ResultKind.ANNOTATED_FIELD:
            pictures[_source_of(content)] = f"{target.name}/{Path(name).stem}.png"
    return pictures


def _readable_name(
    result: IndexedResult, content: bytes, names: Mapping[SOPInstanceUID, str]
) -> str:
    suffix = Path(result.name).suffix
    if result.kind in (
        ResultKind.ANNOTATED_FIELD,
        ResultKind.PRESENTATION_STATE,
        ResultKind.SEGMENTATION,
        ResultKind.BULK_ANNOTATIONS,
    ):
        source = names.get(_source_of(content), result.uid[-8:])
        return f"{source}_{result.kind.removesuffix('_field')}{suffix}"
    return f"{result.kind}{suffix}"


def _source_of(content: bytes) -> SOPInstanceUID:
    """The image that a DICOM result was made from."""
    dataset = dcmread(io.BytesIO(content), stop_before_pixels=True)
    for keyword in ("SourceImageSequence", "ReferencedImageSequence"):
        if dataset.get(keyword):
            return SOPInstanceUID(str(dataset[keyword].value[0].ReferencedSOPInstanceUID))
    for series in dataset.get("ReferencedSeriesSequence", ()):
        for keyword in ("ReferencedImageSequence", "ReferencedInstanceSequence"):
            if series.get(keyword):
                return SOPInstanceUID(str(series[keyword].value[0].ReferencedSOPInstanceUID))
    return SOPInstanceUID("")


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


def _keep_resources(ehr: StandInFhir, folder: Path) -> None:
    """The newest version of each resource that the FHIR endpoint holds."""
    for name, versions in ehr.versions.items():
        path = folder / f"{name.replace('/', '_')}.json"
        path.write_text(json.dumps(versions[-1], indent=1, ensure_ascii=False), encoding="utf-8")

"""The demonstration: phantom smears, or a user's own images, through the whole service.

Everything is real but the peers: the service listens on loopback, images go in by C-STORE, results
come out by C-STORE to a stand-in PACS and by HTTP to a stand-in FHIR endpoint.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import time
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
from pydicom import FileDataset

from config.model import Settings
from config.settings import make_settings
from listener.cli.console import ProgressDisplay, show_demo, show_skipped, tell
from listener.cli.signals import Signals
from listener.demo.mock_servers import MockPacs, StandInFhir
from listener.demo.phantom import Recipe, draw_field
from listener.demo.phantom.field import HEALTHY_CELLS
from listener.demo.results import DemoImage, DemoOutcome, DemoRow, lay_out_results
from listener.modality.find_files import find_images, shown
from listener.modality.secondary_capture import Order, ReadFile, check_image, read_files
from listener.modality.store_scu import PeerAddress, send_images
from listener.observability.logging_setup import set_up_logging
from listener.queue.status import ParkedWork
from pipeline.domain import CellType, SmearId, SOPInstanceUID
from pipeline.errors import Rejected, RetryLater
from reporting.audit.trail import public_path, read_public_key, verify_trail

if TYPE_CHECKING:
    from listener.service import Service

REVIEWER = "reviewer"
"""Who may review the demonstration's smears."""
SETTINGS_FILE = "settings.toml"
MARK = ".smearlink-demo"
"""Marks a folder that the demo made and may replace."""
PHANTOM_UM_PER_PX = 0.1
LONGEST_WAIT_S = 3600.0
LOOK_EVERY_S = 0.3
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


def run_demo(
    out: Path,
    *,
    data: Path | None = None,
    fields: int = 6,
    model: Path | None = None,
    stay_on_port: int | None = None,
) -> int:
    """Everything from drawing to the table; the exit code of the command.

    With `stay_on_port` the service and its console stay up until Ctrl-C.
    """
    make_room(out)
    progress = ProgressDisplay()
    sources = _found(data) if data else list(draw_phantom(out / "phantom", fields, progress))
    readable, unreadable = readable_files(sources, progress)
    order = Order(
        spacing_um=None if data else PHANTOM_UM_PER_PX,
        is_phantom=data is None,
    )
    # Only now: what is wrong with the data is said before seconds of loading.
    from listener.service import running

    with ExitStack() as stack:
        log = stack.enter_context((out / "service.log").open("w", encoding="utf-8"))
        set_up_logging("info", "json", log)
        pacs = stack.enter_context(MockPacs(out / "pacs"))
        ehr = stack.enter_context(StandInFhir())
        settings = _settings(out, pacs, ehr, model, stay_on_port)
        with running(settings) as service:
            sent = _send(readable, order, service, progress)
            _wait(service, sent, progress)
            rows = list(lay_out_results(service.store.results, sent, out / "results"))
            parked = service.status().parked
            if stay_on_port is not None:
                _keep_resources(ehr, out / "ehr")
                code = _show(out, settings, rows, sent, parked, unreadable, pacs, ehr)
                password = make_reviewer(out, settings)
                _stay(service, out, password)
                return code
        set_up_logging("warning")
        _keep_resources(ehr, out / "ehr")
    code = _show(out, settings, rows, sent, parked, unreadable, pacs, ehr)
    tell("`smearlink demo --stay` keeps the console up to look at all this in a browser.")
    return code


def _show(
    out: Path,
    settings: Settings,
    rows: Sequence[DemoRow],
    sent: Sequence[DemoImage],
    parked: Sequence[ParkedWork],
    unreadable: Sequence[str],
    pacs: MockPacs,
    ehr: StandInFhir,
) -> int:
    shown = DemoOutcome(
        rows=rows,
        pacs_count=len(pacs.stored),
        ehr_count=len(ehr.versions),
        not_taken=[*unreadable, *_refusals(sent), *_set_aside(parked, sent)],
        undelivered=[one for one in parked if not one.sop_instance_uid],
        verification=verify_trail(
            settings.audit_dir, read_public_key(public_path(settings.audit_key_file))
        ),
    )
    return show_demo(shown, out)


def _found(data: Path) -> Sequence[Path]:
    """The images of a folder; what else lies there is said."""
    found = find_images([data])
    show_skipped(found)
    return found.images


def make_reviewer(out: Path, settings: Settings) -> str:
    """Make an account that may review; its password, which is new each time.

    `settings.toml` in the same folder lets other commands look at the demonstration's data.
    """
    from listener.web.console.accounts import Accounts
    from listener.web.console.database import ConsoleDatabase
    from listener.web.console.permissions import Role

    password = secrets.token_urlsafe(12)
    database = ConsoleDatabase(settings.database_url)
    try:
        roles = (Role.REVIEWER, Role.OPERATOR, Role.AUDITOR)
        Accounts(database).add(REVIEWER, password, roles, full_name="Demo Reviewer")
    finally:
        database.close()
    (out / SETTINGS_FILE).write_text(
        f"""# Of the demonstration, for `smearlink agreement` and the like.
[service]
data_dir = {json.dumps(str(settings.data_dir))}
worker_id = "demo"

[audit]
folder = {json.dumps(str(settings.audit_dir))}
""",
        encoding="utf-8",
    )
    return password


def _stay(service: Service, out: Path, password: str) -> None:
    """Say how to get into the console, and wait for Ctrl-C or SIGTERM."""
    signals = Signals()
    tell(f"The console is at http://127.0.0.1:{service.web_port}/ until Ctrl-C.")
    tell(f"Sign in as {REVIEWER} with the password {password} to correct cells and sign.")
    tell(f"After a review: smearlink agreement --settings {out / SETTINGS_FILE}")
    signals.wait()


def make_room(out: Path) -> None:
    """Make an empty folder with our mark; a folder with other files is left alone."""
    if out.exists() and any(out.iterdir()):
        if not (out / MARK).exists():
            raise Rejected(
                f"{out} holds other files: name an empty or a new folder with --out",
                code="folder_in_use",
            )
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()


def draw_phantom(folder: Path, fields: int, progress: ProgressDisplay) -> Iterator[Path]:
    """Fields of a healthy and of a leukemic smear, as PNG files with their truth beside them."""
    names = list(SMEARS)
    drawn_of: Counter[str] = Counter()
    with progress.bar("Drawing phantom fields", fields) as advance:
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
            drawn_of[name] += 1
            path = folder / name / f"field_{drawn_of[name]}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), cv2.cvtColor(drawn.pixels, cv2.COLOR_RGB2BGR))
            truth = [
                {"cell_type": cell.cell_type, "centre": cell.centre, "is_blast": cell.is_leukemic}
                for cell in drawn.cells
            ]
            path.with_suffix(".truth.json").write_text(json.dumps(truth, indent=1))
            advance()
            yield path


def _settings(
    out: Path, pacs: MockPacs, ehr: StandInFhir, model: Path | None, web_port: int | None
) -> Settings:
    patience = {"first_delay_s": 0.5, "max_delay_s": 5.0, "max_tries": 4}
    return make_settings(
        {
            "service": {"data_dir": str(out.absolute() / "service"), "worker_id": "demo"},
            "dicom": {"port": 0},
            "web": {"enabled": web_port is not None, "port": web_port or 0},
            "model": {"folder": str(model.absolute()) if model else ""},
            "smear": {"quiet_s": 1.0},
            "review": {"quiet_s": 3.0},
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


def readable_files(
    sources: Sequence[Path], progress: ProgressDisplay
) -> tuple[list[Path], list[str]]:
    """The files that can be sent, and one line for each that cannot."""
    readable, unreadable = [], []
    with progress.bar("Reading files", len(sources)) as advance:
        for path in sources:
            try:
                check_image(path)
                readable.append(path)
            except Rejected as err:
                unreadable.append(err.message)
            advance()
    if not readable:
        told = "\n  ".join(["None of the files is an image that can be sent:", *unreadable])
        raise Rejected(told, code="no_images")
    return readable, unreadable


def _send(
    files: Sequence[Path], order: Order, service: Service, progress: ProgressDisplay
) -> list[DemoImage]:
    """Send by C-STORE; every image with the answer to it."""
    peer = PeerAddress(ae_title="SMEARLINK", host="127.0.0.1", port=service.dicom_port or 0)
    named: list[tuple[Path, str, str]] = []

    def images() -> Iterator[FileDataset]:
        for read in with_accessions(files, order):
            if read.image is None:
                gone = f"{shown(read.path.name)} is gone"
                raise read.problem or Rejected(gone, code="not_an_image")
            uid, series = read.image.SOPInstanceUID, read.image.SeriesInstanceUID
            named.append((read.path, str(uid), str(series)))
            yield read.image

    with progress.bar("Sending by C-STORE", len(files)) as advance:
        answers = list(send_images(images(), peer, on_sent=lambda _: advance()))
    return [
        DemoImage(
            file=path,
            sop_instance_uid=SOPInstanceUID(uid),
            smear_id=SmearId(series),
            answer=answer,
        )
        for (path, uid, series), answer in zip(named, answers, strict=True)
    ]


def with_accessions(files: Sequence[Path], order: Order) -> Iterator[ReadFile]:
    """Each folder's photographs are one smear, and an order of its own."""
    for number, folder in enumerate(sorted({path.parent for path in files}), start=1):
        own = replace(order, accession=f"DEMO-{number}")
        yield from read_files([path for path in files if path.parent == folder], own)


def _wait(service: Service, sent: Sequence[DemoImage], progress: ProgressDisplay) -> None:
    """Watch until everything that was taken is reported and delivered, or parked."""
    waited_for = [one for one in sent if one.answer.is_stored]
    limit = time.monotonic() + LONGEST_WAIT_S
    least = sys.maxsize
    with progress.spinner("Analysing, reporting, delivering") as show:
        while time.monotonic() < limit:
            status = service.status()
            parked = {one.sop_instance_uid for one in status.parked}
            unsettled = [one for one in waited_for if not _is_settled(service, one, parked)]
            # A job may ask for further ones; what is shown only goes down.
            jobs = sum(queue.waiting + queue.delayed + queue.in_work for queue in status.queues)
            least = sys.maxsize if unsettled else min(least, jobs)
            show(f"{len(unsettled)} fields left" if unsettled else f"{least} jobs left")
            if status.is_idle and not unsettled:
                return
            time.sleep(LOOK_EVERY_S)
    raise RetryLater(
        f"The demonstration was not done after {LONGEST_WAIT_S / 60:.0f} minutes; service.log "
        "says what it waits for",
        code="demo_overdue",
    )


def _is_settled(service: Service, image: DemoImage, parked: Container[str]) -> bool:
    """Whether an image was parked, or is in the latest report of its smear."""
    latest = service.store.results.smear(image.smear_id).latest()
    is_reported = latest is not None and image.sop_instance_uid in latest.sources
    return is_reported or image.sop_instance_uid in parked


def _refusals(sent: Sequence[DemoImage]) -> Iterator[str]:
    for one in sent:
        if not one.answer.is_stored:
            why = f"0x{one.answer.status:04X}, {one.answer.comment}"
            yield f"{shown(one.file.name)}: refused with {why}"


def _set_aside(parked: Sequence[ParkedWork], sent: Sequence[DemoImage]) -> Iterator[str]:
    """Images that were taken and could not be analysed, by the name of their file."""
    names = {one.sop_instance_uid: one.file.name for one in sent}
    for one in parked:
        if one.sop_instance_uid:
            name = names.get(SOPInstanceUID(one.sop_instance_uid), one.sop_instance_uid)
            yield f"{name}: set aside, {one.message} ({one.code})"


def _keep_resources(ehr: StandInFhir, folder: Path) -> None:
    """The newest version of each resource that the FHIR endpoint holds."""
    folder.mkdir(exist_ok=True)
    for name, versions in ehr.versions.items():
        path = folder / f"{name.replace('/', '_')}.json"
        path.write_text(json.dumps(versions[-1], indent=1, ensure_ascii=False), encoding="utf-8")

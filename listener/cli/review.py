"""What people corrected: their agreement with the network, and a data pack of corrected cells."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pydicom import Dataset

from config.model import Settings
from listener.storage.data_folder import Store, open_store
from listener.storage.reviewed_smears import ReviewedSmear, reviewed_smears
from pipeline.decoding.frames import ImageLimits, read_frames
from pipeline.domain import RGB, CellFinding, CellType, FieldFindings, PersonDecision
from pipeline.errors import Rejected, SmearlinkError
from pipeline.findings.agreement import (
    CellAgreement,
    Estimate,
    ShareAgreement,
    agree_on_cells,
    agree_on_shares,
)
from pipeline.findings.crops import crop_frame
from pipeline.findings.decision import BLASTS
from pipeline.findings.review import NOT_A_CELL, UNIDENTIFIED, cell_key, field_key, field_of
from reporting.dicom.deidentification import Pseudonymiser, read_site_key

SURROUNDINGS = 2.0
"""Side of an exported picture over the side of the crop that the network sees: enough red cells
for the scale to be measured again."""

SOURCE = "corrections"
COLUMNS = (
    "file",
    "source",
    "kind",
    "label",
    "cell_type",
    "subtype",
    "subject",
    "split",
    "masked",
    "width",
    "height",
    "sha256",
)
NO_LABEL = frozenset({CellType.SMUDGE_CELL, CellType.PLATELET})
"""Types of which a label would say nothing about leukemia."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Network against people, over everything that was reviewed."""

    smears: int
    cells: CellAgreement
    shares: ShareAgreement | None

    def to_json(self) -> dict[str, object]:
        """Plain values; shares and kappa with their 95 % intervals."""
        return {
            "research_use_only": True,
            "smears": self.smears,
            "cells": self.cells.cells,
            "confusion": [
                {"network": first, "person": second, "cells": count}
                for (first, second), count in self.cells.confusion.items()
            ],
            **{
                name: None if one is None else _numbers(one)
                for name, one in (
                    ("kappa", self.cells.kappa),
                    ("overall_agreement", self.cells.overall),
                    ("positive_agreement", self.cells.positive),
                    ("negative_agreement", self.cells.negative),
                )
            },
            "blast_share": None if self.shares is None else self._shares(self.shares),
        }

    @staticmethod
    def _shares(shares: ShareAgreement) -> dict[str, object]:
        return {
            "smears": shares.smears,
            "passing_bablok_slope": _numbers(shares.slope),
            "passing_bablok_intercept": _numbers(shares.intercept),
            "bland_altman_bias": _numbers(shares.bias),
            "lower_limit_of_agreement": _numbers(shares.lower_limit),
            "upper_limit_of_agreement": _numbers(shares.upper_limit),
        }


def _numbers(one: object) -> dict[str, float]:
    return {name: getattr(one, name) for name in ("value", "low", "high")}


def agreement_of(settings: Settings) -> Agreement:
    """Compare the network with people on every cell that a person decided on."""
    return compare(list(reviewed_smears(_store(settings))))


def compare(reviewed: Sequence[ReviewedSmear]) -> Agreement:
    """Cells that a person named, and blast shares of smears counted by both."""
    pairs = [
        (_network_class(finding), decision.to)
        for one in reviewed
        for _, finding, decision in _decided(one)
        if decision.to != UNIDENTIFIED
    ]
    shares = [
        (found.value, left.value)
        for one in reviewed
        if (found := one.found.leukemic_fraction) and (left := one.smear.leukemic_fraction)
    ]
    blasts = frozenset(str(kind) for kind in BLASTS)
    return Agreement(
        smears=len(reviewed),
        cells=agree_on_cells(pairs, blasts),
        shares=agree_on_shares(shares),
    )


def _network_class(finding: CellFinding) -> str:
    """What the network said; a referred cell is unidentified whatever type it suggests."""
    return UNIDENTIFIED if finding.reasons else str(finding.cell_type)


def _decided(one: ReviewedSmear) -> Iterator[tuple[FieldFindings, CellFinding, PersonDecision]]:
    for field in one.found.fields:
        for finding in field.cells:
            decision = one.state.decisions.get(cell_key(field, finding.cell))
            if decision is not None:
                yield field, finding, decision


# --- a pack of corrected cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """How many cells are in the pack, and how many could not be exported."""

    cells: int
    without_image: int
    """Retention deleted the image, or it cannot leave under a pseudonym."""
    at_the_edge: int
    """Too near to the edge of the picture to show the cell in its middle."""


def export_corrections(
    settings: Settings, out: Path, *, progress: Callable[[int], None] = lambda _done: None
) -> Exported:
    """Write every cell that a person named as a pack that `smearlink evaluate` reads.

    Subjects are the pseudonyms of the site; file names are digests. Raises Rejected when `out`
    holds something already.
    """
    if out.exists() and any(out.iterdir()):
        raise Rejected(f"{out} is not empty; name a new folder.", code="folder_not_empty")
    pictures = out / SOURCE / "images"
    pictures.mkdir(parents=True, exist_ok=True)
    pseudonyms = Pseudonymiser(
        read_site_key(settings.pseudonym_key_file),
        options=settings.pseudonyms.options,
        max_date_shift_days=settings.pseudonyms.max_date_shift_days,
    )
    store = _store(settings)
    left_out: Counter[str] = Counter()
    cells = 0
    with (out / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        for one in reviewed_smears(store):
            for row in _rows(one, store, pseudonyms, pictures, left_out):
                writer.writerow(row)
                cells += 1
                progress(cells)
    return Exported(
        cells=cells, without_image=left_out["no_image"], at_the_edge=left_out["at_the_edge"]
    )


def _rows(
    one: ReviewedSmear,
    store: Store,
    pseudonyms: Pseudonymiser,
    folder: Path,
    left_out: Counter[str],
) -> Iterator[dict[str, object]]:
    """Write the pictures of one smear; their rows, with those left out counted by reason."""
    for field, decided in _by_field(one).items():
        try:
            pixels, subject = _picture(store, field, pseudonyms)
        except SmearlinkError:
            left_out["no_image"] += len(decided)
            continue
        for finding, decision in decided:
            cut = _surroundings(pixels, field, finding)
            if cut is None:
                left_out["at_the_edge"] += 1
                continue
            key = pseudonyms.uid(cell_key(field, finding.cell)).rsplit(".", 1)[-1]
            yield _row(folder / f"{key}.png", cut, subject, decision)


def _by_field(
    one: ReviewedSmear,
) -> Mapping[FieldFindings, Sequence[tuple[CellFinding, PersonDecision]]]:
    """Cells with a class of a person by field, those that a person added among them."""
    fields: dict[FieldFindings, list[tuple[CellFinding, PersonDecision]]] = {}
    for field, finding, decision in _decided(one):
        fields.setdefault(field, []).append((finding, decision))
    for key, finding in one.state.added.items():
        for field in one.found.fields:
            if field_of(key) == field_key(field):
                fields.setdefault(field, []).append((finding, one.state.decisions[key]))
    return {
        field: [(finding, said) for finding, said in cells if said.to != UNIDENTIFIED]
        for field, cells in fields.items()
    }


def _picture(store: Store, field: FieldFindings, pseudonyms: Pseudonymiser) -> tuple[RGB, str]:
    dataset: Dataset = store.inbox.read(field.sop_instance_uid)
    subject = str(pseudonyms.dataset(dataset).PatientID)
    for image in read_frames(dataset, limits=ImageLimits(max_frames=2**31)):
        if image.frame == field.frame:
            return image.pixels, subject
    raise Rejected("The frame is not in its image any more.", code="source_frame_missing")


def _surroundings(pixels: RGB, field: FieldFindings, finding: CellFinding) -> RGB | None:
    """The cell in the middle of a square, or None too near to the picture's edge."""
    left, top, side = crop_frame(finding.cell.box, field.scale)
    middle_x, middle_y = left + side / 2, top + side / 2
    height, width = pixels.shape[:2]
    reach = min(side * SURROUNDINGS / 2, middle_x, middle_y, width - middle_x, height - middle_y)
    if reach < max(finding.cell.box.width, finding.cell.box.height) / 2:
        return None
    rows = slice(int(middle_y - reach), int(middle_y + reach))
    columns = slice(int(middle_x - reach), int(middle_x + reach))
    return pixels[rows, columns]


def _row(path: Path, cut: RGB, subject: str, decision: PersonDecision) -> dict[str, object]:
    is_written, png = cv2.imencode(".png", cv2.cvtColor(cut, cv2.COLOR_RGB2BGR))
    if not is_written:
        raise Rejected("A cell could not be written as PNG.", code="png_failed")
    content = np.asarray(png).tobytes()
    path.write_bytes(content)
    return {
        "file": f"{SOURCE}/images/{path.name}",
        "source": SOURCE,
        "kind": "cell",
        "label": _label(decision.to),
        "cell_type": "artefact" if decision.to == NOT_A_CELL else decision.to,
        "subtype": "",
        "subject": f"{SOURCE}:{subject}",
        "split": "",
        "masked": "false",
        "width": cut.shape[1],
        "height": cut.shape[0],
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _label(to: str) -> str:
    if to == NOT_A_CELL or CellType(to) in NO_LABEL:
        return ""
    return "leukemic" if CellType(to) in BLASTS else "normal"


def _store(settings: Settings) -> Store:
    return open_store(settings, worker_id=settings.worker_id)


def lines_of(agreement: Agreement) -> Iterator[str]:
    """The agreement for a terminal of 80 columns."""
    cells = agreement.cells
    smears = f"{agreement.smears} smear{'' if agreement.smears == 1 else 's'}"
    were = "cell was" if cells.cells == 1 else "cells were"
    yield f"{cells.cells} {were} named by a person, of {smears}"
    if not cells.cells:
        return
    yield "A cell that was only marked as seen is not among them: confirm (Enter) names it."
    for (first, second), count in cells.confusion.items():
        mark = " " if first == second else "*"
        yield f" {mark} network {first:<22} person {second:<22} {count:6}"
    yield _line("kappa", cells.kappa)
    yield _line("overall agreement", cells.overall)
    yield _line("blasts: positive agreement", cells.positive)
    yield _line("blasts: negative agreement", cells.negative)
    shares = agreement.shares
    if shares is None:
        yield "blast share: too few smears that both counted, or none that differ"
        return
    yield f"blast share, network against person, {shares.smears} smears"
    yield _line("  Passing-Bablok slope", shares.slope)
    yield _line("  Passing-Bablok intercept", shares.intercept)
    yield _line("  Bland-Altman bias", shares.bias)
    yield _line("  lower limit of agreement", shares.lower_limit)
    yield _line("  upper limit of agreement", shares.upper_limit)


def _line(name: str, one: Estimate | object | None) -> str:
    if one is None:
        return f"{name:<30} not defined"
    numbers = _numbers(one)
    return f"{name:<30} {numbers['value']:7.3f} ({numbers['low']:.3f} to {numbers['high']:.3f})"

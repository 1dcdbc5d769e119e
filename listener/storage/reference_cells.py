"""The site's own library of reference cells: a picture and a card for each, by class.

    references/<class>/<id>.jpg     one cell, as wide as every tile
    references/<class>/<id>.json    what it is, who kept it, when

The files are the truth. A card says nothing of the patient, the smear or the image, and the id is a
keyed digest of the cell, so that the same cell is kept once and nobody else can tell which it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.domain import RESEARCH_USE_ONLY
from pipeline.errors import Defect
from pipeline.findings.review import CLASSES, NOT_A_CELL, UNIDENTIFIED
from reporting.durable_files import make_folder, publish_file, sync_folder

FORMAT = 1
REFERENCE_CLASSES = frozenset(CLASSES) - {UNIDENTIFIED, NOT_A_CELL}
"""What a cell can be a reference of."""
REFERENCE_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceCell:
    """One card of the library."""

    id: str
    cell_class: str
    kept_by: str
    """Account."""
    kept_at: datetime
    """Aware, UTC."""
    software_version: str

    def __post_init__(self) -> None:
        if not REFERENCE_ID.fullmatch(self.id) or self.cell_class not in REFERENCE_CLASSES:
            raise ValueError("a reference has an id of 32 digits and a class that is one")


class ReferenceCells:
    """The library in its folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, cell: ReferenceCell, picture: bytes) -> None:
        """Keep a cell, durable on return; the same id of the same class is kept once.

        A cell that was a reference of another class is moved to this one.
        """
        for earlier in self._cards(cell.id):
            if earlier.parent.name != cell.cell_class:
                self._remove(earlier)
        folder, tmp = self._folder / cell.cell_class, self._folder / "tmp"
        make_folder(folder)
        make_folder(tmp)
        # The card comes last: what has a card has a picture.
        publish_file(folder / f"{cell.id}.jpg", picture, tmp=tmp)
        publish_file(folder / f"{cell.id}.json", _record(cell), tmp=tmp)
        sync_folder(folder)

    def remove(self, reference_id: str) -> bool:
        """Take a cell out of the library; False where it is not in it."""
        cards = list(self._cards(reference_id))
        for card in cards:
            self._remove(card)
        return bool(cards)

    def find(self, reference_id: str) -> ReferenceCell | None:
        """The card of an id, or None."""
        return next((_read(card) for card in self._cards(reference_id)), None)

    def of_class(self, cell_class: str) -> list[ReferenceCell]:
        """The references of a class, the newest first; raises Defect for a damaged card."""
        if cell_class not in REFERENCE_CLASSES:
            return []
        cards = (self._folder / cell_class).glob("*.json")
        return sorted(map(_read, cards), key=lambda one: (one.kept_at, one.id), reverse=True)

    def picture(self, cell_class: str, reference_id: str) -> Path | None:
        """The picture of a reference, or None."""
        if cell_class not in REFERENCE_CLASSES or not REFERENCE_ID.fullmatch(reference_id):
            return None
        path = self._folder / cell_class / f"{reference_id}.jpg"
        return path if path.with_suffix(".json").is_file() and path.is_file() else None

    def _cards(self, reference_id: str) -> Iterator[Path]:
        if REFERENCE_ID.fullmatch(reference_id):
            yield from (
                path
                for name in sorted(REFERENCE_CLASSES)
                if (path := self._folder / name / f"{reference_id}.json").is_file()
            )

    @staticmethod
    def _remove(card: Path) -> None:
        card.unlink(missing_ok=True)
        card.with_suffix(".jpg").unlink(missing_ok=True)
        sync_folder(card.parent)


def _record(cell: ReferenceCell) -> bytes:
    return json.dumps(
        {
            "format": FORMAT,
            "research_use_only": True,
            "label": RESEARCH_USE_ONLY,
            "id": cell.id,
            "cell_class": cell.cell_class,
            "kept_by": cell.kept_by,
            "kept_at": cell.kept_at.astimezone(UTC).isoformat(),
            "software_version": cell.software_version,
        },
        indent=1,
    ).encode()


def _read(card: Path) -> ReferenceCell:
    try:
        record = json.loads(card.read_bytes())
        is_ours = record["format"] == FORMAT and record["research_use_only"] is True
        cell = ReferenceCell(
            id=record["id"],
            cell_class=record["cell_class"],
            kept_by=record["kept_by"],
            kept_at=datetime.fromisoformat(record["kept_at"]),
            software_version=record["software_version"],
        )
    except (ValueError, KeyError, TypeError) as err:
        raise _damaged() from err
    if not is_ours:
        raise _damaged()
    return cell


def _damaged() -> Defect:
    return Defect(
        "The card of a reference cell cannot be read; delete it or restore it from a backup.",
        code="reference_damaged",
    )

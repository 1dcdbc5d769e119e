"""A data pack: a folder with `manifest.csv` and the pictures that it names."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np

from pipeline.domain import RGB, CellType, SOPInstanceUID, SourceImage
from pipeline.errors import Rejected

COUNTERPARTS: Mapping[str, CellType | None] = MappingProxyType(
    {
        **{kind.value: kind for kind in CellType if kind is not CellType.UNDETERMINED},
        "band": CellType.NEUTROPHIL,
        "metamyelocyte": CellType.IMMATURE_GRANULOCYTE,
        "myelocyte": CellType.IMMATURE_GRANULOCYTE,
        "giant_platelet": CellType.PLATELET,
        "monoblast": CellType.BLAST,
        "promonocyte": None,
        "prolymphocyte": None,
        "artefact": None,
    }
)
"""What each `cell_type` of a manifest is called here; None where such a cell is judged by its label
alone."""

NEEDED_COLUMNS = frozenset(
    {"file", "source", "kind", "label", "cell_type", "subject", "split", "masked"}
)


class PictureKind(StrEnum):
    """What one picture of a pack shows."""

    CELL = "cell"
    FIELD = "field"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackRow:
    """One picture of a pack and what is known about it; empty text means not known."""

    root: Path
    file: str
    source: str
    kind: PictureKind
    label: str
    """leukemic, normal, benign (fields) or empty."""
    cell_type: str
    subtype: str
    subject: str
    split: str
    is_masked: bool
    """The background is black already."""

    @property
    def known_type(self) -> CellType | None:
        """The type that the network should tell; None where the pack names none, or one that it
        has no counterpart for.
        """
        return COUNTERPARTS[self.cell_type] if self.cell_type else None

    @property
    def path(self) -> Path:
        """Where the picture is."""
        return self.root / self.file

    def read_pixels(self) -> RGB:
        """The picture, height × width × 3 uint8 RGB; raises Rejected (code pack_picture)."""
        stored = np.fromfile(self.path, np.uint8) if self.path.is_file() else np.zeros(0, np.uint8)
        picture = cv2.imdecode(stored, cv2.IMREAD_COLOR) if stored.size else None
        if picture is None:
            raise Rejected(
                f"{self.file} is missing or no picture. Complete the pack, or drop its row.",
                code="pack_picture",
            )
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8)

    def read_image(self) -> SourceImage:
        """The picture as the pipeline takes it; packs give no pixel spacing."""
        return SourceImage(
            sop_instance_uid=SOPInstanceUID("2.25.0"),
            frame=1,
            pixels=self.read_pixels(),
            spacing_um=None,
        )


def read_pack(path: Path, split: str | None) -> tuple[PackRow, ...]:
    """Rows of the pack in `path`; with `split`, only those of that split and those with none.

    Raises Rejected (code pack_manifest) when the manifest is missing, lacks columns, or names
    files outside the pack or values that nobody defined.
    """
    manifest = path / "manifest.csv"
    if not manifest.is_file():
        raise _bad_manifest("there is none", "Name the folder that holds manifest.csv")
    try:
        rows = tuple(_parse(path, line) for line in _lines(manifest))
    except (UnicodeDecodeError, csv.Error) as err:
        raise _bad_manifest(
            "it is no table in UTF-8", "Save it again as CSV in UTF-8, separated by commas"
        ) from err
    return tuple(row for row in rows if split is None or row.split in ("", split))


def _lines(manifest: Path) -> Iterator[Mapping[str, str]]:
    """Each row by column, without padding; spreadsheets put a byte order mark before the first."""
    with manifest.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream, restval="")
        missing = NEEDED_COLUMNS - set(reader.fieldnames or ())
        if missing:
            raise _bad_manifest(
                f"the columns {sorted(missing)} are missing", "Add them, separated by commas"
            )
        for line in reader:
            if None in line or not line["file"].strip():
                raise _bad_manifest(
                    f"line {reader.line_num} does not have one value per column", "Complete it"
                )
            yield {column: value.strip() for column, value in line.items()}


def _parse(root: Path, line: Mapping[str, str]) -> PackRow:
    file = Path(line["file"])
    if file.is_absolute() or ".." in file.parts:
        raise _bad_manifest("it names a file outside the pack", "Keep paths inside the pack")
    if line["kind"] not in set(PictureKind):
        raise _bad_manifest(f"{line['file']} has no kind", "Set kind to cell or field")
    if line["label"] not in ("", "leukemic", "normal", "benign"):
        raise _bad_manifest(f"{line['file']} has an unknown label", "Use leukemic or normal")
    if line["cell_type"] and line["cell_type"] not in COUNTERPARTS:
        known = ", ".join(COUNTERPARTS)
        raise _bad_manifest(f"{line['file']} has an unknown cell_type", f"Use one of {known}")
    return PackRow(
        root=root,
        file=line["file"],
        source=line["source"],
        kind=PictureKind(line["kind"]),
        label=line["label"],
        cell_type=line["cell_type"],
        subtype=line.get("subtype") or "",
        subject=line["subject"],
        split=line["split"],
        is_masked=line["masked"].strip().lower() == "true",
    )


def _bad_manifest(what: str, way_out: str) -> Rejected:
    return Rejected(
        f"The pack's manifest.csv is unusable: {what}. {way_out}.", code="pack_manifest"
    )

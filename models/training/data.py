"""The packed crops: reading them, drawing balanced batches, and turning these into tensors.

A pack is a folder of `crops.npy` (N×224×224×3 uint8 RGB, surroundings kept), `masks.npy`
(N×224×224 uint8) and `rows.csv` (one `CropRow` a crop), as `prepare.py` writes it.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from models.training.augment import Jitter, Stain, augment, measure_stain, plain_view
from pipeline.domain import CELL_TYPES, RGB, CellType
from pipeline.findings.crops import CROP_PX
from pipeline.findings.decision import BLASTS

ENDLESS = 2**31
"""Batches that a training may ask for."""
AHEAD = 4
"""Batches that each process draws before they are asked for."""

UNKNOWN = -1
"""In place of a label that nobody gave; its loss is masked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CropRow:
    """Where one crop came from and what is known about it."""

    file: str
    source: str
    subject: str
    part: str
    """train or val (other patients or whole held-out groups)."""
    leukemic: int
    """1, 0 or UNKNOWN."""
    cell_type: int
    """Index in CELL_TYPES or UNKNOWN."""
    trust: float
    """Weight of the leukemic label, 1 where an expert gave it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CropPack:
    """Crops in memory at one side, with their masks, stains and rows."""

    crops: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    stains: tuple[Stain, ...]
    rows: tuple[CropRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Crops N×S×S×3 uint8 RGB with labels; UNKNOWN labels have weight 0."""

    crops: Tensor
    leukemic: Tensor
    leukemic_weight: Tensor
    cell_type: Tensor

    def on(self, device: str | torch.device) -> Batch:
        """There, the crops as the network takes them: N×3×S×S float32, 0 to 255, channels-last."""
        return replace(
            self,
            crops=self.crops.to(device).permute(0, 3, 1, 2).float(),
            leukemic=self.leukemic.to(device),
            leukemic_weight=self.leukemic_weight.to(device),
            cell_type=self.cell_type.to(device),
        )


LEUKEMIC_SHARES = {"cnmc": 0.5, "lmu": 0.15, "aria": 0.35}
NORMAL_SHARES = {
    "cnmc": 0.44,
    "pbc": 0.27,
    "lmu": 0.04,
    "aria": 0.08,
    "zheng1": 0.06,
    "bccd": 0.05,
    "raabin": 0.05,
    "draaslan": 0.03,
}
"""How often a source is drawn among the cells of one label; both labels are drawn equally often."""

TYPE_DRAWS = {
    CELL_TYPES.index(CellType.LYMPHOCYTE): 3.0,
    CELL_TYPES.index(CellType.MONOCYTE): 1.5,
    CELL_TYPES.index(CellType.PLATELET): 0.5,
}
"""How often a type is drawn against the others of its source: what looks like a blast, more."""


def read_rows(folder: Path) -> tuple[CropRow, ...]:
    """Rows of a pack in the order of its arrays."""
    kinds = {
        field.name: {"int": int, "float": float}.get(str(field.type), str)
        for field in fields(CropRow)
    }
    with (folder / "rows.csv").open(newline="") as stream:
        return tuple(
            CropRow(**{name: kinds[name](value) for name, value in line.items()})
            for line in csv.DictReader(stream)
        )


def pack_side(side: int, view: int) -> int:
    """Side of a whole crop when its central `view` pixels are shrunk to `side`; even."""
    return 2 * round(CROP_PX * side / view / 2)


def load_pack(folder: Path, *, parts: Sequence[str], side: int) -> CropPack:
    """The named parts of a pack, each crop shrunk so that its whole width has `side` pixels."""
    rows = read_rows(folder)
    kept = [index for index, row in enumerate(rows) if row.part in parts]
    crops = np.load(folder / "crops.npy", mmap_mode="r")
    masks = np.load(folder / "masks.npy", mmap_mode="r")
    small_crops = np.empty((len(kept), side, side, 3), np.uint8)
    small_masks = np.empty((len(kept), side, side), np.uint8)
    for new, old in enumerate(kept):
        small_crops[new] = _shrunk(crops[old], side)
        small_masks[new] = _shrunk(masks[old], side)
    stains = tuple(measure_stain(c, m) for c, m in zip(small_crops, small_masks, strict=True))
    return CropPack(
        crops=small_crops, masks=small_masks, stains=stains, rows=tuple(rows[i] for i in kept)
    )


def without_subjects(pack: CropPack, subjects: Collection[str]) -> tuple[CropPack, CropPack]:
    """What is left of a pack without the cells of these subjects, and these cells."""
    out = np.array([row.subject in subjects for row in pack.rows])
    return _only(pack, np.flatnonzero(~out)), _only(pack, np.flatnonzero(out))


def thinned(pack: CropPack, step: int) -> CropPack:
    """One crop in `step`, spread evenly over the pack."""
    return _only(pack, np.arange(0, len(pack.rows), step))


def _only(pack: CropPack, kept: NDArray[np.intp]) -> CropPack:
    return CropPack(
        crops=pack.crops[kept],
        masks=pack.masks[kept],
        stains=tuple(pack.stains[index] for index in kept),
        rows=tuple(pack.rows[index] for index in kept),
    )


def _shrunk(array: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    if array.shape[0] == side:
        return array
    return cv2.resize(np.ascontiguousarray(array), (side, side), interpolation=cv2.INTER_AREA)


def draw_chances(rows: Sequence[CropRow]) -> NDArray[np.float64]:
    """Chance of each row: balanced by label, then source, then subject (square root of its size).

    Rows without a leukemic label stand with the normal ones; their leukemic loss is masked.
    """
    subjects = Counter((row.leukemic == 1, row.source, row.subject) for row in rows)
    weights = [
        TYPE_DRAWS.get(row.cell_type, 1.0)
        / subjects[row.leukemic == 1, row.source, row.subject] ** 0.5
        for row in rows
    ]
    totals: Counter[tuple[bool, str]] = Counter()
    for row, weight in zip(rows, weights, strict=True):
        totals[row.leukemic == 1, row.source] += weight
    chances = np.array(
        [
            _share(row.leukemic == 1, row.source) * weight / totals[row.leukemic == 1, row.source]
            for row, weight in zip(rows, weights, strict=True)
        ]
    )
    return chances / chances.sum()


def _share(is_leukemic: bool, source: str) -> float:
    return (LEUKEMIC_SHARES if is_leukemic else NORMAL_SHARES).get(source, 0.0)


class RandomBatches(Dataset[Batch]):
    """Batch k is the same for the same seed, whichever process draws it, so that a run can resume.

    Mapping rather than stream: what is asked for says which, so any number of processes may draw.
    """

    def __init__(self, pack: CropPack, *, side: int, size: int, seed: int, jitter: Jitter) -> None:
        self._pack, self._jitter = pack, jitter
        self.side, self._size, self._seed = side, size, seed
        self._chances = draw_chances(pack.rows)

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, step: int) -> Batch:
        random = np.random.default_rng((self._seed, step))
        rows = self._pack.rows
        drawn = random.choice(len(rows), self._size, p=self._chances)
        others = random.integers(0, len(rows), self._size)
        crops = [self._view(i, j, random) for i, j in zip(drawn, others, strict=True)]
        return make_batch(np.stack(crops), [rows[i] for i in drawn])

    def _view(self, own: int, other: int, random: np.random.Generator) -> RGB:
        pack = self._pack
        stains = pack.stains[own], pack.stains[other]
        return augment(pack.crops[own], pack.masks[own], self.side, *stains, self._jitter, random)


def drawn_ahead(batches: RandomBatches, *, first: int, workers: int) -> Iterator[Batch]:
    """The batches from `first` on, drawn by processes of their own while the network learns."""
    # A process forked while OpenCV has threads would wait for them forever.
    cv2.setNumThreads(1)
    return iter(
        DataLoader(
            batches,
            batch_size=None,
            sampler=range(first, ENDLESS),
            num_workers=workers,
            prefetch_factor=AHEAD,
        )
    )


def plain_batches(pack: CropPack, *, side: int, size: int = 64) -> Iterator[Batch]:
    """Every crop once, in order, as the service sees it."""
    for first in range(0, len(pack.rows), size):
        part = slice(first, first + size)
        views = [
            plain_view(c, m, side) for c, m in zip(pack.crops[part], pack.masks[part], strict=True)
        ]
        yield make_batch(np.stack(views), pack.rows[part])


def make_batch(crops: NDArray[np.uint8], rows: Sequence[CropRow]) -> Batch:
    """Tensors of masked crops (N×S×S×3 uint8 RGB) and what is known of them."""
    leukemic = torch.tensor([row.leukemic for row in rows])
    trust = torch.tensor([row.trust for row in rows])
    return Batch(
        crops=torch.from_numpy(crops),
        leukemic=leukemic.clamp(min=0).float(),
        leukemic_weight=torch.where(leukemic == UNKNOWN, 0.0, trust),
        cell_type=torch.tensor([row.cell_type for row in rows]),
    )


def type_index(cell_type: CellType | None) -> int:
    """Index in CELL_TYPES, UNKNOWN for none; every blast is one, whatever its lineage."""
    if cell_type in BLASTS:
        return CELL_TYPES.index(CellType.BLAST)
    return CELL_TYPES.index(cell_type) if cell_type is not None else UNKNOWN

"""The packed crops: reading them, drawing balanced batches, and turning these into tensors.

A pack is a folder of `crops.npy` (N×224×224×3 uint8 RGB, surroundings kept), `masks.npy`
(N×224×224 uint8) and `rows.csv` (one `CropRow` a crop), as `prepare.py` writes it.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.training.augment import Jitter, Stain, augment, measure_stain, plain_view
from pipeline.crop import CROP_PX
from pipeline.domain import CELL_TYPES, RGB, CellType

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
    """Crops N×3×S×S, 0 to 255, with labels; UNKNOWN labels have weight 0."""

    crops: Tensor
    leukemic: Tensor
    leukemic_weight: Tensor
    cell_type: Tensor


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


def training_batches(
    pack: CropPack, *, side: int, size: int, first_step: int, seed: int, jitter: Jitter
) -> Iterator[Batch]:
    """Endless random batches; step k is the same for the same seed, so that a run can resume."""
    chances = draw_chances(pack.rows)

    def draw(step: int) -> Batch:
        random = np.random.default_rng((seed, step))
        drawn = random.choice(len(pack.rows), size, p=chances)
        others = random.integers(0, len(pack.rows), size)
        crops = [
            _view(pack, i, j, side, jitter, random) for i, j in zip(drawn, others, strict=True)
        ]
        return make_batch(np.stack(crops), [pack.rows[i] for i in drawn])

    with ThreadPoolExecutor(max_workers=1) as ahead:
        step = first_step
        waiting = [ahead.submit(draw, step + k) for k in range(3)]
        while True:
            yield waiting.pop(0).result()
            waiting.append(ahead.submit(draw, step + 3))
            step += 1


def _view(
    pack: CropPack, own: int, other: int, side: int, jitter: Jitter, random: np.random.Generator
) -> RGB:
    crop, mask = pack.crops[own], pack.masks[own]
    return augment(crop, mask, side, pack.stains[own], pack.stains[other], jitter, random)


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
        crops=as_tensor(crops),
        leukemic=leukemic.clamp(min=0).float(),
        leukemic_weight=torch.where(leukemic == UNKNOWN, 0.0, trust),
        cell_type=torch.tensor([row.cell_type for row in rows]),
    )


def as_tensor(crops: NDArray[np.uint8]) -> Tensor:
    """N×S×S×3 uint8 RGB to N×3×S×S float32, 0 to 255, channels-last."""
    channels_first = torch.from_numpy(crops).permute(0, 3, 1, 2).float()
    return channels_first.contiguous(memory_format=torch.channels_last)


def type_index(name: str) -> int:
    """Index of a manifest's `cell_type` in CELL_TYPES, UNKNOWN where it is empty."""
    return [kind.value for kind in CELL_TYPES].index(name) if name else UNKNOWN

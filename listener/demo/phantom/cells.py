"""Each kind of cell of a smear, drawn as optical density on a patch of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from listener.demo.phantom.camera import Density
from listener.demo.phantom.shapes import Map, Patch, blob, bridge, cover, grain, granules, union
from listener.demo.phantom.stain_densities import (
    BASOPHIL_GRANULE,
    BASOPHILIA,
    BLAST_CHROMATIN,
    CHROMATIN,
    DEEP_BASOPHILIA,
    EOSINOPHIL_GRANULE,
    GREY_CYTOPLASM,
    HAEMOGLOBIN,
    LYMPHOCYTE_CHROMATIN,
    NEUTROPHIL_GRANULE,
    PALE_CYTOPLASM,
    PLATELET,
    SMUDGED_CHROMATIN,
)
from pipeline.domain import CellType

RIM_UM = 0.07
"""Softness of every outline."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrawnCell:
    """One cell on its patch: density, how much it hides what lies below, and its outlines."""

    density: Density
    body: Map
    """Distance inside the whole cell, µm."""
    nucleus: Map | None


def draw_red_cell(patch: Patch, random: np.random.Generator, radius_um: float) -> DrawnCell:
    """A disc, thicker towards its rim: the central pallor takes its middle third."""
    body = blob(
        patch, random, radius_um=radius_um, roughness=0.025, stretch=random.uniform(1.0, 1.14)
    )
    depth = np.clip(body / radius_um, 0, 1)
    pallor = random.uniform(0.35, 0.8)
    thickness = 1 - pallor * cover(depth - random.uniform(0.5, 0.62), 0.055)
    thickness += 0.12 * np.exp(-(((depth - 0.1) / 0.07) ** 2))
    thickness *= random.normal(1.0, 0.07)
    amount = cover(body, RIM_UM) * thickness
    return DrawnCell(density=amount[..., None] * HAEMOGLOBIN, body=body, nucleus=None)


def draw_platelet(patch: Patch, random: np.random.Generator, radius_um: float) -> DrawnCell:
    """A small grainy disc without a nucleus."""
    body = blob(patch, random, radius_um=radius_um, roughness=0.12, stretch=random.uniform(1, 1.5))
    grains = granules(patch, random, size_um=0.45, share=0.4)
    amount = cover(body, 0.12) * (0.45 + 0.75 * grains)
    return DrawnCell(density=amount[..., None] * PLATELET, body=body, nucleus=None)


def draw_smudge_cell(patch: Patch, random: np.random.Generator, radius_um: float) -> DrawnCell:
    """A nucleus that burst: pale, streaky, without cytoplasm, ragged and soft at its rim."""
    body = blob(
        patch, random, radius_um=radius_um, roughness=0.14, stretch=random.uniform(1.0, 1.4)
    )
    streaks = 1 + 0.25 * grain(patch, random, size_um=1.2)
    amount = cover(body, 0.35) * np.clip(streaks, 0.3, 1.6)
    return DrawnCell(density=amount[..., None] * SMUDGED_CHROMATIN, body=body, nucleus=body)


def draw_white_cell(
    kind: CellType, patch: Patch, random: np.random.Generator, radius_um: float
) -> DrawnCell:
    """A white cell of one of WHITE_CELLS' types."""
    return WHITE_CELLS[kind].draw(patch, random, radius_um)


def _neutrophil(patch: Patch, random: np.random.Generator, radius_um: float) -> DrawnCell:
    body = blob(patch, random, radius_um=radius_um, roughness=0.03)
    nucleus = _lobed(patch, random, lobes=int(random.integers(3, 6)), radius_um=radius_um)
    fine = granules(patch, random, size_um=0.3, share=0.3)
    cytoplasm = PALE_CYTOPLASM + fine[..., None] * NEUTROPHIL_GRANULE
    pattern = _chromatin_blocks(patch, random, 0.9)
    return _compose(
        patch, random, body, cytoplasm, nucleus, CHROMATIN, pattern=pattern, clumping=0.32
    )


def _eosinophil(patch: Patch, random: np.random.Generator, radius_um: float) -> DrawnCell:
    body = blob(patch, random, radius_um=radius_um, roughness=0.03)
    nucleus = _lobed(patch, random, lobes=2, radius_um=radius_um * 1.08)
    packed = granules(patch, random, size_um=0.35, share=0.85)
    cytoplasm = PALE_CYTOPLASM + packed[..., None] * EOSINOPHIL_GRANULE
    pattern = _chromatin_blocks(patch, random, 0.9)
    return _compose(
        patch, random, body, cytoplasm, nucleus, CHROMATIN, pattern=pattern, clumping=0.32
    )


def _basophil(patch: Patch, random: np.random.Generator, radius_um: float) -> DrawnCell:
    body = blob(patch, random, radius_um=radius_um, roughness=0.03)
    nucleus = _lobed(patch, random, lobes=2, radius_um=radius_um * 1.1)
    coarse = granules(patch, random, size_um=0.45, share=0.45) * cover(body - 0.3, 0.1)
    pattern = _chromatin_blocks(patch, random, 0.9)
    cytoplasm = PALE_CYTOPLASM + coarse[..., None] * BASOPHIL_GRANULE
    drawn = _compose(
        patch, random, body, cytoplasm, nucleus, CHROMATIN * 0.75, pattern=pattern, clumping=0.3
    )
    over_nucleus = (0.35 * coarse * cover(body, RIM_UM))[..., None] * BASOPHIL_GRANULE
    return DrawnCell(density=drawn.density + over_nucleus, body=body, nucleus=nucleus)


def _lymphocyte(patch: Patch, random: np.random.Generator, radius_um: float) -> DrawnCell:
    body = blob(patch, random, radius_um=radius_um, roughness=0.04)
    aside = tuple(random.normal(0, 0.06 * radius_um, 2))
    nucleus = blob(patch, random, radius_um=0.82 * radius_um, at=aside, roughness=0.03)
    nucleus = np.minimum(nucleus, body - 0.25)
    cytoplasm = np.broadcast_to(BASOPHILIA, (*patch.x.shape, 3))
    pattern = np.float32(0.5) * _chromatin_blocks(patch, random, 1.2)
    return _compose(
        patch,
        random,
        body,
        cytoplasm,
        nucleus,
        LYMPHOCYTE_CHROMATIN,
        pattern=pattern,
        clumping=0.32,
        edging=0.45,
    )


def _monocyte(patch: Patch, random: np.random.Generator, radius_um: float) -> DrawnCell:
    body = blob(patch, random, radius_um=radius_um, roughness=0.06)
    bay = random.uniform(0, 2 * np.pi)
    towards = (np.cos(bay) * radius_um, np.sin(bay) * radius_um)
    kidney = blob(
        patch,
        random,
        radius_um=0.69 * radius_um,
        at=(-0.12 * towards[0], -0.12 * towards[1]),
        roughness=0.06,
        stretch=random.uniform(1.0, 1.3),
    )
    notch = blob(
        patch, random, radius_um=0.5 * radius_um, at=(0.66 * towards[0], 0.66 * towards[1])
    )
    nucleus = np.minimum(np.minimum(kidney, -notch), body - 0.3)
    vacuoles = granules(patch, random, size_um=0.9, share=0.06)
    pattern = _chromatin_net(patch, random, 0.9)
    dust = granules(patch, random, size_um=0.4, share=0.3)
    cytoplasm = (0.85 + 0.25 * dust - 0.7 * vacuoles)[..., None] * GREY_CYTOPLASM
    return _compose(
        patch,
        random,
        body,
        cytoplasm,
        nucleus,
        CHROMATIN * 0.8,
        pattern=pattern,
        clumping=0.25,
        mottling=0.28,
    )


def _lymphoblast(patch: Patch, random: np.random.Generator, radius_um: float) -> DrawnCell:
    body = blob(
        patch, random, radius_um=radius_um, roughness=0.05, stretch=random.uniform(1.0, 1.12)
    )
    aside = tuple(random.normal(0, 0.05 * radius_um, 2))
    nucleus = blob(patch, random, radius_um=0.94 * radius_um, at=aside, roughness=0.06)
    nucleus = _indented(patch, random, np.minimum(nucleus, body - 0.22), radius_um)
    cytoplasm = np.broadcast_to(DEEP_BASOPHILIA, (*patch.x.shape, 3))
    nucleoli = _nucleoli(patch, random, nucleus, number=int(random.integers(1, 3)))
    return _compose(
        patch,
        random,
        body,
        cytoplasm,
        nucleus,
        BLAST_CHROMATIN,
        pattern=_chromatin_dust(patch, random, 0.55),
        clumping=0.15,
        edging=0.45,
        nucleoli=nucleoli,
    )


def _myeloblast(patch: Patch, random: np.random.Generator, radius_um: float) -> DrawnCell:
    body = blob(patch, random, radius_um=radius_um, roughness=0.06, stretch=1.1)
    aside = tuple(random.normal(0, 0.1 * radius_um, 2))
    nucleus = blob(patch, random, radius_um=0.9 * radius_um, at=aside, roughness=0.06)
    nucleus = _indented(patch, random, np.minimum(nucleus, body - 0.25), radius_um)
    cytoplasm = np.broadcast_to(DEEP_BASOPHILIA, (*patch.x.shape, 3))
    nucleoli = _nucleoli(patch, random, nucleus, number=int(random.integers(2, 5)))
    return _compose(
        patch,
        random,
        body,
        cytoplasm,
        nucleus,
        BLAST_CHROMATIN,
        pattern=_chromatin_dust(patch, random, 0.6),
        clumping=0.15,
        edging=0.45,
        nucleoli=nucleoli,
    )


def _indented(patch: Patch, random: np.random.Generator, nucleus: Map, radius_um: float) -> Map:
    """The nucleus with a shallow dent in its rim, as blasts often have."""
    angle, depth = random.uniform(0, 2 * np.pi), random.uniform(0.85, 1.15) * radius_um
    at = (depth * float(np.cos(angle)), depth * float(np.sin(angle)))
    dent = blob(patch, random, radius_um=random.uniform(0.15, 0.35) * radius_um, at=at)
    return np.minimum(nucleus, -dent)


def _lobed(patch: Patch, random: np.random.Generator, *, lobes: int, radius_um: float) -> Map:
    """Lobes on an arc about the middle, each joined to the next by a thread."""
    first = random.uniform(0, 2 * np.pi)
    step = random.uniform(0.8, 1.0) * (2.0 if lobes == 2 else 4.6 / lobes)
    angles = [first + step * k + random.normal(0, 0.08) for k in range(lobes)]
    lobe_um = radius_um * {2: 0.42, 3: 0.33, 4: 0.28, 5: 0.25}[lobes]
    orbit = 0.46 * radius_um
    middles = [(orbit * np.cos(a), orbit * np.sin(a)) for a in angles]
    shapes = [
        blob(
            patch,
            random,
            radius_um=lobe_um * random.normal(1, 0.06),
            at=at,
            roughness=0.05,
            stretch=random.uniform(1.0, 1.35),
        )
        for at in middles
    ]
    threads = [bridge(patch, a, b, 0.28 * lobe_um) for a, b in pairwise(middles)]
    return union([*shapes, *threads])


def _nucleoli(patch: Patch, random: np.random.Generator, nucleus: Map, *, number: int) -> Map:
    """Paler spots well inside the nucleus; 1 within one."""
    inside = np.argwhere(nucleus > 0.45 * nucleus.max())
    chosen = inside[random.integers(0, len(inside), number)]
    spots = [
        blob(
            patch,
            random,
            radius_um=random.uniform(0.6, 1.0),
            at=(float(patch.x[y, x]), float(patch.y[y, x])),
        )
        for y, x in chosen
    ]
    return cover(union(spots), 0.2)


def _chromatin_blocks(patch: Patch, random: np.random.Generator, size_um: float) -> Map:
    """Clumped, as in mature cells: dense blocks with clear gaps between them."""
    blocks = np.tanh(1.6 * grain(patch, random, size_um=size_um))
    fine = grain(patch, random, size_um=size_um / 2.5)
    return np.asarray(0.75 * blocks + 0.5 * fine, dtype=np.float32)


def _chromatin_net(patch: Patch, random: np.random.Generator, size_um: float) -> Map:
    """Open, as in monocytes: threads that cross, and no blocks."""
    threads = 0.8 - np.abs(grain(patch, random, size_um=size_um))
    fine = grain(patch, random, size_um=size_um / 2)
    return np.asarray(threads + 0.35 * fine, dtype=np.float32)


def _chromatin_dust(patch: Patch, random: np.random.Generator, size_um: float) -> Map:
    """Fine and even, as in blasts: faint threads, and clouds that are wider than they."""
    threads = 0.8 - np.abs(grain(patch, random, size_um=size_um))
    clouds = grain(patch, random, size_um=2.5 * size_um)
    return np.asarray(0.4 * threads + 0.4 * clouds, dtype=np.float32)


def _compose(
    patch: Patch,
    random: np.random.Generator,
    body: Map,
    cytoplasm: Density,
    nucleus: Map,
    chromatin: Density,
    *,
    pattern: Map,
    clumping: float,
    nucleoli: Map | None = None,
    mottling: float = 0.1,
    edging: float = 0.28,
) -> DrawnCell:
    """Cytoplasm with a denser rim, and over it a nucleus with its membrane and chromatin."""
    strength = random.normal(1.0, 0.06)
    clumps = 1 + clumping * pattern
    edge = 1 + edging * np.exp(-(((nucleus - 0.12) / 0.16) ** 2))
    amount = cover(nucleus, RIM_UM) * np.clip(clumps, 0.35, 1.7) * edge
    if nucleoli is not None:
        amount = amount * (1 - 0.1 * nucleoli)
    membrane = 1 + 0.45 * np.exp(-(((body - 0.1) / 0.3) ** 2))
    mottled = 1 + mottling * grain(patch, random, size_um=0.6)
    plasma = (cover(body, RIM_UM * 1.5) * membrane * mottled)[..., None] * cytoplasm
    hidden = 1 - 0.75 * cover(nucleus, RIM_UM)
    density = strength * (plasma * hidden[..., None] + amount[..., None] * chromatin)
    return DrawnCell(density=density.astype(np.float32), body=body, nucleus=nucleus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How large cells of a type are and how one is drawn."""

    diameter_um: tuple[float, float]
    draw: Callable[[Patch, np.random.Generator, float], DrawnCell]


WHITE_CELLS: Mapping[CellType, Kind] = {
    CellType.NEUTROPHIL: Kind(diameter_um=(12.0, 14.0), draw=_neutrophil),
    CellType.EOSINOPHIL: Kind(diameter_um=(12.5, 14.5), draw=_eosinophil),
    CellType.BASOPHIL: Kind(diameter_um=(11.0, 13.0), draw=_basophil),
    CellType.LYMPHOCYTE: Kind(diameter_um=(9.0, 11.5), draw=_lymphocyte),
    CellType.MONOCYTE: Kind(diameter_um=(14.5, 17.0), draw=_monocyte),
    CellType.LYMPHOBLAST: Kind(diameter_um=(11.5, 15.0), draw=_lymphoblast),
    CellType.MYELOBLAST: Kind(diameter_um=(14.0, 17.0), draw=_myeloblast),
}
"""Diameters on a dried smear."""

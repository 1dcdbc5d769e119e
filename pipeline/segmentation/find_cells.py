"""Every white cell of a field: scale, nuclei, outlines, and what is known of each.

With a learned segmenter, its maps say what is cell and nucleus (docs/adr/0012). Without one, or
where it sees nothing in a picture of a single cell, density does (docs/adr/0005). The work is done
on a picture shrunk to about 0.4 or 0.2 µm a pixel; outlines come back in pixels of the source
picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from pipeline.domain import (
    LEAST_NUCLEUS_UM2,
    RGB,
    Box,
    Cell,
    Contour,
    FieldCells,
    FieldQuality,
    Scale,
    ScaleSource,
    SourceImage,
)
from pipeline.field.masks import Mask, windows
from pipeline.field.optical_density import Density, green_of, optical_density, stained_level
from pipeline.field.overview import Overview
from pipeline.field.quality import (
    at_scale,
    has_doubtful_colors,
    is_faint,
    judge_quality,
    wants_proof,
    with_proof,
)
from pipeline.field.red_cell_diameter import ENOUGH_ALONE
from pipeline.segmentation.cell_contours import Outline, find_outlines
from pipeline.segmentation.false_nuclei import without_false_nuclei
from pipeline.segmentation.instances import Instances, find_instances
from pipeline.segmentation.morphometry import PixelTransform, describe
from pipeline.segmentation.network_maps import NETWORK_UM, SegmentationMaps, Segmenter, ask, resized
from pipeline.segmentation.nuclear_contours import nuclear_contours, refined_nuclear_contours
from pipeline.segmentation.nuclei import Nuclei, find_nuclei, nuclei_of_nothing
from pipeline.segmentation.pixel_scale import (
    ASSUMED_UM_PER_PX,
    overview_and_scale,
    scale_seen,
    scale_without_red_cells,
)
from pipeline.segmentation.smear_evidence import FAINT, USUAL, count_smear_evidence
from pipeline.segmentation.smudge_cells import classify_smudge_cells

WORK_UM = 0.2
"""µm a pixel of the working picture; a nucleus is 40 pixels wide on it."""
MOST_ENLARGED = 2.0
LOOK_AGAIN_FROM = 0.2
"""A scale that changes by less is near enough for the network, which bears twice and half."""
MOST_LOOKS = 3
COARSER = 1.3
"""How much coarser than by color the network is first asked where few red cells told the scale: it
joins and misses cells that are half as large again as they should be, hardly those half as small.
"""
TOUCHING_PX = 2.0
"""Outlines of cells that touch lie this close, in source pixels."""
CUT_SHARE = 0.6
"""Share of LEAST_NUCLEUS_UM2 that must be seen where the picture's edge hides the rest."""
LEAST_CONFIDENCE = 0.4
"""Of the network in a cell. On all boxed fields of the data pack and on ALL-IDB1 it drops false
ones only; from 0.5 on, blasts go with them."""
LEAST_CENTRAL_UM2 = 2.5
"""In a picture of one cell, the cell may be a platelet."""
SINGLE_CELL_UM = 42.0
"""Pictures this narrow may be of one cell."""
ASSUMED_SCALE = Scale(um_per_px=ASSUMED_UM_PER_PX, source=ScaleSource.ASSUMED)
WIDEST_CELL_UM, LEAST_CELL_UM = 18.0, 8.5
"""A wider cell in a picture of one cell asks whether its scale is too coarse: a red cell's width
told by the noise of a poor camera, or by parts of cells, makes it so."""
COARSE_UM = 0.18
"""Above, in a faint picture that is refused, red cells may be the noise of a poor camera: in one of
eight pictures of one cell (`../shared/data2`, chula_cells) it told a scale three to eight times
too coarse."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stages:
    """What each step made of a field; all but the cells on the working picture."""

    pixels: RGB
    """The working picture."""
    density: Density
    stained: Mask
    nuclei: Nuclei
    outlines: list[Outline]
    found: FieldCells


def find_cells(image: SourceImage, segmenter: Segmenter | None = None) -> FieldCells:
    """Scale, quality and white cells of one frame."""
    return find_stages(image, segmenter).found


def find_stages(image: SourceImage, segmenter: Segmenter | None = None) -> Stages:
    """The same, with all that led there."""
    overview, scale = overview_and_scale(image.pixels, image.spacing_um)
    stages = _stages_at(scale, image, overview, segmenter)
    if segmenter is None or scale.source is ScaleSource.DATASET:
        return stages
    for start in _other_scales(image, overview, scale, stages.found):
        again = _stages_at(start, image, overview, segmenter)
        if _is_likelier(again.found, stages.found, image):
            return again
    return stages


def _other_scales(
    image: SourceImage, overview: Overview, scale: Scale, found: FieldCells
) -> Iterator[Scale]:
    """Where else to begin, when noise or parts of cells may have been taken for red cells."""
    if _may_be_one_cell(_ground(image, ASSUMED_SCALE, 1.0)):
        if _central_cell_um(found, image) > WIDEST_CELL_UM:
            yield ASSUMED_SCALE
            yield scale_without_red_cells(overview)
    elif _may_be_noise(scale, found.quality):
        yield scale_without_red_cells(overview)


def _is_likelier(again: FieldCells, before: FieldCells, image: SourceImage) -> bool:
    """Whether a cell was found now, and one that is less too wide, but still as wide as a cell."""
    return LEAST_CELL_UM < _central_cell_um(again, image) < 0.8 * _central_cell_um(before, image)


def _central_cell_um(found: FieldCells, image: SourceImage) -> float:
    """Diameter of a disc as large as the central cell; infinite without one."""
    cell = central_cell(found, width=image.width, height=image.height)
    return 2 * (cell.shape.area_um2 / np.pi) ** 0.5 if cell else float("inf")


def _may_be_noise(scale: Scale, quality: FieldQuality) -> bool:
    """Whether a picture was refused by a scale that noise may have told."""
    is_measured = scale.source is ScaleSource.RED_CELLS and scale.um_per_px > COARSE_UM
    return is_measured and not quality.is_usable and is_faint(quality)


def _stages_at(
    scale: Scale, image: SourceImage, overview: Overview, segmenter: Segmenter | None
) -> Stages:
    """What is found at the scale that was known before the network looked."""
    quality = judge_quality(image.pixels, scale, overview=overview)
    if segmenter is None and has_doubtful_colors(quality):
        quality = with_proof(quality, scale, 0)
    nothing = FieldCells(scale=scale, quality=quality, cells=())
    if not quality.is_usable:
        # What is no smear may hold thousands of dark specks: nothing is looked for in it.
        return _nothing_tried(image, overview, nothing)
    if segmenter is not None:
        stages = _by_network(segmenter, image, overview, nothing)
        found = stages.found
        may_be_one_cell = _may_be_one_cell(_ground(image, found.scale, 1.0))
        if found.cells or not found.quality.is_usable or not may_be_one_cell:
            return stages
        if wants_proof(quality, scale) and "proofs" not in found.quality.figures:
            # Red cells that only the network saw proved it, and no cell: that is too little.
            quality = with_proof(quality, scale, 0)
            return _nothing_tried(image, overview, replace(nothing, quality=quality))
    return _by_density(image, overview, nothing)


def _nothing_tried(image: SourceImage, overview: Overview, found: FieldCells) -> Stages:
    pixels = resized(image.pixels, _zoom(found.scale, WORK_UM))
    density = optical_density(pixels, overview.lamp)
    green = green_of(density)
    stained = (green > stained_level(green)).astype(np.uint8)
    return Stages(
        pixels=pixels,
        density=density,
        stained=stained,
        nuclei=nuclei_of_nothing(stained),
        outlines=[],
        found=found,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Look:
    """What the network saw of a field when it was asked at one scale."""

    zoom: float
    pixels: RGB
    density: Density
    maps: SegmentationMaps
    seen: Instances


def _by_network(
    segmenter: Segmenter, image: SourceImage, overview: Overview, field: FieldCells
) -> Stages:
    """What the learned segmenter finds; `field` has the scale and quality known without it."""
    look, scale = _looked(segmenter, image, overview, field.scale)
    quality = at_scale(field.quality, field.scale, scale, overview)
    if wants_proof(quality, scale):
        limits = FAINT if is_faint(quality) else USUAL
        evidence = count_smear_evidence(look.maps, look.density, look.seen, limits)
        quality = with_proof(quality, scale, evidence)
    field = replace(field, scale=scale, quality=quality)
    if not quality.is_usable:
        return _nothing_tried(image, overview, field)
    ground = _ground(image, scale, look.zoom)
    seen = look.seen
    rims = {
        label: refined_nuclear_contours(
            label, view, seen.nuclei, seen.labels, image, overview.lamp, ground
        )
        for label, (view, _) in windows(seen.nuclei.parts).items()
    }
    found = _described(rims, seen.outlines, ground, seen.confidences)
    red = ((look.maps.red > 0) & (look.seen.labels == 0)).astype(np.uint8)
    kept = _sure_enough(_large_enough(found), ground)
    if not _may_be_one_cell(ground):
        kept = without_false_nuclei(kept, green_of(look.density), red, ground)
    cells = classify_smudge_cells(kept, look.density, red, ground)
    return Stages(
        pixels=look.pixels,
        density=look.density,
        stained=np.asarray((look.maps.red > 0) | (look.maps.white > 0), dtype=np.uint8),
        nuclei=look.seen.nuclei,
        outlines=look.seen.outlines,
        found=replace(field, cells=_numbered(cells)),
    )


def _looked(
    segmenter: Segmenter, image: SourceImage, overview: Overview, scale: Scale
) -> tuple[_Look, Scale]:
    """The last look at a field, and the scale by the red cells in it.

    A scale by color may be wrong; what the network sees at it is enough to measure it anew, and
    where that changes much, the network is asked again.
    """
    if scale.source is not ScaleSource.DATASET and scale.red_cells_measured < ENOUGH_ALONE:
        coarser = replace(scale, um_per_px=COARSER * scale.um_per_px)
        _, seen = _look(segmenter, image, overview, coarser)
        scale = scale if seen is coarser else seen
    look, better = _look(segmenter, image, overview, scale)
    for _ in range(MOST_LOOKS - 1):
        change = better.um_per_px / scale.um_per_px
        if abs(np.log(change)) < LOOK_AGAIN_FROM:
            break
        scale = better
        look, better = _look(segmenter, image, overview, scale)
        if (better.um_per_px / scale.um_per_px - 1) * (change - 1) < 0:
            # It went too far and comes back: the truth lies between.
            middle = (better.um_per_px * scale.um_per_px) ** 0.5
            better = replace(better, um_per_px=middle)
    return look, better


def _look(
    segmenter: Segmenter, image: SourceImage, overview: Overview, scale: Scale
) -> tuple[_Look, Scale]:
    """What the network sees at a scale, and the scale by the red cells among that."""
    zoom = _zoom(scale, NETWORK_UM)
    pixels = resized(image.pixels, zoom, overview.halved)
    density = optical_density(pixels, overview.lamp)
    maps = ask(segmenter, density)
    seen = find_instances(maps, scale.um_per_px / zoom)
    look = _Look(zoom=zoom, pixels=pixels, density=density, maps=maps, seen=seen)
    return look, scale_seen(overview, maps, scale, seen.nuclei_px / zoom)


def _by_density(image: SourceImage, overview: Overview, field: FieldCells) -> Stages:
    """What the classical search finds; `field` has scale and quality."""
    zoom = _zoom(field.scale, WORK_UM)
    um_per_px = field.scale.um_per_px / zoom
    pixels = resized(image.pixels, zoom, overview.halved)
    density = optical_density(pixels, overview.lamp)
    green = green_of(density)
    stained_from = stained_level(green)
    stained = (green > stained_from).astype(np.uint8)
    nuclei = find_nuclei(density, stained, um_per_px)
    outlines = find_outlines(density, nuclei, stained_from, um_per_px)
    ground = _ground(image, field.scale, zoom)
    rims = {
        label: nuclear_contours(label, view, nuclei, ground)
        for label, (view, _) in windows(nuclei.parts).items()
    }
    cells = _white_cells(_described(rims, outlines, ground, [1.0] * len(outlines)), ground)
    return Stages(
        pixels=pixels,
        density=density,
        stained=stained,
        nuclei=nuclei,
        outlines=outlines,
        found=replace(field, cells=_numbered(cells)),
    )


def _zoom(scale: Scale, um: float) -> float:
    """From the source picture to one of about `um` µm a pixel."""
    return min(scale.um_per_px / um, MOST_ENLARGED)


def _ground(image: SourceImage, scale: Scale, zoom: float) -> PixelTransform:
    return PixelTransform(
        grow=1 / zoom, um_per_px=scale.um_per_px, width=image.width, height=image.height
    )


def _described(
    rims: Mapping[int, tuple[Contour, ...]],
    outlines: list[Outline],
    ground: PixelTransform,
    confidences: list[float],
) -> list[Cell]:
    """The cells that have a nucleus; `rims` are those of each label's nucleus."""
    cells = (
        (describe(rims[label], outline, ground), confidence)
        for label, (outline, confidence) in enumerate(
            zip(outlines, confidences, strict=True), start=1
        )
        if label in rims
    )
    return [replace(cell, confidence=sure) for cell, sure in cells if cell is not None]


def central_cell(found: FieldCells, *, width: int, height: int) -> Cell | None:
    """The cell that a picture of a single cell shows: large and near the middle."""
    if not found.cells:
        return None

    def prominence(cell: Cell) -> float:
        across = cell.box.x + cell.box.width / 2 - width / 2
        down = cell.box.y + cell.box.height / 2 - height / 2
        off_center = (across**2 + down**2) / (0.25 * min(width, height)) ** 2
        return float(np.sqrt(max(cell.shape.area_um2, 1.0)) * np.exp(-off_center))

    return max(found.cells, key=prominence)


def _white_cells(found: list[Cell], ground: PixelTransform) -> list[Cell]:
    """Those that are no platelets; in a picture of one cell, its middle one whatever it is."""
    white = _large_enough(found)
    if white or not _may_be_one_cell(ground):
        return white
    middle = np.array([ground.width, ground.height]) / 2
    reach = 0.25 * min(ground.width, ground.height)
    central = [
        cell
        for cell in found
        if cell.shape.nucleus_area_um2 >= LEAST_CENTRAL_UM2
        and np.abs(cell.contour.mean(axis=0) - middle).max() < reach
    ]
    return sorted(central, key=lambda cell: -cell.shape.area_um2)[:1]


def _large_enough(found: list[Cell]) -> list[Cell]:
    """Those whose nucleus is no platelet and no stain deposit."""
    least = {True: CUT_SHARE * LEAST_NUCLEUS_UM2, False: LEAST_NUCLEUS_UM2}
    return [cell for cell in found if cell.shape.nucleus_area_um2 >= least[cell.is_cut_by_edge]]


def _sure_enough(found: list[Cell], ground: PixelTransform) -> list[Cell]:
    """Those that the network is sure enough of; a picture of one cell shows one anyhow."""
    if _may_be_one_cell(ground):
        return found
    return [cell for cell in found if cell.confidence >= LEAST_CONFIDENCE]


def _may_be_one_cell(ground: PixelTransform) -> bool:
    return max(ground.width, ground.height) * ground.um_per_px <= SINGLE_CELL_UM


def _numbered(cells: list[Cell]) -> tuple[Cell, ...]:
    """In reading order, with what touches what."""
    ordered = sorted(cells, key=lambda cell: (cell.box.y, cell.box.x))
    return tuple(
        replace(cell, index=index, is_touching=any(_touch(cell, other) for other in ordered))
        for index, cell in enumerate(ordered, start=1)
    )


def _touch(one: Cell, two: Cell) -> bool:
    """Whether two different cells come closer than the pixels of an outline tell."""
    if one is two or not _boxes_meet(one.box, two.box, TOUCHING_PX):
        return False
    return any(
        cv2.pointPolygonTest(two.contour, (float(x), float(y)), measureDist=True) >= -TOUCHING_PX
        for x, y in _points_near(one.contour, two.box, TOUCHING_PX)
    )


def _points_near(contour: Contour, box: Box, reach: float) -> Contour:
    x, y = contour[:, 0], contour[:, 1]
    is_near = (x >= box.x - reach) & (x <= box.x + box.width + reach)
    is_near &= (y >= box.y - reach) & (y <= box.y + box.height + reach)
    return contour[is_near]


def _boxes_meet(one: Box, two: Box, reach: float) -> bool:
    return (
        one.x - reach <= two.x + two.width
        and two.x - reach <= one.x + one.width
        and one.y - reach <= two.y + two.height
        and two.y - reach <= one.y + one.height
    )

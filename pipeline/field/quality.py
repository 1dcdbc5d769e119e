"""Judges how far a field can be trusted, with coded reasons.

A smear is something stained on something clear: its colors absorb green light most, whatever the
stain, while other pictures may have any color. Every figure is kept with the flags, so that a
reader sees how near the field was to a limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.domain import RGB, FieldQuality, QualityFlag, Scale, ScaleSource
from pipeline.field.optical_density import Density, Map
from pipeline.field.overview import Overview, overview_of, sampled
from pipeline.field.percentiles import median, percentiles

FINEST_UM = 0.15
"""A scale of the usual overview finer than this is not believed when focus is judged: blurred
cells look large."""
FLAT_LEVELS, DECODER_GRAY = 2, 128
"""Gray levels by which a row of one color may vary, and what JPEG decoders fill missing rows with.
"""
FORBIDDING = frozenset(
    {
        QualityFlag.NOT_A_SMEAR,
        QualityFlag.GRAYSCALE,
        QualityFlag.TRUNCATED,
        QualityFlag.EMPTY,
        QualityFlag.OUT_OF_FOCUS,
    }
)
"""What leaves nothing to count; every other flag refers the cells to an expert, or only warns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where a figure becomes a flag; set beside what the sources of the data pack show."""

    least_lamp: float = 70.0
    """Brightest color of clear glass, gray level; a field is lit from behind."""
    dark_lamp: float = 110.0
    """Below, colors are read from few gray levels."""
    most_clipped: float = 0.8
    """Share of pixels that are white in every color."""
    least_smear_hue: float = 0.75
    """Share of what is stained that holds back green about as much as red and blue, or more."""
    least_chroma: float = 0.16
    """Usual difference between the colors of what is stained: gray pictures have none."""
    most_roughness: float = 0.42
    """Part of the contrast that changes from pixel to pixel: noise is nothing else."""
    most_flat: float = 0.8
    """Share of pixels exactly like their neighbors: drawings, not photographs."""
    drawn_flat: float = 0.45
    drawn_roughness: float = 0.25
    """Both at once: text on paper."""
    most_hue_spread: float = 0.55
    """How far colors scatter, as shares of green: a stain has a few, a photograph many."""
    scattered_hue: float = 0.97
    """Scattered colors are believed to be stains while nearly all of them have their hue."""
    faint_contrast: float = 0.4
    """Below, as with a poor camera, noise and colored rims scatter the colors; photographs of
    other things are seldom so faint. Cells seen in the field then decide."""
    faint_smear_hue: float = 0.5
    most_chroma: float = 1.03
    """Above 1 a color is brighter than glass: light that no lamp sent through it."""
    violet_chroma: float = 1.2
    violet_hue_spread: float = 0.6
    """Some cameras draw nuclei bluer than glass. Up to here that is believed of one color only,
    and only where cells are seen beyond doubt."""
    least_red_cells: float = 8
    """Fewer that were measured prove no smear."""
    least_saturation: float = 10.0
    """Gray levels between the colors of a pixel that two of 100 reach; below, it is a gray picture.
    """
    most_missing: float = 0.02
    """Share of rows at the lower end that have the gray of a decoder that ran out of data."""
    most_flat_rows: float = 0.1
    """Share of rows at the lower end that have one color, in a picture that is refused anyhow."""
    least_contrast: float = 0.03
    """Green density that 99 of 100 pixels stay under; below, there is nothing on the glass."""
    thick_from: float = 0.93
    thin_under: float = 0.02
    """Share of the field that is covered."""
    pale_under: float = 0.04
    deep_from: float = 2.0
    """Usual green density of what is stained."""
    least_sharpness: float = 0.045
    """Steepest change of gray within 0.2 µm, over the whole range of grays."""


LIMITS = Limits()


def figures_of(pixels: RGB, overview: Overview, scale: Scale) -> dict[str, float]:
    """What the flags rest on, each a number that means the same in every field."""
    gray = cv2.cvtColor(overview.pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    red, middle, blue = cv2.split(overview.pixels)
    some = np.ascontiguousarray(sampled(overview.density)).reshape(-1, 3)
    of_stain = np.flatnonzero(sampled(overview.green) > overview.stained_from)
    some_pixels = cv2.split(np.ascontiguousarray(sampled(overview.pixels)))
    brightest = cv2.max(cv2.max(*some_pixels[:2]), some_pixels[2])
    darkest = cv2.min(cv2.min(*some_pixels[:2]), some_pixels[2])
    flat_rows, missing = _flat_rows(overview.pixels)
    return {
        "lamp": percentiles(brightest.astype(np.float32), 90)[0],
        "clipped": _share(cv2.min(cv2.min(red, middle), blue) >= 254),
        "covered": _share(overview.green > overview.stained_from),
        "contrast": percentiles(sampled(overview.green), 99)[0],
        "roughness": _roughness(gray),
        "flat": _flat_share(pixels),
        "sharpness": _sharpness(gray, _believed_um(scale, overview)),
        "saturation": percentiles((brightest - darkest).astype(np.float32), 98)[0],
        "flat_rows": flat_rows,
        "missing": missing,
        **_color_figures(np.take(some, of_stain, axis=0)),
    }


def _flat_rows(pixels: RGB) -> tuple[float, float]:
    """Shares of rows at the lower end that have one color, and of those that have the gray of
    missing JPEG data; a picture of one color all over has none.
    """
    last = pixels[-1, 0].astype(np.int16)
    height, flat = pixels.shape[0], 0
    while flat < height and int(np.abs(pixels[height - 1 - flat] - last).max()) <= FLAT_LEVELS:
        flat += 1
    share = flat / height if flat < height else 0.0
    is_fill = bool((np.abs(last - DECODER_GRAY) <= FLAT_LEVELS).all())
    return share, share if is_fill else 0.0


def _share(mask: NDArray[np.bool_]) -> float:
    return float(np.count_nonzero(mask)) / mask.size


def _color_figures(stained: Density) -> dict[str, float]:
    """Of N × 3 densities; what is not stained at all counts as without hue."""
    if len(stained) < 20:
        return {"smear_hue": 0.0, "hue_spread": 9.0, "chroma": 0.0, "stain": 0.0}
    red, green, blue = np.ascontiguousarray(stained.T)
    highest = np.maximum(np.maximum(red, green), blue)
    lowest = np.minimum(np.minimum(red, green), blue)
    chroma = (highest - lowest) / np.maximum(highest, 0.03)
    return {
        "smear_hue": float(((green >= 0.55 * red) & (green >= 0.75 * blue)).mean()),
        "hue_spread": _spread(red / np.maximum(green, 0.03))
        + _spread(blue / np.maximum(green, 0.03)),
        "chroma": median(chroma),
        "stain": median(green),
    }


def _spread(values: Map) -> float:
    """Half the distance between the 20th and the 80th of 100 values."""
    low, high = percentiles(values, 20, 80)
    return (high - low) / 2


def _roughness(gray: Map) -> float:
    fine = cv2.absdiff(gray, cv2.GaussianBlur(gray, (0, 0), 1.5))
    spread = float(cv2.meanStdDev(gray)[1].max())
    return float(cv2.mean(fine)[0]) / max(spread, 1.0)


def _flat_share(pixels: RGB) -> float:
    """On the middle of the picture at its own resolution, where shrinking mixed nothing."""
    height, width = pixels.shape[:2]
    top, left = max(0, height // 2 - 200), max(0, width // 2 - 200)
    middle = np.ascontiguousarray(pixels[top : top + 400, left : left + 400])
    # Red, green, blue and a constant in one number, so that one comparison tells all.
    whole = cv2.cvtColor(middle, cv2.COLOR_RGB2RGBA).view(np.uint32)[..., 0]
    if min(whole.shape) < 2:
        return 1.0
    own = whole[1:, 1:]
    return _share((own == whole[1:, :-1]) & (own == whole[:-1, 1:]))


def _sharpness(gray: Map, um_per_px: float) -> float:
    """Steepest edges over the whole contrast, per 0.2 µm: a blurred field has none."""
    smooth = cv2.GaussianBlur(gray, (0, 0), 0.7)
    steep = np.asarray(
        cv2.magnitude(
            cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=0.125),
            cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=0.125),
        ),
        dtype=np.float32,
    )
    low, high = percentiles(sampled(gray), 1, 99)
    (steepest,) = percentiles(steep, 99.5)
    return float(steepest / max(high - low, 4.0) * 0.2 / um_per_px)


def _believed_um(scale: Scale, overview: Overview) -> float:
    """A pixel of the overview, for judging focus."""
    return max(scale.um_per_px / overview.shrink, FINEST_UM * overview.coarser)


def judge_quality(
    pixels: RGB, scale: Scale, limits: Limits = LIMITS, *, overview: Overview | None = None
) -> FieldQuality:
    """The field's flags and figures; usable unless one of the flags forbids counting.

    `overview` is that of the same field, where it was made already.
    """
    seen = overview_of(pixels) if overview is None else overview
    return _judged(figures_of(pixels, seen, scale), scale, limits)


def at_scale(
    quality: FieldQuality, before: Scale, now: Scale, overview: Overview, limits: Limits = LIMITS
) -> FieldQuality:
    """The quality of a field whose scale is known better now; focus is all that depends on it."""
    was, is_now = (_believed_um(scale, overview) for scale in (before, now))
    sharpness = quality.figures["sharpness"] * was / is_now
    return _judged({**quality.figures, "sharpness": sharpness}, now, limits)


def wants_proof(quality: FieldQuality, scale: Scale, limits: Limits = LIMITS) -> bool:
    """Whether a picture is believed to be a smear only if cells are seen in it beyond doubt."""
    has_red_cells = scale.red_cells_measured >= limits.least_red_cells
    is_doubtful = _is_brighter(quality.figures, limits) or has_doubtful_colors(quality, limits)
    return quality.is_usable and (is_doubtful or not has_red_cells)


def has_doubtful_colors(quality: FieldQuality, limits: Limits = LIMITS) -> bool:
    """Whether the field's colors alone would refuse it, but it is too faint to go by them."""
    return is_faint(quality, limits) and _has_other_hues(quality.figures, limits)


def is_faint(quality: FieldQuality, limits: Limits = LIMITS) -> bool:
    """Whether what is on the glass hardly differs from it, as with a poor camera."""
    return quality.figures["contrast"] < limits.faint_contrast


def with_proof(
    quality: FieldQuality, scale: Scale, proofs: int, limits: Limits = LIMITS
) -> FieldQuality:
    """The quality of such a picture once it is known how much in it proves a smear."""
    return _judged({**quality.figures, "proofs": float(proofs)}, scale, limits)


def _judged(figures: Mapping[str, float], scale: Scale, limits: Limits) -> FieldQuality:
    flags = frozenset(_flags(figures, limits)) | frozenset(_scale_flags(scale))
    return FieldQuality(flags=flags, is_usable=not flags & FORBIDDING, figures=figures)


def _scale_flags(scale: Scale) -> Iterator[QualityFlag]:
    if scale.source is ScaleSource.ASSUMED:
        yield QualityFlag.SCALE_UNKNOWN


def _flags(figures: Mapping[str, float], limits: Limits) -> Iterator[QualityFlag]:
    if figures["contrast"] < limits.least_contrast:
        yield QualityFlag.EMPTY
    else:
        yield from _refusals(figures, limits)
    if figures["lamp"] < limits.dark_lamp:
        yield QualityFlag.UNDEREXPOSED
    if figures["clipped"] > limits.most_clipped:
        yield QualityFlag.OVEREXPOSED
    if not limits.pale_under < figures["stain"] < limits.deep_from:
        yield QualityFlag.STAIN_OUT_OF_RANGE
    if figures["covered"] > limits.thick_from:
        yield QualityFlag.TOO_THICK
    if figures["covered"] < limits.thin_under:
        yield QualityFlag.TOO_THIN
    if figures["sharpness"] < limits.least_sharpness:
        yield QualityFlag.OUT_OF_FOCUS


def _refusals(figures: Mapping[str, float], limits: Limits) -> Iterator[QualityFlag]:
    """Why the picture cannot be judged at all, by the most telling reason."""
    is_refused = _is_something_else(figures, limits)
    is_flat_below = figures["flat_rows"] > limits.most_flat_rows
    if figures["missing"] > limits.most_missing or (is_refused and is_flat_below):
        yield QualityFlag.TRUNCATED
    elif figures["saturation"] < limits.least_saturation:
        yield QualityFlag.GRAYSCALE
    elif is_refused:
        yield QualityFlag.NOT_A_SMEAR


def _is_something_else(figures: Mapping[str, float], limits: Limits) -> bool:
    """A photograph of anything else, a radiograph, a drawing, noise."""
    return (
        figures["lamp"] < limits.least_lamp
        or figures["smear_hue"] < limits.faint_smear_hue
        or figures["chroma"] < limits.least_chroma
        or figures["roughness"] > limits.most_roughness
        or figures["flat"] > limits.most_flat
        or figures.get("proofs", 1) == 0
        or (_is_brighter(figures, limits) and not _is_violet(figures, limits))
        or (figures["contrast"] >= limits.faint_contrast and _has_other_hues(figures, limits))
        or (figures["flat"] > limits.drawn_flat and figures["roughness"] > limits.drawn_roughness)
    )


def _has_other_hues(figures: Mapping[str, float], limits: Limits) -> bool:
    """Whether much of what is stained has not the hue of a stain, or hues scatter."""
    is_scattered = figures["hue_spread"] > limits.most_hue_spread
    return figures["smear_hue"] < (limits.scattered_hue if is_scattered else limits.least_smear_hue)


def _is_brighter(figures: Mapping[str, float], limits: Limits) -> bool:
    """In one of its colors, than clear glass."""
    return figures["chroma"] > limits.most_chroma


def _is_violet(figures: Mapping[str, float], limits: Limits) -> bool:
    """No brighter than nuclei are with some cameras, and of one color as they are."""
    return (
        figures["chroma"] < limits.violet_chroma
        and figures["hue_spread"] < limits.violet_hue_spread
        and figures["smear_hue"] > limits.scattered_hue
    )

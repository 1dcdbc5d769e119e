"""Draws the legend below an annotated field: lines, counts, network and scale bar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.domain import RGB, Call, FieldFindings, Scale, ScaleSource
from pipeline.rendering.pen import (
    AMBER,
    CALL_STYLES,
    GRAY,
    INK,
    LINES_IN_TEXT,
    WHITE,
    CallStyle,
    Color,
    Pen,
    blank,
    draw_mark,
    draw_sample,
    plain,
    small,
)

BAR_LENGTHS_UM = (2, 5, 10, 20, 50, 100, 200, 500)
BAR_SHARE = 0.2
"""The scale bar is the longest of these lengths that takes at most this share of the width."""
MODEL_HASH_DIGITS = 12
NOT_REVIEWED = "AI result, not reviewed"
CALL_ORDER = (Call.LEUKEMIC, Call.REFERRED, Call.NORMAL)
"""From the most urgent on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chip:
    """One piece of the legend: text, with the line and mark of a call before it or none."""

    text: str
    style: CallStyle | None = None
    color: Color = WHITE
    weight: int = 400


def legend_strip(
    pen: Pen,
    findings: FieldFindings,
    width: int,
    text_px: int,
    zoom: float,
    review_words: str = NOT_REVIEWED,
) -> RGB:
    """A strip `width` wide for a field that was enlarged `zoom` times."""
    rows = list(_rows(pen, list(_chips(findings)), width - text_px, text_px))
    bar_um = _bar_length_um(findings.scale, width, zoom)
    line = round(text_px * 1.6)
    strip = blank(width, line * (len(rows) + 1) + text_px // 2, INK)
    for number, row in enumerate(rows):
        x = text_px // 2
        for chip in row:
            _draw_chip(pen, strip, chip, x, round(line * (number + 0.82)), text_px)
            x += _chip_width(pen, chip, text_px)
    base = round(line * (len(rows) + 0.82))
    words = _identity(findings, review_words)
    identity = pen.fitting_size(words, small(text_px), round(width * 0.62))
    pen.write(strip, words, (text_px // 2, base), size=identity, color=GRAY)
    _draw_bar(pen, strip, findings.scale, bar_um, zoom, base, text_px)
    return strip


def _chips(findings: FieldFindings) -> Iterator[_Chip]:
    counts = Counter(finding.call for finding in findings.cells)
    for call in CALL_ORDER:
        yield _Chip(text=f"{call} {counts[call]}", style=CALL_STYLES[call], weight=700)
    if findings.cells:
        yield _Chip(text="number: probability leukemic", color=GRAY)
    reasons = Counter(reason for finding in findings.cells for reason in finding.reasons)
    if reasons:
        listed = ", ".join(f"{plain(reason)} {count}" for reason, count in reasons.most_common())
        yield _Chip(text=f"referred for: {listed}", color=GRAY)
    if findings.quality.is_usable and findings.quality.flags:
        flags = ", ".join(plain(flag) for flag in sorted(findings.quality.flags))
        yield _Chip(text=f"Field: {flags}", color=AMBER, weight=700)


def _rows(pen: Pen, chips: Sequence[_Chip], room: int, text_px: int) -> Iterator[list[_Chip]]:
    """Break the chips into rows as words are broken into lines."""
    row: list[_Chip] = []
    used = 0
    for chip in chips:
        needed = _chip_width(pen, chip, text_px)
        if row and used + needed > room:
            yield row
            row, used = [], 0
        row.append(chip)
        used += needed
    yield row


def _chip_width(pen: Pen, chip: _Chip, text_px: int) -> int:
    sample = round(text_px * 3.4) if chip.style else 0
    return sample + pen.width(chip.text, text_px, chip.weight) + round(text_px * 1.4)


def _draw_chip(pen: Pen, strip: RGB, chip: _Chip, x: int, base: int, text_px: int) -> None:
    middle = base - round(text_px * 0.34)
    if chip.style:
        loop = round(text_px * 2.0), round(text_px * 1.0)
        draw_sample(strip, chip.style, (x + text_px, middle), loop, text_px / LINES_IN_TEXT)
        at = (x + round(text_px * 2.7), middle)
        draw_mark(strip, chip.style.mark, at, round(text_px * 0.7), chip.style.color)
        x += round(text_px * 3.4)
    room = strip.shape[1] - x - text_px // 2
    size = pen.fitting_size(chip.text, text_px, room, chip.weight)
    pen.write(strip, chip.text, (x, base), size=size, color=chip.color, weight=chip.weight)


def _identity(findings: FieldFindings, review_words: str) -> str:
    model = findings.model
    digits = model.sha256[:MODEL_HASH_DIGITS]
    calibration = (
        f" | calibration {model.calibration.sha256[:MODEL_HASH_DIGITS]}"
        if model.calibration
        else ""
    )
    return f"{review_words} | {model.name} {model.version} | {digits}{calibration}"


def _bar_length_um(scale: Scale, width: int, zoom: float) -> int | None:
    """The bar's length, or None when the scale is not known."""
    if scale.source is ScaleSource.ASSUMED:
        return None
    room_um = width * BAR_SHARE * scale.um_per_px / zoom
    return max((length for length in BAR_LENGTHS_UM if length <= room_um), default=None)


def _draw_bar(
    pen: Pen, strip: RGB, scale: Scale, bar_um: int | None, zoom: float, base: int, text_px: int
) -> None:
    size, right = small(text_px), strip.shape[1] - text_px // 2
    if bar_um is None:
        text = "scale not known"
        pen.write(strip, text, (right - pen.width(text, size), base), size=size, color=GRAY)
        return
    length = round(bar_um * zoom / scale.um_per_px)
    source = " (from red cells)" if scale.source is ScaleSource.RED_CELLS else ""
    text = f"{bar_um} µm{source}"
    _paint_bar(strip, right - length, length, base - text_px // 3, text_px)
    at = (right - length - text_px // 2 - pen.width(text, size), base)
    pen.write(strip, text, at, size=size, color=WHITE)


def _paint_bar(strip: RGB, left: int, length: int, y: int, text_px: int) -> None:
    """Paint a bar with ticks on `strip`, `length` wide from end to end.

    Not by cv2.line, whose round caps would make it longer than it says.
    """
    thick, tick = max(2, text_px // 6), text_px // 3
    strip[y - thick // 2 : y - thick // 2 + thick, left : left + length] = WHITE
    strip[y - tick : y + tick, left : left + 2] = WHITE
    strip[y - tick : y + tick, left + length - 2 : left + length] = WHITE

"""Draws findings over the field in which they were found: the annotated picture.

The picture keeps its geometry; the banner stands above it and the legend below, so neither
covers a cell. Text and lines are measured in thousandths of the long side, because a viewer
fits the whole picture to its window whatever its size in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pipeline.domain import (
    RGB,
    Call,
    CellFinding,
    Contour,
    FieldFindings,
    SourceImage,
)
from pipeline.findings.smear_summary import finding_word
from pipeline.rendering.gallery import draw_gallery
from pipeline.rendering.label_placement import Label, Rect, place_labels
from pipeline.rendering.legend import CALL_ORDER, NOT_REVIEWED, legend_strip
from pipeline.rendering.pen import (
    CALL_COLOURS,
    CALL_STYLES,
    INK,
    LINES_IN_TEXT,
    CallStyle,
    Pen,
    blank,
    draw_mark,
    draw_outline,
    draw_plate,
    notice_strip,
    plain,
    research_banner,
    small,
)

__all__ = ["CALL_COLOURS", "MIN_LONG_SIDE_PX", "draw_field", "draw_gallery", "enlargement"]

MIN_LONG_SIDE_PX = 1024
"""A smaller field is enlarged to this: lines and text need pixels to be drawn with."""
MIN_WIDTH_SHARE = 0.6
"""A narrow field gets a margin up to this share of its height: the strips need room."""
MOST_TWO_LINE_LABELS = 36
"""Above this many cells the labels lose their second line, or they would cover the field."""


def enlargement(width: int, height: int) -> float:
    """How much a field of this size is enlarged before it is drawn on; 1 leaves it as it is."""
    return max(1.0, MIN_LONG_SIDE_PX / max(width, height))


def draw_field(
    image: SourceImage, findings: FieldFindings, *, review_words: str = NOT_REVIEWED
) -> RGB:
    """The annotated picture of one field: banner, field with outlines and labels, legend."""
    pen = Pen()
    zoom = enlargement(image.width, image.height)
    picture = _enlarged(image.pixels, zoom)
    text_px = _text_px(picture)
    _draw_cells(pen, picture, findings.cells, zoom, text_px)
    body = _with_margin(picture)
    width = body.shape[1]
    strips = [research_banner(pen, width, round(text_px * 1.15))]
    if not findings.quality.is_usable:
        strips.append(notice_strip(pen, width, text_px, _unusable_notice(findings)))
    return np.vstack(
        [*strips, body, legend_strip(pen, findings, width, text_px, zoom, review_words)]
    )


def _enlarged(pixels: RGB, zoom: float) -> RGB:
    if zoom == 1.0:
        return pixels.copy()
    size = round(pixels.shape[1] * zoom), round(pixels.shape[0] * zoom)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def _text_px(picture: RGB) -> int:
    long_side: int = max(picture.shape[:2])
    return max(15, round(long_side * 0.0165))


def _with_margin(picture: RGB) -> RGB:
    height, width = picture.shape[:2]
    wanted = max(width, round(height * MIN_WIDTH_SHARE))
    if wanted == width:
        return picture
    body = blank(wanted, height, INK)
    left = (wanted - width) // 2
    body[:, left : left + width] = picture
    return body


def _unusable_notice(findings: FieldFindings) -> str:
    flags = ", ".join(plain(flag) for flag in sorted(findings.quality.flags)) or "quality"
    return f"FIELD NOT COUNTED: {flags}. Refer to an expert."


# --- cells and their labels


def _draw_cells(
    pen: Pen, picture: RGB, cells: Sequence[CellFinding], zoom: float, text_px: int
) -> None:
    """Outlines first, then leaders, then labels, so that no line runs through a label."""
    line_px = text_px / LINES_IN_TEXT
    for finding in cells:
        style = CALL_STYLES[finding.call]
        for nucleus in finding.cell.nucleus_contours:
            thin = max(1, round(line_px / 2))
            cv2.polylines(picture, [_zoomed(nucleus, zoom)], True, style.color, thin, cv2.LINE_AA)
        draw_outline(picture, _zoomed(finding.cell.contour, zoom), style, line_px)
    by_urgency = sorted(cells, key=lambda f: (CALL_ORDER.index(f.call), f.cell.index))
    texts = [_label_lines(finding, len(cells)) for finding in by_urgency]
    labels = [
        _label(pen, finding, lines, zoom, text_px)
        for finding, lines in zip(by_urgency, texts, strict=True)
    ]
    places = place_labels(
        labels, width=picture.shape[1], height=picture.shape[0], gap=max(2, round(line_px))
    )
    for finding, place in zip(by_urgency, places, strict=True):
        _draw_leader(picture, finding, place, zoom, max(1, text_px // 10))
    for finding, lines, place in zip(by_urgency, texts, places, strict=True):
        _draw_label(pen, picture, CALL_STYLES[finding.call], lines, place, text_px)


def _zoomed(contour: Contour, zoom: float) -> Contour:
    """Pixel centers stay pixel centers."""
    return np.round((contour + 0.5) * zoom - 0.5).astype(np.int32)


def _label_lines(finding: CellFinding, cells: int) -> tuple[str, ...]:
    first = f"#{finding.cell.index} {finding.prediction.leukemic_probability:.2f}"
    if cells > MOST_TWO_LINE_LABELS:
        return (first,)
    if finding.call is Call.REFERRED and finding.reasons:
        return first, f"refer: {plain(finding.reasons[0])}"
    word = finding_word(finding)
    return first, f"person: {word}" if finding.decision is not None else word


def _label(
    pen: Pen, finding: CellFinding, lines: Sequence[str], zoom: float, text_px: int
) -> Label:
    box = finding.cell.box
    first = pen.width(lines[0], text_px, 700) + text_px
    rest = [pen.width(line, small(text_px)) for line in lines[1:]]
    return Label(
        anchor=(
            round(box.x * zoom),
            round(box.y * zoom),
            round(box.width * zoom),
            round(box.height * zoom),
        ),
        width=max([first, *rest]) + round(text_px * 0.6),
        height=round(text_px * (1.35 + 1.0 * len(rest))),
    )


def _draw_label(
    pen: Pen,
    picture: RGB,
    style: CallStyle,
    lines: Sequence[str],
    place: Rect,
    text_px: int,
) -> None:
    x, y, width, height = place
    draw_plate(picture, x, y, width, height, 0.74)
    pad = round(text_px * 0.3)
    base = y + round(text_px * 1.02)
    mark_at = (x + pad + text_px // 3, base - round(text_px * 0.36))
    draw_mark(picture, style.mark, mark_at, round(text_px * 0.66), style.color)
    pen.write(picture, lines[0], (x + pad + text_px, base), size=text_px, weight=700)
    for number, line in enumerate(lines[1:], start=1):
        at = (x + pad, base + round(number * text_px * 0.98))
        pen.write(picture, line, at, size=small(text_px), color=(232, 232, 236))


def _draw_leader(
    picture: RGB, finding: CellFinding, place: Rect, zoom: float, thickness: int
) -> None:
    """A line from a label that had to stand off to the nearest point of its cell's outline."""
    outline = _zoomed(finding.cell.contour, zoom)
    box = cv2.boundingRect(outline)
    start = _nearest(place, (box[0] + box[2] // 2, box[1] + box[3] // 2))
    away = np.hypot(outline[:, 0] - start[0], outline[:, 1] - start[1])
    if away.min() > place[3] * 0.6:
        end = int(outline[away.argmin(), 0]), int(outline[away.argmin(), 1])
        cv2.line(picture, start, end, INK, thickness + 2, cv2.LINE_AA)
        cv2.line(picture, start, end, CALL_COLOURS[finding.call], thickness, cv2.LINE_AA)


def _nearest(rect: Rect, point: tuple[int, int]) -> tuple[int, int]:
    x, y, width, height = rect
    return max(x, min(point[0], x + width)), max(y, min(point[1], y + height))

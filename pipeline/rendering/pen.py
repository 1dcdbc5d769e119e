"""Draws the parts that all our pictures share: colors, text, outlines and strips.

Colors are RGB. The three calls differ in color (Okabe and Ito's palette for the
color-blind), in line style and in mark, so none of the three is told apart by color alone.
Nothing here alters the array that it is given: each public function says what it draws on,
and canvases are made by the caller for drawing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.domain import RESEARCH_USE_ONLY, RGB, Call, Contour

Color = tuple[int, int, int]

INK: Color = (22, 22, 28)
PAPER: Color = (246, 246, 248)
WHITE: Color = (255, 255, 255)
GRAY: Color = (176, 178, 186)
AMBER: Color = (255, 190, 40)

LINES_IN_TEXT = 8
"""An outline of one line width is this part of the text's height."""

CALL_COLOURS: Mapping[Call, Color] = MappingProxyType(
    {
        Call.LEUKEMIC: (213, 94, 0),
        Call.NORMAL: (0, 158, 115),
        Call.REFERRED: (240, 228, 66),
    }
)


class Mark(Enum):
    """The small sign beside a label."""

    TRIANGLE = "triangle"
    DISC = "disc"
    DIAMOND = "diamond"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStyle:
    """How the outline of a call is drawn; `dash` counts in line widths, None is a full line."""

    color: Color
    width: float
    dash: tuple[float, float] | None
    mark: Mark


CALL_STYLES: Mapping[Call, CallStyle] = MappingProxyType(
    {
        Call.LEUKEMIC: CallStyle(
            color=CALL_COLOURS[Call.LEUKEMIC], width=1.6, dash=None, mark=Mark.TRIANGLE
        ),
        Call.NORMAL: CallStyle(
            color=CALL_COLOURS[Call.NORMAL], width=1.0, dash=None, mark=Mark.DISC
        ),
        Call.REFERRED: CallStyle(
            color=CALL_COLOURS[Call.REFERRED], width=1.2, dash=(5.0, 4.0), mark=Mark.DIAMOND
        ),
    }
)


FACE = "sans"
"""The TrueType face that OpenCV carries."""


@dataclass(frozen=True, slots=True)
class Pen:
    """Writes text; one pen a picture."""

    face: cv2.FontFace = field(default_factory=lambda: cv2.FontFace(FACE), init=False)

    def width(self, text: str, size: int, weight: int = 400) -> int:
        """Width of `text` in pixels."""
        return _width(text, size, weight)

    def fitting_size(self, text: str, size: int, room: int, weight: int = 400) -> int:
        """`size`, or the smaller size at which `text` fits into `room` pixels."""
        needed = self.width(text, size, weight)
        return size if needed <= room else max(6, int(size * room / needed))

    def lines(self, text: str, size: int, room: int, weight: int = 400) -> list[str]:
        """`text` in lines of whole words that fit into `room` pixels."""
        lines: list[str] = []
        for word in text.split():
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and self.width(longer, size, weight) <= room:
                lines[-1] = longer
            else:
                lines.append(word)
        return lines

    def listed(self, words: Sequence[str], size: int, room: int) -> str:
        """The first word, as many more as fit into `room` pixels, and `+` with the number left out.

        The words come in the order of their weight.
        """
        for shown in range(len(words), 0, -1):
            rest = f" +{len(words) - shown}" if shown < len(words) else ""
            text = ", ".join(words[:shown]) + rest
            if shown == 1 or self.width(text, size) <= room:
                return text
        return ""

    def write(
        self,
        canvas: RGB,
        text: str,
        at: tuple[int, int],
        *,
        size: int,
        color: Color = WHITE,
        weight: int = 400,
    ) -> None:
        """Draw `text` on `canvas`, `at` being its left end on the base line."""
        cv2.putText(canvas, text, at, color, self.face, size, weight)


@lru_cache(maxsize=4096)
def _width(text: str, size: int, weight: int) -> int:
    """The pictures of a smear say the same words many times."""
    rect = cv2.getTextSize((0, 0), text, (0, 0), cv2.FontFace(FACE), size, weight)
    return int(rect[0] + rect[2])


def draw_outline(canvas: RGB, contour: Contour, style: CallStyle, line_px: float) -> None:
    """Draw a closed outline on `canvas`, with a dark halo that shows it on any ground."""
    width = max(1, round(style.width * line_px))
    for color, thickness in ((INK, width + max(2, round(line_px))), (style.color, width)):
        if style.dash is None:
            cv2.polylines(canvas, [contour], True, color, thickness, cv2.LINE_AA)
        else:
            on, off = (part * width for part in style.dash)
            dashes = list(_dashes(contour, on, off))
            cv2.polylines(canvas, dashes, False, color, thickness, cv2.LINE_AA)


def draw_sample(
    canvas: RGB, style: CallStyle, center: tuple[int, int], size: tuple[int, int], line_px: float
) -> None:
    """Draw a small outline on `canvas` as a legend shows it, `size` wide and high."""
    half = size[0] // 2, size[1] // 2
    loop = np.array(cv2.ellipse2Poly(center, half, 0, 0, 350, 10), dtype=np.int32)
    draw_outline(canvas, loop, style, line_px)


def _dashes(contour: Contour, on_px: float, off_px: float) -> Iterator[Contour]:
    """Cut a closed outline into pieces `on_px` long with gaps of about `off_px`."""
    closed = np.vstack([contour, contour[:1]]).astype(np.float64)
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    count = max(2, round(along[-1] / (on_px + off_px)))
    pitch = along[-1] / count
    for number in range(count):
        stops = np.linspace(number * pitch, number * pitch + pitch * on_px / (on_px + off_px), 6)
        points = np.stack([np.interp(stops, along, closed[:, axis]) for axis in (0, 1)], axis=1)
        yield np.round(points).astype(np.int32)


def draw_mark(canvas: RGB, mark: Mark, center: tuple[int, int], size: int, color: Color) -> None:
    """Draw the sign of a call on `canvas`, `size` pixels high."""
    x, y = center
    half = size // 2
    if mark is Mark.DISC:
        cv2.circle(canvas, center, half, color, cv2.FILLED, cv2.LINE_AA)
        return
    corners = {
        Mark.TRIANGLE: [(x, y - half), (x + half, y + half), (x - half, y + half)],
        Mark.DIAMOND: [(x, y - half), (x + half, y), (x, y + half), (x - half, y)],
    }[mark]
    cv2.fillPoly(canvas, [np.array(corners, dtype=np.int32)], color, cv2.LINE_AA)


def draw_plate(canvas: RGB, x: int, y: int, width: int, height: int, opacity: float) -> None:
    """Darken a rectangle of `canvas` so that light text stands out on it."""
    region = canvas[max(0, y) : y + height, max(0, x) : x + width]
    ink = np.array(INK, dtype=np.float32)
    region[:] = (region * (1.0 - opacity) + ink * opacity).astype(np.uint8)


def blank(width: int, height: int, color: Color) -> RGB:
    """A new canvas of one color."""
    canvas: NDArray[np.uint8] = np.empty((height, width, 3), dtype=np.uint8)
    canvas[:1] = color
    canvas[1:] = canvas[:1]  # whole rows: twenty times as fast as pixel by pixel
    return canvas


def research_banner(pen: Pen, width: int, size: int) -> RGB:
    """The strip that says what the picture may not be used for."""
    strip = blank(width, round(size * 2.1), INK)
    return _centered(pen, strip, RESEARCH_USE_ONLY, size, AMBER)


def notice_strip(pen: Pen, width: int, size: int, text: str) -> RGB:
    """A strip on an amber ground for what a reader must not miss."""
    return _centered(pen, blank(width, round(size * 2.1), AMBER), text, size, INK)


def _centered(pen: Pen, strip: RGB, text: str, size: int, color: Color) -> RGB:
    width, fitted = strip.shape[1], pen.fitting_size(text, size, int(strip.shape[1] * 0.96), 700)
    at = (width - pen.width(text, fitted, 700)) // 2, (strip.shape[0] + round(fitted * 0.72)) // 2
    pen.write(strip, text, at, size=fitted, color=color, weight=700)
    return strip


def draw_share(
    canvas: RGB, x: int, y: int, width: int, share: float, color: Color, height: int = 9
) -> None:
    """Draw a bar on `canvas` that is filled up to `share` (0 to 1)."""
    cv2.rectangle(canvas, (x, y), (x + width - 1, y + height), (62, 64, 74), cv2.FILLED)
    if share > 0:
        end = x + max(1, round(share * (width - 1)))
        cv2.rectangle(canvas, (x, y), (end, y + height), color, cv2.FILLED)


def small(text_px: int) -> int:
    """Height of text of the second rank beside text of `text_px`."""
    return max(11, round(text_px * 0.82))


def provider_words(execution_provider: str) -> str:
    """ONNX Runtime's provider as a reader knows it: `CPUExecutionProvider` is the CPU."""
    names = [name.removesuffix("ExecutionProvider") for name in execution_provider.split("+")]
    return "on " + " and ".join({"CUDA": "an NVIDIA GPU", "CPU": "CPU"}.get(n, n) for n in names)


def plain(word: str) -> str:
    """An enumeration's value as a reader sees it."""
    return word.replace("_", " ")

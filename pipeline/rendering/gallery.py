"""Draws the one picture of a smear that a busy reader opens: most suspicious cells, and counts.

Every cell is shown at the same physical scale, with the network's activation map beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.domain import (
    RGB,
    Call,
    CellFinding,
    FieldFindings,
    ReferralReason,
    SmearFindings,
    SOPInstanceUID,
    SourceImage,
)
from pipeline.findings.percentages import MIN_CELLS_FOR_PERCENT
from pipeline.findings.smear_summary import decision_words, finding_word, found_cell_count
from pipeline.rendering.gallery_summary import (
    CHART_X_PX,
    MARGIN_PX,
    WIDTH_PX,
    chart_height,
    draw_differential,
    draw_summary,
)
from pipeline.rendering.legend import NOT_REVIEWED
from pipeline.rendering.pen import (
    CALL_STYLES,
    GRAY,
    INK,
    WHITE,
    Pen,
    blank,
    draw_mark,
    draw_share,
    notice_strip,
    plain,
    provider_words,
    research_banner,
)

COLUMNS = 3
MOST_CELLS = 12
"""Three columns and four rows are read at one glance on a reading-room screen."""
TILE_PX = 180
TILE_GAP_PX = 4
CARD_HEIGHT_PX = 262
CARD_PITCH_PX = 388
WINDOW_UM = 24.0
"""Side of the square of the smear that each tile shows; the network saw the same square."""
HEAT_OPACITY = 0.62
WORDS_PX, SMALLEST_WORDS_PX, WHERE_PX = 20, 17, 16
"""Height of a card's words, and the least at which they are still read."""

MODEL_HASH_DIGITS = 12
PHANTOM_WORDS = "DIGITAL PHANTOM - drawn by a program, of no patient"
URGENCY = (Call.LEUKEMIC, Call.REFERRED, Call.NORMAL)

Pictures = Callable[[SOPInstanceUID, int], SourceImage]
"""Gives the decoded frame of a source image; asked in the order of SOP Instance UID and frame."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Card:
    """One cell of the gallery: what was found, in which field, and its two tiles."""

    finding: CellFinding
    field_number: int
    tile: RGB
    heat_tile: RGB


def draw_gallery(
    smear: SmearFindings,
    pictures: Pictures,
    *,
    least_cells: int = MIN_CELLS_FOR_PERCENT,
    is_phantom: bool = False,
) -> RGB:
    """The gallery of one smear, 1600 pixels wide."""
    cards = cut_cards(smear, pictures)
    return compose_gallery(smear, cards, least_cells=least_cells, is_phantom=is_phantom)


def compose_gallery(
    smear: SmearFindings,
    cards: Sequence[Card],
    *,
    least_cells: int = MIN_CELLS_FOR_PERCENT,
    is_phantom: bool = False,
    review_words: str = NOT_REVIEWED,
) -> RGB:
    """The gallery of cells that were cut already; no percentages below `least_cells`."""
    pen = Pen()
    strips = [research_banner(pen, WIDTH_PX, 30)]
    if is_phantom:
        strips.append(notice_strip(pen, WIDTH_PX, 24, PHANTOM_WORDS))
    strips.append(draw_summary(pen, smear, least_cells=least_cells))
    strips.append(_cells_and_chart(pen, smear, cards, least_cells))
    strips.append(_footer(pen, smear, review_words))
    return np.vstack(strips)


# --- which cells, and their tiles


def cut_cards(smear: SmearFindings, pictures: Pictures) -> list[Card]:
    """Cards in order of suspicion; each field is decoded once, in stored order."""
    return CardCutter(smear).cards(pictures)


class CardCutter:
    """Cuts the cards of one smear, of each field when it is decoded anyway."""

    def __init__(self, smear: SmearFindings) -> None:
        self._smear = smear
        self._chosen = most_suspicious(smear, MOST_CELLS)
        self._hottest = max(
            (float(f.prediction.activation_map.max()) for _, f in self._chosen), default=0.0
        )
        self._missing = {
            (smear.fields[number].sop_instance_uid, smear.fields[number].frame): number
            for number in sorted({number for number, _ in self._chosen})
        }
        """Number of each field of which cards are still to be cut, in stored order."""
        self._cards: dict[int, Card] = {}

    def see(self, image: SourceImage) -> None:
        """Cut the cards of a frame, if it has any that were not cut yet."""
        number = self._missing.pop((image.sop_instance_uid, image.frame), None)
        if number is None:
            return
        field = self._smear.fields[number]
        for rank, (of_field, finding) in enumerate(self._chosen):
            if of_field == number:
                self._cards[rank] = self._card(image, finding, number, field)

    @property
    def fields(self) -> frozenset[tuple[SOPInstanceUID, int]]:
        """Image and frame of each field of which cards are still to be cut."""
        return frozenset(self._missing)

    @property
    def cut(self) -> Mapping[int, Card]:
        """The cards so far, by their place in the order of suspicion."""
        return dict(self._cards)

    def add(self, cut: Mapping[int, Card]) -> None:
        """Take over the cards that another cutter of the same smear has cut of whole fields."""
        for rank, card in cut.items():
            number, finding = self._chosen[rank]
            field = self._smear.fields[number]
            self._missing.pop((field.sop_instance_uid, field.frame), None)
            self._cards[rank] = replace(card, finding=finding)

    def cards(self, pictures: Pictures) -> list[Card]:
        """All cards in order of suspicion; fields that were not seen are decoded now."""
        for sop_instance_uid, frame in list(self._missing):
            self.see(pictures(sop_instance_uid, frame))
        return [self._cards[rank] for rank in range(len(self._chosen))]

    def _card(
        self, image: SourceImage, finding: CellFinding, number: int, field: FieldFindings
    ) -> Card:
        tile = _tile(image, finding, field)
        # A map tells where, not how sure: a cell at 0.02 must not glow like one at 0.98.
        sure = finding.prediction.leukemic_probability
        heat = finding.prediction.activation_map * np.float32(sure)
        return Card(
            finding=finding,
            field_number=number + 1,
            tile=tile,
            heat_tile=_outlined(_heated(tile, heat, self._hottest), finding, field),
        )


def most_suspicious(smear: SmearFindings, most: int) -> list[tuple[int, CellFinding]]:
    """Up to `most` cells with the number of their field from 0: leukemic, doubtful, the rest.

    A cell that is referred only because the edge of the picture cuts it is not suspicious for
    that: it stands among the rest, or it would push doubtful cells off the page.
    """
    cells = [(number, f) for number, field in enumerate(smear.fields) for f in field.cells]
    return sorted(cells, key=_suspicion)[:most]


def _suspicion(numbered: tuple[int, CellFinding]) -> tuple[int, float, int, int]:
    number, finding = numbered
    probability = finding.prediction.leukemic_probability
    is_only_cut = set(finding.reasons) == {ReferralReason.CUT_BY_EDGE}
    call = Call.NORMAL if is_only_cut else finding.call
    return URGENCY.index(call), -probability, number, finding.cell.index


def _tile(image: SourceImage, finding: CellFinding, field: FieldFindings) -> RGB:
    """The square around a cell, resampled to the tile; the outside of the picture is black."""
    matrix = _to_tile(finding, field)
    zoom = matrix[0, 0]
    pixels = cv2.GaussianBlur(image.pixels, (0, 0), 0.4 / zoom) if zoom < 0.6 else image.pixels
    size = TILE_PX, TILE_PX
    tile = cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_CUBIC, borderValue=INK)
    return np.asarray(tile, dtype=np.uint8)


def _to_tile(finding: CellFinding, field: FieldFindings) -> NDArray[np.float64]:
    """The 2 × 3 matrix from source pixels to tile pixels, the cell's box in the middle."""
    box, zoom = finding.cell.box, TILE_PX * field.scale.um_per_px / WINDOW_UM
    middle = (TILE_PX - 1) / 2
    left = middle - zoom * (box.x + (box.width - 1) / 2)
    top = middle - zoom * (box.y + (box.height - 1) / 2)
    return np.array([[zoom, 0, left], [0, zoom, top]])


def _outlined(tile: RGB, finding: CellFinding, field: FieldFindings) -> RGB:
    """The tile with the cell's own outline, to tell it from its neighbors."""
    matrix = _to_tile(finding, field)
    outline = np.round(finding.cell.contour @ matrix[:, :2].T + matrix[:, 2]).astype(np.int32)
    outlined = tile.copy()
    cv2.polylines(outlined, [outline], True, WHITE, 1, cv2.LINE_AA)
    return outlined


def _heated(tile: RGB, heat: NDArray[np.float32], hottest: float) -> RGB:
    """The tile under its activation map: cold shows the cell, hot shows the map's color."""
    share = heat / hottest if hottest > 0 else np.zeros_like(heat)
    smooth = cv2.resize(share, (TILE_PX, TILE_PX), interpolation=cv2.INTER_CUBIC)
    level = np.clip(smooth, 0.0, 1.0)
    colors = cv2.applyColorMap((level * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    opacity = HEAT_OPACITY * np.minimum(1.0, level * 2)[..., None]
    gray = cv2.cvtColor(cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    heated: RGB = (gray * (1 - opacity) + colors * opacity).astype(np.uint8)
    return heated


# --- cells on the left, differential on the right


def _cells_and_chart(
    pen: Pen, smear: SmearFindings, cards: Sequence[Card], least_cells: int
) -> RGB:
    rows = -(-len(cards) // COLUMNS)
    canvas = blank(WIDTH_PX, max(60 + rows * CARD_HEIGHT_PX, chart_height(smear)), INK)
    cv2.line(canvas, (MARGIN_PX, 2), (WIDTH_PX - MARGIN_PX, 2), (70, 72, 82), 1)
    found = found_cell_count(smear)
    title = f"{len(cards)} of {found:,} cells, most suspicious first" if cards else "No cells found"
    pen.write(canvas, title, (MARGIN_PX, 40), size=26, weight=700)
    if cards:
        note = f"each tile {WINDOW_UM:g} µm wide; right: where the network saw 'leukemic'"
        x = MARGIN_PX + pen.width(title, 26, 700) + 24
        size = pen.fitting_size(note, 19, CHART_X_PX - x - 24)
        pen.write(canvas, note, (x, 40), size=size, color=GRAY)
    for rank, card in enumerate(cards):
        row, column = divmod(rank, COLUMNS)
        _draw_card(pen, canvas, card, MARGIN_PX + column * CARD_PITCH_PX, 60 + row * CARD_HEIGHT_PX)
    draw_differential(pen, canvas, smear, least_cells=least_cells)
    return canvas


def _draw_card(pen: Pen, canvas: RGB, card: Card, x: int, y: int) -> None:
    style = CALL_STYLES[card.finding.call]
    probability = card.finding.prediction.leukemic_probability
    second = x + TILE_PX + TILE_GAP_PX
    canvas[y : y + TILE_PX, x : x + TILE_PX] = card.tile
    canvas[y : y + TILE_PX, second : second + TILE_PX] = card.heat_tile
    right = second + TILE_PX
    cv2.rectangle(canvas, (x - 2, y - 2), (right + 1, y + TILE_PX + 1), style.color, 2)
    draw_share(canvas, x, y + TILE_PX + 8, right - x, probability, style.color)
    base = y + TILE_PX + 42
    draw_mark(canvas, style.mark, (x + 9, base - 8), 17, style.color)
    pen.write(canvas, f"{probability:.2f}", (x + 26, base), size=24, weight=700)
    words = _card_words(pen, card.finding, right - x - 90)
    size = pen.fitting_size(words, WORDS_PX, right - x - 90)
    pen.write(canvas, words, (x + 90, base), size=size)
    parts = (f"field {card.field_number}  #{card.finding.cell.index}", decision_words(card.finding))
    where = "; ".join(filter(None, parts))
    size = pen.fitting_size(where, WHERE_PX, right - x - 26)
    pen.write(canvas, where, (x + 26, base + 22), size=size, color=GRAY)


def _card_words(pen: Pen, finding: CellFinding, room: int) -> str:
    """What was decided; of a referred cell as many reasons as are legible, and how many more."""
    if finding.call is not Call.REFERRED:
        return finding_word(finding)
    heading = "refer: "
    reasons = [plain(reason) for reason in finding.reasons]
    left = room - pen.width(heading, SMALLEST_WORDS_PX)
    return heading + pen.listed(reasons, SMALLEST_WORDS_PX, left)


def _footer(pen: Pen, smear: SmearFindings, review_words: str) -> RGB:
    model = smear.model
    calibration = (
        f" | calibration {model.calibration.sha256[:MODEL_HASH_DIGITS]}"
        if model.calibration
        else ""
    )
    text = (
        f"{review_words} | {model.name} {model.version} | "
        f"{model.sha256[:MODEL_HASH_DIGITS]} | {provider_words(model.execution_provider)}"
        f"{calibration}"
    )
    strip = blank(WIDTH_PX, 48, INK)
    pen.write(strip, text, (MARGIN_PX, 30), size=18, color=GRAY)
    return strip

"""Draws the counts of a gallery: the summary at its head, differential and fields at its side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pipeline.domain import (
    RGB,
    Call,
    CountWarning,
    FieldFindings,
    Grade,
    SmearFindings,
)
from pipeline.findings.percentages import has_percentages, interval_text, percent_text
from pipeline.findings.smear_summary import (
    BLAST_WORD,
    differential_words,
    found_cell_count,
    referred_cell_count,
    usable_field_count,
)
from pipeline.rendering.pen import (
    AMBER,
    CALL_STYLES,
    GRAY,
    INK,
    WHITE,
    Pen,
    blank,
    draw_mark,
    draw_share,
    plain,
)

WIDTH_PX = 1600
"""Of the whole gallery."""
MARGIN_PX = 32
CHART_X_PX = 1216
FIELD_ROW_PX = 28
LEAST_FIELD_ROWS = 5
"""Fields that are listed however few cells there are to show."""
NOTE_PX, NOTE_WEIGHT = 22, 600
FIELD_COLUMNS = (Call.LEUKEMIC, Call.NORMAL, Call.REFERRED)
CHART_NOTE = "Only counted cells make up the percentages."
NETWORKS_TYPES = "The types are the network's."
PEOPLES_TYPES = "The types are a person's where one decided."

GRADE_WORDS = {
    Grade.NONE_SEEN: "No leukemic cells seen",
    Grade.FEW: "Few leukemic cells",
    Grade.MANY: "Many leukemic cells",
    Grade.REFER: "Refer to an expert",
}
WARNING_WORDS = {
    CountWarning.BELOW_100: "Fewer than 100 white cells counted: the count is rough.",
    CountWarning.BELOW_200: "Fewer than 200 white cells counted (CLSI H20 asks for 200).",
}


def draw_summary(pen: Pen, smear: SmearFindings, *, least_cells: int) -> RGB:
    """A strip with the grade, why, the counts, and what a reader must not miss."""
    room = WIDTH_PX - 2 * MARGIN_PX
    notes = [
        line
        for note in _notes(smear, least_cells)
        for line in pen.lines(f"! {note}", NOTE_PX, room, NOTE_WEIGHT)
    ]
    strip = blank(WIDTH_PX, 172 + 30 * len(notes), INK)
    headline = GRADE_WORDS[smear.grade]
    pen.write(strip, headline, (MARGIN_PX, 62), size=46, weight=700)
    reason = " ".join([smear.grade_reason, *_share_words(smear, least_cells)])
    size = pen.fitting_size(reason, 24, room)
    pen.write(strip, reason, (MARGIN_PX, 102), size=size, color=(226, 226, 232))
    _counts(pen, strip, smear, 146)
    for number, note in enumerate(notes):
        at = (MARGIN_PX, 188 + 30 * number)
        pen.write(strip, note, at, size=NOTE_PX, color=AMBER, weight=NOTE_WEIGHT)
    return strip


def _counts(pen: Pen, strip: RGB, smear: SmearFindings, base: int) -> None:
    counts = {
        Call.LEUKEMIC: smear.leukemic_count,
        Call.NORMAL: smear.normal_count,
        Call.REFERRED: referred_cell_count(smear),
    }
    x = MARGIN_PX
    for call, count in counts.items():
        style = CALL_STYLES[call]
        draw_mark(strip, style.mark, (x + 11, base - 9), 22, style.color)
        text = f"{count} {call}"
        pen.write(strip, text, (x + 34, base), size=28, weight=700)
        x += pen.width(text, 28, 700) + 76
    fields = f"in {usable_field_count(smear)} of {len(smear.fields)} fields"
    pen.write(strip, fields, (x - 20, base), size=24, color=GRAY)


def _share_words(smear: SmearFindings, least_cells: int) -> Iterator[str]:
    counted = smear.white_cells_counted
    if smear.leukemic_fraction and has_percentages(counted, least=least_cells):
        yield f"Blasts: {interval_text(smear.leukemic_fraction, counted)} of the counted cells."


def _notes(smear: SmearFindings, least_cells: int) -> Iterator[str]:
    if not has_percentages(smear.white_cells_counted, least=least_cells):
        yield f"No percentages: fewer than {least_cells} white cells were counted."
    if smear.count_warning:
        yield WARNING_WORDS[smear.count_warning]
    if smear.fields_rejected:
        flags = sorted({flag for flags in smear.fields_rejected.values() for flag in flags})
        listed = ", ".join(plain(flag) for flag in flags) or "quality"
        refused = len(smear.fields) - usable_field_count(smear)
        yield f"{refused} of {len(smear.fields)} fields not counted: {listed}."
    if smear.referred:
        ranked = sorted(smear.referred.items(), key=lambda entry: (-entry[1], entry[0]))
        yield "Referred: " + ", ".join(f"{plain(reason)} {count}" for reason, count in ranked) + "."


# --- at the side


def draw_differential(pen: Pen, canvas: RGB, smear: SmearFindings, *, least_cells: int) -> None:
    """Draw the differential, and the fields below it, on the right of `canvas`."""
    right = WIDTH_PX - MARGIN_PX
    counted = smear.white_cells_counted
    pen.write(canvas, "Differential", (CHART_X_PX, 40), size=26, weight=700)
    total = f"{counted:,} cells counted"
    pen.write(canvas, total, (right - pen.width(total, 19), 40), size=19, color=GRAY)
    ranked = sorted(differential_words(smear).items(), key=lambda entry: (-entry[1], entry[0]))
    with_shares = has_percentages(counted, least=least_cells)
    y = 66
    for word, count in ranked:
        _draw_row(pen, canvas, word, count, counted if with_shares else 0, y)
        y += 50
    for words, count in _counted_apart(smear):
        figure = f"{count}"
        pen.write(canvas, words, (CHART_X_PX, y + 16), size=20)
        at = (right - pen.width(figure, 20, 700), y + 16)
        pen.write(canvas, figure, at, size=20, weight=700)
        y += 28
    whose = NETWORKS_TYPES if smear.review is None else PEOPLES_TYPES
    for number, line in enumerate((CHART_NOTE, whose)):
        pen.write(canvas, line, (CHART_X_PX, y + 14 + 20 * number), size=16, color=GRAY)
    _draw_fields(pen, canvas, smear, y + 90)


def chart_height(smear: SmearFindings) -> int:
    """Height that the differential and the first fields below it need."""
    rows = 50 * len(differential_words(smear)) + 28 * len(list(_counted_apart(smear)))
    fields = FIELD_ROW_PX * (min(len(smear.fields), LEAST_FIELD_ROWS) + 2)
    return 66 + rows + 90 + fields + 20


def _counted_apart(smear: SmearFindings) -> Iterator[tuple[str, int]]:
    """What was found and is in no percentage, so that the column adds up to the cells found."""
    yield "referred to an expert", referred_cell_count(smear)
    if smear.undetermined_count:
        yield "type undetermined", smear.undetermined_count
    for cell_type, count in smear.not_leukocytes.items():
        if count:
            yield plain(cell_type), count
    yield "all cells found", found_cell_count(smear)


def _draw_row(pen: Pen, canvas: RGB, word: str, count: int, counted: int, y: int) -> None:
    """One type with its count, and its share of `counted` cells; none where that is 0."""
    right = WIDTH_PX - MARGIN_PX
    color = GRAY if count == 0 else WHITE
    pen.write(canvas, word, (CHART_X_PX, y + 16), size=20, color=color)
    figure = f"{count}   {percent_text(count / counted, counted)}" if counted else f"{count}"
    at = (right - pen.width(figure, 20, 700), y + 16)
    pen.write(canvas, figure, at, size=20, color=color, weight=700)
    call = Call.LEUKEMIC if word == BLAST_WORD else Call.NORMAL
    share = count / counted if counted else 0.0
    draw_share(canvas, CHART_X_PX, y + 24, right - CHART_X_PX, share, CALL_STYLES[call].color, 12)


def _draw_fields(pen: Pen, canvas: RGB, smear: SmearFindings, top: int) -> None:
    """Counts of as many fields as there is room for, those that matter most first."""
    fields = fields_by_urgency(smear)
    room = (canvas.shape[0] - top - 20) // FIELD_ROW_PX - 1
    shown = fields if len(fields) <= room else fields[: max(0, room - 1)]
    title = "Fields" if len(shown) == len(fields) else "Fields, most suspicious first"
    size = 26 if len(shown) == len(fields) else 22
    pen.write(canvas, title, (CHART_X_PX, top), size=size, weight=700)
    y = top + FIELD_ROW_PX
    for column, call in enumerate(FIELD_COLUMNS):
        style, at = CALL_STYLES[call], (CHART_X_PX + 180 + 72 * column, y - 8)
        draw_mark(canvas, style.mark, at, 18, style.color)
    for number, field in shown:
        y += FIELD_ROW_PX
        _draw_field_row(pen, canvas, field, number, y)
    if len(shown) < len(fields):
        more = f"and {len(fields) - len(shown):,} more of {len(fields):,} fields"
        pen.write(canvas, more, (CHART_X_PX, y + FIELD_ROW_PX), size=18, color=GRAY)


def fields_by_urgency(smear: SmearFindings) -> list[tuple[int, FieldFindings]]:
    """Fields with their numbers from 1: by leukemic calls, then referred cells, refused ones last.

    In their own order among equals.
    """

    def rank(numbered: tuple[int, FieldFindings]) -> tuple[bool, int, int]:
        _, field = numbered
        calls = Counter(finding.call for finding in field.cells)
        return not field.quality.is_usable, -calls[Call.LEUKEMIC], -calls[Call.REFERRED]

    return sorted(enumerate(smear.fields, start=1), key=rank)


def _draw_field_row(pen: Pen, canvas: RGB, field: FieldFindings, number: int, base: int) -> None:
    pen.write(canvas, f"field {number}", (CHART_X_PX, base), size=18)
    if not field.quality.is_usable:
        heading, room = "not counted: ", WIDTH_PX - MARGIN_PX - CHART_X_PX - 110
        flags = [plain(flag) for flag in sorted(field.quality.flags)] or ["quality"]
        text = heading + pen.listed(flags, 16, room - pen.width(heading, 16))
        size = pen.fitting_size(text, 18, room)
        pen.write(canvas, text, (CHART_X_PX + 110, base), size=size, color=AMBER)
        return
    for column, call in enumerate(FIELD_COLUMNS):
        count = str(sum(finding.call is call for finding in field.cells))
        x = CHART_X_PX + 180 + 72 * column - pen.width(count, 18) // 2
        pen.write(canvas, count, (x, base), size=18)

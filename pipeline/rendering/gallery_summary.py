"""The counts on a gallery: the summary at its head, the differential and the fields at its side."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.domain import (
    RGB,
    Call,
    CellType,
    CountWarning,
    FieldFindings,
    Grade,
    SmearFindings,
)
from pipeline.findings.decision import BLASTS
from pipeline.findings.smear_summary import referred_cell_count, usable_field_count
from pipeline.rendering.pen import (
    AMBER,
    CALL_STYLES,
    GREY,
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
NOTE_PX, NOTE_WEIGHT = 22, 600
FIELD_COLUMNS = (Call.LEUKEMIC, Call.NORMAL, Call.REFERRED)
CHART_NOTE = (
    "Leukemic and normal calls; referred cells are",
    "not counted. The types are the network's.",
)

GRADE_WORDS = {
    Grade.NONE_SEEN: "No leukemic cells seen",
    Grade.FEW: "Few leukemic cells",
    Grade.MANY: "Many leukemic cells",
    Grade.REFER: "Refer to an expert",
}
WARNING_WORDS = {
    CountWarning.BELOW_100: "Fewer than 100 white cells counted: the fractions are uncertain.",
    CountWarning.BELOW_200: "Fewer than 200 white cells counted (CLSI H20 asks for 200).",
}


def draw_summary(pen: Pen, smear: SmearFindings) -> RGB:
    """A strip with the grade, why, the counts, and what a reader must not miss."""
    room = WIDTH_PX - 2 * MARGIN_PX
    notes = [
        line
        for note in _notes(smear)
        for line in pen.lines(f"! {note}", NOTE_PX, room, NOTE_WEIGHT)
    ]
    strip = blank(WIDTH_PX, 172 + 30 * len(notes), INK)
    headline = GRADE_WORDS[smear.grade]
    pen.write(strip, headline, (MARGIN_PX, 62), size=46, weight=700)
    reason = smear.grade_reason
    size = pen.fitting_size(reason, 24, room)
    pen.write(strip, reason, (MARGIN_PX, 102), size=size, colour=(226, 226, 232))
    _counts(pen, strip, smear, 146)
    for number, note in enumerate(notes):
        at = (MARGIN_PX, 188 + 30 * number)
        pen.write(strip, note, at, size=NOTE_PX, colour=AMBER, weight=NOTE_WEIGHT)
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
        draw_mark(strip, style.mark, (x + 11, base - 9), 22, style.colour)
        text = f"{count} {call}"
        pen.write(strip, text, (x + 34, base), size=28, weight=700)
        x += pen.width(text, 28, 700) + 76
    fields = f"in {usable_field_count(smear)} of {len(smear.fields)} fields"
    pen.write(strip, fields, (x - 20, base), size=24, colour=GREY)


def _notes(smear: SmearFindings) -> Iterator[str]:
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


def draw_differential(pen: Pen, canvas: RGB, smear: SmearFindings) -> None:
    """Draw the differential, and the fields below it, on the right of `canvas`."""
    right = WIDTH_PX - MARGIN_PX
    pen.write(canvas, "Differential", (CHART_X_PX, 40), size=26, weight=700)
    total = f"{smear.white_cells_counted} white cells"
    pen.write(canvas, total, (right - pen.width(total, 19), 40), size=19, colour=GREY)
    ranked = sorted(smear.differential.items(), key=lambda entry: (-entry[1], entry[0]))
    y = 66
    for cell_type, count in ranked:
        share = count / smear.white_cells_counted if smear.white_cells_counted else None
        _draw_row(pen, canvas, cell_type, count, share, y)
        y += 50
    for words, count in _counted_apart(smear):
        figure = f"{count}"
        pen.write(canvas, words, (CHART_X_PX, y + 16), size=20)
        at = (right - pen.width(figure, 20, 700), y + 16)
        pen.write(canvas, figure, at, size=20, weight=700)
        y += 28
    for number, line in enumerate(CHART_NOTE):
        pen.write(canvas, line, (CHART_X_PX, y + 14 + 20 * number), size=16, colour=GREY)
    _draw_fields(pen, canvas, smear, y + 90)


def _counted_apart(smear: SmearFindings) -> Iterator[tuple[str, int]]:
    """What was found and is in no percentage, so that the column adds up to the cells found."""
    if smear.undetermined_count:
        yield "type undetermined", smear.undetermined_count
    for cell_type, count in smear.not_leukocytes.items():
        if count:
            yield plain(cell_type), count
    if referred := referred_cell_count(smear):
        yield "referred", referred


def _draw_row(
    pen: Pen, canvas: RGB, cell_type: CellType, count: int, share: float | None, y: int
) -> None:
    """One type with its share; None, as nothing was counted, is a dash and not 0 %."""
    right = WIDTH_PX - MARGIN_PX
    is_dim = count == 0
    colour = GREY if is_dim else WHITE
    pen.write(canvas, plain(cell_type), (CHART_X_PX, y + 16), size=20, colour=colour)
    figure = "-" if share is None else f"{count}   {share:.0%}"
    at = (right - pen.width(figure, 20, 700), y + 16)
    pen.write(canvas, figure, at, size=20, colour=colour, weight=700)
    call = Call.LEUKEMIC if cell_type in BLASTS else Call.NORMAL
    draw_share(
        canvas, CHART_X_PX, y + 24, right - CHART_X_PX, share or 0.0, CALL_STYLES[call].colour, 12
    )


def _draw_fields(pen: Pen, canvas: RGB, smear: SmearFindings, top: int) -> None:
    """Counts of as many fields as there is room for, under the differential."""
    pen.write(canvas, "Fields", (CHART_X_PX, top), size=26, weight=700)
    for column, call in enumerate(FIELD_COLUMNS):
        style, at = CALL_STYLES[call], (CHART_X_PX + 180 + 72 * column, top - 8)
        draw_mark(canvas, style.mark, at, 18, style.colour)
    room = (canvas.shape[0] - top - 20) // FIELD_ROW_PX
    shown = smear.fields if len(smear.fields) <= room else smear.fields[: max(0, room - 1)]
    y = top
    for number, field in enumerate(shown, start=1):
        y += FIELD_ROW_PX
        _draw_field_row(pen, canvas, field, number, y)
    if len(shown) < len(smear.fields):
        more = f"and {len(smear.fields) - len(shown)} more"
        pen.write(canvas, more, (CHART_X_PX, y + FIELD_ROW_PX), size=18, colour=GREY)


def _draw_field_row(pen: Pen, canvas: RGB, field: FieldFindings, number: int, base: int) -> None:
    pen.write(canvas, f"field {number}", (CHART_X_PX, base), size=18)
    if not field.quality.is_usable:
        heading, room = "not counted: ", WIDTH_PX - MARGIN_PX - CHART_X_PX - 110
        flags = [plain(flag) for flag in sorted(field.quality.flags)] or ["quality"]
        text = heading + pen.listed(flags, 16, room - pen.width(heading, 16))
        size = pen.fitting_size(text, 18, room)
        pen.write(canvas, text, (CHART_X_PX + 110, base), size=size, colour=AMBER)
        return
    for column, call in enumerate(FIELD_COLUMNS):
        count = str(sum(finding.call is call for finding in field.cells))
        x = CHART_X_PX + 180 + 72 * column - pen.width(count, 18) // 2
        pen.write(canvas, count, (x, base), size=18)

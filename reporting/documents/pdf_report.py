"""Builds the smear's report as PDF, for people: the counts on one page, the cells on the next.

The same measurements and sentences as in FHIR and HL7, grade and counts before any percentage. The
patient stands there by identifiers alone, as everywhere outside DICOM.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from uuid import UUID

import cv2
from pydicom import Dataset

from pipeline.domain import RESEARCH_USE_ONLY, RGB, Call, SmearFindings, SOPInstanceUID
from pipeline.errors import Defect
from pipeline.findings.smear_summary import decision_words, finding_word, found_cell_count
from pipeline.rendering.gallery import PHANTOM_WORDS, WINDOW_UM, Card
from pipeline.rendering.pen import CALL_COLOURS, plain, provider_words
from reporting.content.identifiers import BusinessIdentifier, SmearOrigin, origin_of
from reporting.content.measurements import Measurement, Share, measurements_of
from reporting.content.narrative import LIMITS, findings_in_words
from reporting.content.sign_off import (
    VERSION_WORDS,
    comments_in_words,
    review_in_words,
    sign_off_of,
)
from reporting.derived_uids import derived_id
from reporting.documents.pdf_canvas import HEIGHT_PT, WIDTH_PT, About, Canvas, Color
from reporting.results import ReportContext, Result, ResultKind

MEDIA_TYPE = "application/pdf"
TITLE = f"Blood smear report. {RESEARCH_USE_ONLY}"

MARGIN_PT = 36.0
INNER_PT = WIDTH_PT - 2 * MARGIN_PT
COLUMN_PT = INNER_PT / 2
LEADING_PT = 12.0
BANNER_PT = 18.0
FOOT_PT = 46.0
TEXT_PT = 8.0
LABEL_PT = 88.0
"""Width of the words before an identifier."""

RED: Color = (178, 18, 26)
GRAY: Color = (90, 90, 90)
PALE: Color = (200, 200, 200)
AMBER: Color = (255, 214, 120)
WHITE: Color = (255, 255, 255)

JPEG_QUALITY = 90
"""Cells still look like themselves; the report stays near 300 KB, which goes into every Bundle."""

CARD_COLUMNS = 3
CARD_HEIGHT_PT = 120.0
CARD_GAP_PT = 9.0

NOT_GIVEN = "not given in the images"
NOT_PRINTABLE = "given in letters that this page cannot show: see the images"
NOT_PRINTABLE_SENTENCE = "(In letters that this page cannot show: see the structured report.)"
MORE_THAN_FITS = "… more than fits on this page: see the structured report."
TOO_LONG = "given, but too long for this page: see the images"
MOST_LINES = 5
"""Of one identifier on the page. Half an identifier may be another person's: all or none."""

Row = tuple[str, str, str, str]
"""Of the differential: kind of cell, cells, percentage, interval."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Report:
    """What every part of the pages needs."""

    smear: SmearFindings
    origin: SmearOrigin
    context: ReportContext
    canvas: Canvas
    pages: int


def build_pdf_report(
    smear: SmearFindings,
    *,
    headers: Mapping[SOPInstanceUID, Dataset],
    cards: Sequence[Card],
    context: ReportContext,
) -> Result:
    """A4 pages, the second one with `cards`; raises `NeedsReview` for headers of two patients."""
    report_id = derived_id("pdf-report", smear.smear_id, smear.model.key, str(context.version))
    about = About(
        title=TITLE,
        subject=RESEARCH_USE_ONLY,
        creator=f"smearlink {context.software_version}",
        created=context.issued_at,
        document_id=UUID(report_id),
    )
    report = _Report(
        smear=smear,
        origin=origin_of(headers),
        context=context,
        canvas=Canvas(about, site_font=context.pdf_font),
        pages=2 if cards else 1,
    )
    _counts_page(report)
    if cards:
        _cells_page(report, cards)
    return Result(
        kind=ResultKind.PDF_REPORT,
        name=f"{report_id}.pdf",
        media_type=MEDIA_TYPE,
        uid=report_id,
        content=report.canvas.content(),
    )


# --- both pages


def _begin_page(report: _Report, number: int) -> float:
    """Label at head and foot, so that no half of a page is without it; title; whose smear it is."""
    canvas = report.canvas
    canvas.add_page()
    middle = (WIDTH_PT - canvas.width(RESEARCH_USE_ONLY, size=10, bold=True)) / 2
    for top in (0.0, HEIGHT_PT - BANNER_PT):
        canvas.box(0, top, WIDTH_PT, BANNER_PT, RED)
        canvas.text(middle, top + 12.5, RESEARCH_USE_ONLY, size=10, bold=True, color=WHITE)
    _foot(report, number)
    y = _phantom(canvas) if report.origin.is_phantom else BANNER_PT
    y = _heading(report, y)
    return _identifiers(report, y)


def _phantom(canvas: Canvas) -> float:
    canvas.box(0, BANNER_PT, WIDTH_PT, BANNER_PT, AMBER)
    canvas.text(MARGIN_PT, BANNER_PT + 12.5, PHANTOM_WORDS, size=9, bold=True)
    return 2 * BANNER_PT


def _heading(report: _Report, y: float) -> float:
    context = report.context
    canvas = report.canvas
    title = "Blood smear: cells found and counted by software"
    if report.smear.review is not None:
        title = "Blood smear: cells found by software, reviewed by a person"
    canvas.text(MARGIN_PT, y + 24, title, size=14, bold=True)
    issued = f"{context.issued_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    version = f"Report version {context.version}, {VERSION_WORDS[sign_off_of(report.smear)]}"
    canvas.text(MARGIN_PT, y + 38, f"{version}; issued {issued}.", size=TEXT_PT, color=GRAY)
    return y + 56


def _identifiers(report: _Report, y: float) -> float:
    """Two columns of label and value; a row is as high as its longer value."""
    canvas, origin = report.canvas, report.origin
    patients = (origin.patient,) if origin.patient else ()
    label = "Patient pseudonym" if origin.is_pseudonymised else "Patient ID"
    cells = [
        (label, _named(canvas, patients)),
        ("Accession number", _named(canvas, origin.accessions)),
        ("Specimen", _named(canvas, origin.specimens)),
        ("Slide", _named(canvas, origin.containers)),
        ("Images taken", [origin.acquired_at.replace("T", " ") or NOT_GIVEN]),
        ("DICOM studies", [str(len(origin.study_started_at))]),
    ]
    for left, right in zip(cells[::2], cells[1::2], strict=True):
        for x, (words, lines) in ((MARGIN_PT, left), (MARGIN_PT + COLUMN_PT, right)):
            canvas.text(x, y, words, size=TEXT_PT, color=GRAY)
            for number, line in enumerate(lines):
                canvas.text(x + LABEL_PT, y + LEADING_PT * number, line, size=TEXT_PT)
        y += LEADING_PT * max(len(left[1]), len(right[1]))
    canvas.box(MARGIN_PT, y - 4, INNER_PT, 0.6, PALE)
    return y + 14


def _named(canvas: Canvas, identifiers: Sequence[BusinessIdentifier]) -> list[str]:
    """The identifiers with their issuers, in lines.

    One that cannot be printed whole is said to be so: a replaced letter, or half of a number,
    would name somebody else.
    """
    if not identifiers:
        return [NOT_GIVEN]
    words = "; ".join(f"{i.value} ({i.assigner})" if i.assigner else i.value for i in identifiers)
    room = COLUMN_PT - LABEL_PT - 6
    if not canvas.is_printable(words):
        return list(canvas.wrapped(NOT_PRINTABLE, width=room, size=TEXT_PT))
    lines = list(canvas.wrapped(words, width=room, size=TEXT_PT))
    if len(lines) > MOST_LINES:
        return list(canvas.wrapped(TOO_LONG, width=room, size=TEXT_PT))
    return lines


def _foot(report: _Report, number: int) -> None:
    """What made the report: software, network with its hash, what really ran it, and the site's
    calibration on a line of its own, so that its hash is never cut off.
    """
    canvas, model = report.canvas, report.smear.model
    lines = [
        f"smearlink {report.context.software_version}; network {model.name} {model.version}, run "
        f"{provider_words(model.execution_provider)}; SHA-256 {model.sha256}",
        f"Smear {report.smear.smear_id}",
    ]
    if model.calibration:
        lines.insert(0, model.calibration.described)
    for position, line in enumerate(lines, start=-len(lines)):
        y = HEIGHT_PT - BANNER_PT + 1 + 8 * position
        is_above_page = position < -2
        width = INNER_PT if is_above_page else INNER_PT - 60
        fitted = canvas.shortened(line, width=width, size=6.5)
        canvas.text(MARGIN_PT, y, fitted, size=6.5, color=GRAY)
    page = f"Page {number} of {report.pages}"
    x = WIDTH_PT - MARGIN_PT - canvas.width(page, size=6.5)
    canvas.text(x, HEIGHT_PT - BANNER_PT - 7, page, size=6.5, color=GRAY)


# --- the page of counts


def _counts_page(report: _Report) -> None:
    y = _begin_page(report, 1)
    least_cells = report.context.min_cells_for_percent
    measurements = list(measurements_of(report.smear, least_cells=least_cells))
    y = _grade(report, y)
    y = _differential(report, y, [m for m in measurements if _is_of_differential(m)])
    y = _listed(report, y, [m for m in measurements if isinstance(m.value, int)])
    _grade_words, _reason, *further = findings_in_words(report.smear, least_cells=least_cells)
    review = review_in_words(report.smear, least_cells=least_cells)
    told = [*review, *further, LIMITS, *comments_in_words(report.smear)]
    is_printable = report.canvas.is_printable
    _sentences(report, y, [one if is_printable(one) else NOT_PRINTABLE_SENTENCE for one in told])


def _grade(report: _Report, y: float) -> float:
    """The grade in large letters and the counts that it rests on, before any percentage."""
    grade, reason, *_ = findings_in_words(report.smear)
    for line in report.canvas.wrapped(grade, width=INNER_PT, size=12, bold=True):
        report.canvas.text(MARGIN_PT, y + 6, line, size=12, bold=True)
        y += 15
    for line in report.canvas.wrapped(reason, width=INNER_PT, size=9):
        report.canvas.text(MARGIN_PT, y + 6, line, size=9)
        y += LEADING_PT
    return y + 12


def _is_of_differential(measurement: Measurement) -> bool:
    return isinstance(measurement.value, Share) or bool(measurement.absent)


def _differential(report: _Report, y: float, shares: Sequence[Measurement]) -> float:
    """A table: kind of cell, cells, percentage with its interval; the cells add up."""
    columns = (MARGIN_PT, MARGIN_PT + 250, MARGIN_PT + 320, MARGIN_PT + 390)
    heads: Row = ("Differential", "Cells", "Share", "95% interval")
    counted = report.smear.white_cells_counted
    total: Row = ("White cells counted", str(counted), "", "")
    rows = [heads, *map(_row, shares), total]
    for number, row in enumerate(rows):
        is_bold = number in (0, len(rows) - 1)
        for x, words in zip(columns, row, strict=True):
            report.canvas.text(x, y, words, size=TEXT_PT, bold=is_bold)
        y += LEADING_PT
    return y + 6


def _row(share: Measurement) -> Row:
    texts = {part.name.rpartition("-")[2]: _text(part) for part in share.parts}
    interval = f"{texts['low']} to {texts['high']}" if "low" in texts else ""
    return share.title, texts.get("count", "0"), _text(share) if interval else "-", interval


def _listed(report: _Report, y: float, counts: Sequence[Measurement]) -> float:
    """Every other count, with its parts."""
    for measurement in counts:
        words = f"{measurement.title}: {_text(measurement)}"
        parts = "; ".join(
            f"{part.title[0].lower()}{part.title[1:]} {_text(part)}" for part in measurement.parts
        )
        whole = f"{words} ({parts})" if parts else words
        for line in report.canvas.wrapped(whole, width=INNER_PT, size=TEXT_PT):
            report.canvas.text(MARGIN_PT, y, line, size=TEXT_PT)
            y += LEADING_PT
    return y + 6


def _text(measurement: Measurement) -> str:
    value = measurement.value
    return value.text if isinstance(value, Share) else str(value)


def _sentences(report: _Report, y: float, sentences: Sequence[str]) -> None:
    """As many lines as the page has room for."""
    report.canvas.box(MARGIN_PT, y - 10, INNER_PT, 0.6, PALE)
    lines = list(_lines(report.canvas, sentences))
    room = int((HEIGHT_PT - FOOT_PT - y) // LEADING_PT)
    if len(lines) > room:
        lines = [*lines[: room - 1], MORE_THAN_FITS]
    for line in lines:
        report.canvas.text(MARGIN_PT, y + 4, line, size=TEXT_PT)
        y += LEADING_PT


def _lines(canvas: Canvas, sentences: Sequence[str]) -> Iterator[str]:
    for sentence in sentences:
        yield from canvas.wrapped(sentence, width=INNER_PT, size=TEXT_PT)


# --- the page of cells


def _cells_page(report: _Report, cards: Sequence[Card]) -> None:
    """Light and with printed words, as ink on a dark ground prints badly."""
    y = _begin_page(report, 2)
    canvas = report.canvas
    found = found_cell_count(report.smear)
    title = f"{len(cards)} of {found:,} cells, most suspicious first"
    canvas.text(MARGIN_PT, y + 4, title, size=11, bold=True)
    note = (
        f"Each tile is {WINDOW_UM:g} µm wide. The right one shows where the network saw "
        "'leukemic'. The number is the probability of being leukemic."
    )
    canvas.text(MARGIN_PT, y + 17, note, size=7, color=GRAY)
    y += 26
    room = HEIGHT_PT - FOOT_PT - y
    rows = -(-len(cards) // CARD_COLUMNS)
    height = min(CARD_HEIGHT_PT, room / rows)
    width = (INNER_PT - CARD_GAP_PT * (CARD_COLUMNS - 1)) / CARD_COLUMNS
    for rank, card in enumerate(cards):
        row, column = divmod(rank, CARD_COLUMNS)
        _card(canvas, card, MARGIN_PT + column * (width + CARD_GAP_PT), y + row * height, width)


def _card(canvas: Canvas, card: Card, x: float, y: float, width: float) -> None:
    finding = card.finding
    tile = (width - 2) / 2
    canvas.picture(_jpeg(card.tile), x, y, tile, tile)
    canvas.picture(_jpeg(card.heat_tile), x + tile + 2, y, tile, tile)
    canvas.box(x, y + tile + 2, width, 2.2, CALL_COLOURS[finding.call])
    probability = f"{finding.prediction.leukemic_probability:.2f}"
    words = canvas.shortened(_card_words(card), width=width - 26, size=8)
    canvas.text(x, y + tile + 13, probability, size=8, bold=True)
    canvas.text(x + 24, y + tile + 13, words, size=8)
    parts = (f"field {card.field_number} #{finding.cell.index}", decision_words(finding))
    where = canvas.shortened("; ".join(filter(None, parts)), width=width, size=6.5)
    canvas.text(x, y + tile + 22, where, size=6.5, color=GRAY)


def _card_words(card: Card) -> str:
    finding = card.finding
    if finding.call is not Call.REFERRED:
        return finding_word(finding)
    return "refer: " + ", ".join(plain(reason) for reason in finding.reasons)


def _jpeg(tile: RGB) -> bytes:
    is_coded, jpeg = cv2.imencode(
        ".jpg", cv2.cvtColor(tile, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    if not is_coded:
        raise Defect("A cell could not be coded as JPEG.", code="jpeg_encoding")
    return jpeg.tobytes()

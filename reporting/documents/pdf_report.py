"""The smear's report on one page, for people: whose it is, the figures, the gallery, the limits.

The same figures and sentences as in FHIR and HL7. The patient stands there by identifiers alone,
as everywhere outside DICOM.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from uuid import UUID

import cv2
from pydicom import Dataset

from config import codes
from config.codes import Concept
from pipeline.domain import RESEARCH_USE_ONLY, RGB, SmearFindings, SOPInstanceUID
from pipeline.errors import Defect
from reporting.content.identifiers import BusinessIdentifier, SmearOrigin, read_origin
from reporting.content.measurements import Figure, Share, figures_of
from reporting.content.narrative import LIMITS, findings_in_words
from reporting.derived_uids import derived_id
from reporting.documents.pdf_canvas import (
    HEIGHT_PT,
    WIDTH_PT,
    About,
    Colour,
    Page,
    Picture,
    is_printable,
    shortened,
    text_width,
    wrapped,
)
from reporting.results import ReportContext, Result, ResultKind

MEDIA_TYPE = "application/pdf"
TITLE = f"Blood smear report. {RESEARCH_USE_ONLY}"

MARGIN_PT = 36.0
INNER_PT = WIDTH_PT - 2 * MARGIN_PT
COLUMN_PT = INNER_PT / 2
LEADING_PT = 11.5
BANNER_PT = 18.0
FOOT_PT = 44.0
TEXT_PT = 8.5
LABEL_PT = 88.0
"""Width of the words before an identifier."""

RED: Colour = (0.70, 0.07, 0.10)
GREY: Colour = (0.35, 0.35, 0.35)
WHITE: Colour = (1.0, 1.0, 1.0)

JPEG_QUALITY = 88
"""Cells still look like themselves; the page stays near 300 KB, which goes into every Bundle."""

NOT_GIVEN = "not given in the images"
NOT_PRINTABLE = "given in letters that this page cannot show: see the images"
TOO_LONG = "given, but too long for this page: see the images"
MOST_LINES = 5
"""Of one identifier on the page. Half an identifier may be another person's: all or none."""
LEAST_PICTURE_PT = 60.0
"""A gallery that would be smaller shows nothing; it is in DICOM and FHIR all the same."""


def build_pdf_report(
    smear: SmearFindings,
    *,
    headers: Mapping[SOPInstanceUID, Dataset],
    gallery: RGB | None,
    context: ReportContext,
) -> Result:
    """One A4 page; raises `NeedsReview` when the headers name two patients."""
    report_id = derived_id("pdf-report", smear.smear_id, smear.model.key, str(context.version))
    page = Page()
    _banners(page)
    y = _heading(page, context)
    y = _identifiers(page, y, read_origin(headers))
    y = _figures(page, y, list(figures_of(smear)))
    y = _sentences(page, y, [*findings_in_words(smear), LIMITS])
    if gallery is not None:
        _gallery(page, y, gallery)
    _foot(page, smear, context)
    about = About(
        title=TITLE,
        subject=RESEARCH_USE_ONLY,
        creator=f"smearlink {context.software_version}",
        created=context.issued_at,
        document_id=UUID(report_id),
    )
    return Result(
        kind=ResultKind.PDF_REPORT,
        name=f"{report_id}.pdf",
        media_type=MEDIA_TYPE,
        uid=report_id,
        content=page.document(about),
    )


def _banners(page: Page) -> None:
    """The label at the head and at the foot, so that no half of the page is without it."""
    middle = (WIDTH_PT - text_width(RESEARCH_USE_ONLY, size=10, bold=True)) / 2
    for top in (0.0, HEIGHT_PT - BANNER_PT):
        page.box(0, top, WIDTH_PT, BANNER_PT, RED)
        page.text(middle, top + 12.5, RESEARCH_USE_ONLY, size=10, bold=True, colour=WHITE)


def _heading(page: Page, context: ReportContext) -> float:
    state = "preliminary" if context.version == 1 else "amended"
    page.text(MARGIN_PT, 44, "Blood smear: cells found and counted by software", size=15, bold=True)
    page.text(
        MARGIN_PT,
        58,
        f"Report version {context.version}, {state}; issued "
        f"{context.issued_at.isoformat(sep=' ', timespec='seconds')}. No person has reviewed it.",
        size=TEXT_PT,
        colour=GREY,
    )
    return 76


def _identifiers(page: Page, y: float, origin: SmearOrigin) -> float:
    """Two columns of label and value; a row is as high as its longer value."""
    patients = (origin.patient,) if origin.patient else ()
    label = "Patient pseudonym" if origin.is_pseudonymised else "Patient ID"
    cells = [
        (label, _named(patients)),
        ("Accession number", _named(origin.accessions)),
        ("Specimen", _named(origin.specimens)),
        ("Slide", _named(origin.containers)),
        ("Images taken", [origin.acquired_at.replace("T", " ") or NOT_GIVEN]),
        ("DICOM studies", [str(len(origin.study_started_at))]),
    ]
    for left, right in zip(cells[::2], cells[1::2], strict=True):
        for x, (words, lines) in ((MARGIN_PT, left), (MARGIN_PT + COLUMN_PT, right)):
            page.text(x, y, words, size=TEXT_PT, colour=GREY)
            for number, line in enumerate(lines):
                page.text(x + LABEL_PT, y + LEADING_PT * number, line, size=TEXT_PT)
        y += LEADING_PT * max(len(left[1]), len(right[1]))
    return y + 8


def _named(identifiers: Sequence[BusinessIdentifier]) -> list[str]:
    """The identifiers with their issuers, in lines.

    One that cannot be printed whole is said to be so: a replaced letter, or half of a number,
    would name somebody else.
    """
    if not identifiers:
        return [NOT_GIVEN]
    words = "; ".join(f"{i.value} ({i.assigner})" if i.assigner else i.value for i in identifiers)
    room = COLUMN_PT - LABEL_PT - 6
    lines = list(wrapped(words, width=room, size=TEXT_PT))
    if not is_printable(words):
        return list(wrapped(NOT_PRINTABLE, width=room, size=TEXT_PT))
    if len(lines) > MOST_LINES:
        return list(wrapped(TOO_LONG, width=room, size=TEXT_PT))
    return lines


def _figures(page: Page, y: float, figures: Sequence[Figure]) -> float:
    """The share of blasts in large letters, what it means beneath, the rest in two columns."""
    blasts, *others = figures
    page.box(MARGIN_PT, y - 8, INNER_PT, 0.6, GREY)
    page.text(MARGIN_PT, y + 8, f"{blasts.title}: {_value(blasts)}", size=12, bold=True)
    y += 24
    if blasts.parts:
        page.text(MARGIN_PT, y - 2, _parts(blasts), size=TEXT_PT, colour=GREY)
        y += LEADING_PT + 2
    listed = [f for f in others if isinstance(f.value, Share | int) or f.value is None]
    rows = -(-len(listed) // 2)
    for number, figure in enumerate(listed):
        x = MARGIN_PT + COLUMN_PT * (number // rows)
        page.text(x, y + LEADING_PT * (number % rows), _in_words(figure), size=TEXT_PT)
    return y + LEADING_PT * rows + 6


def _in_words(figure: Figure) -> str:
    """With its parts where they fit; the sentences beneath say them too."""
    alone = f"{figure.title}: {_value(figure)}"
    whole = f"{alone} ({_parts(figure)})" if figure.parts else alone
    return whole if text_width(whole, size=TEXT_PT) <= COLUMN_PT - 6 else alone


def _parts(figure: Figure) -> str:
    return "; ".join(
        f"{part.title[0].lower()}{part.title[1:]} {_value(part)}" for part in figure.parts
    )


def _value(figure: Figure) -> str:
    match figure.value:
        case Share() as share:
            return f"{share.percent:g} {codes.PERCENT.display}"
        case Concept() as concept:
            return concept.display
        case None:
            return "not counted"
        case int() | str() as plain:
            return str(plain)


def _sentences(page: Page, y: float, sentences: Sequence[str]) -> float:
    page.box(MARGIN_PT, y - 10, INNER_PT, 0.6, GREY)
    for line in _lines(sentences):
        page.text(MARGIN_PT, y + 2, line, size=TEXT_PT)
        y += LEADING_PT
    return y


def _lines(sentences: Sequence[str]) -> Iterator[str]:
    for sentence in sentences:
        yield from wrapped(sentence, width=INNER_PT, size=TEXT_PT)


def _gallery(page: Page, y: float, gallery: RGB) -> None:
    """As large as the rest of the page allows, in its own proportions."""
    height, width = gallery.shape[:2]
    room = HEIGHT_PT - FOOT_PT - y
    if room < LEAST_PICTURE_PT:
        return
    zoom = min(INNER_PT / width, room / height)
    left = (WIDTH_PT - zoom * width) / 2
    page.picture(_picture(gallery), left, y, zoom * width, zoom * height)


def _picture(gallery: RGB) -> Picture:
    is_coded, jpeg = cv2.imencode(
        ".jpg",
        cv2.cvtColor(gallery, cv2.COLOR_RGB2BGR),
        [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY],
    )
    if not is_coded:
        raise Defect("The gallery could not be coded as JPEG.", code="jpeg_encoding")
    height, width = gallery.shape[:2]
    return Picture(jpeg=jpeg.tobytes(), width=width, height=height)


def _foot(page: Page, smear: SmearFindings, context: ReportContext) -> None:
    """What made the report: software, network with its hash, and what really ran it."""
    model = smear.model
    lines = (
        f"smearlink {context.software_version}; {model.name} {model.version} run by "
        f"{model.execution_provider}; network SHA-256 {model.sha256}",
        f"Smear {smear.smear_id}",
    )
    for number, line in enumerate(lines):
        y = HEIGHT_PT - BANNER_PT - 15 + 8 * number
        page.text(MARGIN_PT, y, shortened(line, width=INNER_PT, size=6.5), size=6.5, colour=GREY)

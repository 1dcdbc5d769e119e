"""Builds all results of one smear, cross-referenced, one after the other.

Every UID is known before the first object is built, so objects can name each other while at
most one field's pixels are in memory. Nothing leaves without the research-use label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import cv2
from pydicom import Dataset

from pipeline.domain import RGB, SmearFindings, SOPInstanceUID
from pipeline.errors import Defect, SmearlinkError
from pipeline.rendering.gallery import Card, compose_gallery
from reporting.content.identifiers import SourceHeaders, check_one_patient, is_phantom
from reporting.content.sign_off import short_review_words
from reporting.dicom.common_modules import Authorship
from reporting.dicom.key_object_selection import build_key_objects
from reporting.dicom.secondary_capture import build_secondary_capture
from reporting.dicom.source_attributes import SourceFrame, header_of
from reporting.dicom.structured_report import build_structured_report
from reporting.documents.csv_table import build_table
from reporting.documents.hl7_message import build_message
from reporting.documents.pdf_report import build_pdf_report
from reporting.fhir.bundle import build_bundle
from reporting.field_results import PAGE_USERS, FieldResults, ReadSource, dicom_result
from reporting.research_label import check_label
from reporting.result_plan import plan_objects
from reporting.results import (
    ObjectReference,
    ReportContext,
    Result,
    ResultKind,
)

__all__ = ["ResultSet", "build_result_set", "check_label"]

Refuse = Callable[[ResultKind, SmearlinkError], None]
"""Told which document could not be built, and why."""


def build_result_set(
    smear: SmearFindings,
    *,
    read_source: ReadSource,
    context: ReportContext,
    refuse: Refuse | None = None,
) -> Iterator[Result]:
    """Every result that `context.kinds` asks for; the same arguments give the same bytes.

    `read_source` gives the dataset of a source image with its pixels. A document (PDF, FHIR, HL7,
    CSV) that cannot be built is told to `refuse` and left out, so that what is odd in one output
    keeps no other back; without `refuse` it is raised. Raises NeedsReview when the sources name
    different patients.
    """
    results = ResultSet(smear, read_source=read_source, context=context, refuse=refuse)
    yield from results.in_order()


def _raise(_kind: ResultKind, err: SmearlinkError) -> None:
    raise err


class ResultSet:
    """The results of one smear in parts, which may be built in any order, or elsewhere.

    A part is what is made of one image; the last results are of the whole smear. Raises
    NeedsReview when the sources name different patients.
    """

    def __init__(
        self,
        smear: SmearFindings,
        *,
        read_source: ReadSource,
        context: ReportContext,
        refuse: Refuse | None = None,
    ) -> None:
        self._smear, self._context, self._refuse = smear, context, refuse or _raise
        self._headers = _headers(smear, read_source)
        check_one_patient(self._headers.values())
        self.objects = plan_objects(smear, self._headers, context)
        self._fields = FieldResults(
            smear,
            self.objects,
            headers=self._headers.__getitem__,
            read_source=read_source,
            context=context,
        )
        self.parts = self._fields.parts

    @property
    def headers(self) -> Iterable[Dataset]:
        """Of every image of the smear, without pixels."""
        return self._headers.values()

    @property
    def parts_with_cards(self) -> Sequence[int]:
        """The parts of which cards of the gallery are still to be cut."""
        return self._fields.parts_with_cards()

    def add_cards(self, cards: Mapping[int, Card]) -> None:
        """Take over the cards of parts that were built elsewhere."""
        self._fields.add_cards(cards)

    def in_order(self) -> Iterator[Result]:
        """All results, one after the other."""
        for number in range(len(self.parts)):
            yield from self.of_part(number)
        yield from self.of_smear()

    def of_part(self, number: int) -> Iterator[Result]:
        """The results of one image."""
        return self._fields.of_part(number)

    def of_smear(self) -> Iterator[Result]:
        """The results of the whole smear; cards that are missing are cut now."""
        cards = self._fields.cards()
        for result in _smear_results(
            self._smear, self.objects, self._headers, cards, self._context, self._refuse
        ):
            check_label(result)
            yield result


def _headers(smear: SmearFindings, read_source: ReadSource) -> SourceHeaders:
    uids = dict.fromkeys(field.sop_instance_uid for field in smear.fields)
    return SourceHeaders((uid, header_of(read_source(uid))) for uid in uids)


# --- the whole smear


def _smear_results(
    smear: SmearFindings,
    objects: Sequence[ObjectReference],
    headers: Mapping[SOPInstanceUID, Dataset],
    cards: Sequence[Card],
    context: ReportContext,
    refuse: Refuse,
) -> Iterator[Result]:
    author = Authorship(
        header=headers[smear.fields[0].sop_instance_uid], model=smear.model, context=context
    )
    sources = [
        SourceFrame(header=headers[field.sop_instance_uid], frame=field.frame)
        for field in smear.fields
    ]
    gallery = _gallery(smear, cards, headers, context)
    for reference in objects:
        if reference.source is None:
            yield dicom_result(
                reference, _smear_object(smear, reference, author, sources, objects, gallery)
            )
    yield from _documents(smear, objects, headers, cards, gallery, context, refuse)


def _gallery(
    smear: SmearFindings,
    cards: Sequence[Card],
    headers: Mapping[SOPInstanceUID, Dataset],
    context: ReportContext,
) -> RGB | None:
    if not context.kinds & {ResultKind.GALLERY, ResultKind.FHIR_BUNDLE}:
        return None
    return compose_gallery(
        smear,
        cards,
        least_cells=context.min_cells_for_percent,
        is_phantom=is_phantom(headers.values()),
        review_words=short_review_words(smear),
    )


def _smear_object(
    smear: SmearFindings,
    reference: ObjectReference,
    author: Authorship,
    sources: Sequence[SourceFrame],
    objects: Sequence[ObjectReference],
    gallery: RGB | None,
) -> Dataset:
    match reference.kind:
        case ResultKind.GALLERY if gallery is not None:
            return build_secondary_capture(
                gallery,
                reference=reference,
                author=author,
                sources=sources,
                derivation="Most suspicious cells and differential count, drawn by software.",
                is_resampled=True,
            )
        case ResultKind.STRUCTURED_REPORT:
            return build_structured_report(
                smear, reference=reference, author=author, sources=sources
            )
        case ResultKind.KEY_OBJECTS:
            others = [member for member in objects if member != reference]
            return build_key_objects(
                smear, reference=reference, author=author, sources=sources, objects=others
            )
        case _:
            raise Defect(f"No smear has a {reference.kind}.", code="result_kind_unknown")


# --- documents


def _documents(
    smear: SmearFindings,
    objects: Sequence[ObjectReference],
    headers: Mapping[SOPInstanceUID, Dataset],
    cards: Sequence[Card],
    gallery: RGB | None,
    context: ReportContext,
    refuse: Refuse,
) -> Iterator[Result]:
    """Each on its own; the PDF first, as FHIR and HL7 may carry it."""

    def table() -> Result:
        return build_table(smear, headers=headers, image_uids=objects, context=context)

    def pdf() -> Result:
        made = build_pdf_report(smear, headers=headers, cards=cards, context=context)
        check_label(made)
        return made

    def message() -> Result:
        return build_message(
            smear, headers=headers, image_uids=objects, context=context, pdf=page_content
        )

    def bundle() -> Result:
        return build_bundle(
            smear,
            headers=headers,
            image_uids=objects,
            gallery_png=None if gallery is None else _png(gallery),
            pdf=page_content,
            context=context,
        )

    page = _built(ResultKind.PDF_REPORT, pdf, refuse) if _needs_page(context) else None
    page_content = page.content if page else None
    if page and ResultKind.PDF_REPORT in context.kinds:
        yield page
    for kind, build in (
        (ResultKind.TABLE, table),
        (ResultKind.HL7_MESSAGE, message),
        (ResultKind.FHIR_BUNDLE, bundle),
    ):
        made = _built(kind, build, refuse) if kind in context.kinds else None
        if made is not None:
            yield made


def _needs_page(context: ReportContext) -> bool:
    is_in_message = context.hl7_pdf and ResultKind.HL7_MESSAGE in context.kinds
    return is_in_message or bool(context.kinds & PAGE_USERS)


def _built(kind: ResultKind, build: Callable[[], Result], refuse: Refuse) -> Result | None:
    """One document, or None when it is refused."""
    try:
        return build()
    except SmearlinkError as err:
        refuse(kind, err)
    except (ArithmeticError, LookupError, TypeError, ValueError) as err:
        defect = Defect(
            f"A {kind} could not be built ({type(err).__name__}); report this as a defect.",
            code="result_not_built",
        )
        defect.__cause__ = err
        refuse(kind, defect)
    return None


def _png(picture: RGB) -> bytes:
    is_coded, png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not is_coded:
        raise Defect("The gallery could not be coded as PNG.", code="png_encoding")
    return png.tobytes()

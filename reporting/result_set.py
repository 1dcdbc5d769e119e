"""Builds all results of one smear, cross-referenced, one after the other.

Every UID is known before the first object is built, so objects can name each other while at
most one field's pixels are in memory. Nothing leaves without the research-use label.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import cv2
from pydicom import Dataset

from pipeline.decoding.frames import ImageLimits, read_frames
from pipeline.domain import RGB, FieldFindings, SmearFindings, SOPInstanceUID, SourceImage
from pipeline.errors import Defect, SmearlinkError
from pipeline.rendering.annotated_field import draw_field, enlargement
from pipeline.rendering.gallery import Card, CardCutter, compose_gallery
from reporting.content.identifiers import SourceHeaders, check_one_patient, is_phantom
from reporting.content.sign_off import short_review_words
from reporting.dicom.bulk_annotations import build_annotations
from reporting.dicom.common_modules import Authorship, part10_bytes
from reporting.dicom.key_object_selection import build_key_objects
from reporting.dicom.presentation_state import build_presentation_state
from reporting.dicom.secondary_capture import build_secondary_capture, transfer_syntax_of
from reporting.dicom.segmentation import build_segmentation
from reporting.dicom.slide_coordinates import slide_place
from reporting.dicom.source_attributes import SourceFrame, header_of
from reporting.dicom.structured_report import build_structured_report
from reporting.documents.csv_table import build_table
from reporting.documents.hl7_message import build_message
from reporting.documents.pdf_report import build_pdf_report
from reporting.fhir.bundle import build_bundle
from reporting.research_label import check_label
from reporting.result_plan import plan_objects
from reporting.results import (
    DICOM_MEDIA_TYPE,
    ObjectReference,
    ReportContext,
    Result,
    ResultKind,
)

__all__ = ["build_result_set", "check_label"]

ReadSource = Callable[[SOPInstanceUID], Dataset]
Refuse = Callable[[ResultKind, SmearlinkError], None]
"""Told which document could not be built, and why."""

ACCEPTED_LIMITS = ImageLimits(max_megapixels=math.inf, min_side_px=1, max_frames=2**31)
"""The source was held against the site's limits before it was analysed."""

PAGE_USERS = frozenset({ResultKind.PDF_REPORT, ResultKind.FHIR_BUNDLE})
GALLERY_USERS = PAGE_USERS | {ResultKind.GALLERY}


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
    for result in _results(smear, read_source, context, refuse or _raise):
        check_label(result)
        yield result


def _raise(_kind: ResultKind, err: SmearlinkError) -> None:
    raise err


def _results(
    smear: SmearFindings, read_source: ReadSource, context: ReportContext, refuse: Refuse
) -> Iterator[Result]:
    headers = _headers(smear, read_source)
    check_one_patient(headers.values())
    objects = plan_objects(smear, headers, context)
    cutter = CardCutter(smear) if context.kinds & GALLERY_USERS else None
    frames = _Frames(read_source, cutter)
    for field in smear.fields:
        yield from _field_results(smear, field, objects, headers, frames, context)
    cards = cutter.cards(frames) if cutter else []
    yield from _smear_results(smear, objects, headers, cards, context, refuse)


def _headers(smear: SmearFindings, read_source: ReadSource) -> SourceHeaders:
    uids = dict.fromkeys(field.sop_instance_uid for field in smear.fields)
    return SourceHeaders((uid, header_of(read_source(uid))) for uid in uids)


class _Frames:
    """Decoded frames, one at a time; asked in stored order, each source is decoded once.

    The gallery's cards are cut of each frame while it is there.
    """

    def __init__(self, read_source: ReadSource, cutter: CardCutter | None) -> None:
        self._read_source = read_source
        self._cutter = cutter
        self._images: Iterator[SourceImage] = iter(())
        self._last: SourceImage | None = None

    def __call__(self, uid: SOPInstanceUID, frame: int) -> SourceImage:
        last = self._last
        if last is None or last.sop_instance_uid != uid or last.frame > frame:
            self._last = None
            self._images = read_frames(self._read_source(uid), limits=ACCEPTED_LIMITS)
        elif last.frame == frame:
            return last
        for image in self._images:
            if image.frame == frame:
                self._last = image
                if self._cutter:
                    self._cutter.see(image)
                return image
        raise Defect(
            f"Frame {frame} was analysed but is not in its source.", code="source_frame_missing"
        )


# --- one field


def _field_results(
    smear: SmearFindings,
    field: FieldFindings,
    objects: Sequence[ObjectReference],
    headers: Mapping[SOPInstanceUID, Dataset],
    frames: _Frames,
    context: ReportContext,
) -> Iterator[Result]:
    header = headers[field.sop_instance_uid]
    author = Authorship(header=header, model=smear.model, context=context)
    source = SourceFrame(header=header, frame=field.frame)
    for reference in objects:
        if (reference.source, reference.frame) == (field.sop_instance_uid, field.frame):
            made = _field_object(smear, field, reference, author, source, frames)
            yield _dicom_result(reference, made)


def _field_object(
    smear: SmearFindings,
    field: FieldFindings,
    reference: ObjectReference,
    author: Authorship,
    source: SourceFrame,
    frames: _Frames,
) -> Dataset:
    match reference.kind:
        case ResultKind.ANNOTATED_FIELD:
            words = short_review_words(smear)
            return _annotated_field(field, words, reference, author, source, frames)
        case ResultKind.PRESENTATION_STATE:
            return build_presentation_state(
                field, reference=reference, author=author, source=source
            )
        case ResultKind.SEGMENTATION:
            return build_segmentation(field, reference=reference, author=author, source=source)
        case ResultKind.BULK_ANNOTATIONS:
            return _annotations(field, reference, author, source)
        case _:
            raise Defect(f"No field has a {reference.kind}.", code="result_kind_unknown")


def _annotated_field(
    field: FieldFindings,
    review_words: str,
    reference: ObjectReference,
    author: Authorship,
    source: SourceFrame,
    frames: _Frames,
) -> Dataset:
    zoom = enlargement(field.width, field.height)
    enlarged = f" Enlarged {zoom:.2f} times for legible labels." if zoom > 1 else ""
    return build_secondary_capture(
        draw_field(frames(field.sop_instance_uid, field.frame), field, review_words=review_words),
        reference=reference,
        author=author,
        sources=[source],
        derivation=f"White cells outlined and labelled by software.{enlarged}",
        is_resampled=zoom > 1,
    )


def _annotations(
    field: FieldFindings, reference: ObjectReference, author: Authorship, source: SourceFrame
) -> Dataset:
    place = slide_place(source.header)
    if place is None:
        raise Defect("Annotations were planned without a place.", code="annotations_misplanned")
    return build_annotations(field, reference=reference, author=author, source=source, place=place)


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
            yield _dicom_result(
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


def _dicom_result(reference: ObjectReference, dataset: Dataset) -> Result:
    return Result(
        kind=reference.kind,
        name=f"{reference.sop_instance_uid}.dcm",
        media_type=DICOM_MEDIA_TYPE,
        uid=reference.sop_instance_uid,
        content=part10_bytes(dataset, transfer_syntax_of(dataset)),
    )


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

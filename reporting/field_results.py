"""Builds the DICOM objects of a smear's fields, one source image at a time, in any order.

It needs no documents and their libraries, so a process that builds fields alone stays small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

from pydicom import Dataset

from pipeline.decoding.frames import ImageLimits, read_frames
from pipeline.domain import FieldFindings, SmearFindings, SOPInstanceUID, SourceImage
from pipeline.errors import Defect
from pipeline.rendering.annotated_field import draw_field, enlargement
from pipeline.rendering.gallery import Card, CardCutter
from reporting.content.sign_off import short_review_words
from reporting.dicom.bulk_annotations import build_annotations
from reporting.dicom.common_modules import Authorship, part10_bytes
from reporting.dicom.presentation_state import build_presentation_state
from reporting.dicom.secondary_capture import build_secondary_capture, transfer_syntax_of
from reporting.dicom.segmentation import build_segmentation
from reporting.dicom.slide_coordinates import slide_place
from reporting.dicom.source_attributes import SourceFrame
from reporting.research_label import check_label
from reporting.results import (
    DICOM_MEDIA_TYPE,
    ObjectReference,
    ReportContext,
    Result,
    ResultKind,
)

ReadSource = Callable[[SOPInstanceUID], Dataset]

PAGE_USERS = frozenset({ResultKind.PDF_REPORT, ResultKind.FHIR_BUNDLE})
GALLERY_USERS = PAGE_USERS | {ResultKind.GALLERY}

ACCEPTED_LIMITS = ImageLimits(max_megapixels=math.inf, min_side_px=1, max_frames=2**31)
"""The source was held against the site's limits before it was analysed."""


class FieldResults:
    """The objects of one smear's fields, in parts: a part is the fields of one image.

    Cards of the gallery are cut while an image is decoded for its objects.
    """

    def __init__(
        self,
        smear: SmearFindings,
        objects: Sequence[ObjectReference],
        *,
        headers: Callable[[SOPInstanceUID], Dataset],
        read_source: ReadSource,
        context: ReportContext,
    ) -> None:
        self._smear = smear
        self._objects = _by_field(objects)
        self._headers = headers
        self._context = context
        self._cutter = CardCutter(smear) if context.kinds & GALLERY_USERS else None
        self._frames = _Frames(read_source, self._cutter)
        self.parts = [
            tuple(fields)
            for _, fields in groupby(smear.fields, key=lambda field: field.sop_instance_uid)
        ]

    def of_part(self, number: int) -> Iterator[Result]:
        """The objects of one image, in the order of the plan."""
        for field in self.parts[number]:
            for result in self._of_field(field):
                check_label(result)
                yield result

    def parts_with_cards(self) -> list[int]:
        """The parts of which cards are still to be cut."""
        missing = self._cutter.fields if self._cutter else frozenset()
        return [
            number
            for number, fields in enumerate(self.parts)
            if any((field.sop_instance_uid, field.frame) in missing for field in fields)
        ]

    def cards_cut(self) -> Mapping[int, Card]:
        """The cards so far, by their place in the gallery."""
        return self._cutter.cut if self._cutter else {}

    def add_cards(self, cards: Mapping[int, Card]) -> None:
        """Take over the cards of parts that were built elsewhere."""
        if self._cutter:
            self._cutter.add(cards)

    def cards(self) -> list[Card]:
        """All cards of the gallery; images that were not seen are decoded now."""
        return self._cutter.cards(self._frames) if self._cutter else []

    def _of_field(self, field: FieldFindings) -> Iterator[Result]:
        header = self._headers(field.sop_instance_uid)
        author = Authorship(header=header, model=self._smear.model, context=self._context)
        source = SourceFrame(header=header, frame=field.frame)
        for reference in self._objects.get((field.sop_instance_uid, field.frame), ()):
            yield dicom_result(reference, self._object(field, reference, author, source))

    def _object(
        self,
        field: FieldFindings,
        reference: ObjectReference,
        author: Authorship,
        source: SourceFrame,
    ) -> Dataset:
        match reference.kind:
            case ResultKind.ANNOTATED_FIELD:
                return self._annotated(field, reference, author, source)
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

    def _annotated(
        self,
        field: FieldFindings,
        reference: ObjectReference,
        author: Authorship,
        source: SourceFrame,
    ) -> Dataset:
        zoom = enlargement(field.width, field.height)
        enlarged = f" Enlarged {zoom:.2f} times for legible labels." if zoom > 1 else ""
        picture = draw_field(
            self._frames(field.sop_instance_uid, field.frame),
            field,
            review_words=short_review_words(self._smear),
        )
        return build_secondary_capture(
            picture,
            reference=reference,
            author=author,
            sources=[source],
            derivation=f"White cells outlined and labelled by software.{enlarged}",
            is_resampled=zoom > 1,
        )


def dicom_result(reference: ObjectReference, dataset: Dataset) -> Result:
    """A planned object that was built."""
    return Result(
        kind=reference.kind,
        name=f"{reference.sop_instance_uid}.dcm",
        media_type=DICOM_MEDIA_TYPE,
        uid=reference.sop_instance_uid,
        content=part10_bytes(dataset, transfer_syntax_of(dataset)),
    )


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


def _by_field(
    objects: Sequence[ObjectReference],
) -> Mapping[tuple[SOPInstanceUID, int], list[ObjectReference]]:
    """The objects of each field, in the order of the plan."""
    found: dict[tuple[SOPInstanceUID, int], list[ObjectReference]] = {}
    for reference in objects:
        if reference.source is not None and reference.frame is not None:
            found.setdefault((reference.source, reference.frame), []).append(reference)
    return found


def _annotations(
    field: FieldFindings, reference: ObjectReference, author: Authorship, source: SourceFrame
) -> Dataset:
    place = slide_place(source.header)
    if place is None:
        raise Defect("Annotations were planned without a place.", code="annotations_misplanned")
    return build_annotations(field, reference=reference, author=author, source=source, place=place)

"""Builds the Key Object Selection "For Research" that names the result set (TID 2010)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydicom import Dataset

from config.codes import FOR_RESEARCH, MODALITY_KEY_OBJECTS
from config.dicom_codes import ENGLISH, KEY_OBJECT_DESCRIPTION, LANGUAGE
from pipeline.domain import RESEARCH_USE_ONLY, SmearFindings
from reporting.content.sign_off import cell_in_words
from reporting.dicom.common_modules import (
    Authorship,
    InstanceReference,
    common_modules,
    date_and_time,
    evidence,
)
from reporting.dicom.source_attributes import SourceFrame
from reporting.dicom.sr_content_items import Relation, code, made_object, root, source_image, text
from reporting.dicom.structured_report import observer
from reporting.results import ObjectReference, ResultKind

IMAGE_KINDS = frozenset({ResultKind.GALLERY, ResultKind.ANNOTATED_FIELD, ResultKind.SEGMENTATION})


def build_key_objects(
    smear: SmearFindings,
    *,
    reference: ObjectReference,
    author: Authorship,
    sources: Sequence[SourceFrame],
    objects: Sequence[ObjectReference],
) -> Dataset:
    """The document that names `objects`, the other members of the set, and their sources."""
    dataset = common_modules(reference, author, modality=MODALITY_KEY_OBJECTS.code)
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.ContentDate, dataset.ContentTime = date_and_time(author)
    dataset.CurrentRequestedProcedureEvidenceSequence = evidence(
        [
            *(InstanceReference.of_object(member) for member in objects),
            *(InstanceReference.of_source(source.header) for source in sources),
        ]
    )
    dataset.update(root(FOR_RESEARCH, "2010", _content(smear, author, sources, objects)))
    return dataset


def _content(
    smear: SmearFindings,
    author: Authorship,
    sources: Sequence[SourceFrame],
    objects: Sequence[ObjectReference],
) -> Iterator[Dataset]:
    yield code(LANGUAGE, ENGLISH, Relation.CONCEPT_MODIFIER)
    yield from observer(author)
    yield text(
        KEY_OBJECT_DESCRIPTION, f"{RESEARCH_USE_ONLY}. {smear.grade_reason}{_starred(smear)}"
    )
    for member in objects:
        yield made_object(member, "IMAGE" if member.kind in IMAGE_KINDS else "COMPOSITE")
    for source in sources:
        yield source_image(source)


def _starred(smear: SmearFindings) -> str:
    """The cells that a reviewer marked, as the pictures name them."""
    keys = smear.review.starred if smear.review else ()
    return f" Starred: {', '.join(cell_in_words(smear, key) for key in keys)}." if keys else ""

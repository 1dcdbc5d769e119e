"""Builds the smear's measurements as a Comprehensive 3D SR by TID 1500, as IHE AI Results asks.

The whole smear is one measurement group; each of the first cells, most suspicious first, is a
planar region with its measurements (TID 1410). Cells beyond the limit stand in the bulk
annotations and in the table: readers of SR slow down long before writers do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pydicom import Dataset

from config.codes import (
    IMAGING_MEASUREMENT_REPORT,
    MODALITY_STRUCTURED_REPORT,
)
from config.dicom_codes import (
    COMMENT,
    DEVICE,
    DEVICE_OBSERVER_MANUFACTURER,
    DEVICE_OBSERVER_MODEL,
    DEVICE_OBSERVER_NAME,
    DEVICE_OBSERVER_SERIAL,
    DEVICE_OBSERVER_UID,
    ENGLISH,
    IMAGE_LIBRARY,
    IMAGE_LIBRARY_GROUP,
    IMAGING_MEASUREMENTS,
    LANGUAGE,
    MICROSCOPY,
    OBSERVER_TYPE,
    PERSON,
    PERSON_OBSERVER_NAME,
    PERSON_OBSERVER_ORGANIZATION,
    PERSON_OBSERVER_ROLE,
    PROCEDURE_REPORTED,
    SMEARLINK,
    SPECIMEN,
    SPECIMEN_CONTAINER,
    SPECIMEN_IDENTIFIER,
    SPECIMEN_UID,
    SUBJECT_CLASS,
    local,
)
from pipeline.domain import RESEARCH_USE_ONLY, Reviewer, Signature, SmearFindings
from reporting.content.identifiers import text_of
from reporting.content.narrative import GRADE_WORDS, buckets_in_words
from reporting.content.sign_off import (
    comments_in_words,
    is_signed,
    review_in_words,
    standing_signatures,
)
from reporting.derived_uids import derived_uid
from reporting.dicom.attributes import Attributes
from reporting.dicom.common_modules import (
    MANUFACTURER,
    Authorship,
    InstanceReference,
    common_modules,
    date_and_time,
    evidence,
)
from reporting.dicom.source_attributes import SourceFrame, code_item, has_specimen
from reporting.dicom.sr_content_items import (
    Relation,
    as_person_name,
    code,
    container,
    person_name,
    root,
    source_image,
    text,
    uid_reference,
)
from reporting.dicom.sr_measurement_groups import MOST_CELLS, measurement_groups
from reporting.results import ObjectReference, PreviousVersion

UID_FORM = re.compile(r"[0-9.]{1,64}", re.ASCII)
"""What a reader takes for a UID; a leading zero of a component harms nobody."""


def build_structured_report(
    smear: SmearFindings,
    *,
    reference: ObjectReference,
    author: Authorship,
    sources: Sequence[SourceFrame],
) -> Dataset:
    """The report of one smear; `sources` are the frames of `smear.fields`, in their order."""
    dataset = common_modules(reference, author, modality=MODALITY_STRUCTURED_REPORT.code)
    dataset.update(_document(smear, author, sources))
    dataset.update(
        root(IMAGING_MEASUREMENT_REPORT, "1500", _content(smear, reference, author, sources))
    )
    return dataset


def _document(smear: SmearFindings, author: Authorship, sources: Sequence[SourceFrame]) -> Dataset:
    """SR Document Series and General Modules (C.17.1, C.17.2); preliminary until it is signed."""
    document = Attributes()
    document.ReferencedPerformedProcedureStepSequence = []
    document.CodingSchemeIdentificationSequence = [_own_scheme()]
    document.ContentDate, document.ContentTime = date_and_time(author)
    document.CompletionFlag = "COMPLETE"
    document.CompletionFlagDescription = RESEARCH_USE_ONLY
    signatures = standing_signatures(smear)
    document.VerificationFlag = "VERIFIED" if signatures else "UNVERIFIED"
    if signatures:
        document.VerifyingObserverSequence = [_verifying_observer(one) for one in signatures]
    document.PreliminaryFlag = "FINAL" if is_signed(smear) else "PRELIMINARY"
    document.PerformedProcedureCodeSequence = [code_item(MICROSCOPY)]
    document.CurrentRequestedProcedureEvidenceSequence = evidence(
        InstanceReference.of_source(source.header) for source in sources
    )
    document.update(_predecessor(author.context.previous))
    return document


def _verifying_observer(signature: Signature) -> Dataset:
    """Who signed, and when (C.17.2.3); name and organization are type 1."""
    item = Attributes()
    item.VerifyingObserverName = as_person_name(signature.reviewer.name)
    item.VerifyingObserverIdentificationCodeSequence = []
    item.VerifyingOrganization = signature.reviewer.organization[:64] or "Not given"
    item.VerificationDateTime = signature.at.strftime("%Y%m%d%H%M%S%z")
    return item


def _predecessor(previous: PreviousVersion | None) -> Dataset:
    """The report that this one replaces (Predecessor Documents Sequence, C.17.2)."""
    document = Attributes()
    if previous is not None and previous.structured_report is not None:
        replaced = previous.structured_report
        document.PredecessorDocumentsSequence = evidence(
            [
                InstanceReference(
                    study_uid=replaced.study_uid,
                    series_uid=replaced.series_uid,
                    sop_class_uid=replaced.sop_class_uid,
                    sop_instance_uid=replaced.sop_instance_uid,
                )
            ]
        )
    return document


def _own_scheme() -> Dataset:
    """Whose words stand under our private designator (C.12.1.1.1)."""
    scheme = Attributes()
    scheme.CodingSchemeDesignator = SMEARLINK.designator
    scheme.CodingSchemeName = "Concepts of smearlink, for research use only"
    scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
    return scheme


def _content(
    smear: SmearFindings,
    reference: ObjectReference,
    author: Authorship,
    sources: Sequence[SourceFrame],
) -> Iterator[Dataset]:
    """TID 1500, in its order of rows."""
    yield code(LANGUAGE, ENGLISH, Relation.CONCEPT_MODIFIER)
    yield from observer(author)
    for person in smear.review.reviewers if smear.review else ():
        yield from person_observer(person)
    yield from _subject(author.header)
    yield code(PROCEDURE_REPORTED, MICROSCOPY, Relation.CONCEPT_MODIFIER)
    yield text(COMMENT, _statement(smear, author))
    yield container(
        IMAGE_LIBRARY,
        [container(IMAGE_LIBRARY_GROUP, [source_image(source) for source in sources])],
    )
    groups = measurement_groups(smear, reference, author, sources)
    yield container(IMAGING_MEASUREMENTS, groups)


def observer(author: Authorship) -> Iterator[Dataset]:
    """The observer is a device (TID 1002, TID 1004)."""
    context = Relation.OBSERVATION_CONTEXT
    yield code(OBSERVER_TYPE, DEVICE, context)
    yield uid_reference(DEVICE_OBSERVER_UID, derived_uid("network", author.model.key))
    yield text(DEVICE_OBSERVER_NAME, author.software, context)
    yield text(DEVICE_OBSERVER_MANUFACTURER, MANUFACTURER, context)
    yield text(DEVICE_OBSERVER_MODEL, f"{author.model.name} {author.model.version}", context)
    yield text(DEVICE_OBSERVER_SERIAL, author.model.sha256, context)


def person_observer(person: Reviewer) -> Iterator[Dataset]:
    """A person who reviewed, beside the device (TID 1002, TID 1003)."""
    context = Relation.OBSERVATION_CONTEXT
    yield code(OBSERVER_TYPE, PERSON, context)
    yield person_name(PERSON_OBSERVER_NAME, person.name)
    if person.organization:
        yield text(PERSON_OBSERVER_ORGANIZATION, person.organization, context)
    yield code(PERSON_OBSERVER_ROLE, local(person.role), context)


def _subject(header: Dataset) -> Iterator[Dataset]:
    """The specimen of the source (TID 1009); without one the patient is the subject by default."""
    if not has_specimen(header):
        return
    described = header.SpecimenDescriptionSequence[0]
    uid, name = text_of(described, "SpecimenUID"), text_of(described, "SpecimenIdentifier")
    if not (UID_FORM.fullmatch(uid) and name):
        return
    context = Relation.OBSERVATION_CONTEXT
    yield code(SUBJECT_CLASS, SPECIMEN, context)
    yield uid_reference(SPECIMEN_UID, uid)
    yield text(SPECIMEN_IDENTIFIER, name, context)
    yield text(SPECIMEN_CONTAINER, text_of(header, "ContainerIdentifier"), context)


def _statement(smear: SmearFindings, author: Authorship) -> str:
    """What a reader sees first."""
    context = author.context
    replaces = f" Version {context.version}, replaces the one before."
    found = sum(len(field.cells) for field in smear.fields)
    shown = min(MOST_CELLS, found)
    review = " ".join(review_in_words(smear, least_cells=context.min_cells_for_percent))
    comments = "".join(f" {words}" for words in comments_in_words(smear))
    return (
        f"{RESEARCH_USE_ONLY}. {review} {GRADE_WORDS[smear.grade]}. "
        f"{smear.grade_reason} {buckets_in_words(smear)} "
        f"{shown} of {found} cells listed here, most suspicious first. Network sha256 "
        f"{smear.model.sha256}, run by {smear.model.execution_provider}"
        f"{smear.model.calibration_note}."
        f"{replaces if context.version > 1 else ''}{comments}"
    )

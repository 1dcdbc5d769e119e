"""The smear's figures as a Comprehensive 3D SR after TID 1500 (PS3.16), as IHE AI Results asks.

The whole smear is one measurement group; each of the first cells, most suspicious first, is a
planar region with its measurements (TID 1410). Cells beyond the limit stand in the bulk
annotations and in the table: readers of SR slow down long before writers do.
"""

from __future__ import annotations

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
    PROCEDURE_REPORTED,
    SMEARLINK,
    SPECIMEN,
    SPECIMEN_CONTAINER,
    SPECIMEN_IDENTIFIER,
    SPECIMEN_UID,
    SUBJECT_CLASS,
)
from pipeline.domain import (
    RESEARCH_USE_ONLY,
    SmearFindings,
)
from pipeline.findings.smear_summary import referred_cell_count
from reporting.derived_uids import derived_uid
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
    code,
    container,
    root,
    source_image,
    text,
    uid_reference,
)
from reporting.dicom.sr_measurement_groups import MOST_CELLS, measurement_groups
from reporting.results import ObjectReference


def build_structured_report(
    smear: SmearFindings,
    *,
    reference: ObjectReference,
    author: Authorship,
    sources: Sequence[SourceFrame],
) -> Dataset:
    """The report of one smear; `sources` are the frames of `smear.fields`, in their order."""
    dataset = common_modules(reference, author, modality=MODALITY_STRUCTURED_REPORT.code)
    dataset.update(_document(author, sources))
    dataset.update(
        root(IMAGING_MEASUREMENT_REPORT, "1500", _content(smear, reference, author, sources))
    )
    return dataset


def _document(author: Authorship, sources: Sequence[SourceFrame]) -> Dataset:
    """SR Document Series and General Modules (C.17.1, C.17.2): preliminary, nobody verified it."""
    document = Dataset()
    document.ReferencedPerformedProcedureStepSequence = []
    document.CodingSchemeIdentificationSequence = [_own_scheme()]
    document.ContentDate, document.ContentTime = date_and_time(author)
    document.CompletionFlag = "COMPLETE"
    document.CompletionFlagDescription = RESEARCH_USE_ONLY
    document.VerificationFlag = "UNVERIFIED"
    document.PreliminaryFlag = "PRELIMINARY"
    document.PerformedProcedureCodeSequence = [code_item(MICROSCOPY)]
    document.CurrentRequestedProcedureEvidenceSequence = evidence(
        InstanceReference.of_source(source.header) for source in sources
    )
    return document


def _own_scheme() -> Dataset:
    """Whose words stand under our private designator (C.12.1.1.1)."""
    scheme = Dataset()
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


def _subject(header: Dataset) -> Iterator[Dataset]:
    """The specimen of the source (TID 1009); without one the patient is the subject by default."""
    if not has_specimen(header):
        return
    described = header.SpecimenDescriptionSequence[0]
    if not (described.get("SpecimenUID") and described.get("SpecimenIdentifier")):
        return
    context = Relation.OBSERVATION_CONTEXT
    yield code(SUBJECT_CLASS, SPECIMEN, context)
    yield uid_reference(SPECIMEN_UID, str(described.SpecimenUID))
    yield text(SPECIMEN_IDENTIFIER, str(described.SpecimenIdentifier), context)
    yield text(SPECIMEN_CONTAINER, str(header.ContainerIdentifier), context)


def _statement(smear: SmearFindings, author: Authorship) -> str:
    """What a reader sees first."""
    amended = f" Version {author.context.version}, replaces the one before."
    shown = min(MOST_CELLS, sum(len(field.cells) for field in smear.fields))
    return (
        f"{RESEARCH_USE_ONLY}. Made by software, reviewed by nobody. {smear.grade_reason} "
        f"{referred_cell_count(smear)} cells referred to an expert; {shown} cells listed here, "
        f"most suspicious first. Network sha256 {smear.model.sha256}, run by "
        f"{smear.model.execution_provider}.{amended if author.context.version > 1 else ''}"
    )

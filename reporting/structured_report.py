"""The smear's figures as a Comprehensive 3D SR after TID 1500 (PS3.16), as IHE AI Results asks.

The whole smear is one measurement group; each of the first cells, most suspicious first, is a
planar region with its measurements (TID 1410). Cells beyond the limit stand in the bulk
annotations and in the table: readers of SR slow down long before writers do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pydicom import Dataset

from config.codes import (
    ALGORITHM_FAMILY,
    ALGORITHM_NAME,
    ALGORITHM_PARAMETERS,
    ALGORITHM_VERSION,
    ARTIFICIAL_INTELLIGENCE,
    BLASTS_PER_LEUKOCYTES,
    BLOOD_SMEAR,
    CELL_TYPE,
    CELL_TYPE_SHARE,
    IMAGE_REGION,
    IMAGING_MEASUREMENT_REPORT,
    LEUKOCYTE,
    MEASUREMENT_GROUP,
    MODALITY_STRUCTURED_REPORT,
    PERCENT,
    TRACKING_IDENTIFIER,
    TRACKING_UNIQUE_IDENTIFIER,
    Concept,
)
from config.dicom_codes import (
    ALGORITHM_MANUFACTURER,
    AREA,
    CALL,
    CALLS,
    CELLS,
    COMMENT,
    DEVICE,
    DEVICE_OBSERVER_MANUFACTURER,
    DEVICE_OBSERVER_MODEL,
    DEVICE_OBSERVER_NAME,
    DEVICE_OBSERVER_SERIAL,
    DEVICE_OBSERVER_UID,
    DIFFERENTIAL_SHARE,
    ENGLISH,
    FIELD_QUALITY,
    FINDING,
    IMAGE_LIBRARY,
    IMAGE_LIBRARY_GROUP,
    IMAGING_MEASUREMENTS,
    LANGUAGE,
    LEUKEMIC_COUNT,
    LEUKEMIC_SHARE_HIGH,
    LEUKEMIC_SHARE_LOW,
    LEUKOCYTES_COUNTED,
    MICROMETER,
    MICROSCOPY,
    NORMAL_COUNT,
    NUCLEUS_TO_CELL_RATIO,
    OBSERVER_TYPE,
    ONE,
    PERIMETER,
    PROBABILITY,
    PROCEDURE_REPORTED,
    REASON,
    REFERRED_COUNT,
    SMEARLINK,
    SPECIMEN,
    SPECIMEN_CONTAINER,
    SPECIMEN_IDENTIFIER,
    SPECIMEN_UID,
    SQUARE_MICROMETER,
    SUBJECT_CLASS,
    local,
)
from pipeline.domain import (
    RESEARCH_USE_ONLY,
    CellFinding,
    FieldFindings,
    SmearFindings,
)
from pipeline.gallery import most_suspicious
from pipeline.smear import referred_cell_count
from reporting.composite import (
    MANUFACTURER,
    Authorship,
    InstanceReference,
    common_modules,
    date_and_time,
    evidence,
)
from reporting.content_items import (
    Relation,
    code,
    container,
    number,
    region,
    root,
    source_image,
    text,
    uid_reference,
)
from reporting.identity import derived_uid
from reporting.outlines import closed, outline_points
from reporting.results import ObjectReference
from reporting.source import SourceFrame, code_item, has_specimen

MOST_CELLS = 200
"""Cells with a region of their own; see ADR 0010 for what more of them cost the reader."""


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
    groups = [_smear_group(smear, reference, author)]
    groups += _field_groups(smear, reference)
    groups += _cell_groups(smear, reference, author, sources)
    yield container(IMAGING_MEASUREMENTS, groups)


def observer(author: Authorship) -> Iterator[Dataset]:
    """The observer is a device (TID 1002, TID 1004)."""
    context = Relation.OBSERVATION_CONTEXT
    yield code(OBSERVER_TYPE, DEVICE, context)
    yield uid_reference(DEVICE_OBSERVER_UID, derived_uid("network", author.model.sha256))
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


# --- the whole smear


def _smear_group(smear: SmearFindings, reference: ObjectReference, author: Authorship) -> Dataset:
    """TID 1501: the differential count."""
    return container(
        MEASUREMENT_GROUP,
        [
            *_tracking("smear", derived_uid("tracking", reference.sop_instance_uid, "smear")),
            code(FINDING, LEUKOCYTE),
            *_algorithm(author),
            *_counts(smear),
            *_differential(smear),
            *(
                text(REASON, f"{reason}: {count}")
                for reason, count in sorted(smear.referred.items())
            ),
        ],
        template="1501",
    )


def _tracking(name: str, uid: str) -> Iterator[Dataset]:
    yield text(TRACKING_IDENTIFIER, name, Relation.OBSERVATION_CONTEXT)
    yield uid_reference(TRACKING_UNIQUE_IDENTIFIER, uid)


def _algorithm(author: Authorship) -> Iterator[Dataset]:
    """TID 4019."""
    modifier = Relation.CONCEPT_MODIFIER
    yield text(ALGORITHM_NAME, author.model.name, modifier)
    yield text(ALGORITHM_VERSION, author.model.version, modifier)
    yield text(ALGORITHM_MANUFACTURER, MANUFACTURER, modifier)
    yield code(ALGORITHM_FAMILY, ARTIFICIAL_INTELLIGENCE, modifier)
    yield text(ALGORITHM_PARAMETERS, f"sha256={author.model.sha256}", modifier)


def _counts(smear: SmearFindings) -> Iterator[Dataset]:
    yield number(LEUKOCYTES_COUNTED, smear.white_cells_counted, CELLS)
    yield number(LEUKEMIC_COUNT, smear.leukemic_count, CELLS)
    yield number(NORMAL_COUNT, smear.normal_count, CELLS)
    yield number(REFERRED_COUNT, referred_cell_count(smear), CELLS)
    if smear.leukemic_fraction:
        yield number(BLASTS_PER_LEUKOCYTES, 100 * smear.leukemic_fraction.value, PERCENT)
        yield number(LEUKEMIC_SHARE_LOW, 100 * smear.leukemic_fraction.low, PERCENT)
        yield number(LEUKEMIC_SHARE_HIGH, 100 * smear.leukemic_fraction.high, PERCENT)


def _differential(smear: SmearFindings) -> Iterator[Dataset]:
    if not smear.white_cells_counted:
        return
    for cell_type, count in smear.differential.items():
        name: Concept = CELL_TYPE_SHARE.get(cell_type) or DIFFERENTIAL_SHARE[cell_type]
        yield number(name, 100 * count / smear.white_cells_counted, PERCENT)


# --- fields whose quality says something


def _field_groups(smear: SmearFindings, reference: ObjectReference) -> Iterator[Dataset]:
    for position, field in enumerate(smear.fields, start=1):
        if field.quality.flags:
            uid = derived_uid("tracking", reference.sop_instance_uid, "field", str(position))
            yield container(
                MEASUREMENT_GROUP,
                [
                    *_tracking(f"field {position}", uid),
                    code(FINDING, BLOOD_SMEAR),
                    *(code(FIELD_QUALITY, local(flag)) for flag in sorted(field.quality.flags)),
                ],
                template="1501",
            )


# --- the most suspicious cells


def _cell_groups(
    smear: SmearFindings,
    reference: ObjectReference,
    author: Authorship,
    sources: Sequence[SourceFrame],
) -> Iterator[Dataset]:
    """TID 1410, one a cell."""
    for number_from_0, finding in most_suspicious(smear, MOST_CELLS):
        field = smear.fields[number_from_0]
        yield container(
            MEASUREMENT_GROUP,
            [
                *_tracking(
                    f"field {number_from_0 + 1} cell {finding.cell.index}",
                    cell_uid(field, finding, author),
                ),
                code(FINDING, CELL_TYPE[finding.cell_type]),
                *_algorithm(author),
                region(
                    IMAGE_REGION,
                    closed(outline_points(finding.cell.contour)),
                    sources[number_from_0],
                ),
                *_measurements(finding),
                *_evaluations(finding),
            ],
            template="1410",
        )


def cell_uid(field: FieldFindings, finding: CellFinding, author: Authorship) -> str:
    """The tracking UID of one cell: the same in every version of the report."""
    return derived_uid(
        "cell",
        field.sop_instance_uid,
        str(field.frame),
        str(finding.cell.index),
        author.model.sha256,
    )


def _measurements(finding: CellFinding) -> Iterable[Dataset]:
    shape = finding.cell.shape
    yield number(PROBABILITY, finding.prediction.leukemic_probability, ONE)
    yield number(AREA, shape.area_um2, SQUARE_MICROMETER)
    yield number(PERIMETER, shape.perimeter_um, MICROMETER)
    yield number(NUCLEUS_TO_CELL_RATIO, shape.nucleus_to_cell_ratio, ONE)


def _evaluations(finding: CellFinding) -> Iterable[Dataset]:
    yield code(CALL, CALLS[finding.call])
    for reason in finding.reasons:
        yield code(REASON, local(reason))

"""Builds the measurement groups of the report: the whole smear, poor fields, suspicious cells.

OHIF 3.12 opens a report only when it finds coordinates in every group. So a measurement of the
smear's group has the border of the field with the most suspicious cell, or of the first field where
no cell was found, and a poor field has its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from pydicom import Dataset

from config.codes import (
    ALGORITHM_FAMILY,
    ALGORITHM_NAME,
    ALGORITHM_PARAMETERS,
    ALGORITHM_VERSION,
    ARTIFICIAL_INTELLIGENCE,
    BLAST,
    BLASTS_PER_LEUKOCYTES,
    BLOOD_SMEAR,
    CELL_TYPE,
    CELL_TYPE_SHARE,
    IMAGE_REGION,
    LEUKOCYTE,
    MEASUREMENT_GROUP,
    PERCENT,
    PERSON_LINEAGE,
    SMUDGE_CELL,
    TRACKING_IDENTIFIER,
    TRACKING_UNIQUE_IDENTIFIER,
    Concept,
)
from config.dicom_codes import (
    ALGORITHM_MANUFACTURER,
    AREA,
    BLAST_LIMITS,
    CALL,
    CALLS,
    CELLS,
    CELLS_IN_FIELD,
    CHANGED_COUNT,
    CONFIRMED_COUNT,
    DECIDED_BY,
    DECISION_REASON,
    DIFFERENTIAL_SHARE,
    FIELD_QUALITY,
    FINDING,
    FOUND_COUNT,
    GRADE,
    GRADE_REASON,
    LEUKEMIC_COUNT,
    LEUKEMIC_PROBABILITY,
    LEUKOCYTES_COUNTED,
    MICROMETER,
    MODEL_COUNT,
    MODEL_LEUKEMIC,
    MODEL_REFERRED,
    MOST_SUSPICIOUS_PROBABILITY,
    NORMAL_COUNT,
    NOT_LEUKOCYTE_COUNT,
    NUCLEUS_TO_CELL_RATIO,
    ONE,
    PERIMETER,
    REASON,
    REFERRED_COUNT,
    SMUDGE_COUNT,
    SOURCE,
    SQUARE_MICROMETER,
    SUGGESTED_TYPE,
    UNDETERMINED_COUNT,
    about_type,
    local,
)
from pipeline.domain import (
    Call,
    CellFinding,
    CellType,
    FieldFindings,
    SmearFindings,
)
from pipeline.findings.percentages import has_percentages, percent, wilson
from pipeline.findings.smear_summary import (
    BLAST_WORD,
    Bucket,
    bucket_of,
    differential_words,
    found_cell_count,
    is_smudge,
    referred_cell_count,
    smudge_cell_count,
    type_word,
)
from pipeline.rendering.gallery import most_suspicious
from reporting.content.narrative import WARNING_WORDS
from reporting.derived_uids import derived_uid
from reporting.dicom.common_modules import MANUFACTURER, Authorship
from reporting.dicom.graphic_coordinates import closed, outline_points
from reporting.dicom.source_attributes import SourceFrame
from reporting.dicom.sr_content_items import (
    Relation,
    code,
    container,
    number,
    region,
    text,
    uid_reference,
)
from reporting.results import ObjectReference

MOST_CELLS = 200
"""Cells with a region of their own; see ADR 0010 for what more of them cost the reader."""


def measurement_groups(
    smear: SmearFindings,
    reference: ObjectReference,
    author: Authorship,
    sources: Sequence[SourceFrame],
) -> Iterator[Dataset]:
    """All groups; `sources` are the frames of `smear.fields`, in their order."""
    yield _smear_group(smear, reference, author, sources)
    yield from _field_groups(smear, reference, sources)
    yield from _cell_groups(smear, author, sources)


def _tracking(name: str, uid: str) -> Iterator[Dataset]:
    yield text(TRACKING_IDENTIFIER, name, Relation.OBSERVATION_CONTEXT)
    yield uid_reference(TRACKING_UNIQUE_IDENTIFIER, uid)


def _algorithm(author: Authorship) -> Sequence[Dataset]:
    """TID 4019; the groups of a document share its items."""
    return _algorithm_of(author.model.name, author.model.version, *_hashes(author))


def _hashes(author: Authorship) -> Iterator[str]:
    yield f"sha256={author.model.sha256}"
    if author.model.finder_sha256:
        yield f"cell finder sha256={author.model.finder_sha256}"
    if author.model.calibration:
        yield f"site calibration: {author.model.calibration.described}"


@lru_cache(maxsize=8)
def _algorithm_of(name: str, version: str, *parameters: str) -> Sequence[Dataset]:
    modifier = Relation.CONCEPT_MODIFIER
    return (
        text(ALGORITHM_NAME, name, modifier),
        text(ALGORITHM_VERSION, version, modifier),
        text(ALGORITHM_MANUFACTURER, MANUFACTURER, modifier),
        code(ALGORITHM_FAMILY, ARTIFICIAL_INTELLIGENCE, modifier),
        *(text(ALGORITHM_PARAMETERS, parameter, modifier) for parameter in parameters),
    )


# --- the whole smear


def _smear_group(
    smear: SmearFindings,
    reference: ObjectReference,
    author: Authorship,
    sources: Sequence[SourceFrame],
) -> Dataset:
    """TID 1501: the differential count."""
    return container(
        MEASUREMENT_GROUP,
        [
            *_tracking("smear", derived_uid("tracking", reference.sop_instance_uid, "smear")),
            code(FINDING, LEUKOCYTE),
            *_algorithm(author),
            *_grade(smear),
            *_counts(smear, sources),
            *_percentages(smear, author.context.min_cells_for_percent),
            *_review(smear),
            *_most_suspicious_cell(smear, sources),
            *(
                text(REASON, f"{reason}: {count}")
                for reason, count in sorted(smear.referred.items())
            ),
        ],
        template="1501",
    )


def _grade(smear: SmearFindings) -> Iterator[Dataset]:
    """First of all, so that no reader meets a share before its warning."""
    yield code(GRADE, local(f"grade_{smear.grade}"))
    yield text(GRADE_REASON, smear.grade_reason)
    if smear.count_warning:
        yield text(GRADE_REASON, WARNING_WORDS[smear.count_warning])


def _counts(smear: SmearFindings, sources: Sequence[SourceFrame]) -> Iterator[Dataset]:
    """Every cell found, in the one bucket where it stands; the numbers add up."""
    # Of the first field alone: OHIF passes over a figure that was inferred from several regions.
    looked_at = [] if _has_cells(smear) else list(_borders(smear.fields[:1], sources[:1]))
    yield number(LEUKOCYTES_COUNTED, smear.white_cells_counted, CELLS, looked_at)
    yield number(LEUKEMIC_COUNT, smear.leukemic_count, CELLS)
    yield number(NORMAL_COUNT, smear.normal_count, CELLS)
    for word, count in differential_words(smear).items():
        yield number(about_type(word, "count"), count, CELLS)
    yield number(REFERRED_COUNT, referred_cell_count(smear), CELLS)
    yield number(SMUDGE_COUNT, smudge_cell_count(smear), CELLS)
    yield number(UNDETERMINED_COUNT, smear.undetermined_count, CELLS)
    for cell_type, count in smear.not_leukocytes.items():
        name = NOT_LEUKOCYTE_COUNT.get(cell_type) or about_type(type_word(cell_type), "apart")
        yield number(name, count, CELLS)
    yield number(FOUND_COUNT, found_cell_count(smear), CELLS)


def _has_cells(smear: SmearFindings) -> bool:
    return any(field.cells for field in smear.fields)


def _percentages(smear: SmearFindings, least_cells: int) -> Iterator[Dataset]:
    """Shares with the limits of their 95 % intervals, or none below the least count."""
    counted = smear.white_cells_counted
    if not has_percentages(counted, least=least_cells):
        return
    for word, count in differential_words(smear).items():
        interval = wilson(count, counted)
        name = _share_name(word)
        yield number(name, percent(interval.value, counted), PERCENT)
        is_blast = word == BLAST_WORD
        for end, value in (("low", interval.low), ("high", interval.high)):
            limit = BLAST_LIMITS[end] if is_blast else about_type(word, f"share {end}")
            yield number(limit, percent(value, counted), PERCENT)


def _share_name(word: str) -> Concept:
    if word == BLAST_WORD:
        return BLASTS_PER_LEUKOCYTES
    name = word.replace(" ", "_")
    return CELL_TYPE_SHARE.get(name) or DIFFERENTIAL_SHARE.get(name) or about_type(word, "share")


def _review(smear: SmearFindings) -> Iterator[Dataset]:
    """What people did, and what the network alone had counted."""
    if smear.review is None:
        return
    model = smear.review.model_counts
    yield number(CHANGED_COUNT, len(smear.review.changes), CELLS)
    yield number(CONFIRMED_COUNT, smear.review.confirmed, CELLS)
    yield number(MODEL_COUNT, model.white_cells_counted, CELLS)
    yield number(MODEL_LEUKEMIC, model.leukemic_count, CELLS)
    yield number(MODEL_REFERRED, model.referred_count, CELLS)


def _most_suspicious_cell(
    smear: SmearFindings, sources: Sequence[SourceFrame]
) -> Iterator[Dataset]:
    """Its probability, inferred from the field that it lies in (TID 320).

    Not from its outline, where a viewer writes the figures of the cell itself.
    """
    for number_from_0, finding in most_suspicious(smear, 1):
        where = slice(number_from_0, number_from_0 + 1)
        yield number(
            MOST_SUSPICIOUS_PROBABILITY,
            finding.prediction.leukemic_probability,
            ONE,
            list(_borders(smear.fields[where], sources[where])),
        )


# --- fields whose quality says something


def _field_groups(
    smear: SmearFindings, reference: ObjectReference, sources: Sequence[SourceFrame]
) -> Iterator[Dataset]:
    """TID 1501; an unusable field is not searched, and has no cells."""
    borders = _borders(smear.fields, sources)
    for position, (field, border) in enumerate(zip(smear.fields, borders, strict=True), start=1):
        if field.quality.flags:
            uid = derived_uid("tracking", reference.sop_instance_uid, "field", str(position))
            yield container(
                MEASUREMENT_GROUP,
                [
                    *_tracking(f"field {position}", uid),
                    code(FINDING, BLOOD_SMEAR),
                    number(CELLS_IN_FIELD, len(field.cells), CELLS, [border]),
                    *(code(FIELD_QUALITY, local(flag)) for flag in sorted(field.quality.flags)),
                ],
                template="1501",
            )


def _borders(fields: Sequence[FieldFindings], sources: Sequence[SourceFrame]) -> Iterator[Dataset]:
    """The whole picture of each field as coordinates."""
    for field, source in zip(fields, sources, strict=True):
        right, bottom = field.width, field.height
        corners = [[0, 0], [right, 0], [right, bottom], [0, bottom]]
        points = closed(np.array(corners, dtype=np.float32))
        yield region(SOURCE, points, source, Relation.INFERRED_FROM)


# --- the most suspicious cells


def _cell_groups(
    smear: SmearFindings, author: Authorship, sources: Sequence[SourceFrame]
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
                code(FINDING, cell_finding(finding)),
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


def cell_finding(finding: CellFinding) -> Concept:
    """What was decided of a cell, as in the differential: never the type of a cell not counted.

    A smudge is a smudge, a referred cell is referred; what the network took it for stands beside
    it as a suggestion.
    """
    if is_smudge(finding):
        return SMUDGE_CELL
    if finding.decision is not None and finding.cell_type in PERSON_LINEAGE:
        return PERSON_LINEAGE[finding.cell_type]
    match bucket_of(finding):
        case Bucket.REFERRED:
            return CALLS[Call.REFERRED]
        case Bucket.COUNTED if finding.call is Call.LEUKEMIC:
            return BLAST
        case Bucket.UNDETERMINED:
            return local("type undetermined")
        case Bucket.COUNTED | Bucket.NOT_LEUKOCYTE:
            return CELL_TYPE[finding.cell_type]


def cell_uid(field: FieldFindings, finding: CellFinding, author: Authorship) -> str:
    """The tracking UID of one cell: the same in every version of the report."""
    return derived_uid(
        "cell",
        field.sop_instance_uid,
        str(field.frame),
        str(finding.cell.index),
        author.model.key,
    )


def _measurements(finding: CellFinding) -> Iterable[Dataset]:
    shape = finding.cell.shape
    yield number(LEUKEMIC_PROBABILITY, finding.prediction.leukemic_probability, ONE)
    yield number(AREA, shape.area_um2, SQUARE_MICROMETER)
    yield number(PERIMETER, shape.perimeter_um, MICROMETER)
    yield number(NUCLEUS_TO_CELL_RATIO, shape.nucleus_to_cell_ratio, ONE)


def _evaluations(finding: CellFinding) -> Iterable[Dataset]:
    """The network's call, and its type where that is not the finding; who decided otherwise."""
    decision = finding.decision
    call, suggested = finding.call, finding.cell_type
    if decision is not None:
        call, suggested = decision.model_call or call, decision.model_type or suggested
    yield code(CALL, CALLS[call])
    is_suggestion = decision is not None or bucket_of(finding) is Bucket.REFERRED
    if is_suggestion and suggested is not CellType.UNDETERMINED:
        yield code(SUGGESTED_TYPE, CELL_TYPE[suggested])
    if decision is not None:
        yield text(DECIDED_BY, decision.reviewer.name)
        if decision.reason:
            yield text(DECISION_REASON, decision.reason)
    for reason in finding.reasons:
        yield code(REASON, local(reason))

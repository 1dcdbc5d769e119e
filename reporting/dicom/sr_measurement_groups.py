"""The measurement groups of the report: the whole smear, poor fields, suspicious cells.

OHIF 3.12 opens a report only when it finds coordinates in every group. So a figure of the smear's
group has the border of the field with the most suspicious cell, and a poor field has its own.
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
    BLASTS_PER_LEUKOCYTES,
    BLOOD_SMEAR,
    CELL_TYPE,
    CELL_TYPE_SHARE,
    IMAGE_REGION,
    LEUKOCYTE,
    MEASUREMENT_GROUP,
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
    CELLS_IN_FIELD,
    DIFFERENTIAL_SHARE,
    FIELD_QUALITY,
    FINDING,
    FOUND_COUNT,
    LEUKEMIC_COUNT,
    LEUKEMIC_PROBABILITY,
    LEUKEMIC_SHARE_HIGH,
    LEUKEMIC_SHARE_LOW,
    LEUKOCYTES_COUNTED,
    MICROMETER,
    MOST_SUSPICIOUS_PROBABILITY,
    NORMAL_COUNT,
    NOT_LEUKOCYTE_COUNT,
    NUCLEUS_TO_CELL_RATIO,
    ONE,
    PERIMETER,
    REASON,
    REFERRED_COUNT,
    SOURCE,
    SQUARE_MICROMETER,
    UNDETERMINED_COUNT,
    local,
)
from pipeline.domain import CellFinding, FieldFindings, SmearFindings
from pipeline.findings.smear_summary import found_cell_count, referred_cell_count
from pipeline.rendering.gallery import most_suspicious
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
            *_counts(smear, sources),
            *_differential(smear),
            *_most_suspicious_cell(smear, sources),
            *(
                text(REASON, f"{reason}: {count}")
                for reason, count in sorted(smear.referred.items())
            ),
        ],
        template="1501",
    )


def _counts(smear: SmearFindings, sources: Sequence[SourceFrame]) -> Iterator[Dataset]:
    looked_at = [] if _has_cells(smear) else list(_borders(smear.fields, sources))
    yield number(LEUKOCYTES_COUNTED, smear.white_cells_counted, CELLS, looked_at)
    yield number(LEUKEMIC_COUNT, smear.leukemic_count, CELLS)
    yield number(NORMAL_COUNT, smear.normal_count, CELLS)
    yield number(REFERRED_COUNT, referred_cell_count(smear), CELLS)
    yield number(UNDETERMINED_COUNT, smear.undetermined_count, CELLS)
    for cell_type, count in smear.not_leukocytes.items():
        yield number(NOT_LEUKOCYTE_COUNT[cell_type], count, CELLS)
    yield number(FOUND_COUNT, found_cell_count(smear), CELLS)
    if smear.leukemic_fraction:
        yield number(BLASTS_PER_LEUKOCYTES, 100 * smear.leukemic_fraction.value, PERCENT)
        yield number(LEUKEMIC_SHARE_LOW, 100 * smear.leukemic_fraction.low, PERCENT)
        yield number(LEUKEMIC_SHARE_HIGH, 100 * smear.leukemic_fraction.high, PERCENT)


def _has_cells(smear: SmearFindings) -> bool:
    return any(field.cells for field in smear.fields)


def _differential(smear: SmearFindings) -> Iterator[Dataset]:
    if not smear.white_cells_counted:
        return
    for cell_type, count in smear.differential.items():
        name: Concept = CELL_TYPE_SHARE.get(cell_type) or DIFFERENTIAL_SHARE[cell_type]
        yield number(name, 100 * count / smear.white_cells_counted, PERCENT)


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
        author.model.key,
    )


def _measurements(finding: CellFinding) -> Iterable[Dataset]:
    shape = finding.cell.shape
    yield number(LEUKEMIC_PROBABILITY, finding.prediction.leukemic_probability, ONE)
    yield number(AREA, shape.area_um2, SQUARE_MICROMETER)
    yield number(PERIMETER, shape.perimeter_um, MICROMETER)
    yield number(NUCLEUS_TO_CELL_RATIO, shape.nucleus_to_cell_ratio, ONE)


def _evaluations(finding: CellFinding) -> Iterable[Dataset]:
    yield code(CALL, CALLS[finding.call])
    for reason in finding.reasons:
        yield code(REASON, local(reason))

"""Counts the fields of one smear: the differential, the leukemic share, and a grade.

The grade is defined here and nowhere else. It sorts smears for people who look at many; it names
no disease and proposes no diagnosis.

- REFER: the count cannot be trusted. Fewer than `LEAST_GRADED_CELLS` white cells were counted; or
  more cells were referred, or of a type that could not be told, than counted; or more fields were
  refused than kept; or fewer than `GRADE_FROM_CELLS` cells were counted and their interval still
  reaches below `MANY_FROM`.
- MANY: at least `MANY_FROM` of the counted white cells were called leukemic.
- FEW: at least one was.
- NONE_SEEN: none was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum

from pipeline.domain import (
    CELL_TYPES,
    Call,
    CellFinding,
    CellType,
    CountWarning,
    FieldFindings,
    Grade,
    Interval,
    ModelIdentity,
    QualityFlag,
    ReferralReason,
    SmearFindings,
    SmearId,
    SOPInstanceUID,
)
from pipeline.errors import Defect, NeedsReview
from pipeline.findings.decision import BLASTS
from pipeline.findings.percentages import wilson

NOT_LEUKOCYTES = frozenset({CellType.PLATELET, CellType.ERYTHROBLAST, CellType.SMUDGE_CELL})
"""Seen on a smear, but no part of a differential count of 100 leukocytes."""

LEUKOCYTES: tuple[CellType, ...] = tuple(t for t in CELL_TYPES if t not in NOT_LEUKOCYTES)

PERSONS_LEUKOCYTES: tuple[CellType, ...] = (
    *LEUKOCYTES,
    *(
        t
        for t in CellType
        if t not in NOT_LEUKOCYTES | {*LEUKOCYTES} and t is not CellType.UNDETERMINED
    ),
)
"""The leukocyte types that a person tells as well."""

BLAST_WORD = "blast"
"""What a reader sees of a lymphoblast or a myeloblast: the network cannot tell the lineage."""
SMUDGE_WORD = "smudge cell"


class Bucket(StrEnum):
    """Where a found cell stands in the count; every cell is in exactly one."""

    COUNTED = "counted"
    """Called, and a leukocyte by its type: the differential, and every percentage."""
    UNDETERMINED = "undetermined"
    """Called normal, but its type cannot be told."""
    NOT_LEUKOCYTE = "not_leukocyte"
    """An erythroblast or a platelet."""
    REFERRED = "referred"


MANY_FROM = 0.20
"""A share of one cell in five is where the classifications of haematology place their own line,
so smears on either side of it are read in a different order and by different people."""

LEAST_GRADED_CELLS = 10
"""Fewer cells are a glance at one field: one leukemic cell alone would be a share of 100 %, with
an interval above `MANY_FROM`, and the network errs in more than one cell of a hundred."""

GRADE_FROM_CELLS = 16
"""From 16 cells on, the interval of a smear without a leukemic cell ends below `MANY_FROM`
(Wilson: z² / (n + z²) < 0.20), so that "none seen" cannot stand for "many"."""

FULL_COUNT = 200
"""CLSI H20-A2: the reference differential counts 200 cells a smear and reader."""

SHORT_COUNT = 100
"""What many laboratories count in routine work."""


def gather_smear(
    smear_id: SmearId,
    fields: Iterable[FieldFindings],
    *,
    acquired: Sequence[SOPInstanceUID] = (),
) -> SmearFindings:
    """Count the fields of one smear; any order, and a field given twice, gives the same findings.

    The fields are numbered in the order of `acquired`; images that are not in it come after, by
    UID. Raises `Defect` without a field and `NeedsReview` when two networks answered for one smear.
    """
    gathered = _each_once(fields, acquired)
    if not gathered:
        raise Defect(
            "A smear was gathered without a field; gather it when its first field is analysed.",
            code="smear_without_fields",
        )
    sorted_out = {bucket: _cells_in(bucket, gathered) for bucket in Bucket}
    counted = sorted_out[Bucket.COUNTED]
    leukemic = sum(cell.call is Call.LEUKEMIC for cell in counted)
    rejected = _rejected(gathered)
    undetermined = len(sorted_out[Bucket.UNDETERMINED])
    fraction = wilson(leukemic, len(counted)) if counted else None
    grade, reason = _grade(
        fraction,
        leukemic=leukemic,
        counted=len(counted),
        referred=len(sorted_out[Bucket.REFERRED]),
        undetermined=undetermined,
        refused=sum(not field.quality.is_usable for field in gathered),
        fields=len(gathered),
    )
    return SmearFindings(
        smear_id=smear_id,
        fields=gathered,
        white_cells_counted=len(counted),
        leukemic_count=leukemic,
        normal_count=len(counted) - leukemic,
        differential=_by_type(counted, LEUKOCYTES),
        undetermined_count=undetermined,
        not_leukocytes=_by_type(
            # The network's smudge cells are referred, and counted there.
            sorted_out[Bucket.NOT_LEUKOCYTE],
            [t for t in CELL_TYPES if t in NOT_LEUKOCYTES and t is not CellType.SMUDGE_CELL],
        ),
        leukemic_fraction=fraction,
        referred=_referred(gathered),
        fields_rejected=rejected,
        count_warning=count_warning(len(counted)),
        grade=grade,
        grade_reason=reason,
        model=_one_model(gathered),
    )


def bucket_of(cell: CellFinding) -> Bucket:
    """The one bucket that the cell is in.

    A cell called leukemic is always counted: a call must not vanish because the type head took
    the cell for a platelet. A referred cell never is.
    """
    if cell.call is Call.REFERRED:
        return Bucket.REFERRED
    if cell.call is Call.LEUKEMIC:
        return Bucket.COUNTED
    if cell.cell_type is CellType.UNDETERMINED or cell.cell_type in BLASTS:
        return Bucket.UNDETERMINED  # a blast type contradicts the call "normal"
    return Bucket.NOT_LEUKOCYTE if cell.cell_type in NOT_LEUKOCYTES else Bucket.COUNTED


def type_word(cell_type: CellType) -> str:
    """The type as a reader sees it, `blast` for every lineage of blasts."""
    return BLAST_WORD if cell_type in BLASTS else cell_type.replace("_", " ")


def counted_word(cell: CellFinding) -> str:
    """Under which word a counted cell stands in the differential."""
    return BLAST_WORD if cell.call is Call.LEUKEMIC else type_word(cell.cell_type)


def decision_words(cell: CellFinding) -> str:
    """Who a decided cell's word is of, beside what the network said; "" where nobody decided."""
    decision = cell.decision
    if decision is None:
        return ""
    was = "referred"
    if decision.model_call is not Call.REFERRED and decision.model_type is not None:
        was = type_word(decision.model_type)
    if was == finding_word(cell):
        return "confirmed by a person"
    return f"by a person; network: {was}"


def finding_word(cell: CellFinding) -> str:
    """What was decided of any cell, in one word: its type, or why it has none.

    A person may tell the lineage of a blast.
    """
    if cell.decision is not None and bucket_of(cell) is Bucket.COUNTED:
        return cell.cell_type.replace("_", " ")
    if is_smudge(cell):
        return SMUDGE_WORD
    match bucket_of(cell):
        case Bucket.COUNTED:
            return counted_word(cell)
        case Bucket.REFERRED:
            return "referred"
        case Bucket.UNDETERMINED:
            return type_word(CellType.UNDETERMINED)
        case Bucket.NOT_LEUKOCYTE:
            return type_word(cell.cell_type)


def differential_words(smear: SmearFindings) -> Mapping[str, int]:
    """The differential as people read it: blasts in one, then every other leukocyte type.

    The network's types, and after a review those that only a person tells; zeros included, so
    that a later version leaves no count of an earlier one standing. Sums to the cells counted.
    """
    seen = Counter(counted_word(cell) for cell in _cells_in(Bucket.COUNTED, smear.fields))
    types = LEUKOCYTES if smear.review is None else PERSONS_LEUKOCYTES
    listed = dict.fromkeys((BLAST_WORD, *map(type_word, types), *sorted(seen)))
    return {word: seen[word] for word in listed}


def smudge_cell_count(smear: SmearFindings) -> int:
    """Smudge cells; each is one of the cells referred."""
    return sum(is_smudge(cell) for cell in _cells(smear.fields))


def is_smudge(cell: CellFinding) -> bool:
    """Whether the cell is a smudge of which no person said something else."""
    is_undecided = cell.decision is None and bucket_of(cell) is Bucket.REFERRED
    return is_undecided and ReferralReason.SMUDGE_CELL in cell.reasons


def bucket_counts(smear: SmearFindings) -> Mapping[Bucket, int]:
    """Cells in each bucket, zeros included; sums to the cells found."""
    seen = Counter(bucket_of(cell) for cell in _cells(smear.fields))
    return {bucket: seen[bucket] for bucket in Bucket}


def found_cell_count(smear: SmearFindings) -> int:
    """Every cell that was found in the smear, whatever was said of it."""
    return sum(len(field.cells) for field in smear.fields)


def referred_cell_count(smear: SmearFindings) -> int:
    """Cells shown to an expert instead of being called; a cell with two reasons is one cell."""
    return len(_cells_in(Bucket.REFERRED, smear.fields))


def usable_field_count(smear: SmearFindings) -> int:
    """Fields (frames) whose cells were counted."""
    return sum(field.quality.is_usable for field in smear.fields)


def count_warning(counted: int) -> CountWarning | None:
    """How far a count carries; None from a full count on."""
    if counted < SHORT_COUNT:
        return CountWarning.BELOW_100
    if counted < FULL_COUNT:
        return CountWarning.BELOW_200
    return None


def _each_once(
    fields: Iterable[FieldFindings], acquired: Sequence[SOPInstanceUID]
) -> tuple[FieldFindings, ...]:
    """Sort by acquisition and frame; of a field given twice keep one, always the same one."""
    places = {uid: place for place, uid in enumerate(acquired)}
    once: dict[tuple[SOPInstanceUID, int], FieldFindings] = {}
    for field in sorted(fields, key=_rank):
        once.setdefault((field.sop_instance_uid, field.frame), field)
    in_order = sorted(once, key=lambda key: places.get(key[0], len(places)))
    return tuple(once[key] for key in in_order)


def _rank(field: FieldFindings) -> tuple[str, int, str, str, tuple[float, ...]]:
    return (
        field.sop_instance_uid,
        field.frame,
        field.model.key,
        field.model.execution_provider,
        tuple(cell.prediction.leukemic_probability for cell in field.cells),
    )


def _cells(fields: Iterable[FieldFindings]) -> Iterator[CellFinding]:
    return (cell for field in fields for cell in field.cells)


def _cells_in(bucket: Bucket, fields: Iterable[FieldFindings]) -> list[CellFinding]:
    return [cell for cell in _cells(fields) if bucket_of(cell) is bucket]


def _by_type(cells: Iterable[CellFinding], listed: Sequence[CellType]) -> Mapping[CellType, int]:
    """Cells of each listed type, zeros included: a type not seen is a finding too.

    In the order of the enumeration, with any other type that occurs.
    """
    seen = Counter(cell.cell_type for cell in cells)
    return {t: seen[t] for t in CellType if t in listed or seen[t]}


def _referred(fields: Iterable[FieldFindings]) -> Mapping[ReferralReason, int]:
    """Cells by reason; a cell with two reasons stands under both."""
    seen = Counter(reason for cell in _cells(fields) for reason in cell.reasons)
    return {reason: seen[reason] for reason in ReferralReason if seen[reason]}


def _rejected(
    fields: Iterable[FieldFindings],
) -> Mapping[SOPInstanceUID, frozenset[QualityFlag]]:
    """Instances with a refused frame, and the flags of all their refused frames."""
    rejected: dict[SOPInstanceUID, frozenset[QualityFlag]] = {}
    for field in fields:
        if not field.quality.is_usable:
            earlier = rejected.get(field.sop_instance_uid, frozenset())
            rejected[field.sop_instance_uid] = earlier | field.quality.flags
    return rejected


def _one_model(fields: tuple[FieldFindings, ...]) -> ModelIdentity:
    """The network that answered; machines that ran it differently are all named.

    One smear may be shared out among workers with and without a GPU: same file, same answer,
    other provider.
    """
    providers = sorted({part for f in fields for part in f.model.execution_provider.split("+")})
    models = {replace(f.model, execution_provider="+".join(providers)) for f in fields}
    if len(models) > 1:
        raise NeedsReview(
            "The fields of one smear were analysed by different networks, or under different "
            "calibrations, and cannot be counted together. The last report stands; send the late "
            "image in a series of its own.",
            code="smear_with_two_models",
        )
    [model] = models
    return model


def _grade(
    fraction: Interval | None,
    *,
    leukemic: int,
    counted: int,
    referred: int,
    undetermined: int,
    refused: int,
    fields: int,
) -> tuple[Grade, str]:
    """The rules at the top of this file, in their order, each with its sentence."""
    if fraction is None:
        return Grade.REFER, "No white cell could be counted; an expert should look."
    share = _count_text(leukemic=leukemic, counted=counted)
    if refused * 2 > fields:
        return Grade.REFER, f"{refused} of {fields} fields were refused for quality. {share}"
    if referred + undetermined > counted:
        return Grade.REFER, f"{_apart_text(referred, undetermined)} than counted. {share}"
    if counted < LEAST_GRADED_CELLS:
        return Grade.REFER, f"Fewer than {LEAST_GRADED_CELLS} cells give no grade. {share}"
    if counted < GRADE_FROM_CELLS and fraction.low < MANY_FROM:
        return Grade.REFER, f"Too few cells to tell few from many. {share}"
    if fraction.value >= MANY_FROM:
        return Grade.MANY, share
    if leukemic:
        return Grade.FEW, share
    return Grade.NONE_SEEN, share


def _apart_text(referred: int, undetermined: int) -> str:
    if not undetermined:
        return f"More cells were referred ({referred})"
    return f"More cells were referred ({referred}) or of undetermined type ({undetermined})"


def _count_text(*, leukemic: int, counted: int) -> str:
    """Counts alone: whether they carry a percentage is for the report to say."""
    return f"{leukemic} of {counted} counted white cells were called leukemic."

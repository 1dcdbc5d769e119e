"""A smear is counted once, in any order, and never says more than its cells allow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import (
    Box,
    CalibrationIdentity,
    Call,
    Cell,
    CellFinding,
    CellKind,
    CellShape,
    CellType,
    CountWarning,
    FieldFindings,
    FieldQuality,
    Grade,
    ModelIdentity,
    Prediction,
    QualityFlag,
    ReferralReason,
    Scale,
    ScaleSource,
    SeriesUID,
    SmearFindings,
    SmearId,
    SOPInstanceUID,
    StudyUID,
)
from pipeline.errors import Defect, NeedsReview
from pipeline.findings.percentages import wilson
from pipeline.findings.smear_summary import (
    GRADE_FROM_CELLS,
    LEUKOCYTES,
    MANY_FROM,
    Bucket,
    bucket_counts,
    found_cell_count,
    gather_smear,
    referred_cell_count,
    usable_field_count,
)

SMEAR = SmearId("1.2.3.4")
MODEL = ModelIdentity(
    name="resnet50", version="1", sha256="ab" * 32, execution_provider="CPUExecutionProvider"
)
GOOD = FieldQuality(flags=frozenset(), is_usable=True)
BLURRED = FieldQuality(flags=frozenset({QualityFlag.OUT_OF_FOCUS}), is_usable=False)
SQUARE = np.array([[0, 0], [9, 0], [9, 9], [0, 9]], dtype=np.int32)


def cell(call: Call, cell_type: CellType = CellType.LYMPHOCYTE, *reasons: ReferralReason):
    return CellFinding(
        cell=Cell(
            index=1,
            kind=CellKind.WHITE_CELL,
            box=Box(x=0, y=0, width=10, height=10),
            contour=SQUARE,
            nucleus_contours=(SQUARE,),
            shape=CellShape(
                area_um2=100.0,
                nucleus_area_um2=60.0,
                perimeter_um=40.0,
                equivalent_diameter_um=11.0,
                circularity=0.9,
                solidity=0.95,
                eccentricity=0.2,
                nucleus_to_cell_ratio=0.6,
                nucleus_lobes=1,
            ),
            is_cut_by_edge=False,
            is_touching=False,
            confidence=0.9,
        ),
        prediction=Prediction(
            leukemic_probability=0.5,
            type_probabilities=(0.1,) * 10,
            activation_map=np.zeros((7, 7), dtype=np.float32),
            novelty=0.0,
        ),
        cell_type=cell_type,
        call=call,
        reasons=reasons,
    )


def field(number: int, *cells: CellFinding, frame: int = 1, quality: FieldQuality = GOOD):
    return FieldFindings(
        study_uid=StudyUID("1.2.3"),
        series_uid=SeriesUID("1.2.3.4"),
        sop_instance_uid=SOPInstanceUID(f"1.2.3.4.{number}"),
        frame=frame,
        width=640,
        height=480,
        scale=Scale(um_per_px=0.1, source=ScaleSource.DATASET),
        quality=quality,
        cells=cells,
        model=MODEL,
    )


def test_fields_are_numbered_as_they_were_taken_and_not_by_uid() -> None:
    fields = [field(number, frame=frame) for number in (1, 2, 3) for frame in (2, 1)]
    one, two, three = (fields[at].sop_instance_uid for at in (0, 2, 4))

    smear = gather_smear(SMEAR, fields, acquired=[three, one])

    shown = [(found.sop_instance_uid, found.frame) for found in smear.fields]
    assert shown == [(uid, frame) for uid in (three, one, two) for frame in (1, 2)]


def smear_of(leukemic: int, normal: int, referred: int = 0) -> SmearFindings:
    cells = (
        [cell(Call.LEUKEMIC, CellType.BLAST)] * leukemic
        + [cell(Call.NORMAL)] * normal
        + [cell(Call.REFERRED, CellType.LYMPHOCYTE, ReferralReason.UNCERTAIN)] * referred
    )
    return gather_smear(SMEAR, [field(1, *cells)])


def facts(smear: SmearFindings) -> tuple[object, ...]:
    """Everything that is comparable; the fields by identity, for they must be the same ones."""
    return (
        [id(f) for f in smear.fields],
        smear.white_cells_counted,
        smear.leukemic_count,
        smear.normal_count,
        list(smear.differential.items()),
        smear.leukemic_fraction,
        list(smear.referred.items()),
        list(smear.fields_rejected.items()),
        smear.count_warning,
        smear.grade,
        smear.grade_reason,
        smear.model,
    )


calls = st.builds(
    cell,
    st.sampled_from([Call.LEUKEMIC, Call.NORMAL]),
    st.sampled_from(CellType),
) | st.builds(
    lambda t, reasons: cell(Call.REFERRED, t, *sorted(reasons)),
    st.sampled_from(CellType),
    st.sets(st.sampled_from(ReferralReason), min_size=1),
)


@st.composite
def smears(draw: st.DrawFn) -> list[FieldFindings]:
    keys = draw(
        st.lists(
            st.tuples(st.integers(1, 6), st.integers(1, 3)), min_size=1, max_size=6, unique=True
        )
    )
    return [
        field(number, *draw(st.lists(calls, max_size=6)), frame=frame)
        if draw(st.booleans())
        else field(number, frame=frame, quality=BLURRED)
        for number, frame in keys
    ]


def test_a_smear_without_fields_is_our_own_defect() -> None:
    with pytest.raises(Defect) as refused:
        gather_smear(SMEAR, [])

    assert refused.value.code == "smear_without_fields"


@pytest.mark.parametrize(
    "model", [replace(MODEL, sha256="cd" * 32), replace(MODEL, finder_sha256="cd" * 32)]
)
def test_two_networks_are_never_counted_together(model: ModelIdentity) -> None:
    other = replace(field(2), model=model)

    with pytest.raises(NeedsReview) as refused:
        gather_smear(SMEAR, [field(1), other])

    assert refused.value.code == "smear_with_two_models"


def test_two_calibrations_are_never_counted_together() -> None:
    calibration = CalibrationIdentity(site="A", made_on="2026-11-28", smears=9, sha256="ef" * 32)
    other = replace(field(2), model=replace(MODEL, calibration=calibration))

    with pytest.raises(NeedsReview) as refused:
        gather_smear(SMEAR, [field(1), other])

    assert refused.value.code == "smear_with_two_models"
    assert gather_smear(SMEAR, [other]).model.calibration == calibration


@pytest.mark.parametrize(("k", "n"), [(1, 0), (0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(k: int, n: int) -> None:
    with pytest.raises(Defect):
        wilson(k, n)


def test_wilson_gives_the_published_interval() -> None:
    """Newcombe 1998, table I, score method: 81/263, 15/148, 0/20 and 1/29."""
    for k, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        interval = wilson(k, n)
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_its_share_between_its_limits(count: tuple[int, int]) -> None:
    k, n = count

    here, mirrored = wilson(k, n), wilson(n - k, n)

    assert 0 <= here.low <= here.value <= here.high <= 1
    assert (here.low, here.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low))


@given(smears().flatmap(lambda s: st.tuples(st.just(s), st.permutations(s))))
def test_any_order_gives_the_same_findings(
    pair: tuple[list[FieldFindings], list[FieldFindings]],
) -> None:
    given_order, other_order = pair

    assert facts(gather_smear(SMEAR, given_order)) == facts(gather_smear(SMEAR, other_order))


@given(smears())
def test_a_field_given_twice_counts_once(fields: list[FieldFindings]) -> None:
    assert facts(gather_smear(SMEAR, fields + fields[:2])) == facts(gather_smear(SMEAR, fields))


@given(smears())
def test_the_counts_add_up(fields: list[FieldFindings]) -> None:
    smear = gather_smear(SMEAR, fields)
    calls_made = [c.call for f in fields for c in f.cells]

    assert smear.leukemic_count + smear.normal_count == smear.white_cells_counted
    assert sum(smear.differential.values()) == smear.white_cells_counted
    assert smear.leukemic_count == calls_made.count(Call.LEUKEMIC)
    assert referred_cell_count(smear) == calls_made.count(Call.REFERRED)
    assert set(smear.differential) >= set(LEUKOCYTES)


@given(smears())
def test_every_found_cell_is_in_one_bucket(fields: list[FieldFindings]) -> None:
    smear = gather_smear(SMEAR, fields)
    in_buckets = bucket_counts(smear)

    assert set(in_buckets) == set(Bucket)
    assert sum(in_buckets.values()) == found_cell_count(smear)
    assert in_buckets == {
        Bucket.COUNTED: smear.white_cells_counted,
        Bucket.UNDETERMINED: smear.undetermined_count,
        Bucket.NOT_LEUKOCYTE: sum(smear.not_leukocytes.values()),
        Bucket.REFERRED: referred_cell_count(smear),
    }


def test_a_cell_of_undetermined_type_is_counted_apart_and_weighs_like_a_referral() -> None:
    sure = [cell(Call.NORMAL, CellType.NEUTROPHIL)] * 20
    doubtful = [cell(Call.NORMAL, CellType.UNDETERMINED)] * 15
    referred = [cell(Call.REFERRED, CellType.LYMPHOCYTE, ReferralReason.UNCERTAIN)] * 6

    smear = gather_smear(SMEAR, [field(1, *sure, *doubtful)])
    with_referred = gather_smear(SMEAR, [field(1, *sure, *doubtful, *referred)])

    assert (smear.white_cells_counted, smear.undetermined_count) == (20, 15)
    assert CellType.UNDETERMINED not in smear.differential
    assert smear.grade is Grade.NONE_SEEN
    assert with_referred.grade is Grade.REFER
    assert "undetermined type (15)" in with_referred.grade_reason


def test_platelets_and_erythroblasts_stand_apart() -> None:
    smear = gather_smear(
        SMEAR,
        [
            field(
                1,
                cell(Call.NORMAL, CellType.PLATELET),
                cell(Call.NORMAL, CellType.ERYTHROBLAST),
                cell(Call.NORMAL, CellType.MONOCYTE),
            )
        ],
    )

    assert smear.white_cells_counted == 1
    assert smear.differential[CellType.MONOCYTE] == 1
    assert smear.not_leukocytes == {CellType.ERYTHROBLAST: 1, CellType.PLATELET: 1}


def test_frames_of_one_instance_are_fields_of_their_own() -> None:
    smear = gather_smear(
        SMEAR,
        [field(1, frame=2, quality=BLURRED), field(1, cell(Call.NORMAL), frame=1)],
    )

    assert [f.frame for f in smear.fields] == [1, 2]
    assert usable_field_count(smear) == 1
    assert smear.fields_rejected == {
        SOPInstanceUID("1.2.3.4.1"): frozenset({QualityFlag.OUT_OF_FOCUS})
    }


def test_every_machine_that_ran_is_named() -> None:
    other = replace(field(2), model=replace(MODEL, execution_provider="CUDAExecutionProvider"))

    smear = gather_smear(SMEAR, [field(1), other])

    assert smear.model.execution_provider == "CPUExecutionProvider+CUDAExecutionProvider"


@pytest.mark.parametrize(
    ("counted", "warning"),
    [
        (0, CountWarning.BELOW_100),
        (99, CountWarning.BELOW_100),
        (100, CountWarning.BELOW_200),
        (199, CountWarning.BELOW_200),
        (200, None),
    ],
)
def test_low_counts_are_warned_of(counted: int, warning: CountWarning | None) -> None:
    assert smear_of(0, counted).count_warning is warning


@pytest.mark.parametrize(
    ("smear", "grade"),
    [
        (smear_of(0, 0), Grade.REFER),
        (smear_of(0, 0, 5), Grade.REFER),
        (smear_of(0, 15), Grade.REFER),
        (smear_of(0, 16), Grade.NONE_SEEN),
        (smear_of(1, 15), Grade.FEW),
        (smear_of(19, 81), Grade.FEW),
        (smear_of(20, 80), Grade.MANY),
        (smear_of(10, 2), Grade.MANY),
        (smear_of(2, 5), Grade.REFER),
        (smear_of(1, 0), Grade.REFER),
        (smear_of(9, 0), Grade.REFER),
        (smear_of(10, 0), Grade.MANY),
        (smear_of(0, 100, 101), Grade.REFER),
    ],
)
def test_the_grade_follows_its_rules(smear: SmearFindings, grade: Grade) -> None:
    assert smear.grade is grade


def test_more_refused_than_kept_fields_are_referred() -> None:
    kept = field(1, *[cell(Call.NORMAL)] * 50)

    smear = gather_smear(SMEAR, [kept, field(2, quality=BLURRED), field(3, quality=BLURRED)])

    assert smear.grade is Grade.REFER
    assert smear.grade_reason.startswith("2 of 3 fields were refused")


def test_the_least_count_for_a_grade_is_where_none_seen_rules_out_many() -> None:
    assert wilson(0, GRADE_FROM_CELLS).high < MANY_FROM <= wilson(0, GRADE_FROM_CELLS - 1).high


@given(smears())
def test_a_grade_never_speaks_as_a_diagnosis(fields: list[FieldFindings]) -> None:
    reason = gather_smear(SMEAR, fields).grade_reason.lower()

    assert reason
    assert not any(w in reason for w in ("leukemia", "leukemia", "diagnos", "patient", "positive"))

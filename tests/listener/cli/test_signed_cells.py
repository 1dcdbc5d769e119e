"""Which cells of which smears a calibration from reviews takes, and with which class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.model import Settings
from config.settings import make_settings
from listener.cli import signed_cells
from listener.cli.calibrate import cells_of_site
from listener.storage.data_folder import Store, open_store
from models.calibrated_classifier import calibrated
from models.evaluation.labeled_cells import LabeledCells
from models.site_calibration_file import SiteCalibration
from pipeline.domain import (
    CalibrationIdentity,
    Call,
    CellType,
    FieldFindings,
    ModelIdentity,
    Reviewer,
    SmearId,
    SOPInstanceUID,
)
from pipeline.findings.review import Act, CellKey, ReviewEvent, cell_key, field_of
from tests.findings import MODEL, make_cell, make_cell_finding, make_field_findings
from tests.models.site_calibrations import make_calibration

SERIES = "1.2.840.1"
CALLS = (Call.LEUKEMIC, Call.NORMAL, Call.NORMAL, Call.REFERRED)
LEUKEMIC, NORMAL, OTHER, REFERRED = range(4)
CALIBRATION = make_calibration(
    model_name=MODEL.name,
    model_version=MODEL.version,
    slope=1.5,
    offset=2.0,
    made_from="reviews",
    sha256="c" * 64,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(site(tmp_path), worker_id="w")


def site(root: Path, **more: object) -> Settings:
    return make_settings({"service": {"data_dir": str(root / "data")}, **more})


def found(store: Store, **changed: Any) -> list[CellKey]:
    """A smear of one field with four cells."""
    field = make_field_findings(calls=CALLS, **changed)
    store.results.smear(SmearId(SERIES)).save_fields(
        SOPInstanceUID(field.sop_instance_uid), [field]
    )
    return [cell_key(field, one.cell) for one in field.cells]


def act(store: Store, what: Act, cells: Sequence[CellKey] = (), to: str = "") -> None:
    log = store.results.smear(SmearId(SERIES)).review()
    number = log.revision()
    log.append(
        ReviewEvent(
            id=f"e{number}",
            at=datetime(2026, 11, 28, tzinfo=UTC),
            reviewer=Reviewer(account="jm", name="J. Meyer"),
            act=what,
            cells=tuple(cells),
            to=to,
            reason="wrong slide" if what is Act.WITHDRAW else "",
            comment="seen twice" if what is Act.COMMENT else "",
        ),
        seen_revision=number,
    )


def taken(
    tmp_path: Path,
    *,
    calibration: SiteCalibration | None = None,
    normal_cells_only: bool = False,
    readers: int = 1,
) -> LabeledCells:
    return cells_of_site(
        site(tmp_path, review={"readers": readers}),
        model=MODEL,
        calibration=calibration,
        normal_cells_only=normal_cells_only,
    )


def test_a_site_without_reviews_has_no_cells(tmp_path: Path, store: Store) -> None:
    found(store)

    cells = taken(tmp_path)

    assert cells.probabilities == []
    assert cells.left_out == {}


def test_a_smear_that_nobody_signed_is_left_out(tmp_path: Path, store: Store) -> None:
    act(store, Act.SEEN, found(store))

    assert taken(tmp_path).left_out == {signed_cells.NOT_SIGNED: 1}


@pytest.mark.parametrize("later", [Act.WITHDRAW, Act.RECLASSIFY])
def test_a_signature_that_no_longer_stands_does_not_count(
    tmp_path: Path, store: Store, later: Act
) -> None:
    keys = found(store)
    act(store, Act.SEEN, keys)
    act(store, Act.SIGN)
    act(store, later, keys[:1] if later is Act.RECLASSIFY else (), "monocyte")

    assert taken(tmp_path).left_out == {signed_cells.NOT_SIGNED: 1}


def test_a_remark_after_the_signature_changes_nothing(tmp_path: Path, store: Store) -> None:
    act(store, Act.SEEN, found(store))
    act(store, Act.SIGN)
    act(store, Act.COMMENT)

    assert len(taken(tmp_path).probabilities) == 3


def test_two_readers_must_have_signed_where_the_site_wants_two(
    tmp_path: Path, store: Store
) -> None:
    act(store, Act.SEEN, found(store))
    act(store, Act.SIGN)

    assert taken(tmp_path, readers=2).left_out == {signed_cells.NOT_SIGNED: 1}


def test_a_named_cell_counts_as_named_and_one_let_stand_as_called(
    tmp_path: Path, store: Store
) -> None:
    keys = found(store)
    act(store, Act.SEEN, keys)
    act(store, Act.RECLASSIFY, [keys[OTHER]], "lymphoblast")
    act(store, Act.RECLASSIFY, [keys[LEUKEMIC]], "reactive_lymphocyte")
    act(store, Act.CONFIRM, [keys[REFERRED]], "neutrophil")
    act(store, Act.SIGN)

    cells = taken(tmp_path)

    assert cells.is_leukemic == [False, False, True, False]
    assert set(cells.smears) == {SERIES}
    assert cells.left_out == {}


def test_cells_without_a_clear_label_or_that_nobody_saw_are_left_out(
    tmp_path: Path, store: Store
) -> None:
    keys = found(store)
    act(store, Act.RECLASSIFY, [keys[LEUKEMIC]], "smudge_cell")
    act(store, Act.RECLASSIFY, [keys[NORMAL]], "promyelocyte")
    act(store, Act.SIGN)

    cells = taken(tmp_path)

    assert cells.probabilities == []
    assert cells.left_out == {signed_cells.NO_LABEL: 3, signed_cells.NOT_SEEN: 1}


def test_what_is_no_cell_and_what_was_excluded_is_not_there(tmp_path: Path, store: Store) -> None:
    keys = found(store)
    act(store, Act.SEEN, keys)
    act(store, Act.NOT_A_CELL, [keys[LEUKEMIC]])
    act(store, Act.SIGN)

    assert taken(tmp_path).is_leukemic == [False, False]


def test_a_cell_that_a_person_added_is_left_out(tmp_path: Path, store: Store) -> None:
    keys = found(store)
    act(store, Act.SEEN, keys)
    log = store.results.smear(SmearId(SERIES)).review()
    added = make_cell_finding(make_cell(10_001, 100, 100), Call.LEUKEMIC)
    log.append(
        ReviewEvent(
            id="added",
            at=datetime(2026, 11, 28, tzinfo=UTC),
            reviewer=Reviewer(account="jm", name="J. Meyer"),
            act=Act.ADD_CELL,
            fields=(field_of(keys[0]),),
            to="blast",
            added=added,
        ),
        seen_revision=1,
    )
    act(store, Act.SIGN)

    assert taken(tmp_path).left_out == {signed_cells.ADDED: 1, signed_cells.NO_LABEL: 1}


@pytest.mark.parametrize("model", [replace(MODEL, version="0.0.1"), replace(MODEL, name="other")])
def test_cells_of_another_network_are_left_out(
    tmp_path: Path, store: Store, model: ModelIdentity
) -> None:
    act(store, Act.SEEN, found(store, model=model))
    act(store, Act.SIGN)

    assert taken(tmp_path).left_out == {signed_cells.OTHER_NETWORK: 4}


def test_what_was_found_under_the_present_calibration_is_brought_back(
    tmp_path: Path, store: Store
) -> None:
    field = _calibrated_field()
    act(store, Act.SEEN, found(store, cells=field.cells, model=field.model))
    act(store, Act.SIGN)

    cells = taken(tmp_path, calibration=CALIBRATION)

    assert np.array(cells.probabilities) == pytest.approx([0.3, 0.6, 0.02], abs=1e-6)


@pytest.mark.parametrize("calibration", [None, replace(CALIBRATION, sha256="d" * 64)])
def test_what_was_found_under_another_calibration_is_left_out(
    tmp_path: Path, store: Store, calibration: SiteCalibration | None
) -> None:
    field = _calibrated_field()
    act(store, Act.SEEN, found(store, cells=field.cells, model=field.model))
    act(store, Act.SIGN)

    cells = taken(tmp_path, calibration=calibration)

    assert cells.left_out == {signed_cells.OTHER_CALIBRATION: 3}


def test_leukemic_cells_stay_out_where_normal_ones_alone_are_wanted(
    tmp_path: Path, store: Store
) -> None:
    act(store, Act.SEEN, found(store))
    act(store, Act.SIGN)

    assert taken(tmp_path, normal_cells_only=True).is_leukemic == [False, False]


def _calibrated_field() -> FieldFindings:
    """Three cells that the network gave 0.3, 0.6 and 0.02, found under CALIBRATION."""
    cells = []
    for index, given in enumerate((0.3, 0.6, 0.02), start=1):
        one = make_cell_finding(
            make_cell(index, 100 * index, 100), probability=given, cell_type=CellType.MONOCYTE
        )
        moved = calibrated(one.prediction, CALIBRATION.slope, CALIBRATION.offset)
        cells.append(replace(one, prediction=moved))
    identity: CalibrationIdentity = CALIBRATION.identity
    return make_field_findings(cells=cells, model=replace(MODEL, calibration=identity))

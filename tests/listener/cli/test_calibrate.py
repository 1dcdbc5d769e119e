"""`smearlink calibrate`: what it refuses, what it writes, what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from listener.cli.calibrate import (
    Calibrated,
    calibrate,
    check_out,
    check_usage,
    lines_of,
    refuse_unwritten,
)
from models.evaluation.labeled_cells import LabeledCells
from models.site_calibration import probabilities_of
from models.site_calibration_file import read_site_calibration
from pipeline.errors import NeedsReview, Rejected
from tests.models.test_calibrated_classifier import Shifted

NETWORK = Shifted()
KNOWN = 4
"""Seed of a laboratory that the network answers well as it is."""


def cells(offset: float, *, smears: int = 12, seed: int = 1, leukemic: bool = True) -> LabeledCells:
    """Forty cells per smear, whose logits are `offset` too low."""
    random, found = np.random.default_rng(seed), LabeledCells()
    for smear in range(smears):
        for number in range(40):
            is_leukemic = leukemic and number % 3 == 0
            true = 2 * ((1 if is_leukemic else -1) + random.standard_normal())
            found.add(
                probability=float(probabilities_of(np.array(true - offset))),
                is_leukemic=is_leukemic,
                smear=f"smear {smear}",
            )
    return found


def done(
    out: Path,
    offset: float,
    *,
    leukemic: bool = True,
    seed: int = 1,
    even_if_not_better: bool = False,
) -> Calibrated:
    return calibrate(
        cells(offset, leukemic=leukemic, seed=seed),
        NETWORK,
        site="St. Anna",
        made_from="packs",
        out=out,
        even_if_not_better=even_if_not_better,
    )


@pytest.mark.parametrize(
    ("packs", "from_reviews", "source"),
    [([], False, ""), ([Path("pack")], True, ""), ([], True, "deepapl")],
)
def test_cells_come_from_packs_or_from_reviews(
    packs: list[Path], from_reviews: bool, source: str
) -> None:
    with pytest.raises(Rejected) as refusal:
        check_usage(packs, from_reviews=from_reviews, source=source, site="St. Anna")

    assert refusal.value.code == "usage"


def test_a_name_that_results_cannot_show_is_refused_before_the_work() -> None:
    with pytest.raises(Rejected) as refusal:
        check_usage([Path("pack")], from_reviews=False, source="", site="Köln")

    assert refusal.value.code == "calibration_site"


def test_a_calibration_in_use_is_never_written_over(tmp_path: Path) -> None:
    out = tmp_path / "site-calibration.toml"
    out.write_text("in use")

    with pytest.raises(Rejected, match="another name") as refusal:
        check_out(out)

    assert refusal.value.code == "calibration_exists"


def test_a_folder_that_is_not_there_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(Rejected) as refusal:
        check_out(tmp_path / "none" / "site-calibration.toml")

    assert refusal.value.code == "no_such_folder"


def test_a_folder_that_takes_no_file_is_refused_before_the_work() -> None:
    with pytest.raises(Rejected, match="--out") as refusal:
        check_out(Path("/proc/site-calibration.toml"))

    assert refusal.value.code == "calibration_not_writable"


def test_a_link_to_nothing_is_not_written_over(tmp_path: Path) -> None:
    out = tmp_path / "site-calibration.toml"
    out.symlink_to("none")

    with pytest.raises(Rejected) as refusal:
        check_out(out)

    assert refusal.value.code == "calibration_exists"


def test_too_few_smears_write_nothing(tmp_path: Path) -> None:
    out = tmp_path / "c.toml"

    with pytest.raises(Rejected, match="needs"):
        calibrate(cells(2, smears=3), NETWORK, site="St. Anna", made_from="packs", out=out)

    assert not out.exists()


def test_too_few_smears_say_why_others_were_left_out(tmp_path: Path) -> None:
    unsigned = cells(2, smears=3)
    unsigned.left_out["smears that are not signed"] += 4

    with pytest.raises(Rejected, match="needs") as refusal:
        calibrate(unsigned, NETWORK, site="St. Anna", made_from="reviews", out=tmp_path / "c.toml")

    assert "left out: 4, smears that are not signed" in refusal.value.message
    assert refusal.value.code == "calibration_too_few"


def test_a_laboratory_that_gains_nothing_needs_the_plain_flag(tmp_path: Path) -> None:
    out = tmp_path / "c.toml"

    refused = done(out, 0.0, seed=KNOWN)
    with pytest.raises(NeedsReview, match="--even-if-not-better") as refusal:
        refuse_unwritten(refused)

    assert refusal.value.code == "calibration_not_better"
    assert not out.exists()
    assert done(out, 0.0, seed=KNOWN, even_if_not_better=True).is_written
    assert out.exists()


def test_a_shifted_laboratory_gets_a_file_that_the_service_reads(tmp_path: Path) -> None:
    out = tmp_path / "c.toml"

    written = done(out, 4.0)

    found = read_site_calibration(out, NETWORK.identity)
    assert written.is_written
    assert found.offset == pytest.approx(4.0, abs=1.2)
    assert (found.smears, found.leukemic_cells, found.normal_cells) == (12, 168, 312)
    assert out.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [out]


def test_a_terminal_of_80_columns_is_enough_and_says_what_to_set(tmp_path: Path) -> None:
    lines = list(lines_of(done(tmp_path / "c.toml", 4.0)))

    table = [line for line in lines if not line.startswith(("site_calibration", "written to"))]
    assert all(len(line) <= 80 for line in table)
    assert any("before" in line and "after" in line for line in lines)
    assert lines[-1] == f'site_calibration = "{tmp_path / "c.toml"}"'


def test_normal_cells_alone_say_that_leukemic_ones_were_not_measured(tmp_path: Path) -> None:
    lines = list(lines_of(done(tmp_path / "c.toml", -1.0, leukemic=False)))

    assert any("was not measured" in line for line in lines)
    assert any("leukemic cells at or above one half" in line and "–" in line for line in lines)


def test_programs_get_the_same_as_json(tmp_path: Path) -> None:
    told = json.loads(json.dumps(done(tmp_path / "c.toml", 4.0).to_json()))

    assert told["research_use_only"] is True
    assert told["site"] == "St. Anna"
    assert told["is_better"] is True
    assert told["after"]["log_loss"] < told["before"]["log_loss"]

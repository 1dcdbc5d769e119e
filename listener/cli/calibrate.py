"""`smearlink calibrate`: fits the network to one laboratory, from packs or from signed reviews.

What is written changes nothing by itself: a site takes it into use with model.site_calibration.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile

from config.model import Settings
from listener.cli import signed_cells
from listener.cli.console import ProgressDisplay
from listener.service import load_network, load_segmenter
from listener.storage.data_folder import open_store
from listener.storage.reviewed_smears import reviewed_smears
from models.evaluation.labeled_cells import LabeledCells, ask_about_cells, labeled_rows
from models.evaluation.pack import read_pack
from models.site_calibration import Figures, judge, logits_of
from models.site_calibration_file import (
    SiteCalibration,
    as_toml,
    check_numbers,
    check_site,
    parse_site_calibration,
)
from pipeline.analyse import Classifier
from pipeline.domain import ModelIdentity
from pipeline.errors import NeedsReview, Rejected
from reporting.durable_files import publish_file

SETTINGS_MODE = 0o644
"""The service may run as another user than whoever calibrates; the file holds no secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """What was found, whether it was written, and where."""

    calibration: SiteCalibration
    is_better: bool
    left_out: Mapping[str, int]
    out: Path
    is_written: bool

    def to_json(self) -> dict[str, object]:
        """As JSON values."""
        told = asdict(self.calibration)
        del told["sha256"]
        return {
            "research_use_only": True,
            **told,
            "made_on": self.calibration.made_on.isoformat(),
            "is_better": self.is_better,
            "left_out": dict(self.left_out),
            "written": str(self.out) if self.is_written else None,
        }


def check_usage(packs: Sequence[Path], *, from_reviews: bool, source: str, site: str) -> None:
    """Raise Rejected (usage, calibration_site) unless cells come from packs or from reviews."""
    check_site(site)
    if bool(packs) == from_reviews:
        raise Rejected("Name one or more packs, or give --reviews", code="usage")
    if from_reviews and source:
        raise Rejected("--source chooses among packs; leave it out with --reviews", code="usage")


def check_out(out: Path) -> None:
    """Raise Rejected (calibration_exists, no_such_folder, calibration_not_writable) where nothing
    can be written: before the long work, not after it.
    """
    if os.path.lexists(out):
        raise Rejected(
            f"{out} is there already; results may name it by its hash. Keep it, and write the new "
            "calibration under another name.",
            code="calibration_exists",
        )
    if not out.absolute().parent.is_dir():
        raise Rejected(f"There is no folder {out.parent}; make it first.", code="no_such_folder")
    try:
        with TemporaryFile(dir=out.absolute().parent):
            pass
    except OSError as err:
        raise Rejected(
            f"No file can be written to the folder {out.parent} ({type(err).__name__}); name "
            "another one with --out.",
            code="calibration_not_writable",
        ) from err


def cells_of_packs(
    packs: Sequence[Path],
    *,
    source: str,
    normal_cells_only: bool,
    settings: Settings,
) -> tuple[LabeledCells, Classifier]:
    """The labeled cells of one source, and the network as it was packaged."""
    rows = labeled_rows(
        [row for pack in packs for row in read_pack(pack, None)],
        source=source,
        normal_cells_only=normal_cells_only,
    )
    network = load_network(settings)
    with ProgressDisplay().bar("Asking about cells", len(rows)) as advance:
        cells = ask_about_cells(
            rows, classifier=network, segmenter=load_segmenter(), on_asked=advance
        )
    return cells, network


def cells_of_reviews(
    settings: Settings, *, normal_cells_only: bool
) -> tuple[LabeledCells, Classifier]:
    """The cells of the site's signed smears, and the network as it was packaged."""
    network, path = load_network(settings), settings.model.site_calibration
    cells = cells_of_site(
        settings,
        model=network.identity,
        calibration=parse_site_calibration(path) if path else None,
        normal_cells_only=normal_cells_only,
    )
    return cells, network


def cells_of_site(
    settings: Settings,
    *,
    model: ModelIdentity,
    calibration: SiteCalibration | None,
    normal_cells_only: bool,
) -> LabeledCells:
    """As `signed_cells.cells_of_reviews`, of every smear in the site's data folder."""
    store = open_store(settings, worker_id=settings.worker_id)
    return signed_cells.cells_of_reviews(
        reviewed_smears(store, readers=settings.review.readers),
        model=model,
        calibration=calibration,
        normal_cells_only=normal_cells_only,
    )


def calibrate(
    cells: LabeledCells,
    network: Classifier,
    *,
    site: str,
    made_from: str,
    out: Path,
    even_if_not_better: bool = False,
) -> Calibrated:
    """Fit, judge on smears left out, and write where that is better or asked for all the same."""
    probabilities, is_leukemic, smears = cells.columns
    try:
        found = judge(logits_of(probabilities), is_leukemic, smears, network.policy)
    except Rejected as err:
        raise _with_left_out(err, cells.left_out) from err
    check_numbers(found.slope, found.offset)
    calibration = SiteCalibration(
        site=site,
        made_on=datetime.now(UTC).date(),
        model_name=network.identity.name,
        model_version=network.identity.version,
        slope=found.slope,
        offset=found.offset,
        made_from=made_from,
        smears=len(set(cells.smears)),
        leukemic_cells=int(is_leukemic.sum()),
        normal_cells=int((~is_leukemic).sum()),
        before=found.before,
        after=found.after,
    )
    is_written = found.is_better or even_if_not_better
    if is_written:
        content = as_toml(calibration).encode("utf-8")
        publish_file(out, content, tmp=out.absolute().parent, mode=SETTINGS_MODE)
    return Calibrated(
        calibration=calibration,
        is_better=found.is_better,
        left_out=dict(cells.left_out),
        out=out,
        is_written=is_written,
    )


def _with_left_out(refusal: Rejected, left_out: Mapping[str, int]) -> Rejected:
    """The refusal with the reasons for which cells or smears did not count."""
    lines = [refusal.message, *(f"left out: {count}, {why}" for why, count in left_out.items())]
    return Rejected("\n".join(lines), code=refusal.code)


def refuse_unwritten(done: Calibrated) -> None:
    """Raise NeedsReview (calibration_not_better) where nothing was written."""
    if not done.is_written:
        raise NeedsReview(
            "Smears left out of the fit are not answered better after it than before, or by no "
            "more than chance: nothing was written, and the network is used as it is. To write it "
            "all the same, add --even-if-not-better.",
            code="calibration_not_better",
        )


ROWS: Mapping[str, str] = {
    "sensitivity": "leukemic cells at or above one half",
    "specificity": "normal cells below one half",
    "called_leukemic": "normal cells called leukemic (referred ones apart)",
    "referred": "cells referred as uncertain",
    "calibration_error": "calibration error",
    "log_loss": "log loss",
}


def lines_of(done: Calibrated) -> Iterator[str]:
    """For a terminal of 80 columns."""
    one = done.calibration
    counts = f"{one.leukemic_cells} leukemic and {one.normal_cells} normal cells"
    yield f"{counts} of {one.smears} smears"
    for reason, count in done.left_out.items():
        yield f"left out: {count}, {reason}"
    yield f"{'':<54}{'before':>10}{'after':>10}"
    for name, words in ROWS.items():
        before, after = _number(one.before, name), _number(one.after, name)
        yield f"{words:<54}{before:>10}{after:>10}"
    yield "after: each smear judged by a fit that did not see it"
    yield f"slope {one.slope:.2f}, offset {one.offset:+.2f} of the logit"
    if not one.leukemic_cells:
        yield "from normal cells alone: how leukemic cells fare was not measured"
    if not done.is_written:
        return
    if not done.is_better:
        yield "written although smears left out are not answered better"
    yield f"written to {done.out}; to use it, set in the settings and restart:"
    yield "[model]"
    yield f'site_calibration = "{done.out.absolute()}"'


def _number(figures: Figures, name: str) -> str:
    value = getattr(figures, name)
    return "–" if value is None else f"{value:.3f}"

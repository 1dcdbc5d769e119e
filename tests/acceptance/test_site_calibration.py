"""A laboratory that the network answers too low: reviewed, signed, calibrated, answered rightly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import listener.cli.calibrate
import listener.service
from config.model import Settings
from config.settings import make_settings
from listener.cli.app import app
from listener.demo.phantom import PhantomField, Recipe, draw_field
from listener.demo.phantom.field import BLASTS, HEALTHY_CELLS
from listener.modality.secondary_capture import Order, to_dicom
from listener.modality.store_scu import PeerAddress, send_images
from listener.service import load_segmenter, running
from listener.storage.data_folder import Store, open_store
from models.site_calibration import probabilities_of
from pipeline.analyse import analyse_field
from pipeline.domain import (
    CELL_TYPES,
    Call,
    CellType,
    DecisionPolicy,
    FieldFindings,
    ModelIdentity,
    Prediction,
    Reviewer,
    SeriesUID,
    SmearId,
    SOPInstanceUID,
    SourceImage,
    StudyUID,
)
from pipeline.findings.review import Act, CellKey, ReviewEvent, cell_key
from reporting.audit.trail import Event, EventFilter, read_events
from reporting.results import ResultKind
from tests.listener.house import until
from tests.models.graph_types import graph_answer
from tests.reporting.pdf_reader import printed_text

SMEARS = 5
WHITE_CELLS = (*(HEALTHY_CELLS * 5)[:44], *BLASTS * 7)
UM_PER_PX = 0.2
BLAST_NUCLEUS = 0.17
"""Of the area of a crop: what parts the nuclei of drawn blasts from those of healthy cells."""
TOO_LOW = -4.0
"""How far this laboratory moves the logits."""


class LargeNuclei:
    """Takes cells with a large nucleus for blasts, as a network would, and all of them too low."""

    identity = ModelIdentity(name="nuclei", version="1", sha256="a" * 64, execution_provider="CPU")
    policy = DecisionPolicy(refer_above=0.28, leukemic_from=0.72, novelty_limit=1e6, type_from=0.4)

    def classify(self, crops: NDArray[np.uint8]) -> list[Prediction]:
        dark = (crops[..., 1] < 110) & (crops.max(axis=3) > 0)
        logits = 50 * (dark.mean(axis=(1, 2)) - BLAST_NUCLEUS) + TOO_LOW
        types = [4.0 if kind is CellType.LYMPHOCYTE else 0.0 for kind in CELL_TYPES]
        types[CELL_TYPES.index(CellType.PROMYELOCYTE)] = -6.0
        return [graph_answer(float(one), types) for one in probabilities_of(logits)]


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (listener.service, listener.cli.calibrate):
        monkeypatch.setattr(module, "load_network", lambda _settings, **_options: LargeNuclei())


def test_a_signed_laboratory_is_calibrated_and_then_answered_rightly(tmp_path: Path) -> None:
    before = site(tmp_path)
    store = open_store(before, worker_id="w1")
    drawn = field_of(1)
    for number in range(SMEARS):
        review(store, number, turned(drawn, number))
    settings_file = tmp_path / "site.toml"
    settings_file.write_text(f'[service]\ndata_dir = "{before.data_dir}"\n')
    file = tmp_path / "site-calibration.toml"

    told = CliRunner().invoke(
        app,
        [
            *("calibrate", "--reviews", "--site", "St. Anna"),
            *("--out", str(file), "--settings", str(settings_file)),
        ],
        catch_exceptions=False,
    )
    unseen = field_of(99)
    plain = analysed(unseen, SeriesUID("1.2.99"))
    after = site(tmp_path, model={"site_calibration": str(file)})
    found, pdf = served(after, unseen, tmp_path)

    assert told.exit_code == 0, told.output
    assert f"{SMEARS} smears" in told.output
    assert rightly_called(plain, unseen)[Call.LEUKEMIC] < 0.6
    assert rightly_called(found, unseen) == {
        Call.LEUKEMIC: pytest.approx(1, abs=0.15),
        Call.NORMAL: pytest.approx(1, abs=0.15),
    }
    assert found.model.calibration is not None
    assert found.model.calibration.site == "St. Anna"
    assert f"calibrated for St. Anna on {found.model.calibration.made_on}" in printed_text(pdf)
    [started] = read_events(after.audit_dir, EventFilter(event=Event.SERVICE_STARTED))
    assert started["calibration_sha256"] == found.model.calibration.sha256


def site(root: Path, **more: Any) -> Settings:
    return make_settings(
        {
            "service": {"data_dir": str(root / "data"), "worker_id": "w1", "stop_grace_s": 10.0},
            "dicom": {"port": 0},
            "web": {"port": 0},
            "smear": {"quiet_s": 0.1},
            "retention": {"min_free_disk_mb": 1},
            "results": {"kinds": ["pdf_report"]},
            **more,
        }
    )


def field_of(seed: int) -> PhantomField:
    order = np.random.default_rng(seed).permutation(len(WHITE_CELLS))
    return draw_field(
        seed,
        Recipe(
            width=1000,
            height=760,
            um_per_px=UM_PER_PX,
            white_cells=tuple(WHITE_CELLS[place] for place in order),
            red_cells_per_mm2=3000.0,
            platelets_per_mm2=0.0,
        ),
    )


def analysed(drawn: PhantomField, series: SeriesUID) -> FieldFindings:
    image = SourceImage(
        sop_instance_uid=SOPInstanceUID(f"{series}.1"),
        frame=1,
        pixels=drawn.pixels,
        spacing_um=UM_PER_PX,
    )
    return analyse_field(
        image,
        study_uid=StudyUID("1.2"),
        series_uid=series,
        classifier=LargeNuclei(),
        segmenter=load_segmenter(),
    )


def turned(drawn: PhantomField, number: int) -> PhantomField:
    """One of eight ways to lay the same slide: drawing is slow, and no crop is the same twice."""
    pixels = drawn.pixels
    centers = np.array([cell.centre for cell in drawn.cells])
    for bit, axis in ((1, 1), (2, 0)):
        if number & bit:
            pixels = np.flip(pixels, axis)
            side = pixels.shape[axis] - 1
            centers[:, 1 - axis] = side - centers[:, 1 - axis]
    if number & 4:
        pixels, centers = np.swapaxes(pixels, 0, 1), centers[:, ::-1]
    cells = tuple(
        replace(cell, centre=(float(x), float(y)))
        for cell, (x, y) in zip(drawn.cells, centers, strict=True)
    )
    return replace(drawn, pixels=np.ascontiguousarray(pixels), cells=cells)


def review(store: Store, number: int, drawn: PhantomField) -> None:
    """A hematologist who names every cell that the network did not call rightly, and signs."""
    series = SeriesUID(f"1.2.{number + 1}")
    found = analysed(drawn, series)
    folder = store.results.smear(SmearId(series))
    folder.save_fields(found.sop_instance_uid, [found])
    truths = true_calls(found, drawn)
    right = [key for key, (call, truth) in truths.items() if call is truth]
    missed = {
        truth: [key for key, (call, true) in truths.items() if call is not truth and true is truth]
        for truth in (Call.LEUKEMIC, Call.NORMAL)
    }
    acts: list[tuple[Act, Sequence[CellKey], str]] = [
        (Act.SEEN, right, ""),
        (Act.RECLASSIFY, missed[Call.LEUKEMIC], "blast"),
        (Act.RECLASSIFY, missed[Call.NORMAL], "neutrophil"),
        (Act.SIGN, (), ""),
    ]
    for revision, (act, cells, to) in enumerate(one for one in acts if one[1] or not one[2]):
        folder.review().append(
            ReviewEvent(
                id=f"e{revision}",
                at=datetime(2026, 11, 28, tzinfo=UTC),
                reviewer=Reviewer(account="jm", name="J. Meyer"),
                act=act,
                cells=tuple(cells),
                to=to,
            ),
            seen_revision=revision,
        )


def true_calls(found: FieldFindings, drawn: PhantomField) -> Mapping[CellKey, tuple[Call, Call]]:
    """What was said and what was drawn, for each cell."""
    calls = {}
    for one in found.cells:
        box = one.cell.box
        middle = np.array([box.x + box.width / 2, box.y + box.height / 2])
        nearest = min(
            drawn.cells, key=lambda cell: float(np.linalg.norm(np.array(cell.centre) - middle))
        )
        truth = Call.LEUKEMIC if nearest.is_leukemic else Call.NORMAL
        calls[cell_key(found, one.cell)] = (one.call, truth)
    return calls


def rightly_called(found: FieldFindings, drawn: PhantomField) -> Mapping[Call, float]:
    """Of the cells of each label, the share with the right call."""
    calls = list(true_calls(found, drawn).values())
    return {
        truth: float(np.mean([call is truth for call, true in calls if true is truth]))
        for truth in (Call.LEUKEMIC, Call.NORMAL)
    }


def served(settings: Settings, drawn: PhantomField, root: Path) -> tuple[FieldFindings, bytes]:
    """The findings and the printed report of a field that came by C-STORE."""
    picture = root / "field.png"
    cv2.imwrite(str(picture), drawn.pixels[..., ::-1])
    with running(settings) as service:
        peer = PeerAddress(ae_title="SMEARLINK", host="127.0.0.1", port=service.dicom_port or 0)
        [image] = to_dicom([picture], Order(spacing_um=UM_PER_PX))
        [sent] = send_images([image], peer)
        assert sent.is_stored
        smear = SmearId(str(image.SeriesInstanceUID))
        folder = service.store.results.smear(smear)
        until(lambda: folder.latest() is not None)
        index = folder.latest()
        assert index is not None
        [pdf] = [one for one in index.results if one.kind is ResultKind.PDF_REPORT]
        [found] = folder.fields(SOPInstanceUID(str(image.SOPInstanceUID)))
        return found, folder.read(index.version, pdf).content

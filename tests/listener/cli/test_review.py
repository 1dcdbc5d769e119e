"""What people corrected can be counted, and taken along as a pack that evaluation reads."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian

from config.model import Settings
from config.settings import make_settings
from listener.cli.review import agreement_of, export_corrections, lines_of
from listener.storage.data_folder import Store, open_store
from listener.storage.inbox import StoreRequest
from models.evaluation.pack import read_pack
from pipeline.domain import Call, Reviewer, SmearId, SOPInstanceUID
from pipeline.errors import Rejected
from pipeline.findings.review import Act, CellKey, ReviewEvent, cell_key
from tests.findings import make_field_findings
from tests.listener.house import make_dataset

SERIES = "1.2.840.1"
NAME = "Doe^Jane"


@pytest.fixture
def site(tmp_path: Path) -> Settings:
    return make_settings({"service": {"data_dir": str(tmp_path / "data")}})


@pytest.fixture
def store(site: Settings) -> Store:
    return open_store(site, worker_id="w")


def received(store: Store) -> list[CellKey]:
    """One smear of one field with four cells on a picture of 640 × 480 pixels."""
    dataset = make_dataset(SERIES, 1)
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 480, 640, 3
    dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    dataset.PixelData = np.full((480, 640, 3), 200, np.uint8).tobytes()
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, dataset)
    offer = StoreRequest(
        sop_class_uid=dataset.SOPClassUID,
        sop_instance_uid=dataset.SOPInstanceUID,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        source="DEVICE",
    )
    with store.inbox.receive(offer) as incoming:
        incoming.write(buffer.getvalue())
        incoming.commit()
    field = make_field_findings(
        sop_instance_uid=dataset.SOPInstanceUID,
        calls=(Call.LEUKEMIC, Call.NORMAL, Call.NORMAL, Call.REFERRED),
    )
    folder = store.results.smear(SmearId(SERIES))
    folder.save_fields(SOPInstanceUID(dataset.SOPInstanceUID), [field])
    return [cell_key(field, found.cell) for found in field.cells]


def said(store: Store, *decisions: tuple[CellKey, str]) -> None:
    log = store.results.smear(SmearId(SERIES)).review()
    for number, (key, to) in enumerate(decisions):
        log.append(
            ReviewEvent(
                id=f"e{number}",
                at=datetime(2026, 11, 28, tzinfo=UTC),
                reviewer=Reviewer(account="jm", name="J. Meyer"),
                act=Act.RECLASSIFY,
                cells=(key,),
                to=to,
            ),
            seen_revision=number,
        )


def test_a_folder_with_something_in_it_is_not_written_over(site: Settings, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")

    with pytest.raises(Rejected, match="not empty"):
        export_corrections(site, tmp_path / "out")


def test_nothing_reviewed_is_nothing_claimed(site: Settings) -> None:
    assert list(lines_of(agreement_of(site))) == ["0 cells were named by a person, of 0 smears"]


def test_network_and_person_are_compared_cell_by_cell(site: Settings, store: Store) -> None:
    blast, first, second, referred = received(store)
    said(store, (blast, "lymphoblast"), (first, "monocyte"), (second, "lymphocyte"))
    del referred

    agreement = agreement_of(site)

    assert agreement.cells.cells == 3
    assert agreement.cells.confusion[("lymphocyte", "monocyte")] == 1
    assert agreement.cells.positive is not None
    assert agreement.cells.positive.value == 1.0
    assert all(len(line) <= 80 for line in lines_of(agreement))
    assert agreement.to_json()["research_use_only"] is True


def test_corrected_cells_make_a_pack_that_evaluation_reads(
    site: Settings, store: Store, tmp_path: Path
) -> None:
    cells = received(store)
    said(store, (cells[0], "monocyte"), (cells[1], "not_a_cell"), (cells[2], "unidentified"))

    done = export_corrections(site, tmp_path / "pack")

    rows = {row.cell_type: row for row in read_pack(tmp_path / "pack", None)}
    assert done.cells + done.at_the_edge == 2
    assert set(rows) == {"monocyte", "artefact"}
    assert (rows["monocyte"].label, rows["artefact"].label) == ("normal", "")
    assert rows["monocyte"].read_pixels().shape[2] == 3


def test_a_pack_names_no_patient(site: Settings, store: Store, tmp_path: Path) -> None:
    cells = received(store)
    said(store, (cells[0], "monocyte"))

    export_corrections(site, tmp_path / "pack")

    told = (tmp_path / "pack" / "manifest.csv").read_text()
    assert NAME not in told
    assert "P1" not in told
    assert SERIES not in told


def test_cells_whose_image_is_gone_are_counted(
    site: Settings, store: Store, tmp_path: Path
) -> None:
    cells = received(store)
    said(store, (cells[0], "monocyte"))
    store.inbox.remove(f"{SERIES}.1")

    done = export_corrections(site, tmp_path / "pack")

    assert (done.cells, done.without_image) == (0, 1)

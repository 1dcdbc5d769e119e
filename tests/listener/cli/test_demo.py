"""The demonstration's own decisions; the whole of it is run in tests/acceptance/test_demo.py."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from config.settings import load_settings, make_settings
from listener.cli.console import ProgressDisplay
from listener.cli.demo import (
    MARK,
    REVIEWER,
    SETTINGS_FILE,
    SMEARS,
    draw_phantom,
    make_reviewer,
    make_room,
    readable_files,
    with_accessions,
)
from listener.demo.results import DemoImage, short_names
from listener.modality.secondary_capture import Order
from listener.modality.store_scu import NOT_SUPPORTED, SentImage
from listener.web.console.accounts import Accounts
from listener.web.console.database import ConsoleDatabase
from listener.web.console.permissions import Permission, permissions_of
from pipeline.domain import SmearId, SOPInstanceUID
from pipeline.errors import Rejected
from pipeline.findings.decision import BLASTS
from tests.builders import build_image, file_bytes


def test_a_folder_that_holds_other_files_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")

    with pytest.raises(Rejected, match="--out") as refusal:
        make_room(tmp_path)

    assert refusal.value.code == "folder_in_use"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_of_an_earlier_demonstration_is_made_anew(tmp_path: Path) -> None:
    out = tmp_path / "demo-output"
    make_room(out)
    (out / "old.png").write_bytes(b"x")

    make_room(out)

    assert [path.name for path in out.iterdir()] == [MARK]


def test_each_smear_of_the_demonstration_is_an_order_of_its_own(tmp_path: Path) -> None:
    paths = list(draw_phantom(tmp_path, 2, ProgressDisplay()))

    read = [one.image for one in with_accessions(paths, Order(spacing_um=0.1))]

    assert [image and image.AccessionNumber for image in read] == ["DEMO-1", "DEMO-2"]


def test_whoever_tries_the_demonstration_may_review_it(tmp_path: Path) -> None:
    out = tmp_path / "demo-output"
    make_room(out)
    service = {"data_dir": str(out / "service"), "worker_id": "demo"}
    settings = make_settings({"service": service, "audit": {"folder": str(out / "audit")}})

    password = make_reviewer(out, settings)

    database = ConsoleDatabase(settings.database_url)
    account = Accounts(database).sign_in(REVIEWER, password)
    database.close()
    found = load_settings(out / SETTINGS_FILE)
    assert account is not None
    assert Permission.REVIEW in permissions_of(account.roles)
    assert (found.data_dir, found.audit_dir) == (settings.data_dir, settings.audit_dir)
    assert password not in (out / SETTINGS_FILE).read_text()


def test_when_no_file_is_an_image_each_is_named_with_its_reason(tmp_path: Path) -> None:
    for name in ("a.png", "b.dcm"):
        (tmp_path / name).write_bytes(b"nothing")

    with pytest.raises(Rejected, match=r"a\.png") as refusal:
        readable_files(sorted(tmp_path.iterdir()), ProgressDisplay())

    assert "b.dcm" in refusal.value.message


def test_junk_beside_images_is_told_and_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(file_bytes(build_image()))
    (tmp_path / "b.png").write_bytes(b"nothing")

    readable, unreadable = readable_files(sorted(tmp_path.iterdir()), ProgressDisplay())

    assert [path.name for path in readable] == ["a.dcm"]
    assert len(unreadable) == 1
    assert "b.png" in unreadable[0]


def test_the_phantom_smears_are_one_healthy_and_one_leukemic_with_their_truth(
    tmp_path: Path,
) -> None:
    paths = list(draw_phantom(tmp_path, 2, ProgressDisplay()))

    blasts = {}
    for path in paths:
        assert cv2.imread(str(path)).shape == (960, 1280, 3)
        truth = json.loads(path.with_suffix(".truth.json").read_text())
        blasts[path.parent.name] = sum(cell["is_blast"] for cell in truth)
    drawn = sum(kind in BLASTS for kind in SMEARS["leukemic"])
    assert blasts == {"healthy": 0, "leukemic": drawn}
    assert drawn > 0


def test_files_of_one_smear_with_the_same_stem_keep_their_endings() -> None:
    sent = [
        _sent("a.jpg", "2.25.1"),
        _sent("a.png", "2.25.2"),
        _sent("b.png", "2.25.3"),
        _sent("a.bmp", "2.25.4", smear="2.25.99"),
    ]

    assert short_names(sent) == {
        "2.25.1": "a_jpg",
        "2.25.2": "a_png",
        "2.25.3": "b",
        "2.25.4": "a",
    }


def test_a_refused_file_gives_no_image_its_name() -> None:
    sent = [
        _sent("first.dcm", "2.25.1"),
        _sent("same.dcm", "2.25.1"),
        _sent("other.dcm", "2.25.1", status=NOT_SUPPORTED),
    ]

    assert short_names(sent) == {"2.25.1": "first"}


def _sent(name: str, uid: str, *, smear: str = "2.25.10", status: int = 0) -> DemoImage:
    return DemoImage(
        file=Path(name),
        sop_instance_uid=SOPInstanceUID(uid),
        smear_id=SmearId(smear),
        answer=SentImage(sop_instance_uid=uid, status=status, comment=""),
    )

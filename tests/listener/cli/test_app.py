"""The command line: clear messages, and exit codes that scripts can use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from listener.cli.app import NEEDS_PERSON, TRY_LATER, WRONG_USE, app, main
from listener.demo.mock_servers import MockPacs
from listener.modality.secondary_capture import to_dicom
from listener.queue.dbos_adapter import make_queue
from listener.queue.jobs import JobKind, image_job
from listener.storage.inbox import Inbox
from listener.storage.results import ResultsFolder
from pipeline.domain import RESEARCH_USE_ONLY, SmearId, SOPInstanceUID
from tests.acceptance.standins import closed_port
from tests.builders import build_image, file_bytes
from tests.certificates import make_authority
from tests.listener.cli.test_analyse import draw_picture
from tests.listener.house import open_queue
from tests.listener.peers import listening

COMMANDS = (
    "serve",
    "worker",
    "demo",
    "send",
    "analyse",
    "evaluate",
    "status",
    "retry",
    "close",
    "check",
    "audit",
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `smearlink …` in this process on a folder of its own: exit code, output, errors."""
    for name in [name for name in os.environ if name.startswith("SMEARLINK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SMEARLINK_SERVICE__DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SMEARLINK_RETENTION__MIN_FREE_DISK_MB", "1")

    def smearlink(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["smearlink", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr()
        return int(end.value.code or 0), told.out, told.err

    return smearlink


# --- wrong use


def test_an_unknown_setting_stops_every_command_and_names_the_nearest(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMEARLINK_DICOM__PROT", "104")

    for command in (["serve"], ["worker"], ["status"], ["check"], ["audit", "verify"]):
        code, out, err = run(*command)

        assert code == WRONG_USE
        assert "Did you mean SMEARLINK_DICOM__PORT?" in err
        assert out == ""


def test_a_settings_file_that_is_not_there_is_named(run: Run) -> None:
    code, _, err = run("serve", "--settings", "nowhere.toml")

    assert code == WRONG_USE
    assert "nowhere.toml: there is no such file" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [["retry"], ["retry", "KEY", "--all"]])
def test_retry_wants_either_a_key_or_all(run: Run, arguments: list[str]) -> None:
    code, _, err = run(*arguments)

    assert code == WRONG_USE
    assert "either a KEY" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "one or more packs, or give --reviews"),
        (("pack", "--reviews"), "one or more packs, or give --reviews"),
        (("--reviews", "--out", "none/c.toml"), "There is no folder none"),
        (("--reviews",), "0 normal cells of 0 smears"),
        (("nowhere",), "manifest.csv"),
    ],
)
def test_a_calibration_says_what_it_lacks_and_writes_nothing(
    run: Run,
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SMEARLINK_MODEL__FOLDER", str(tiny_model))

    code, out, err = run("calibrate", *arguments, "--site", "St. Anna")

    assert code == WRONG_USE
    assert words in err
    assert out == ""
    assert not (tmp_path / "site-calibration.toml").exists()


def test_a_receiver_that_is_no_address_is_refused(run: Run, tmp_path: Path) -> None:
    draw_picture(tmp_path / "in" / "a.png")

    code, _, err = run("send", tmp_path / "in", "--to", "nobody")

    assert code == WRONG_USE
    assert "SMEARLINK@127.0.0.1:11112" in err


def test_a_file_that_is_not_there_is_named(run: Run, tmp_path: Path) -> None:
    code, _, err = run("send", tmp_path / "none.png", "--to", "A@127.0.0.1:104")

    assert code == WRONG_USE
    assert "none.png" in err


def test_a_receiver_that_is_not_there_can_be_tried_later(run: Run, tmp_path: Path) -> None:
    draw_picture(tmp_path / "in" / "a.png")

    code, _, err = run("send", tmp_path / "in", "--to", f"PACS@127.0.0.1:{closed_port()}")

    assert code == TRY_LATER
    assert "check the address" in err


def test_a_folder_that_somebody_else_filled_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")

    code, _, err = run("demo", "--out", tmp_path)

    assert code == WRONG_USE
    assert "holds other files" in err
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_command_or_option_that_does_not_exist_is_wrong_use(run: Run) -> None:
    for arguments in (["sever"], ["serve", "--prot", "104"], ["demo", "--fields", "0"]):
        code, _, err = run(*arguments)

        assert code == WRONG_USE
        assert "Traceback" not in err


def test_a_fault_of_our_own_is_told_by_its_place_and_not_by_what_it_held(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ValueError("Doe^Jane")

    monkeypatch.setattr("listener.cli.demo.run_demo", fails)

    code, _, err = run("demo")

    assert code == NEEDS_PERSON
    assert "please report it: ValueError at" in err
    assert "Doe" not in err


# --- what a command costs


def test_what_is_asked_beside_the_service_loads_neither_networks_nor_pictures(
    tmp_path: Path,
) -> None:
    """Status and audit answer at once: loading all of the service takes seconds."""
    asked = (["--help"], ["status"], ["retry", "KEY"], ["close", "1.2"], ["audit", "verify"])
    program = (
        "import sys\nfrom listener.cli.app import main\n"
        f"for arguments in {asked}:\n"
        "    sys.argv = ['smearlink', *arguments]\n"
        "    try:\n        main()\n    except SystemExit:\n        pass\n"
        "print('loaded:', *sys.modules)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "SMEARLINK_SERVICE__DATA_DIR": str(tmp_path / "data")},
        check=True,
    )

    loaded = set(done.stdout.partition("loaded:")[2].split())
    assert {"listener.queue.client", "listener.cli.audit"} <= loaded
    assert not loaded & {"onnxruntime", "cv2", "highdicom", "pynetdicom", "fhir", "uvicorn"}


# --- help


def test_help_names_every_command_and_what_it_must_not_be_used_for() -> None:
    told = CliRunner().invoke(app, ["--help"]).output

    assert all(command in told for command in COMMANDS)
    assert RESEARCH_USE_ONLY in " ".join(told.split())


@pytest.mark.parametrize(
    "command", [*([name] for name in COMMANDS), *(["audit", n] for n in ("verify", "show"))]
)
def test_every_command_explains_itself(command: list[str]) -> None:
    told = CliRunner().invoke(app, [*command, "--help"])

    assert told.exit_code == 0
    assert "Usage" in told.output


# --- what they do


def test_send_says_what_was_stored_and_what_was_refused(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    draw_picture(folder / "a.png")
    odd = build_image()
    odd.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.99"
    (folder / "b.dcm").write_bytes(file_bytes(odd))

    with MockPacs(tmp_path / "pacs") as pacs:
        code, out, err = run("send", folder, "--to", f"{pacs.ae_title}@127.0.0.1:{pacs.port}")

    assert code == NEEDS_PERSON
    assert "1 stored, 1 refused" in out
    assert "0x0122" in out
    assert "Sending to STANDIN: 2" in err


def test_bad_files_never_stop_a_folder(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("a.png", "e.png"):
        draw_picture(folder / name)
    whole = (folder / "a.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    (folder / "c.jpg").write_bytes(b"")
    (folder / "d.zip").write_bytes(b"PK\x03\x04" + bytes(40))
    (folder / "f.dcm").write_bytes(file_bytes(build_image())[:400])
    (folder / "notes.txt").write_text("notes")

    with MockPacs(tmp_path / "pacs") as pacs:
        code, out, err = run("send", folder, "--to", f"{pacs.ae_title}@127.0.0.1:{pacs.port}")

    assert code == NEEDS_PERSON
    assert "2 stored, 4 refused" in out
    for said in ("b.png breaks off", "c.jpg is empty", "d.zip is a zip archive", "f.dcm "):
        assert said in out
    assert "skipped 1 .txt, not an image: notes.txt" in err


def test_what_was_stored_is_said_when_the_receiver_is_lost(run: Run, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw_picture(tmp_path / "in" / name)

    code, out, _ = run("send", tmp_path / "in", "--to", f"PACS@127.0.0.1:{closed_port()}")

    assert code == TRY_LATER
    assert "0 stored, 0 refused, 2 not sent" in out


def test_send_speaks_tls(run: Run, tmp_path: Path) -> None:
    draw_picture(tmp_path / "in" / "a.png")
    files = make_authority(tmp_path / "ca").issue("listener")
    tls = {
        "enabled": True,
        "certificate": files.certificate,
        "private_key": files.private_key,
        "require_client_certificate": False,
    }

    with listening(Inbox(tmp_path / "inbox"), tls=tls) as listener:
        to = f"SMEARLINK@127.0.0.1:{listener.port}"
        trusting, out, _ = run("send", tmp_path / "in", "--to", to, "--ca", files.ca_certificates)
        plain, _, err = run("send", tmp_path / "in", "--to", to)

    assert (trusting, plain) == (0, TRY_LATER)
    assert "1 stored, 0 refused" in out
    assert "--tls" in err


def test_a_key_without_its_certificate_is_wrong_use(run: Run, tmp_path: Path) -> None:
    code, _, err = run("send", tmp_path, "--to", "A@127.0.0.1:104", "--key", tmp_path / "k.pem")

    assert code == WRONG_USE
    assert "--cert" in err


def test_the_version_is_that_of_the_package(run: Run) -> None:
    code, out, _ = run("--version")

    assert (code, out) == (0, f"smearlink {version('smearlink')}\n")


def test_send_puts_the_order_into_what_it_sends(run: Run, tmp_path: Path) -> None:
    draw_picture(tmp_path / "in" / "a.png")

    with MockPacs(tmp_path / "pacs") as pacs:
        to = f"{pacs.ae_title}@127.0.0.1:{pacs.port}"
        code, _, _ = run("send", tmp_path / "in", "--to", to, "--accession", "A-1")
        (image,) = to_dicom(pacs.stored)

    assert code == 0
    assert image.AccessionNumber == "A-1"


def test_analyse_writes_one_json_line_a_frame(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    draw_picture(tmp_path / "in" / "a.png")
    site = tmp_path / "site.toml"
    site.write_text('[model]\nfolder = "model"\n')

    code, out, _ = run("analyse", tmp_path / "in", "--out", tmp_path / "out", "--settings", site)

    assert code == 0
    (line,) = out.splitlines()
    assert json.loads(line)["label"] == RESEARCH_USE_ONLY


def test_check_fails_when_one_thing_does(
    run: Run, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMEARLINK_MODEL__FOLDER", str(tiny_model))

    good, told, _ = run("check", "--json")
    (tiny_model / "tiny.onnx").write_bytes(b"damaged")
    bad, out, _ = run("check")

    assert good == 0
    assert all(one["is_good"] for one in json.loads(told))
    assert bad == NEEDS_PERSON
    assert "FAIL model" in out


def test_status_before_the_first_start_says_that_there_is_none(run: Run) -> None:
    code, _, err = run("status")

    assert code != 0
    assert err.startswith("smearlink: There is no work queue at ")
    assert "smearlink serve" in err
    assert "Traceback" not in err


def test_verify_without_a_trail_is_no_success(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    code, _, err = run("audit", "verify", tmp_path / "empty")

    assert code != 0
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "told"), [(["nope"], "parked is named nope"), (["--all"], "Nothing is parked")]
)
def test_a_retry_of_nothing_says_where_to_look(
    run: Run, tmp_path: Path, arguments: list[str], told: str
) -> None:
    (tmp_path / "data").mkdir()
    make_queue(f"sqlite:///{tmp_path / 'data' / 'state.sqlite'}")

    code, out, _ = run("retry", *arguments)

    assert code == NEEDS_PERSON
    assert told in out
    assert "smearlink status" in out


@pytest.mark.parametrize("smear", ["1.2.3", "nonsense", "../x"])
def test_a_smear_that_nobody_knows_is_not_closed(run: Run, tmp_path: Path, smear: str) -> None:
    (tmp_path / "data").mkdir()
    url = f"sqlite:///{tmp_path / 'data' / 'state.sqlite'}"
    make_queue(url)

    code, out, _ = run("close", smear)

    with closing(open_queue(tmp_path, url)) as queue:
        assert queue.left() == []
    assert code == NEEDS_PERSON
    assert f"a smear named {smear} " in out
    assert "series UID" in out


@pytest.mark.parametrize("is_analysed", [False, True])
def test_a_smear_that_waits_or_was_analysed_is_closed(
    run: Run, tmp_path: Path, is_analysed: bool
) -> None:
    (tmp_path / "data").mkdir()
    url = f"sqlite:///{tmp_path / 'data' / 'state.sqlite'}"
    make_queue(url)
    waiting = image_job(SOPInstanceUID("1.2.3.1"), SmearId("1.2.3"))
    with closing(open_queue(tmp_path, url)) as queue:
        if is_analysed:
            results = ResultsFolder(tmp_path / "data" / "results", worker_id="w1")
            results.smear(SmearId("1.2.3")).save_fields(SOPInstanceUID("1.2.3.1"), [])
        else:
            queue.enqueue(waiting)

        code, out, _ = run("close", "1.2.3")

        asked = [row.smear_id for row in queue.left() if row.kind is JobKind.CLOSE_SMEAR]
    assert code == 0
    assert "smearlink status" in out
    assert asked == ["1.2.3"]


def test_status_as_json_says_what_waits(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    url = f"sqlite:///{tmp_path / 'data' / 'state.sqlite'}"
    make_queue(url)
    with closing(open_queue(tmp_path, url)) as queue:
        queue.enqueue(image_job(SOPInstanceUID("1.2.3.1"), SmearId("1.2.3")))

    code, out, err = run("status", "--json")

    (line,) = out.splitlines()
    told = json.loads(line)
    assert (code, err) == (0, "")
    assert told["label"] == RESEARCH_USE_ONLY
    assert [(one["name"], one["waiting"]) for one in told["queues"]] == [("images", 1)]
    assert told["parked"] == []

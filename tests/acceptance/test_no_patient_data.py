"""No patient in any log, metric, queue row, path or audit line (law 4): the real service is fed
names, birth dates and numbers by every way in, and meets peers that say them back in errors."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from pydicom import Dataset, dcmread, dcmwrite

from listener.demo.mock_servers import Reply
from reporting.audit.trail import Event, read_events
from reporting.delivery.transport.mllp import control_id_of, framed, read_frame
from tests.acceptance.standins import FaultyPacs, ScriptedFhir, TcpPeer
from tests.findings import make_field_findings
from tests.listener.peers import store
from tests.reporting.sources import make_source
from tests.tiny_model import write_tiny_model

NAME = "Zwetschgenmus^Kunigunde"
PATIENT = {
    "PatientName": NAME,
    "PatientID": "GEHEIM-4711",
    "PatientBirthDate": "19310203",
    "OtherPatientIDs": "ZWEITE-0815",
    "PatientAddress": "Pflaumenweg 3",
    "AccessionNumber": "AKZ-90210X",
    "ReferringPhysicianName": "Wunderlich^Doktor",
    "PatientComments": "Kunigunde mag Zwetschgen",
}
SECRETS = (
    *("zwetschge", "kunigunde", "geheim-4711", "19310203", "1931-02-03", "zweite-0815"),
    *("pflaumenweg", "akz-90210x", "wunderlich", "objekt-556677"),
)
PATIENCE_S = 600.0
"""How long a failing test waits; a good one waits for what happens and no longer."""

GOSSIP = {
    "resourceType": "OperationOutcome",
    "issue": [
        {
            "severity": "error",
            "code": "not-found",
            "details": {"text": NAME},
            "diagnostics": f"Patient {NAME} GEHEIM-4711 born 1931-02-03 is unknown",
            "expression": ["Zwetschgenmus.Kunigunde", "Patient.where(id='GEHEIM-4711')"],
        }
    ],
}


class GossipPacs(FaultyPacs):
    """Refuses every image, and says whose it was."""

    def on_store(self, event: object) -> int:
        answer = Dataset()
        answer.Status = 0xC000
        answer.ErrorComment = f"{NAME} GEHEIM-4711"
        super().on_store(event)  # type: ignore[arg-type]
        return answer  # type: ignore[return-value]


def gossip_hl7(connection: socket.socket) -> None:
    """Refuses a message, and says whose it was."""
    try:
        control_id = control_id_of(read_frame(connection, PATIENCE_S))
    except (OSError, ValueError):
        return
    said = (
        "MSH|^~\\&|LIS|||SMEARLINK|20261124||ACK^R01|9|P|2.5.1\r"
        f"MSA|AE|{control_id}|{NAME} GEHEIM-4711\r"
        f"ERR||PID^1^3|GEHEIM-4711^{NAME}|E|||{NAME}|born 19310203\r"
    )
    connection.sendall(framed(said.encode()))


@dataclass(frozen=True, kw_only=True)
class Running:
    """`smearlink serve` in a process of its own."""

    process: subprocess.Popen[bytes]
    data_dir: Path
    log: Path
    dicom_port: int
    web_port: int

    def happened(self, event: Event) -> list[dict[str, object]]:
        return [dict(e) for e in read_events(self.data_dir / "audit") if e["event"] == event]

    def wait_for(self, event: Event, count: int) -> None:
        until(lambda: len(self.happened(event)) >= count, f"{count} {event}", self)


def until(is_so: Callable[[], bool], what: str, running: Running) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not is_so():
        assert running.process.poll() is None, running.log.read_text()[-2000:]
        assert time.monotonic() < give_up, f"never came: {what}"
        time.sleep(0.2)


def settings_text(root: Path, *, fhir: str, pacs: int, hl7: int) -> str:
    quick = "first_delay_s = 0.1\nmax_delay_s = 0.2\nmax_tries = 2\ntimeout_s = 5.0"
    return f"""
[service]
data_dir = "{root / "data"}"
log_level = "debug"
log_format = "json"
worker_id = "ward7"
[dicom]
port = 0
[web]
port = 0
[smear]
quiet_s = 0.2
gather_by = "specimen"
[model]
folder = "{root / "model"}"
[[destination]]
name = "ehr"
type = "fhir"
url = "{fhir}"
{quick}
[[destination]]
name = "pacs"
type = "dicom"
ae_title = "STANDIN"
host = "127.0.0.1"
port = {pacs}
{quick}
[[destination]]
name = "lis"
type = "hl7"
host = "127.0.0.1"
port = {hl7}
{quick}
[[destination]]
name = "registry"
type = "folder"
path = "{root / "registry"}"
pseudonymise = true
{quick}
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("site")
    write_tiny_model(root / "model")
    with ExitStack() as stack:
        unprocessable = Reply(status=422, body=GOSSIP)
        fhir = stack.enter_context(ScriptedFhir(*[unprocessable] * 1000))
        pacs = stack.enter_context(GossipPacs(root / "pacs"))
        hl7 = stack.enter_context(TcpPeer(gossip_hl7))
        site = root / "site.toml"
        site.write_text(settings_text(root, fhir=fhir.url, pacs=pacs.port, hl7=hl7.port))
        log = root / "log.txt"
        process = stack.enter_context(_served(site, log))
        ports = _ports(process, log)
        running = Running(process=process, data_dir=root / "data", log=log, **ports)
        _feed_everything(running)
        assert fhir.requests, "the EHR was never asked, so it had nothing to say back"
        yield running
        process.terminate()
        process.wait(PATIENCE_S)


def _served(site: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("smearlink")), "serve", "--settings", str(site)]
    with log.open("wb") as file:
        return subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, "PYTHONWARNINGS": "always"}
        )


def _ports(process: subprocess.Popen[bytes], log: Path) -> dict[str, int]:
    give_up = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up:
        assert process.poll() is None, log.read_text()
        lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
        told = [json.loads(line) for line in lines if '"listening"' in line]
        ports = {f"{one['protocol']}_port": one["port"] for one in told}
        if len(ports) == 2:
            return ports
        time.sleep(0.2)
    raise AssertionError("the service never listened")


def _image(number: int, **attributes: str) -> Dataset:
    source = make_source("microscopic", make_field_findings(sop_instance_uid=f"1.2.3.4.{number}"))
    source.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in {**PATIENT, "ContainerIdentifier": "OBJEKT-556677"}.items():
        setattr(source, keyword, value)
    for keyword, value in attributes.items():
        setattr(source, keyword, value)
    return source


def _feed_everything(running: Running) -> None:
    """Good images, bad ones, and requests that are no images at all."""
    broken = _image(2)
    broken.PixelData = f"{NAME} GEHEIM-4711 ".encode() * 10
    burned_in = _image(3, BurnedInAnnotation="YES", ContainerIdentifier="OBJEKT-556677-B")
    named_uid = _image(4, SOPInstanceUID="1.2.3.Kunigunde")
    no_sense = _image(5, PhotometricInterpretation="ZWETSCHGE")
    for image in (_image(1), broken, burned_in, no_sense, named_uid):
        try:
            store(running.dicom_port, image)
        except (AssertionError, RuntimeError, ValueError, AttributeError):
            continue  # refused before it was sent; what counts is what the service keeps of it
    _feed_web(f"http://127.0.0.1:{running.web_port}")
    running.wait_for(Event.IMAGE_PARKED, 2)
    running.wait_for(Event.SMEAR_REPORTED, 2)
    for destination in ("ehr", "pacs", "lis", "registry"):
        until(
            lambda name=destination: any(  # type: ignore[misc]
                event["destination"] == name for event in running.happened(Event.DELIVERY_PARKED)
            ),
            f"{destination} parked",
            running,
        )
    running.wait_for(Event.REPORT_DELIVERED, 1)


def _feed_web(url: str) -> None:
    dicom = BytesIO()
    dcmwrite(dicom, _image(6), enforce_file_format=True)
    part = 'multipart/related; type="application/dicom"; boundary=Kunigunde'
    bodies = (dicom.getvalue(), dicom.getvalue()[:300], f"{NAME} GEHEIM-4711".encode())
    with httpx.Client(base_url=url, timeout=30) as client:
        for body in bodies:
            framed_body = (
                b"--Kunigunde\r\nContent-Type: application/dicom\r\n"
                b"Content-Location: /GEHEIM-4711\r\n\r\n" + body + b"\r\n--Kunigunde--\r\n"
            )
            client.post("/studies", content=framed_body, headers={"Content-Type": part})
        client.post("/studies/GEHEIM-4711", content=b"x", headers={"Content-Type": part})
        client.get("/studies", params={"PatientName": NAME, "PatientBirthDate": "19310203"})
        client.get("/Kunigunde", headers={"User-Agent": NAME, "X-Patient": "GEHEIM-4711"})
        client.get("/status/GEHEIM-4711")


def leaks(text: bytes | str) -> list[str]:
    lowered = (text.encode() if isinstance(text, str) else text).lower()
    return [secret for secret in SECRETS if secret.encode() in lowered]


def holds_patients_rightly(path: Path, data_dir: Path) -> bool:
    """Images, the results that go to those who know the patient, and the console's index, by which
    signed-in people search for accession and patient."""
    parts = path.relative_to(data_dir).parts
    if len(parts) == 1 and path.name.startswith("console.sqlite"):
        return True
    in_report = len(parts) == 4 and parts[0] == "results" and parts[2].startswith("v")
    return parts[0] == "inbox" or (in_report and path.name != "index.json")


def files(running: Running) -> list[Path]:
    return [path for path in running.data_dir.rglob("*") if path.is_file()]


def test_the_secrets_went_in(running: Running) -> None:
    """Or none of the other tests could fail."""
    kept = [p for p in files(running) if holds_patients_rightly(p, running.data_dir)]

    found = {secret for path in kept for secret in leaks(path.read_bytes())}

    assert {"zwetschge", "geheim-4711", "19310203", "akz-90210x", "wunderlich"} <= found


def test_the_peers_did_refuse(running: Running) -> None:
    parked = {e["destination"]: e["code"] for e in running.happened(Event.DELIVERY_PARKED)}

    assert parked["ehr"] == "fhir_unprocessable"
    assert parked["lis"] == "hl7_refused"
    assert parked["pacs"] == "results_refused"
    assert parked["registry"] == "no_pseudonymous_results"


def test_no_log_line_names_a_patient(running: Running) -> None:
    assert running.log.stat().st_size > 0
    assert leaks(running.log.read_bytes()) == []


def test_no_metric_and_no_page_names_a_patient(running: Running) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{running.web_port}", timeout=30) as client:
        for path in ("/metrics", "/healthz", "/readyz", "/"):
            answer = client.get(path)
            assert leaks(answer.content) == [], path
            assert leaks(str(answer.headers)) == [], path


def test_no_path_names_a_patient(running: Running) -> None:
    assert leaks("\n".join(map(str, running.data_dir.rglob("*")))) == []


def test_nothing_kept_beside_images_and_results_names_a_patient(running: Running) -> None:
    """Queue rows, findings, receipts, indexes, audit lines, locks: every byte of every file."""
    others = [p for p in files(running) if not holds_patients_rightly(p, running.data_dir)]

    assert {"state.sqlite", "index.json"} <= {path.name for path in others}
    assert {path: leaks(path.read_bytes()) for path in others if leaks(path.read_bytes())} == {}


def test_what_went_out_under_pseudonyms_names_nobody(running: Running) -> None:
    """Files under pseudonyms: their names, their headers and their bytes."""
    sent = [p for p in (running.data_dir.parent / "registry").rglob("*") if p.is_file()]

    assert len(sent) >= 5
    for path in sent:
        assert leaks(str(path)) == []
        assert leaks(path.read_bytes()) == [], path.name
    pictures = [p for p in sent if p.suffix == ".dcm"]
    assert pictures
    names = {str(dcmread(p, stop_before_pixels=True).PatientID) for p in pictures}
    assert len(names) == 1

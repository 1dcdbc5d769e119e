"""The service over HTTP: clear refusals, health, and a page that changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
from structlog.testing import capture_logs

from config.sections import WebSettings
from listener.observability.metrics import Metrics
from listener.queue.status import ParkedWork, QueueStatus, WorkflowStatus, WorkKind
from listener.storage.inbox import Inbox
from listener.web.app import Receiving, Showing, build_app
from listener.web.server import WebServer
from pipeline.errors import RetryLater
from reporting.audit.trail import Event
from tests.builders import build_image, file_bytes, with_patient
from tests.fakes import RecordingAudit
from tests.findings import MODEL

TOKEN = "a-token-of-this-test"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
MULTIPART = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=smear'}
STATUS = WorkflowStatus(
    at=NOW,
    queues=(QueueStatus(name="images", waiting=4, delayed=0, in_work=1, oldest_age_s=300.0),),
    parked=(
        ParkedWork(
            key="image:1.2.3",
            kind=WorkKind.IMAGE,
            code="too_small",
            message="it is <b>small</b>",
            since=NOW,
        ),
    ),
    workers=("w1",),
)


def _broken() -> WorkflowStatus:
    raise RetryLater("no database", code="database_unavailable")


def _passes() -> None:
    return None


@dataclass
class Site:
    """What a test serves."""

    root: Path
    audit: RecordingAudit = field(default_factory=RecordingAudit)
    token: str | None = None
    read_status: Callable[[], WorkflowStatus] = lambda: STATUS
    check: Callable[[], object] = _passes
    check_alive: Callable[[], None] = _passes
    max_request_bytes: int = 10_000_000
    receives: bool = True

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        showing = Showing(
            software_version="0.1.0",
            metrics=Metrics(software_version="0.1.0", read_status=self.read_status),
            read_status=self.read_status,
            check_alive=self.check_alive,
            checks={"queue": self.check},  # type: ignore[dict-item]  # what it returns is ignored
            audit_dir=self.root / "audit",
            clock=lambda: NOW,
            model=MODEL,
        )
        receiving = Receiving(
            inbox=Inbox(self.root / "inbox"),
            on_received=lambda _image: None,
            audit=self.audit,
            max_request_bytes=self.max_request_bytes,
        )
        app = build_app(showing, receiving if self.receives else None, token=self.token)
        server = WebServer(WebSettings(port=0), app)
        server.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
                yield client
        finally:
            server.stop(0.0)


# --- refusals


def test_an_address_or_method_that_is_not_there_is_a_problem_document(tmp_path: Path) -> None:
    asked = {
        ("GET", "/nothing"): 404,
        ("GET", "/../../etc/passwd"): 404,
        ("POST", "/"): 405,
        ("GET", "/dicom-web/studies"): 405,
        ("DELETE", "/status.json"): 405,
    }

    with Site(tmp_path).client() as client:
        answers = [client.request(*one) for one in asked]

    assert [answer.status_code for answer in answers] == list(asked.values())
    for answer in answers:
        assert answer.headers["content-type"] == "application/problem+json"
        assert "passwd" not in answer.text


def test_a_request_that_is_no_stow_is_refused_and_recorded(tmp_path: Path) -> None:
    site = Site(tmp_path)
    asked: list[tuple[dict[str, str], int]] = [
        ({"Content-Type": "application/dicom"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=smear"}, 415),
        ({"Content-Type": "multipart/related; type=image/png; boundary=x"}, 415),
        ({"Content-Type": "multipart/related"}, 400),
        ({**MULTIPART, "Accept": "application/xml"}, 406),
        (MULTIPART, 400),
    ]

    with site.client() as client:
        answers = [
            client.post("/dicom-web/studies", content=b"nonsense", headers=headers)
            for headers, _ in asked
        ]

    assert [answer.status_code for answer in answers] == [status for _, status in asked]
    assert site.audit.events == [Event.REQUEST_REFUSED] * len(asked)


def test_a_request_over_the_limit_is_refused(tmp_path: Path) -> None:
    site = Site(tmp_path, max_request_bytes=1000)

    with site.client() as client:
        answer = client.post(
            "/dicom-web/studies", content=_body(file_bytes(build_image())), headers=MULTIPART
        )

    assert answer.status_code == 413
    assert answer.json()["title"] == "request_too_large"


def test_a_worker_takes_no_images(tmp_path: Path) -> None:
    with Site(tmp_path, receives=False).client() as client:
        assert client.post("/dicom-web/studies", headers=MULTIPART).status_code == 404


def test_with_a_token_nothing_is_shown_without_it(tmp_path: Path) -> None:
    paths = ("/", "/status.json", "/metrics")
    wrong: list[dict[str, str]] = [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
    ]

    with Site(tmp_path, token=TOKEN).client() as client:
        refused = [client.get(path, headers=shown) for path in paths for shown in wrong]
        allowed = [client.get(path, headers={"Authorization": f"Bearer {TOKEN}"}) for path in paths]
        health = [client.get(path) for path in ("/healthz", "/readyz")]

    assert {answer.status_code for answer in refused} == {401}
    assert {answer.headers["www-authenticate"] for answer in refused} == {"Bearer"}
    assert {answer.status_code for answer in (*allowed, *health)} == {200}


def test_with_a_token_nobody_stores_without_it(tmp_path: Path) -> None:
    body = _body(file_bytes(build_image()))

    with Site(tmp_path, token=TOKEN).client() as client:
        answer = client.post("/dicom-web/studies", content=body, headers=MULTIPART)

    assert answer.status_code == 401
    assert list(Inbox(tmp_path / "inbox").waiting()) == []


def test_a_fault_of_our_own_is_told_without_details(tmp_path: Path) -> None:
    def fails() -> WorkflowStatus:
        raise ValueError("Doe^Jane")

    with capture_logs() as told, Site(tmp_path, read_status=fails).client() as client:
        answer = client.get("/status.json")

    assert [one["event"] for one in told] == ["defect_met"]
    assert answer.status_code == 500
    assert answer.json()["title"] == "defect"
    assert "Doe" not in answer.text


# --- health


def test_not_ready_says_which_check_and_why(tmp_path: Path) -> None:
    with Site(tmp_path, check=_broken).client() as client:
        answer = client.get("/readyz")
        alive = client.get("/healthz")

    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "checks": {"queue": "database_unavailable"}}
    assert alive.status_code == 200


def test_ready_is_ready(tmp_path: Path) -> None:
    with Site(tmp_path).client() as client:
        answer = client.get("/readyz")

    assert answer.json() == {"ready": True, "checks": {"queue": "ok"}}


# --- what is shown


def test_the_page_is_shown_even_when_the_queues_do_not_answer(tmp_path: Path) -> None:
    with Site(tmp_path, read_status=_broken, check=_broken).client() as client:
        page = client.get("/")
        status = client.get("/status.json")

    assert page.status_code == 200
    assert "RESEARCH USE ONLY" in page.text
    assert status.status_code == 503


def test_the_page_tells_queues_parked_work_model_and_runs_no_script(tmp_path: Path) -> None:
    with Site(tmp_path).client() as client:
        page = client.get("/")

    for word in ("images", "too_small", MODEL.version, MODEL.execution_provider, "5 min"):
        assert word in page.text
    assert "it is &lt;b&gt;small" in page.text
    assert "<script" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_status_for_programs_is_labelled(tmp_path: Path) -> None:
    with Site(tmp_path).client() as client:
        told = client.get("/status.json").json()

    assert told["research_use_only"] is True
    assert told["queues"][0]["waiting"] == 4


def test_metrics_are_in_the_form_of_prometheus(tmp_path: Path) -> None:
    with Site(tmp_path).client() as client:
        answer = client.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'smearlink_queue_waiting{queue="images"} 4.0' in answer.text


# --- STOW-RS


def test_an_image_is_stored_and_nothing_of_the_patient_is_recorded(tmp_path: Path) -> None:
    image = with_patient(build_image())
    site = Site(tmp_path)

    with site.client() as client:
        answer = client.post(
            "/dicom-web/studies", content=_body(file_bytes(image)), headers=MULTIPART
        )

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    assert Inbox(tmp_path / "inbox").read(image.SOPInstanceUID).PatientID == image.PatientID
    assert site.audit.events == [Event.IMAGE_RECEIVED]
    assert str(image.PatientID) not in repr(site.audit.recorded) + answer.text


def _body(*files: bytes) -> bytes:
    head = b"--smear\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(head + one + b"\r\n" for one in files) + b"--smear--\r\n"


def test_health_is_503_when_no_dicom_peer_can_associate(tmp_path: Path) -> None:
    def deaf() -> None:
        raise RetryLater("the loop has ended", code="dicom_not_accepting")

    with Site(root=tmp_path, check_alive=deaf).client() as client:
        answer = client.get("/healthz")

    assert answer.status_code == 503
    assert answer.json()["title"] == "dicom_not_accepting"

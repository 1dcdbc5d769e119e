"""Two reviewers at the console of a running service while images come in, through HTTP.

    python -m tests.benchmarks.bench_review [--acts 120] [--per-minute 50] [--cells 200]

A real `smearlink serve` with a PACS analyses and reports what arrives. One reviewer corrects a
cell every second; the other has the same smear open, hears of it by server-sent events and fetches
the page again, as the browser does.

The last line is JSON: `act_p50_ms` and `act_p95_ms` (from the click to the answer, which is
durable), `seen_p95_s` and `seen_max_s` (from the answer until the other reviewer's page shows the
revision), `page_p95_ms` (fetching the page), `images` that were received meanwhile and `load`
(of the machine, one minute).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from argon2 import PasswordHasher

from listener.demo.phantom.field import Recipe
from listener.demo.phantom.field import draw_field as draw_phantom
from listener.web.console.accounts import Accounts
from listener.web.console.database import ConsoleDatabase
from listener.web.console.gate import COOKIE
from listener.web.console.permissions import Role
from pipeline.domain import CellType
from tests.benchmarks.bench_end_to_end import (
    PACS,
    PHANTOM_UM_PER_PX,
    _free_port,
    _wait_for_port,
    pacs,
    renamed,
    send,
    wrap_in_smears,
)

PASSWORD = "a long enough pass phrase"
SMEAR_FIELDS = 16
BROWSER_WAITS_S = 0.15
"""console.js lets several events become one fetch."""
ACT_EVERY_S = 1.0
CLASSES = ("monocyte", "neutrophil", "lymphocyte", "blast", "basophil")


class Service:
    """`smearlink serve` with its console, in a process of its own."""

    def __init__(self, folder: Path, pacs_port: int) -> None:
        self.dicom_port, self.web_port = _free_port(), _free_port()
        self.data = folder / "data"
        settings = folder / "settings.toml"
        settings.write_text(
            f"""
            [service]
            data_dir = "{self.data}"
            log_format = "json"
            [dicom]
            port = {self.dicom_port}
            [web]
            port = {self.web_port}
            [smear]
            quiet_s = 20
            [retention]
            min_free_disk_mb = 0
            [[destination]]
            name = "pacs"
            type = "dicom"
            ae_title = "{PACS}"
            host = "127.0.0.1"
            port = {pacs_port}
            """
        )
        command = [sys.executable, "-m", "listener", "serve", "--settings", str(settings)]
        self._log = (folder / "service.log").open("wb")
        self._process = subprocess.Popen(command, stderr=self._log)
        for port in (self.dicom_port, self.web_port):
            _wait_for_port(port)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        self._log.close()


@dataclass
class Browser:
    """One signed-in reviewer at one smear."""

    http: httpx.Client
    smear_id: str = ""
    csrf: str = ""
    revision: int = 0

    def sign_in(self, name: str) -> None:
        csrf = _csrf(self.http.get("/sign-in").text)
        answer = self.http.post("/sign-in", data={"name": name, "password": PASSWORD, "csrf": csrf})
        # The cookie is for TLS alone; this one is sent over loopback.
        self.http.headers["cookie"] = f"{COOKIE}={answer.cookies[COOKIE]}"
        self.http.cookies.clear()

    def open(self, smear_id: str) -> str:
        self.smear_id = smear_id
        page = self.http.get(f"/smears/{smear_id}").text
        self.csrf, self.revision = _csrf(page), _revision(page)
        return page

    def act(self, **words: str) -> None:
        answer = self.http.post(
            f"/smears/{self.smear_id}/review",
            data=words,
            headers={
                "accept": "application/json",
                "x-csrf-token": self.csrf,
                "if-match": f'"{self.revision}"',
            },
        )
        assert answer.status_code == 200, answer.text
        self.revision = int(answer.json()["revision"])


@dataclass
class Onlooker:
    """The other reviewer: hears of changes, fetches the page, notes when it saw which revision."""

    browser: Browser
    changed_at: str
    saw: dict[int, float] = field(default_factory=dict)
    page_s: list[float] = field(default_factory=list)

    def follow(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            with suppress(httpx.TransportError):
                self._follow_once(is_over)

    def _follow_once(self, is_over: Callable[[], bool]) -> None:
        with self.browser.http.stream("GET", f"/events?since={self.changed_at}") as events:
            for line in events.iter_lines():
                if is_over():
                    return
                if line.startswith("event: changed"):
                    time.sleep(BROWSER_WAITS_S)
                    self._fetch()

    def _fetch(self) -> None:
        began = time.monotonic()
        page = self.browser.http.get(
            f"/smears/{self.browser.smear_id}", headers={"x-background": "1"}
        ).text
        now = time.monotonic()
        self.page_s.append(now - began)
        for revision in range(_revision(page), 0, -1):
            if revision in self.saw:
                break
            self.saw[revision] = now


def _csrf(page: str) -> str:
    return page.split('name="csrf" value="', 1)[1].split('"', 1)[0]


def _revision(page: str) -> int:
    return int(page.split('name="revision" value="', 1)[1].split('"', 1)[0])


# --- images


def draw(folder: Path, count: int, *, cells: int, seed: int) -> list[Path]:
    """Phantom fields with so many white cells each, as PNG files."""
    import cv2

    folder.mkdir(parents=True)
    kinds = (CellType.LYMPHOBLAST, CellType.NEUTROPHIL, CellType.LYMPHOCYTE, CellType.MONOCYTE)
    paths = []
    for number in range(count):
        recipe = Recipe(
            width=640 if cells < 5 else 1280,
            height=480 if cells < 5 else 960,
            um_per_px=PHANTOM_UM_PER_PX,
            white_cells=[kinds[(number + n) % len(kinds)] for n in range(cells)],
        )
        path = folder / f"field_{number:03}.png"
        drawn = draw_phantom(seed + number, recipe).pixels
        cv2.imwrite(str(path), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
        paths.append(path)
    return paths


@contextmanager
def arrivals(
    files: Sequence[Path], folder: Path, port: int, *, per_minute: float
) -> Iterator[Callable[[], int]]:
    """Images come in one after the other, smear after smear; gives how many so far."""
    over = threading.Event()
    received: list[float] = []

    def keep_sending() -> None:
        smear = 0
        while True:
            for copy in renamed(files, folder / str(smear)):
                if over.wait(60 / per_minute):
                    return
                send([copy], port)
                received.append(time.monotonic())
            smear += 1

    sender = threading.Thread(target=keep_sending)
    sender.start()
    try:
        yield lambda: len(received)
    finally:
        over.set()
        sender.join()


# --- the run


def measure(folder: Path, *, acts: int, per_minute: float, cells: int) -> dict[str, float]:
    per_field = -(-cells // SMEAR_FIELDS)
    print(f"drawing {SMEAR_FIELDS} fields of {per_field} cells", flush=True)
    large = draw(folder / "large", SMEAR_FIELDS, cells=per_field, seed=100)
    small = draw(folder / "small", SMEAR_FIELDS, cells=3, seed=500)
    [smear] = wrap_in_smears(large, folder / "dicom", per_smear=SMEAR_FIELDS)
    [others] = wrap_in_smears(small, folder / "others", per_smear=SMEAR_FIELDS)
    (folder / "service").mkdir()
    with pacs(folder / "pacs") as pacs_port:
        service = Service(folder / "service", pacs_port)
        try:
            accounts = Accounts(
                ConsoleDatabase(f"sqlite:///{service.data / 'console.sqlite'}"),
                hasher=PasswordHasher(time_cost=1, memory_cost=8, parallelism=1),
            )
            for name in ("rosa", "rita"):
                accounts.add(name, PASSWORD, [Role.REVIEWER])
            send(smear, service.dicom_port)
            with (
                httpx.Client(
                    base_url=f"http://127.0.0.1:{service.web_port}",
                    timeout=600.0,
                    trust_env=False,
                    headers={"accept": "text/html"},
                ) as one,
                httpx.Client(
                    base_url=f"http://127.0.0.1:{service.web_port}",
                    timeout=600.0,
                    trust_env=False,
                    headers={"accept": "text/html"},
                ) as other,
            ):
                rosa, rita = Browser(one), Browser(other)
                rosa.sign_in("rosa")
                rita.sign_in("rita")
                smear_id = _reported(rosa, SMEAR_FIELDS)
                with arrivals(
                    others, folder / "arriving", service.dicom_port, per_minute=per_minute
                ) as received:
                    return _review(rosa, rita, smear_id, acts=acts, received=received)
        finally:
            service.stop()


def _reported(browser: Browser, fields: int) -> str:
    """The smear's id once all of its fields are in its report."""
    while True:
        found = re.search(r'href="/smears/([0-9.]+)"', browser.http.get("/smears").text)
        if found and f"of {fields} counted" in browser.open(found[1]):
            return found[1]
        time.sleep(0.5)


def _review(
    rosa: Browser, rita: Browser, smear_id: str, *, acts: int, received: Callable[[], int]
) -> dict[str, float]:
    page = rosa.open(smear_id)
    cells = re.findall(r'data-cell="([^"]+)"', page)
    print(f"{len(cells)} cells; {acts} acts", flush=True)
    since = rita.open(smear_id).split("/events?since=", 1)[1].split('"', 1)[0]
    onlooker = Onlooker(rita, since)
    over = threading.Event()
    listening = threading.Thread(target=onlooker.follow, args=(over.is_set,), daemon=True)
    listening.start()
    took: list[float] = []
    done: dict[int, float] = {}
    before = received()
    for number in range(acts):
        began = time.monotonic()
        rosa.act(
            act="reclassify",
            to=CLASSES[number % len(CLASSES)],
            cell=cells[(7 * number) % len(cells)],
        )
        took.append(time.monotonic() - began)
        done[rosa.revision] = time.monotonic()
        time.sleep(max(0.0, ACT_EVERY_S - took[-1]))
    images = received() - before
    while rosa.revision not in onlooker.saw:
        time.sleep(0.1)
    over.set()
    rosa.act(act="seen", cell=cells[0])  # so that the onlooker wakes up
    listening.join()
    seen = [onlooker.saw[revision] - at for revision, at in done.items()]
    return {
        "act_p50_ms": round(1000 * statistics.median(took), 1),
        "act_p95_ms": round(1000 * _p95(took), 1),
        "act_max_ms": round(1000 * max(took), 1),
        "seen_p50_s": round(statistics.median(seen), 2),
        "seen_p95_s": round(_p95(seen), 2),
        "seen_max_s": round(max(seen), 2),
        "page_p95_ms": round(1000 * _p95(onlooker.page_s), 1),
        "acts": acts,
        "images": images,
        "load": round(os.getloadavg()[0], 1),
    }


def _p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--acts", type=int, default=120)
    parser.add_argument("--per-minute", type=float, default=50.0)
    parser.add_argument("--cells", type=int, default=200)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        measured = measure(
            Path(name), acts=asked.acts, per_minute=asked.per_minute, cells=asked.cells
        )
    print(json.dumps(measured))


if __name__ == "__main__":
    main()

"""A reviewer at the console of a service that dies between click and answer, again and again.

The page knows no more than a browser does: an act without an answer is sent again under the same
id, to the next process, until it is answered.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from argon2 import PasswordHasher

from listener.storage.results import ResultsFolder
from listener.storage.reviews import ReviewLog
from listener.web.console.accounts import Accounts
from listener.web.console.database import ConsoleDatabase
from listener.web.console.gate import COOKIE
from listener.web.console.permissions import Role
from pipeline.domain import SmearId
from pipeline.findings.review import Act, CellKey, cell_key
from reporting.audit.trail import read_events
from tests.acceptance.killing import Running, Trial, until

PASSWORD = "a long enough pass phrase"
QUICK_HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
KILLED_WITHIN = 1.5
"""Times of the usual answer, after the click: most die before they answer, some just after it."""
MOST_ACTS_A_LIFE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Click:
    """One act as its page sends it, each time the same."""

    event_id: str
    revision: int
    words: dict[str, str]


@dataclass
class Reviewer:
    """Rosa, her session, what she clicked and what she was told."""

    trial: Trial
    chance: random.Random
    smear_id: SmearId | None = None
    cells: list[CellKey] = field(default_factory=list)
    revision: int = 0
    clicked: list[str] = field(default_factory=list)
    confirmed: dict[str, int] = field(default_factory=dict)
    """Act and the revision that the page was told."""
    pending: Click | None = None
    without_answer: int = 0
    answered_after_s: list[float] = field(default_factory=lambda: [0.03])
    _cookie: str = ""
    _csrf: str = ""

    def prepare(self) -> None:
        """An account, and a smear that was reported."""
        running = self.trial.start(has_web=True)
        assert running.is_up()
        database = ConsoleDatabase(f"sqlite:///{self.data / 'console.sqlite'}")
        Accounts(database, hasher=QUICK_HASHER).add("rosa", PASSWORD, [Role.REVIEWER])
        assert self.trial.send(running.port)
        until(lambda: list(self.results.smears()) and self._folder().latest())
        self.smear_id = next(iter(self.results.smears()))
        [image] = self._folder().analysed()
        [found] = self._folder().fields(image)
        self.cells = [cell_key(found, one.cell) for one in found.cells]
        with self._browser(running) as browser:
            self._sign_in(browser)
        running.stop()

    def work_until_killed(self, kill: Callable[[Running], threading.Timer]) -> None:
        """One life: some acts, then one whose process dies before, while or after it answers."""
        running = self.trial.start(has_web=True)
        assert running.is_up()
        with self._browser(running) as browser:
            for _ in range(self.chance.randrange(MOST_ACTS_A_LIFE)):
                self._click(browser)
            end = kill(running)
            self._click(browser)
            end.join()
        running.wait()
        self.trial.kills += 1
        self.without_answer += self.pending is not None

    def finish(self) -> None:
        """A life unharmed: what was not answered is answered, and everything is reported."""
        running = self.trial.start(has_web=True)
        assert running.is_up()
        with self._browser(running) as browser:
            while self.pending is not None:
                self._click(browser)
        until(self._is_reported)
        running.stop()

    def kill_at_random(self, running: Running) -> threading.Timer:
        """A timer that kills soon after it was started; it runs already."""
        usual_s = statistics.median(self.answered_after_s[-20:])
        end = threading.Timer(self.chance.uniform(0.0, KILLED_WITHIN * usual_s), running.kill)
        end.start()
        return end

    # --- what became of it

    @property
    def data(self) -> Path:
        return self.trial.root / "data"

    @property
    def results(self) -> ResultsFolder:
        return ResultsFolder(self.data / "results", worker_id="counting")

    def lost(self) -> list[str]:
        """Acts that were confirmed and are not in the log under the revision that was told."""
        kept = {one.id: one.revision for one in self._log().events()}
        return [name for name, revision in self.confirmed.items() if kept.get(name) != revision]

    def doubled(self) -> list[str]:
        """Acts that stand more often than once in the log, in the audit trail, or unasked."""
        kept = Counter(one.id for one in self._log().events())
        told = Counter(
            str(entry["review_event"])
            for entry in read_events(self.data / "audit")
            if "review_event" in entry
        )
        wrong = [name for counts in (kept, told) for name in counts if counts[name] != 1]
        return wrong + [name for name in kept if name not in self.clicked]

    def untold(self) -> list[str]:
        """Acts in the log that the audit trail does not have."""
        told = {entry.get("review_event") for entry in read_events(self.data / "audit")}
        return [one.id for one in self._log().events() if one.id not in told]

    def _log(self) -> ReviewLog:
        return self._folder().review()

    def _folder(self) -> Any:
        [smear_id] = list(self.results.smears())
        return self.results.smear(smear_id)

    def _is_reported(self) -> bool:
        """Whether a report has every act that changes one; what was only seen changes none."""
        latest = self._folder().latest()
        acts = [one.revision for one in self._log().events() if one.act is not Act.SEEN]
        return latest is not None and latest.review_revision >= max(acts, default=0)

    # --- the browser

    def _browser(self, running: Running) -> httpx.Client:
        port = running.ask("web_port")
        return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0, trust_env=False)

    def _sign_in(self, browser: httpx.Client) -> None:
        csrf = _csrf_in(browser.get("/sign-in", headers={"accept": "text/html"}))
        form = {"name": "rosa", "password": PASSWORD, "csrf": csrf}
        answer = browser.post("/sign-in", data=form)
        self._cookie = f"{COOKIE}={answer.cookies[COOKIE]}"
        page = browser.get(
            f"/smears/{self.smear_id}", headers={"accept": "text/html", "cookie": self._cookie}
        )
        self._csrf = _csrf_in(page)

    def _click(self, browser: httpx.Client) -> None:
        """Send the act that waits for its answer, or the next one; keep what was told."""
        click = self.pending or self._next_click()
        self.pending = click
        answer: httpx.Response | None = None
        began = time.monotonic()
        with suppress(httpx.TransportError):  # the process died, and with it the connection
            answer = browser.post(
                f"/smears/{self.smear_id}/review",
                data={**click.words, "event_id": click.event_id},
                headers={
                    "accept": "application/json",
                    "cookie": self._cookie,
                    "x-csrf-token": self._csrf,
                    "if-match": f'"{click.revision}"',
                },
            )
        if answer is None:
            return
        assert answer.status_code == 200, answer.text
        self.answered_after_s.append(time.monotonic() - began)
        self.revision = self.confirmed[click.event_id] = int(answer.json()["revision"])
        self.pending = None

    def _next_click(self) -> Click:
        name = f"act{len(self.clicked):029}"
        self.clicked.append(name)
        cell = self.chance.choice(self.cells)
        words = self.chance.choice(
            (
                {"act": "reclassify", "to": "monocyte", "cell": cell},
                {"act": "confirm", "to": "lymphocyte", "cell": cell},
                {"act": "seen", "cell": cell},
                {"act": "not_a_cell", "cell": cell},
                {"act": "comment", "comment": "a remark", "cell": cell},
                {
                    "act": "add_cell",
                    "to": "basophil",
                    "field": cell.rpartition(":")[0],
                    "x": "60",
                    "y": "60",
                },
            )
        )
        return Click(event_id=name, revision=self.revision, words=words)


def _csrf_in(page: httpx.Response) -> str:
    return page.text.split('name="csrf" value="', 1)[1].split('"', 1)[0]
